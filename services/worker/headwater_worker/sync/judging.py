"""Records into ready rows of a COPY, or refusals: a block at once where nothing in it is odd, else one by one."""

import itertools
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, repeat
from typing import Any, Final

from headwater_worker.sync import storable, validation
from headwater_worker.sync.formats.base import Block, Refusal, excerpt
from headwater_worker.sync.formats.table import Table

HEAD: Final = struct.Struct(">hiqiqib")
"""One row of a binary COPY into `item`, up to the JSON text: three fields, each with its length; 1 is jsonb's version.

Fields: 3, 8, the load's id, 8, the record's number, the length of the text and its version, 1.
"""
# The same with the fields that all rows of a load have in common in one piece, which is quicker to pack.
_SAME_BYTES: Final = 18
_ROW_HEAD: Final = struct.Struct(f">{_SAME_BYTES}sqib")
# Nothing is odd about shorter records; it saves a call for each.
_SHALLOW_BYTES: Final = storable.SHALLOW_BYTES
_NO_LINE: Final = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of `parsed` records that follow one another.

    `rows`: the `good` ones, ready for COPY; `lines`: where each of them starts, eight bytes each, 0 for nowhere.
    `refusals`: the others, with their record numbers. `member` and `faults` as in `Block`.
    """

    parsed: int
    good: int
    rows: bytes
    lines: bytes
    refusals: Sequence[tuple[int, Refusal]] = ()
    member: str | None = None
    faults: Sequence[Refusal] = ()

    def each(self) -> Iterator[tuple[bytes, int | None]]:
        """The rows one by one, with their lines."""
        at = 0
        for line in array("q", self.lines):
            end = at + HEAD.size - 1 + HEAD.unpack_from(self.rows, at)[5]
            yield self.rows[at:end], line or None
            at = end

    def is_of(self, load_id: int, after: int) -> bool:
        """Whether all rows and refusals are of that load, in order, and numbered from behind `after`."""
        at, last, count, rows, unpack = 0, after, 0, self.rows, HEAD.unpack_from
        through, size, overhead = after + self.parsed, len(self.rows), HEAD.size - 1
        # The other fields are constants, and Postgres says no to what is none.
        while at + overhead < size:
            _, _, load, _, number, length, _ = unpack(rows, at)
            if load != load_id or number <= last or length < 1:
                return False
            last = number
            at += overhead + length
            count += 1
        numbers = [after, *(number for number, _ in self.refusals), through + 1]
        return (
            at == size
            and last <= through
            and count == self.good == len(self.lines) // 8 == self.parsed - len(self.refusals)
            and all(one < next_ for one, next_ in itertools.pairwise(numbers))
        )


class Judge:
    """Judges the records of one load, in their order; `first` is the number behind which they are counted."""

    def __init__(self, schema: validation.Schema | None, *, load_id: int, first: int = 0) -> None:
        self._schema = schema
        self._load_id = load_id
        self._number = first

    def judge(self, block: Block) -> Judged:
        """What is stored of the block, and what is refused."""
        judged = self._together(block) or self._one_by_one(block)
        self._number += judged.parsed
        return judged

    def _together(self, block: Block) -> Judged | None:
        """As `_one_by_one`, in a third of the time; None where a record of the block has to be looked at by itself."""
        entries = block.entries
        if block.suspect or not entries:
            return None
        lines: Sequence[Any]
        raws: Sequence[bytes]
        if isinstance(entries, Table):
            lines, raws = entries.lines, entries.raws
        elif {*map(type, entries)} == {tuple}:
            lines, raws, values = zip(*entries, strict=True)
        else:
            return None
        sizes = [len(raw) + 1 for raw in raws]
        if max(sizes) > _SHALLOW_BYTES and any(map(storable.is_odd, raws)):
            return None
        numbers: Sequence[int] = range(self._number + 1, self._number + 1 + len(entries))
        refusals: list[tuple[int, Refusal]] = []
        schema = self._schema
        if schema is not None:
            valid = schema.which_of(entries) if isinstance(entries, Table) else schema.which(values)
            if not all(valid):
                refusals = [
                    (numbers[at], _mismatch(schema, entries[at]))  # type: ignore[arg-type]
                    for at in range(len(entries))
                    if not valid[at]
                ]
                numbers, lines = [*compress(numbers, valid)], [*compress(lines, valid)]
                raws, sizes = [*compress(raws, valid)], [*compress(sizes, valid)]
        rows: list[bytes] = [b""] * (2 * len(raws))
        same = HEAD.pack(3, 8, self._load_id, 8, 0, 0, 1)[:_SAME_BYTES]
        rows[::2] = map(_ROW_HEAD.pack, repeat(same), numbers, sizes, repeat(1))
        rows[1::2] = raws
        starts = array("q", lines if None not in lines else [line or _NO_LINE for line in lines])
        return Judged(len(entries), len(raws), b"".join(rows), starts.tobytes(), refusals, block.member, block.faults)

    def _one_by_one(self, block: Block) -> Judged:
        schema, load_id, begin, number = self._schema, self._load_id, self._number, self._number
        rows: list[bytes] = []
        lines: array[int] = array("q")
        refusals: list[tuple[int, Refusal]] = []
        for entry in block.entries:
            number += 1
            if not isinstance(entry, tuple):
                refusals.append((number, entry))
                continue
            line, raw, value = entry
            if block.suspect or storable.is_odd(raw):
                problem = storable.problem(raw, value)
                if problem is not None:
                    refusals.append((number, Refusal(line, storable.CODE, problem, excerpt(raw))))
                    continue
            if schema is not None and not schema.is_valid(value):
                refusals.append((number, _mismatch(schema, entry)))
                continue
            rows += HEAD.pack(3, 8, load_id, 8, number, len(raw) + 1, 1), raw
            lines.append(line or _NO_LINE)
        return Judged(number - begin, len(lines), b"".join(rows), lines.tobytes(), refusals, block.member, block.faults)


def _mismatch(schema: validation.Schema, entry: tuple[int | None, bytes, Any]) -> Refusal:
    pointer, message = schema.explain(entry[2])
    return Refusal(entry[0], validation.CODE, message, excerpt(entry[1]), pointer)
