"""Answers of sources of records, as a reader takes them apart: the records, and what a walk has to know of the rest."""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

import orjson

from headwater_worker.sync.formats.base import (
    LARGEST_RECORD_BYTES,
    READ_BYTES,
    Block,
    Options,
    Refusal,
    Source,
    Unreadable,
)
from headwater_worker.sync.formats.choice import Format
from headwater_worker.sync.formats.unpacking import unpacked
from headwater_worker.sync.records import CURSOR, KEY, LONGEST_CURSOR, Looking, Records, at_path

GARBLED: Final = "garbled"
NOT_JSON: Final = "not_json"
NO_RECORDS: Final = "no_records"
TOO_LARGE: Final = "too_large"
TOO_MUCH_AROUND: Final = "too_much_around"
"""Why an answer cannot be read; its connector says it to people."""

ODD: Final[list[None]] = []
"""What is found where paging looks and is neither text nor whole number, or longer than any cursor."""

_LONGEST_FOUND: Final = 8_192
_DIGEST_BYTES: Final = 16
# What stands around the records is parsed as a whole, as one record is.
_MOST_AROUND_BYTES: Final = LARGEST_RECORD_BYTES
# What `codecs` calls these needs no decoding.
_UTF_8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})

# A value is skipped with nothing but strings and the nesting of brackets in mind. Possessive: they never go back.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# Arrays and objects that hold no others are passed over at once: a page may hold tens of millions of brackets.
_FLAT: Final = rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+'
_BRACKET: Final = re.compile(rb"%b(?:(?:\[%b\]|\{%b\})%b)*+([\[\]{}])" % (_FLAT, _FLAT, _FLAT, _FLAT), re.DOTALL)
_SCALAR: Final = re.compile(rb"[^\s,\[\]{}\"]+")
_SPACE: Final = re.compile(rb"[ \t\r\n]*")


@dataclass(frozen=True)
class Envelope:
    """Where in a JSON answer its records are, and what else is wanted of it.

    `path` leads to the records; None: they are all of it. `single`: an object there is one record. `wanted` leads to
    what says where the next page is. `charset` is what the answer says of its text. One of more than
    `most_bytes` is refused.
    """

    path: Sequence[str] | None
    single: bool
    charset: str | None
    wanted: Sequence[str] | None
    most_bytes: int


@dataclass(frozen=True)
class Told:
    """What a walk has to know of an answer beside its records.

    `found`: what stands at `wanted`: nothing, a truth value, a whole number, a text, or `ODD`. `digest`: of the records
    as they came. The others are as in `Records`.
    """

    found: Any
    digest: str
    cursor: str | None
    odd_cursors: int
    first: Refusal | Sequence[str] | None

    def as_json(self) -> dict[str, Any]:
        """For a message."""
        first = asdict(self.first) if isinstance(self.first, Refusal) else self.first
        return {name: getattr(self, name) for name in ("found", "digest", "cursor", "odd_cursors")} | {"first": first}

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """From a message. Raises `ValueError`: who read a stranger's answer is believed no further than its form."""
        found, digest, cursor, odd, first = (said[each.name] for each in fields(cls))
        first = Refusal(**first) if isinstance(first, dict) else first
        is_of_its_form = (
            _form(found) == found
            and isinstance(digest, str)
            and len(digest) == 2 * _DIGEST_BYTES
            and (cursor is None or _is_cursor(cursor))
            and isinstance(odd, int)
            and _is_first(first)
        )
        if not is_of_its_form:
            raise ValueError
        return cls(found, digest, cursor, odd, first)


class Answer:
    """One answer on its way through a reader."""

    def __init__(self, format_: Format, envelope: Envelope | None, looking: Looking) -> None:
        self._format = format_
        self._envelope = envelope
        self._records = Records(looking)
        self._found: Any = None
        self._digested: _Digested | None = None

    def blocks(self, source: Source, options: Options) -> Iterator[Block]:
        """Its records, looked at. Raises `Unreadable`."""
        if self._format.compression is not None:
            source = _Decoded(unpacked(source, self._format.compression))
        if self._envelope is not None:
            source, self._found = _opened(source, self._envelope)
        self._digested = _Digested(source)
        for block in Format(self._format.name).blocks(self._digested, options):
            yield self._records.look(block)

    def told(self) -> Told:
        """What is known of it so far."""
        digest = "0" * 2 * _DIGEST_BYTES if self._digested is None else self._digested.digest
        records = self._records
        return Told(_form(self._found), digest, records.cursor, records.odd_cursors, records.first)


def _form(value: Any) -> Any:
    if value is None or isinstance(value, int) or (isinstance(value, str) and len(value) <= _LONGEST_FOUND):
        return value
    return ODD


