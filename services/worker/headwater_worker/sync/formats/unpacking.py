"""Compressed bytes, unpacked as they are read: gzip (RFC 1952), bzip2, Zstandard (RFC 8878), raw deflate for ZIP."""

import bz2
import importlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from headwater_worker.sync.formats.base import BREAKS_OFF, READ_BYTES, Source, Unreadable

_COMPRESSED_BYTES: Final = 256 * 1024


class _Stream(Protocol):
    """One compressed stream, as `bz2.BZ2Decompressor` is one."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


class _Zlib:
    """What `zlib` has, as a `_Stream`."""

    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.decompressobj(window_bits)
        self._more = False

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not (self._more or self._stream.unconsumed_tail or self._stream.eof)

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        out = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        self._more = len(out) == max_length
        return out


@dataclass(frozen=True)
class _Codec:
    """`one_stream`: what stands behind the first stream is nobody's business here."""

    name: str
    begin: Callable[[], _Stream]
    one_stream: bool = False


_GZIP: Final = _Codec("gzip", lambda: _Zlib(16 + zlib.MAX_WBITS))
_BZIP2: Final = _Codec("bzip2", bz2.BZ2Decompressor)
_DEFLATE: Final = _Codec("deflate", lambda: _Zlib(-zlib.MAX_WBITS), one_stream=True)
# What HTTP calls deflate (RFC 9110, 8.4.1.2) is that with zlib's head and end.
_ZLIB: Final = _Codec("zlib", lambda: _Zlib(zlib.MAX_WBITS), one_stream=True)
_CODECS: Final = {"gz": _GZIP, "bz2": _BZIP2, "deflate": _DEFLATE, "zlib": _ZLIB}
COMPRESSIONS: Final = {"gz": "gz", "bz2": "bz2", "zst": "zst", "zstd": "zst"}
"""Extensions, and what `unpacked` calls what they mean."""


def unpacked(source: Source, compression: str) -> Source:
    """The bytes that `source` holds in compressed form: a value of `COMPRESSIONS`, `deflate` or `zlib`.

    Each read gives at most what was asked for, however well it was packed. `read` raises `Unreadable` where the data
    break off or make no sense. What came before a break was given out; before damage, all but the last piece.
    """
    codec = _CODECS.get(compression)
    if codec is not None:
        return _Unpacked(source, codec)
    # Arrow is what unpacks Zstandard; it is loaded as late as for Parquet.
    unzstd: Source = importlib.import_module("headwater_worker.sync.formats.zstd").Unzstd(source)
    return unzstd


class _Unpacked(Source):
    """Stream after stream, as one."""

    def __init__(self, source: Source, codec: _Codec) -> None:
        super().__init__(source)
        self._source = source
        self._codec = codec
        self._streams = 0
        self._at_hand: _Stream | None = None
        self._input = b""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        wanted = READ_BYTES if size < 0 else max(1, size)
        while (stream := self._at_hand or self._next_stream()) is not None:
            piece = self._take() if stream.needs_input else b""
            if stream.needs_input and not piece:
                raise Unreadable(BREAKS_OFF)
            try:
                data = stream.decompress(piece, wanted)
            except (zlib.error, OSError):
                raise Unreadable(f"The file is not valid {self._codec.name} from here on.") from None
            if stream.eof:
                self._input, self._at_hand = stream.unused_data, None
            if data:
                return data
        return b""

    def _next_stream(self) -> _Stream | None:
        if self._streams and self._codec.one_stream:
            return None
        self._input = self._take()
        while self._streams and self._input and not self._input.strip(b"\0"):
            self._input = self._source.read(_COMPRESSED_BYTES)
        if self._streams:
            self._input = self._input.lstrip(b"\0")  # tapes and some tools pad with zeros
        if self._input:
            self._streams += 1
            self._at_hand = self._codec.begin()
        elif not self._streams:
            raise Unreadable(BREAKS_OFF)
        return self._at_hand

    def _take(self) -> bytes:
        data, self._input = self._input, b""
        return data or self._source.read(_COMPRESSED_BYTES)
