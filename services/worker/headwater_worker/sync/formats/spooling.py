"""Files that must be read from their end go to disk first."""

from collections.abc import Iterator
from typing import IO, Final

from headwater_worker.sync.formats.base import READ_BYTES, Block, Source, Unreadable

_LARGEST_FILE_BYTES: Final = 64 * 1024**3


def spooled(source: Source, spool: IO[bytes]) -> Iterator[Block]:
    """Copy `source` into `spool`, an empty block for each piece. Raises `Unreadable` beyond 64 GiB."""
    size = 0
    while piece := source.read(READ_BYTES):
        size += len(piece)
        if size > _LARGEST_FILE_BYTES:
            raise Unreadable("The file is larger than 64 GiB.")
        spool.write(piece)
        yield Block([])