def _is_first(value: Any) -> bool:
    match value:
        case None | Refusal(code=str(), message=str()):
            return True
        case _:
            return isinstance(value, list) and {KEY, CURSOR}.issuperset(value)


def _is_cursor(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_CURSOR and "\0" not in value


class _Decoded(Source):
    """Decompressed bytes; damage in them is the answer's."""

    def __init__(self, stream: Source) -> None:
        super().__init__(stream)
        self._packed = stream

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        try:
            return self._packed.read(size)
        except Unreadable as error:
            raise _fault(GARBLED) from error


class _Digested(Source):
    """Bytes whose digest is known."""

    def __init__(self, stream: Source) -> None:
        super().__init__(stream)
        self._plain = stream
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    @property
    def digest(self) -> str:
        """Of all that was read so far."""
        return self._hash.hexdigest()

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        data = self._plain.read(size)
        self._hash.update(data)
        return data


def _fault(code: str) -> Unreadable:
    return Unreadable("The answer cannot be read.", code=code)


def _opened(source: Source, envelope: Envelope) -> tuple[Source, Any]:
    """The records of a JSON answer as an array, and what stands at `wanted`. Raises `Unreadable`."""
    text = _text(_whole(source, envelope.most_bytes), envelope.charset)
    try:
        start = _find(text, envelope.path or ())
        end = None if start is None else _skip(text, start)
        around = _around(text, start, end)
    except (_Broken, orjson.JSONDecodeError) as error:
        raise _fault(NOT_JSON) from error
    if start is None:
        raise _fault(NO_RECORDS)
    records = text[start:end]
    if records == b"null":
        records = b"[]"
    elif envelope.single and envelope.path is None and records.startswith(b"{"):
        records = b"[" + records + b"]"
    if not records.startswith(b"["):
        raise _fault(NO_RECORDS)
    return Source(io.BytesIO(records)), None if envelope.wanted is None else at_path(around, envelope.wanted)


def _around(text: bytes, start: int | None, end: int | None) -> Any:
    """A JSON answer without its records, parsed."""
    if len(text) - (0 if start is None or end is None else end - start) > _MOST_AROUND_BYTES:
        # Of so much, the parser would end its process where memory does.
        raise _fault(NO_RECORDS if start is None else TOO_MUCH_AROUND)
    return orjson.loads(text if start is None else text[:start] + b"[]" + text[end:])


def _whole(source: Source, most_bytes: int) -> bytes:
    pieces, size = [], 0
    while piece := source.read(READ_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise _fault(TOO_LARGE)
    return b"".join(pieces)


def _text(data: bytes, charset: str | None) -> bytes:
    if charset is not None and charset.lower() not in _UTF_8:
        try:
            return data.decode(charset).encode()
        except (UnicodeError, LookupError) as error:
            raise _fault(GARBLED) from error
    return data.removeprefix(b"\xef\xbb\xbf")


class _Broken(ValueError):
    """Not JSON."""


def _find(text: bytes, path: Sequence[str]) -> int | None:
    """Where the value at `path` begins; None if there is none."""
    at: int | None = _over_space(text, 0)
    for name in path:
        at = _member(text, at, name)
        if at is None:
            return None
    return at


def _member(text: bytes, at: int | None, name: str) -> int | None:
    assert at is not None
    if text[at : at + 1] != b"{":
        return None
    at = _over_space(text, at + 1)
    while text[at : at + 1] == b'"':
        end = _end(_STRING.match(text, at))
        found = orjson.loads(text[at:end])
        at = _over_space(text, end)
        if text[at : at + 1] != b":":
            raise _Broken
        at = _over_space(text, at + 1)
        if found == name:
            return at
        at = _over_space(text, _skip(text, at))
        if text[at : at + 1] == b",":
            at = _over_space(text, at + 1)
    if text[at : at + 1] != b"}":
        raise _Broken
    return None


def _skip(text: bytes, at: int) -> int:
    """Where the value that begins at `at` ends."""
    first = text[at : at + 1]
    if first == b'"':
        return _end(_STRING.match(text, at))
    if first not in (b"[", b"{"):
        return _end(_SCALAR.match(text, at))
    at, depth = at + 1, 1
    while True:
        bracket = _BRACKET.match(text, at)
        at = _end(bracket)
        assert bracket is not None
        depth += 1 if bracket[1] in (b"[", b"{") else -1
        if depth == 0:
            return at


def _over_space(text: bytes, at: int) -> int:
    return _end(_SPACE.match(text, at))


def _end(match: re.Match[bytes] | None) -> int:
    if match is None:
        raise _Broken
    return match.end()
