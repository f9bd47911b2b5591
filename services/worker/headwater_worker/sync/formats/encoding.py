"""Text in whatever encoding, read as UTF-8: byte order mark, then strict UTF-8, then Windows-1252.

UTF-16 and UTF-32 without a mark are known by the zeros around the first character, which in JSON is always ASCII (as
in RFC 4627, section 3). In CSV it is no more than likely, so that such a file is refused until somebody says so.
"""

import codecs
import re
from typing import Final

from headwater_worker.sync.formats.base import Source, Unreadable

# A few hundred records: values that die this young never cost Python's garbage collector a second look (measured: twice
# the records a second that pieces of a megabyte give).
_PIECE_BYTES: Final = 64 * 1024
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    # UTF-32's mark begins with UTF-16's.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UNMARKED: Final = (
    (re.compile(rb"\0\0\0[^\0]", re.DOTALL), "utf-32-be"),
    (re.compile(rb"[^\0]\0\0\0", re.DOTALL), "utf-32-le"),
    (re.compile(rb"\0[^\0]\0[^\0]", re.DOTALL), "utf-16-be"),
    (re.compile(rb"[^\0]\0[^\0]\0", re.DOTALL), "utf-16-le"),
)
_FALLBACK: Final = "cp1252"
CODE: Final = "unsupported_encoding"
_BEYOND_ASCII: Final = re.compile(rb"[\x80-\xff]")
_LONGEST_CHARACTER: Final = 4
_MARK_ERRORS: Final = "headwater.mark"


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


codecs.register_error(_MARK_ERRORS, _mark)


class Utf8(Source):
    """The text of `source` as UTF-8, without its byte order mark.

    Without a mark or an `encoding` from the user it is UTF-8. If its first character beyond ASCII is not, it is
    Windows-1252, provided that `fallback` allows it. `kept` is `known_encoding` of the reading before: what was UTF-8
    stays UTF-8, and what was UTF-16 or UTF-32 may be so without a mark. Where the bytes are not of the encoding the
    output is not valid UTF-8 either, so that a reader with `errors="surrogateescape"` finds them and can refuse their
    record alone. `given`: bytes so far.
    """

    def __init__(
        self, source: Source, *, encoding: str | None = None, kept: str | None = None, fallback: bool = False
    ) -> None:
        """Raises `Unreadable` (`unsupported_encoding`) for what nobody can tell."""
        super().__init__(source)
        self._source = source
        self._buffer = b""
        self._broken: Unreadable | None = None
        self.given = 0
        self._fill(4)
        self.encoding, self._certain = self._begin(encoding, kept, fallback=fallback)
        self._decoder = self._make_decoder()

    @property
    def known_encoding(self) -> str:
        """The encoding; `ascii` as long as nothing beyond it has decided."""
        return self.encoding if self._certain else "ascii"

    def _begin(self, encoding: str | None, kept: str | None, *, fallback: bool) -> tuple[str, bool]:
        for mark, name in _MARKS:
            if self._buffer.startswith(mark):
                self._buffer = self._buffer[len(mark) :]
                return name, True
        if encoding is not None:
            return encoding, True
        for pattern, name in _UNMARKED:
            if pattern.match(self._buffer):
                if fallback and name != kept:
                    raise _unmarked(name)
                return name, True
        return "utf-8", kept == "utf-8" or not fallback

    def _make_decoder(self) -> codecs.IncrementalDecoder:
        return codecs.getincrementaldecoder(self.encoding)(_MARK_ERRORS)

    def _fill(self, size: int) -> None:
        """Have `size` raw bytes in the buffer, or all there are."""
        while len(self._buffer) < size and self._broken is None:
            try:
                data = self._source.read(max(size - len(self._buffer), _PIECE_BYTES))
            except Unreadable as error:
                self._broken = error
                return
            if not data:
                return
            self._buffer += data

    def head(self, size: int) -> str:
        """The first `size` bytes or so as text, for a look ahead; nothing is consumed."""
        self._fill(size)
        if not self._certain:
            self._settle()
        return self._buffer[:size].decode(self.encoding, "ignore")

    def read(self, size: int = -1, /) -> bytes:  # noqa: ARG002 - recoded, pieces have the lengths that they have
        """The next piece, about 64 KiB; empty at the end."""
        while True:
            self._fill(1)
            if not self._certain:
                self._settle()
            data, self._buffer = self._buffer, b""
            text = self._recode(data)
            if text or not data:
                break
        if not text and self._broken is not None:
            raise self._broken
        self.given += len(text)
        return text

    # What `io.TextIOWrapper` calls; it takes pieces of any length.
    read1 = read

    def _recode(self, data: bytes) -> bytes:
        if self.encoding == "utf-8":
            return data
        return self._decoder.decode(data, final=not data).encode("utf-8", "surrogateescape")

    def _settle(self) -> None:
        """Decide by the first character beyond ASCII; all before it reads the same in both encodings."""
        # Asked first: a pattern takes longer to say no to a piece than most of what else is done with it.
        first = None if self._buffer.isascii() else _BEYOND_ASCII.search(self._buffer)
        if first is None:
            return
        self._fill(first.start() + _LONGEST_CHARACTER)
        self._certain = True
        if not _is_utf8(self._buffer[first.start() : first.start() + _LONGEST_CHARACTER]):
            self.encoding = _FALLBACK
            self._decoder = self._make_decoder()


def _unmarked(name: str) -> Unreadable:
    message = f"The file seems to be {name} without a byte order mark. Set `reading.csv.encoding`, or save it as UTF-8."
    return Unreadable(message, code=CODE)


def _is_utf8(data: bytes) -> bool:
    """Whether `data` begins with a whole character."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start > 0
    return True
