"""Zstandard (RFC 8878), frame after frame, by Arrow.

Arrow's stream has no short reads: a read that fails takes with it what it had unpacked so far. So there are two, fed
with the same bytes. One reads ahead; where it fails, the one behind gives out what is left, byte by byte.
"""

import io
import itertools
from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from headwater.errors import HeadwaterError
from headwater_worker.sync.formats.base import BREAKS_OFF, READ_BYTES, Source, Unreadable

_COMPRESSED_BYTES: Final = 64 * 1024
# What is fed at once: damage costs what was unpacked together with it.
_FED_BYTES: Final = 4 * 1024
# Both streams need the input of one read; frames that hold nothing could make that any size.
_HELD_BYTES: Final = 32 * 1024 * 1024
UNSUPPORTED: Final = "unsupported_compression"
# What the library says, and we in its place.
_REASONS: Final = {
    "Truncated": Unreadable(BREAKS_OFF),
    "too much memory": Unreadable(
        "The file needs a window of more than 128 MiB to be unpacked. Compress it again without `--ultra` or `--long`.",
        code=UNSUPPORTED,
    ),
    "Dictionary": Unreadable(
        "The file was compressed with a dictionary, which is not at hand. Compress it again without.", code=UNSUPPORTED
    ),
}


class Unzstd(Source):
    """The unpacked bytes of `source`; reads as `unpacking.unpacked` says."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._source = source
        self._held = 0
        self._stopped: HeadwaterError | None = None
        self._broken: HeadwaterError | None = None
        self._is_empty = True
        ahead, behind = itertools.tee(self._pieces())
        self._ahead = _stream(_Feed(ahead))
        self._feed = _Feed(behind)
        self._behind = _stream(self._feed)

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        if self._broken is not None:
            raise self._broken
        wanted = READ_BYTES if size < 0 else max(1, size)
        try:
            data: bytes = self._ahead.read(wanted)
            self._behind.read(wanted)
        except (pa.ArrowException, OSError) as error:
            data, self._broken = self._rest(), self._stopped or _reason(str(error))
        else:
            self._held = 0
            if len(data) < wanted:
                self._broken = self._stopped or (Unreadable(BREAKS_OFF) if self._is_empty else None)
        if not data and self._broken is not None:
            raise self._broken
        return data

    def _pieces(self) -> Iterator[bytes]:
        # Errors wait here: what came before them is unpacked first.
        try:
            while piece := self._source.read(_COMPRESSED_BYTES):
                self._is_empty = False
                self._held += len(piece)
                if self._held > _HELD_BYTES:
                    raise Unreadable("More than 32 MiB of the compressed data hold nothing.", code=UNSUPPORTED)
                yield piece
        except HeadwaterError as error:
            self._stopped = error

    def _rest(self) -> bytes:
        self._feed.most = 1
        rest = bytearray()
        try:
            while byte := self._behind.read(1):
                rest += byte
        except (pa.ArrowException, OSError):
            pass  # the one ahead has said why
        return bytes(rest)


class _Feed(io.RawIOBase):
    """Pieces as a file for Arrow, at most `most` bytes at a time."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self.most = _FED_BYTES
        self._pieces = pieces
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
        size = min(self.most, size)
        data, self._piece = self._piece[:size], self._piece[size:]
        return bytes(data)


def _stream(feed: _Feed) -> pa.CompressedInputStream:
    return pa.CompressedInputStream(pa.PythonFile(feed, mode="r"), "zstd")


def _reason(said: str) -> Unreadable:
    for words, reason in _REASONS.items():
        if words in said:
            return Unreadable(reason.message, code=reason.code)
    return Unreadable("The file is not valid zstd from here on.")
