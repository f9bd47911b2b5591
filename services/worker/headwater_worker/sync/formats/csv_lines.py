"""The text of a CSV file in lines: one by one for Python's parser, or many at once where that has nothing to decide."""

import codecs
import io
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Final

from headwater_worker.sync.formats.base import LARGEST_RECORD_BYTES, Unreadable
from headwater_worker.sync.formats.encoding import Utf8

# A line has an end at least where a record is too large anyway.
_LONGEST: Final = LARGEST_RECORD_BYTES + 1


class Lines:
    """Lines with their ends, which are `\\n`, `\\r\\n` or `\\r`. Iterate, or take what has no quotes; both go on.

    `is_quoted`: nothing can be taken at once for now.
    """

    def __init__(self, text: Utf8) -> None:
        self._text = text
        # It holds a last `\r` back until it is known what follows.
        self._decoder = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder("utf-8")("surrogateescape"), translate=False
        )
        self._tail: list[str] = []
        self._tail_size = 0
        self._over = False
        # Whole lines that come next: first of `_begun`, then `_piece`, which is looked at when `_begun` is at its end.
        self._begun = io.StringIO(newline="")
        self._piece = ""
        self.is_quoted = False

    def __iter__(self) -> Iterator[str]:
        """Each line. Raises `Unreadable`."""
        while self._piece or self._fetch():
            self._begun, is_long = io.StringIO(self._piece, newline=""), len(self._piece) > _LONGEST
            self._piece = ""
            yield from iter(partial(self._begun.readline, _LONGEST), "") if is_long else self._begun

    def unquoted(self) -> str:
        """Some of the lines that come next, if no quote is in them; else nothing, and iteration must go on."""
        try:
            while not self.is_quoted:
                text, self._piece = self._begun.read() or self._piece, ""
                if text or not self._fetch():
                    return text
        except Unreadable:
            pass  # iteration meets it again
        return ""

    def give_back(self, text: str) -> None:
        """`text`, as taken last, cannot be used: it comes line by line."""
        self._piece, self.is_quoted = text, True

    def _fetch(self) -> bool:
        """The next whole lines; False if there are none. Raises `Unreadable`."""
        while not self._piece and not self._over:
            data = self._text.read()
            self._over = not data
            text = self._decoder.decode(data, final=self._over)
            end = len(text) if self._over else max(text.rfind("\n"), text.rfind("\r")) + 1
            if self._over or end or self._tail_size + len(text) >= _LONGEST:
                self._cut(text, end)
            else:
                self._tail.append(text)
                self._tail_size += len(text)
        self.is_quoted = len(self._piece) >= _LONGEST or '"' in self._piece
        return bool(self._piece)

    def _cut(self, text: str, end: int) -> None:
        """What is left behind the piece, which ends in `text` at `end`, or where a line is too long."""
        whole = "".join([*self._tail, text])
        at = self._tail_size + end if end or self._over else _LONGEST
        self._piece, tail = whole[:at], whole[at:]
        self._tail, self._tail_size = [tail], len(tail)


def columns(text: str, delimiter: str, width: int) -> Sequence[Sequence[str]]:
    """The cells of lines without quotes, by column; nothing where lines are blank, ragged or end in an odd way."""
    lines = text.split("\r\n" if text.endswith("\r\n") else "\n")
    # Behind the last end of a line is nothing.
    if lines.pop() or (width == 1 and "" in lines):
        return ()
    whole = delimiter.join(lines)
    if "\r" in whole or "\n" in whole:
        text = text.replace("\r\n", "\n")
        return () if "\r" in text else columns(text, delimiter, width)
    if {*map(str.count, lines, repeat(delimiter))} != {width - 1}:
        return ()
    cells = whole.split(delimiter)
    return [cells[number::width] for number in range(width)]
