"""JSON documents: an array gives one record per element, anything else one record per value (usually one in all).

An array is cut into its elements while it streams by, with nothing but the nesting of brackets in mind; whether an
element is JSON is then the parser's business. So a broken element costs itself and not the rest of the file.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

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

# Runs of what cannot change the nesting, whole strings included, up to what can. Possessive: they never go back.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_RUN: Final = rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+"
_SAFE: Final = re.compile(_RUN, re.DOTALL)
_INSIDE: Final = re.compile(_RUN + rb"([\[\]{}])", re.DOTALL)
_BETWEEN: Final = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+([\[\]{},])", re.DOTALL)
_OPENING: Final = (b"[", b"{")
_SPACE: Final = b" \t\r\n"
_NOT_SPACE: Final = re.compile(rb"[^ \t\r\n]")

_Cut = tuple[bytes, int]  # the text of a record and the line where it starts


def blocks(source: Source, options: Options) -> Iterator[Block]:  # noqa: ARG001 - every format takes options
    """The records of `source`. Raises `Unreadable` where an array does not end, or where something follows it."""
    text, splitter = Utf8(source), _Splitter()
    while True:
        gathered, broken = _Gathered(), None
        try:
            piece = text.read()
            gathered.take(splitter.feed(piece) if piece else splitter.end())
        except Unreadable as error:
            broken = Unreadable(error.message, code=error.code, line=error.line or splitter.line)
        yield gathered.block()
        if broken:
            raise broken
        if not piece:
            return


class _Gathered:
    """Records on their way into a block."""

    def __init__(self) -> None:
        self._entries: list[Record | Refusal] = []
        self._suspect = False

    def take(self, cuts: Iterable[_Cut]) -> None:
        """Parse records and keep them."""
        for raw, line in cuts:
            if len(raw) > LARGEST_RECORD_BYTES:
                self._entries.append(Refusal(line, storable.CODE, storable.TOO_LARGE, excerpt(raw)))
                continue
            try:
                self._entries.append((line, raw, orjson.loads(raw)))
                self._suspect = self._suspect or storable.is_suspect(raw)
            except orjson.JSONDecodeError:
                self._entries.append(json_value.second_look(raw, line))
                self._suspect = True

    def block(self) -> Block:
        """What was gathered."""
        return Block(self._entries, self._suspect)


class _Splitter:
    """Cuts a document into the texts of its records.

    The record at hand begins at `_start` of `_window`, which is line `line`; up to `_scanned` its nesting is known.
    """

    def __init__(self) -> None:
        self.line = 1
        self._window = b""
        self._start = 0
        self._scanned = 0
        self._depth = 0
        self._is_array: bool | None = None
        self._elements = 0
        self._over = False
        self._too_large: _Cut | None = None

    def feed(self, piece: bytes) -> Iterator[_Cut]:
        """The records that are whole now."""
        self._window = self._window[self._start :] + piece
        self._scanned -= self._start
        self._start = 0
        if self._is_array is None and not self._begin():
            return
        yield from self._array() if self._is_array else self._sequence()
        if len(self._window) - self._start > LARGEST_RECORD_BYTES:
            self._forget()

    def end(self) -> Iterator[_Cut]:
        """The record that the end of the file completes. Raises `Unreadable` if an array is still open."""
        rest = self._window[self._start :].strip(_SPACE)
        if self._is_array and not self._over:
            if rest and self._too_large is None and _is_json(rest):
                yield self._cut(len(self._window), len(self._window))
            raise Unreadable("The file ends before its JSON array does.", code=json_value.CODE, line=self.line)
        if rest:
            yield self._cut(len(self._window), len(self._window))

    def _begin(self) -> bool:
        if not self._skip_space():
            return False
        self._is_array = self._window.startswith(b"[", self._start)
        if self._is_array:
            self._depth = 1
            self._go_to(self._start + 1)
        return True

    def _array(self) -> Iterator[_Cut]:
        while not self._over:
            match = (_BETWEEN if self._depth == 1 else _INSIDE).match(self._window, self._scanned)
            if match is None:
                return
            mark, self._scanned = match[1], match.end()
            if mark in _OPENING:
                self._depth += 1
            elif mark != b"," and self._depth > 1:
                self._depth -= 1
            else:
                self._over = mark != b","
                if self._elements or not self._over or self._has_text(match.start(1)):
                    self._elements += 1
                    yield self._cut(match.start(1), match.end())
                else:
                    self._go_to(match.end())
        if self._skip_space():
            raise Unreadable("Something follows the end of the JSON array.", code=json_value.CODE, line=self.line)

    def _has_text(self, end: int) -> bool:
        return self._too_large is not None or bool(self._window[self._start : end].strip(_SPACE))

    def _sequence(self) -> Iterator[_Cut]:
        while self._depth or self._skip_space():
            if not self._depth and self._window[self._start : self._start + 1] not in _OPENING:
                end = self._window.find(b"\n", self._start)
                if end < 0:
                    return
                yield self._cut(end, end)
                continue
            match = _INSIDE.match(self._window, self._scanned)
            if match is None:
                return
            self._scanned = match.end()
            self._depth += 1 if match[1] in _OPENING else -1
            if self._depth == 0:
                yield self._cut(self._scanned, self._scanned)

    def _skip_space(self) -> bool:
        """Begin the record with something else than space; False if there is nothing else yet."""
        text = _NOT_SPACE.search(self._window, self._start)
        self._go_to(text.start() if text else len(self._window))
        return text is not None

    def _cut(self, end: int, after: int) -> _Cut:
        """The record that ends at `end`; the next one begins at `after`."""
        text = _NOT_SPACE.search(self._window, self._start, end)
        begin = text.start() if text else end
        cut = self._too_large or (
            self._window[begin:end].rstrip(_SPACE),
            self.line + self._window.count(b"\n", self._start, begin),
        )
        self._too_large = None
        self._go_to(after)
        return cut

    def _go_to(self, start: int) -> None:
        self.line += self._window.count(b"\n", self._start, start)
        self._start = start
        self._scanned = max(self._scanned, start)

    def _forget(self) -> None:
        """The record at hand is too large: keep its beginning, go on with what is not scanned yet."""
        if self._too_large is None:
            self._skip_space()
            beginning = self._window[self._start : self._start + LARGEST_RECORD_BYTES + 1]
            self._too_large = beginning.ljust(LARGEST_RECORD_BYTES + 1), self.line
        safe = _SAFE.match(self._window, self._scanned)
        self._go_to(safe.end() if safe else self._scanned)
        if len(self._window) - self._start > LARGEST_RECORD_BYTES:
            raise Unreadable("A single value is larger than 16 MiB.", code=storable.CODE, line=self.line)


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
