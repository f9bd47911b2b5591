"""CSV (RFC 4180) and its cousins: another delimiter, another encoding, with a header or without.

A record is an object of strings by column. Where the schema names another type for a column, its cells are converted,
as far as they can be; validation says no to the rest.
"""

import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from headwater_worker.sync import storable
from headwater_worker.sync.formats import csv_cells, csv_lines, table
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
from headwater_worker.sync.formats.csv_cells import Cell
from headwater_worker.sync.formats.encoding import Utf8

CODE: Final = "invalid_csv"
_BLOCK_RECORDS: Final = 500
_BLOCK_BYTES: Final = 1024 * 1024
# What is taken beyond them at most.
_STEP_RECORDS: Final = 20
_MOST_COLUMNS: Final = 1_000_000
_LINE_ENDS: Final = re.compile(r"\r\n|\r|\n")
_SAMPLE_BYTES: Final = 64 * 1024
_SAMPLE_ROWS: Final = 100
# In order of preference where a sample does not decide.
_DELIMITERS: Final = (",", ";", "\t", "|")


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
    """Rows with the lines where they start, many at a time. `line` is where the next one starts.

    `broken`: why nothing follows what was taken last.
    """

    def __init__(self, text: Utf8, delimiter: str) -> None:
        self.delimiter = delimiter
        self._unparsed = csv_lines.Lines(text)
        self._reader = csv.reader(iter(self._unparsed), delimiter=delimiter, strict=True)
        # Lines that it did not see.
        self._passed_by = 0
        self._text = text
        self.line = 1
        self.over = False
        self.broken: Unreadable | None = None

    def take_columns(self, width: int) -> tuple[Sequence[Sequence[str]], Sequence[int]]:
        """The next rows by column, and their lines, if they are as plain as most; else nothing: `take` them."""
        text = self._unparsed.unquoted() if width else ""
        columns = csv_lines.columns(text, self.delimiter, width) if text else ()
        if not columns:
            if text:
                self._unparsed.give_back(text)
            return (), ()
        begin, count = self.line, len(columns[0])
        self.line += count
        self._passed_by += count
        return columns, range(begin, self.line)

    def take(self) -> tuple[list[list[str]], list[int], Refusal | None]:
        """The next rows, their lines, and what stands in the place of the row behind them, if that is none."""
        rows: list[list[str]] = []
        refusal, reason, begin = None, None, self._text.given
        try:
            while len(rows) < _BLOCK_RECORDS and self._text.given - begin < _BLOCK_BYTES and not self.over:
                before = len(rows)
                # A list keeps what it was extended by before an error.
                rows.extend(itertools.islice(self._reader, _STEP_RECORDS))
                self.over = len(rows) - before < _STEP_RECORDS
                if not self._unparsed.is_quoted:
                    break
        except csv.Error as error:
            reason = str(error)
        except Unreadable as error:
            self.broken = error
        lines = self._lines(rows, whole=reason is None and self.broken is None)
        if reason is not None:
            refusal = self._refusal(self.line, reason)
            self.line = self._next_line()
        return rows, lines, refusal

    def _lines(self, rows: list[list[str]], *, whole: bool) -> list[int]:
        begin, end = self.line, self._next_line()
        if whole and end - begin == len(rows):
            self.line = end
            return list(range(begin, end))
        lines = []
        for row in rows:
            lines.append(self.line)
            self.line += 1 + sum(len(_LINE_ENDS.findall(cell)) for cell in row)
        return lines

    def _next_line(self) -> int:
        return self._passed_by + self._reader.line_num + 1

    def _refusal(self, line: int, reason: str) -> Refusal | None:
        # The module has one error for everything; the texts are its own.
        if "field larger" in reason:
            self.broken = Unreadable("A cell is larger than 16 MiB; a quote may be missing.", code=CODE, line=line)
            return None
        if "unexpected end" in reason:
            message = "A quote that opens in this record is never closed; nothing behind it can be read."
        else:
            message = "A quote ends inside a cell; a quote within quotes is written twice."
        return Refusal(line, CODE, message)


def _records(rows: _Rows, options: Options) -> Iterator[Block]:
    records = _Table(rows.delimiter, options)
    while not rows.over and rows.broken is None:
        columns, places = rows.take_columns(records.width)
        if columns:
            yield records.of_columns(columns, places)
            continue
        found, lines, refusal = rows.take()
        block = records.of_rows(found, lines)
        if refusal is not None:
            block = Block([*block.entries, refusal], block.suspect)
        yield block
    if rows.broken is not None:
        raise rows.broken


class _Table:
    """Makes rows into records; the first one names the columns."""

    def __init__(self, delimiter: str, options: Options) -> None:
        self._delimiter = delimiter
        self._options = options
        self._names: list[str] = []
        self._cells: Mapping[str, Cell] = {}
        self._write = table.writer((), ())

    @property
    def width(self) -> int:
        """How many columns there are; 0 before the first row."""
        return len(self._names)

    def of_rows(self, rows: list[list[str]], lines: list[int]) -> Block:
        """A record or a refusal for each row that is not blank."""
        if not all(rows):
            lines = [line for line, row in zip(lines, rows, strict=True) if row]
            rows = [row for row in rows if row]
        if rows and not self._names:
            header = self._options.csv.header
            self._names = _names(rows[0] if header else [""] * len(rows[0]), lines[0])
            self._cells = csv_cells.conversions(self._names, self._options.schema)
            self._write = table.writer(self._names, {*self._names} - self._cells.keys())
            if header:
                rows, lines = rows[1:], lines[1:]
        if {*map(len, rows)} == {len(self._names)}:
            return self.of_columns([*zip(*rows, strict=True)], lines)
        return self._one_by_one(rows, lines)

    def of_columns(self, columns: Sequence[Sequence[str]], lines: Sequence[int]) -> Block:
        """A record or a refusal for each row of these, which have a column for each name."""
        try:
            found = [
                (cells, table.texts(cells)) if cell is None else cell.each(cells)
                for cell, cells in zip(map(self._cells.get, self._names), columns, strict=True)
            ]
            values, texts = zip(*found, strict=True)
            raws = self._write(texts)
        except (TypeError, ValueError):  # something about them is odd: each for itself
            return self._one_by_one([*zip(*columns, strict=True)], lines)
        return Block(table.Table(self._names, values, lines, raws), storable.may_hold_nul(raws))

    def _one_by_one(self, rows: Sequence[Sequence[str]], lines: Sequence[int]) -> Block:
        entries = [
            _record(line, row, self._names, self._cells, self._delimiter) for line, row in zip(lines, rows, strict=True)
        ]
        return Block(entries, storable.may_hold_nul(entry[1] for entry in entries if isinstance(entry, tuple)))


def _record(
    line: int, row: Sequence[str], names: Sequence[str], cells: Mapping[str, Cell], delimiter: str
) -> Record | Refusal:
    if len(row) != len(names):
        message = f"The record has {len(row)} cells; the header names {len(names)} columns."
        return Refusal(line, CODE, message, excerpt(delimiter.join(row)))
    value: dict[str, Any] = dict(zip(names, row, strict=True))
    for name, cell in cells.items():
        value[name] = cell.one(value[name])
    try:
        return line, orjson.dumps(value), value
    except TypeError:
        return _second_try(line, row, value, delimiter)


def _second_try(line: int, row: Sequence[str], value: Mapping[str, Any], delimiter: str) -> Record | Refusal:
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
    if len(row) > _MOST_COLUMNS:
        raise Unreadable(
            "The first row has more than 1,000,000 cells; an end of line may be missing.", code=CODE, line=line
        )
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
