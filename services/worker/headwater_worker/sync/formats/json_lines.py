"""JSON Lines (also called NDJSON): one JSON value on each line, blank lines aside."""

from collections.abc import Iterable, Iterator

import orjson

from headwater_worker.sync import storable
from headwater_worker.sync.formats import json_value
from headwater_worker.sync.formats.base import (
    LARGEST_RECORD_BYTES,
    Block,
    Options,
    Record,
    Refusal,
    Source,
    Unreadable,
    excerpt,
)
from headwater_worker.sync.formats.encoding import Utf8


def blocks(source: Source, options: Options) -> Iterator[Block]:  # noqa: ARG001 - every format takes options
    """The records of `source`, a block for each piece that is read. The raw lines are what gets stored."""
    text = Utf8(source)
    line, tail = 1, b""
    try:
        while piece := text.read():
            head, newline, rest = piece.rpartition(b"\n")
            if newline:
                block, lines = _block(tail + head, line)
                line, tail = line + lines, rest
                yield block
            elif len(tail) > LARGEST_RECORD_BYTES:
                # Too large to be stored: its beginning is enough to say so.
                yield Block([])
            else:
                tail += piece
                yield Block([])
    except Unreadable as error:
        raise Unreadable(error.message, code=error.code, line=line) from None
    if tail:
        yield _block(tail, line)[0]


def _block(data: bytes, line: int) -> tuple[Block, int]:
    """The records of whole lines, and how many lines those are."""
    lines = data.split(b"\n")
    entries, recovered = _entries(lines, line)
    return Block(entries, suspect=recovered or storable.is_suspect(data)), len(lines)


def _entries(lines: Iterable[bytes], line: int) -> tuple[list[Record | Refusal], bool]:
    entries: list[Record | Refusal] = []
    append, loads, recovered = entries.append, orjson.loads, False
    for raw in lines:
        try:
            append((line, raw, loads(raw)))
        except orjson.JSONDecodeError:
            stripped = raw.strip()
            if stripped:
                append(_second_look(stripped, line))
                recovered = True
        line += 1
    return entries, recovered


def _second_look(raw: bytes, line: int) -> Record | Refusal:
    if len(raw) > LARGEST_RECORD_BYTES:
        return Refusal(line, storable.CODE, storable.TOO_LARGE, excerpt(raw))
    return json_value.second_look(raw, line)
