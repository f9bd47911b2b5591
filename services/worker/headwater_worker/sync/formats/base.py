"""What all formats share: sources, records, refusals, blocks."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from headwater.errors import HeadwaterError

LARGEST_RECORD_BYTES: Final = 16 * 1024 * 1024
READ_BYTES: Final = 1024 * 1024
BREAKS_OFF: Final = "The file breaks off in the middle of its compressed data."
_EXCERPT_CHARACTERS: Final = 500

Record: TypeAlias = tuple[int | None, bytes, Any]
"""The line where it starts, its JSON text, and its value as `orjson` reads it."""


class ByteStream(Protocol):
    """Bytes of a file, read once from front to back; `read` raises `ConnectorError` when the source breaks off."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end."""

    def close(self) -> None:
        """Let go of the connection, read to the end or not."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that could not be read, or may not be brought in. `message` is ours; `excerpt` is bounded."""

    line: int | None
    code: str
    message: str
    excerpt: str | None = None
    pointer: str | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Records in the order of the file. `suspect`: some may hold what Postgres cannot store; look at each.

    `member`: whose they are, in an archive. `faults`: what is wrong with it beside its records.
    """

    entries: Sequence[Record | Refusal]
    suspect: bool = False
    member: str | None = None
    faults: Sequence[Refusal] = ()


class Unreadable(HeadwaterError):
    """From here on the file cannot be read. `line` is where, if the format has lines and it is known."""

    code = "unreadable_file"
    message = "The file cannot be read."

    def __init__(self, message: str, *, code: str | None = None, line: int | None = None) -> None:
        super().__init__(message, code=code)
        self.line = line


@dataclass(frozen=True)
class CsvOptions:
    """What the user said about CSV files; None is found out for each file."""

    delimiter: str | None = None
    encoding: str | None = None
    header: bool = True


@dataclass(frozen=True)
class Options:
    """How to read one file. Parsers note in `details` what they found out, for the load's counters.

    `found` is what the reading before this one noted under that name: a file is read as it was, where nothing speaks
    against it.
    """

    csv: CsvOptions = CsvOptions()
    schema: Mapping[str, Any] | None = None
    found: Mapping[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


class Source(io.RawIOBase):
    """A connector's stream as a file of Python's, for wrappers that want one. `on_read` hears of each read's length."""

    def __init__(self, stream: ByteStream, on_read: Callable[[int], None] = lambda _: None) -> None:
        super().__init__()
        self._stream = stream
        self._on_read = on_read

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        data = self._stream.read(READ_BYTES if size < 0 else size)
        self._on_read(len(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        """As `read`, into `buffer`."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def excerpt(raw: bytes | str) -> str:
    """The beginning of a record as people can read it and Postgres can keep it."""
    text = raw[: 4 * _EXCERPT_CHARACTERS].decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    text = text[:_EXCERPT_CHARACTERS].replace("\0", "\ufffd")
    return text if text.isascii() else "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
