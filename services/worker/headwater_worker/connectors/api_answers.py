"""From one answer of an API to its records and to what says where the next page is."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import orjson

from headwater_worker.connectors import api_errors
from headwater_worker.connectors.api_client import Body
from headwater_worker.connectors.base import ByteStream

LARGEST_JSON_BYTES: Final = 64 * 1024 * 1024

_JSON: Final = frozenset({"application/json", "text/json", "application/hal+json"})
_BY_TYPE: Final = {
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/jsonlines": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/json-seq": "",
    "text/csv": "csv",
    "application/csv": "csv",
    "text/tab-separated-values": "csv",
    "text/html": "",
}
_EXTENSIONS: Final = {"csv": "csv", "tsv": "csv", "json": "json", "jsonl": "jsonl", "ndjson": "jsonl"}
_READABLE: Final = ("json", "jsonl", "csv")

# A value is skipped with nothing but strings and the nesting of brackets in mind. Possessive: they never go back.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BRACKET: Final = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+([\[\]{}])', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^\s,\[\]{}\"]+")
_SPACE: Final = re.compile(rb"[ \t\r\n]*")


@dataclass(frozen=True)
class Answer:
    """What one answer holds. `around`: a JSON answer without its records, parsed; None if it was no JSON."""

    format: str
    stream: ByteStream
    around: Any = None


def format_of(response: httpx2.Response, named: str | None) -> str:
    """The format of an answer: what the user said, else its type, else its name. Raises `Permanent`."""
    if named is not None:
        return _readable(named)
    media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media in _JSON or media.endswith("+json"):
        return "json"
    if media in _BY_TYPE:
        return _readable(_BY_TYPE[media])
    return _readable(_EXTENSIONS.get(response.url.path.rpartition(".")[2].lower(), "json"))


def _readable(name: str) -> str:
    if name not in _READABLE:
        raise api_errors.UNKNOWN_TYPE.error()
    return name


def read_json(body: Body, response: httpx2.Response, path: Sequence[str] | None, *, single: bool) -> Answer:
    """A JSON answer: its records as an array, and the rest of it.

    `path` leads to the records; None means that they are all of it. `single`: an object there is one record.
    Raises `ConnectorError`.
    """
    text = _text(_whole(body), response)
    try:
        start = _find(text, path or ())
        end = None if start is None else _skip(text, start)
        around = orjson.loads(text if start is None else text[:start] + b"[]" + text[end:])
    except (_Broken, orjson.JSONDecodeError) as error:
        raise api_errors.NOT_JSON.error() from error
    if start is None:
        raise api_errors.NO_RECORDS.error()
    records = text[start:end]
    if records == b"null":
        records = b"[]"
    elif single and path is None and records.startswith(b"{"):
        records = b"[" + records + b"]"
    if not records.startswith(b"["):
        raise api_errors.NO_RECORDS.error()
    return Answer("json", io.BytesIO(records), around)


def _whole(body: Body) -> bytes:
    pieces, size = [], 0
    while piece := body.read():
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST_JSON_BYTES:
            raise api_errors.TOO_LARGE.error()
    return b"".join(pieces)


def _text(data: bytes, response: httpx2.Response) -> bytes:
    encoding = response.charset_encoding
    if encoding is not None and encoding.lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
        try:
            return data.decode(encoding).encode()
        except (UnicodeError, LookupError) as error:
            raise api_errors.garbled() from error
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
    depth = 0
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
