"""Files that must be read from their end go to disk first, as files without a name."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Final

from headwater_worker.sync.formats.base import READ_BYTES, Block, Source, Unreadable

_LARGEST_FILE_BYTES: Final = 64 * 1024**3
# Of a process that can open nothing: an archive, and a member of it.
_given: list[int] = []


def given(descriptors: Sequence[int]) -> None:
    """From here on this process spools into these files alone, which it cannot open for itself."""
    _given[:] = descriptors


@contextmanager
def spool() -> Iterator[IO[bytes]]:
    """An empty file on disk; what is written is gone with the block."""
    if not _given:
        with tempfile.TemporaryFile(prefix="headwater-") as file:
            yield file
        return
    descriptor = _given.pop()
    try:
        with open(descriptor, "r+b", closefd=False) as file:
            yield file
    finally:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        _given.append(descriptor)


def spooled(source: Source, spool: IO[bytes]) -> Iterator[Block]:
    """Copy `source` into `spool`, an empty block for each piece. Raises `Unreadable` beyond 64 GiB."""
    size = 0
    while piece := source.read(READ_BYTES):
        size += len(piece)
        if size > _LARGEST_FILE_BYTES:
            raise Unreadable("The file is larger than 64 GiB.")
        spool.write(piece)
        yield Block([])
