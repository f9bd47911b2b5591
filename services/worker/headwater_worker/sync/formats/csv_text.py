"""CSV (RFC 4180) and its cousins: another delimiter, another encoding, with a header or without.

A record is an object of strings by column. Where the schema names another type for a column, its cells are converted,
as far as they can be; validation says no to the rest.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import orjson

from headwater_worker.sync import storable
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

CODE: Final = "invalid_csv"
_BLOCK_RECORDS: Final = 500
_SAMPLE_BYTES: Final = 64 * 1024
_SAMPLE_ROWS: Final = 100
# In order of preference where a sample does not decide.
_DELIMITERS: Final = (",", ";", "\t", "|")

Cell = Callable[[str], Any]


def blocks(source: Source, options: Options) -> Iterator[Block]:
    """The records of `source`. Notes in `options.details` how they were read (`csv`) and what of it was `found` out."""
    csv.field_size_limit(LARGEST_RECORD_BYTES)
    text = Utf8(source, encoding=options.csv.encoding, kept=options.found.get("encoding"), fallback=True)
    sample = text.head(_SAMPLE_BYTES)
    delimiter = options.csv.delimiter or _kept_or_found(sample, options.found.get("delimiter"))
    _note(options, text, delimiter)
    rows = _Rows(text, delimiter or _DELIMITERS[0])
    try:
        yield from _records(rows, options)
    except Unreadable as error:
        raise Unreadable(error.message, code=error.code, line=error.line or rows.line) from None
    finally:
        _note(options, text, delimiter)


def _note(options: Options, text: Utf8, delimiter: str | None) -> None:
    used = {"delimiter": delimiter, "encoding": text.known_encoding}
    said = {"delimiter": options.csv.delimiter, "encoding": options.csv.encoding}
    options.details["csv"] = used | {"header": options.csv.header}
    options.details["found"] = {name: value for name, value in used.items() if said[name] is None}


class _Rows:
    """Rows with the lines where they start."""

    def __init__(self, text: Utf8, delimiter: str) -> None:
        self.delimiter = delimiter
        lines = io.TextIOWrapper(text, encoding="utf-8", errors="surrogateescape", newline="")  # type: ignore[type-var]
        # A line has an end at least where a record is too large anyway.
        self._reader = csv.reader(
            iter(partial(lines.readline, LARGEST_RECORD_BYTES + 1), ""), delimiter=delimiter, strict=True
        )
        self.line = 1

    def __iter__(self) -> Iterator[tuple[int, list[str] | Refusal]]:
        while True:
            try:
                for row in self._reader:
                    line, self.line = self.line, self._reader.line_num + 1
                    if row:
                        yield line, row
                return
            except csv.Error as error:
                line, self.line = self.line, self._reader.line_num + 1
                yield line, self._refusal(line, str(error))

    def _refusal(self, line: int, reason: str) -> Refusal:
        # The module has one error for everything; the texts are its own.
        if "field larger" in reason:
            raise Unreadable("A cell is larger than 16 MiB; a quote may be missing.", code=CODE, line=line)
        if "unexpected end" in reason:
            message = "A quote that opens in this record is never closed; nothing behind it can be read."
        else:
            message = "A quote ends inside a cell; a quote within quotes is written twice."
        return Refusal(line, CODE, message)


def _records(rows: _Rows, options: Options) -> Iterator[Block]:
    gathered = _Gathered(rows.delimiter, options)
    try:
        for line, row in rows:
            gathered.add(line, row)
            if len(gathered.entries) >= _BLOCK_RECORDS:
                yield gathered.block()
    except Unreadable:
        yield gathered.block()
        raise
    yield gathered.block()


class _Gathered:
    """Rows on their way into a block; the first one names the columns."""

    def __init__(self, delimiter: str, options: Options) -> None:
        self.entries: list[Record | Refusal] = []
        self._suspect = False
        self._delimiter = delimiter
        self._options = options
        self._names: list[str] | None = None
        self._cells: Mapping[str, Cell] = {}

    def add(self, line: int, row: list[str] | Refusal) -> None:
        """One more row."""
        if isinstance(row, Refusal):
            self.entries.append(row)
            return
        if self._names is None:
            header = self._options.csv.header
            self._names = _names(row if header else [""] * len(row), line)
            self._cells = _conversions(self._names, self._options.schema)
            if header:
                return
        entry = _record(line, row, self._names, self._cells, self._delimiter)
        self.entries.append(entry)
        self._suspect = self._suspect or (type(entry) is tuple and b"\\u0000" in entry[1])

    def block(self) -> Block:
        """What was gathered since the last block."""
        block = Block(self.entries, self._suspect)
        self.entries, self._suspect = [], False
        return block


def _record(
    line: int, row: list[str], names: Sequence[str], cells: Mapping[str, Cell], delimiter: str
) -> Record | Refusal:
    if len(row) != len(names):
        message = f"The record has {len(row)} cells; the header names {len(names)} columns."
        return Refusal(line, CODE, message, excerpt(delimiter.join(row)))
    value: dict[str, Any] = dict(zip(names, row, strict=True))
    for name, convert in cells.items():
        value[name] = convert(value[name])
    try:
        return line, orjson.dumps(value), value
    except TypeError:
        return _second_try(line, row, value, delimiter)


def _second_try(line: int, row: list[str], value: Mapping[str, Any], delimiter: str) -> Record | Refusal:
    """`orjson` refuses integers beyond 64 bits, and text that is no Unicode."""
    try:
        return line, json.dumps(value, ensure_ascii=False).encode(), value
    except UnicodeEncodeError:
        message = (
            "The record holds bytes that are no text in the file's encoding; `reading.csv.encoding` names another."
        )
        return Refusal(line, "invalid_encoding", message, excerpt(delimiter.join(row)))


def _names(row: list[str], line: int) -> list[str]:
    """Column names from a header: trimmed, unique, none empty."""
    names: list[str] = []
    taken: set[str] = set()
    for number, cell in enumerate(row, start=1):
        name = stem = cell.strip() or f"column_{number}"
        copy = 1
        while name in taken:
            copy += 1
            name = f"{stem}_{copy}"
        taken.add(name)
        names.append(name)
    if any(storable.problem(b"\\u", name) for name in names):
        raise Unreadable("The header holds characters that cannot be stored.", code=CODE, line=line)
    return names


def _kept_or_found(sample: str, kept: str | None) -> str | None:
    """The delimiter of the reading before, unless it cuts nothing while another one does."""
    # The last line may be cut.
    text = sample[: sample.rfind("\n") + 1] if len(sample) > _SAMPLE_BYTES // 4 and "\n" in sample else sample
    if kept is not None and _evenness(text, kept) > (0.0, 0):
        return kept
    return _find_delimiter(text) or kept


def _find_delimiter(text: str) -> str | None:
    """The delimiter that cuts the text into the most even rows of more than one cell; None if none does."""
    best, best_score = None, (0.0, 0)
    for delimiter in _DELIMITERS:
        score = _evenness(text, delimiter)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _evenness(text: str, delimiter: str) -> tuple[float, int]:
    """Which share of the rows has the most common number of cells, and that number; (0, 0) for single columns."""
    widths: Counter[int] = Counter()
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in rows:
            widths[len(row)] += bool(row)
            if rows.line_num >= _SAMPLE_ROWS:
                break
    except csv.Error:
        pass  # what was seen before counts
    if not widths:
        return 0.0, 0
    width, count = max(widths.items(), key=lambda item: (item[1], item[0]))
    return (count / widths.total(), width) if width > 1 else (0.0, 0)


def _conversions(names: Sequence[str], schema: Mapping[str, Any] | None) -> dict[str, Cell]:
    """For each column that the schema gives a type beside string: how its cells are converted."""
    properties = (schema or {}).get("properties")
    if not isinstance(properties, Mapping):
        return {}
    found = ((name, _conversion(_types(properties.get(name), schema or {}))) for name in names)
    return {name: convert for name, convert in found if convert is not None}


def _types(part: Any, schema: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """The types that a subschema allows, as far as it says so plainly."""
    if not isinstance(part, Mapping) or depth > 8:
        return frozenset()
    named = part.get("type")
    if named is not None:
        return frozenset([named] if isinstance(named, str) else named)
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target: Any = schema
        for step in reference[2:].split("/"):
            target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        return _types(target, schema, depth + 1)
    choices = part.get("anyOf") or part.get("oneOf") or []
    return frozenset().union(*(_types(choice, schema, depth + 1) for choice in choices))


_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False}


def _conversion(types: frozenset[str]) -> Cell | None:
    if not types or types == {"string"}:
        return None
    nullable, textual = "null" in types, "string" in types
    whole, fractional, logical = "integer" in types or "number" in types, "number" in types, "boolean" in types

    def convert(cell: str) -> Any:
        if not cell and nullable:
            return None
        if textual:
            return cell
        text = cell.strip()
        if whole and _INTEGER.fullmatch(text):
            return int(text)
        if fractional and _NUMBER.fullmatch(text):
            number = float(text)
            return number if abs(number) != float("inf") else cell
        return _BOOLEANS.get(text.lower(), cell) if logical else cell

    return convert
