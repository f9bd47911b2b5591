"""Records that all have the same members, by column: their values, and their JSON texts, many at a time."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Final, overload

import orjson

from headwater_worker.sync.formats import objects
from headwater_worker.sync.formats.base import Record

_Write = Callable[[Sequence[Sequence[str]]], list[bytes]]

# Where cells stand in what is the same in all records; JSON escapes that character.
_CELL: Final = "\0"
_TEXT: Final = f'"{_CELL}"'


@dataclass(frozen=True, slots=True)
class Table(Sequence[Record]):
    """Records as a block's entries. Their values are objects only when somebody asks for them.

    `names` are all different; `columns` has the values of each. `lines` and `raws` are as in `Record`.
    """

    names: Sequence[str]
    columns: Sequence[Sequence[Any]]
    lines: Sequence[int | None]
    raws: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.raws)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Record]: ...
    def __getitem__(self, at: int | slice) -> Record | Sequence[Record]:
        if isinstance(at, slice):
            return [*self][at]
        return self.lines[at], self.raws[at], dict(zip(self.names, (cells[at] for cells in self.columns), strict=True))

    def __iter__(self) -> Iterator[Record]:
        return zip(self.lines, self.raws, self.values(), strict=True)

    def values(self) -> list[dict[str, Any]]:
        """The value of each record."""
        return objects.maker(self.names)(self.columns)


def writer(names: Sequence[str], texts: Collection[str]) -> _Write:
    """What makes columns of JSON texts, one for each name, into the JSON text of each row, as `orjson` writes it.

    `texts`: whose columns are of strings, and without the quotes around them. Names have to be different.
    """
    members = (f"{orjson.dumps(name).decode()}:{_TEXT if name in texts else _CELL}" for name in names)
    *pieces, last = f"{{{','.join(members)}}}".split(_CELL)
    if 0 < len(names) <= objects.MOST_WRITTEN_OUT:
        write: _Write = _written_out(len(names))(*pieces, last)
        return write
    return lambda columns: [
        ("".join(chain.from_iterable(zip(pieces, row, strict=True))) + last).encode()
        for row in zip(*columns, strict=True)
    ]


def texts(cells: Sequence[str]) -> Sequence[str]:
    """The JSON text of each without its quotes, quicker where no character needs an escape.

    Raises `TypeError` (of `orjson`'s) for what is no Unicode.
    """
    if b"\\" not in orjson.dumps("".join(cells)):
        return cells
    return [orjson.dumps(cell)[1:-1].decode() for cell in cells]


def scalars(values: Sequence[Any]) -> Sequence[str]:
    """The JSON text of each of some values that are neither lists nor objects. Raises `TypeError` (of `orjson`'s)."""
    whole = orjson.dumps(values).decode()
    if '"' in whole:
        return [orjson.dumps(value).decode() for value in values]
    return whole[1:-1].split(",")


@lru_cache(maxsize=objects.MOST_WRITTEN_OUT)
def _written_out(count: int) -> Callable[..., _Write]:
    """As `objects` does it: one display for a row, a third of the time of joining its pieces."""
    pieces = ", ".join(f"p{number}" for number in range(count))
    cells = ", ".join(f"c{number}" for number in range(count))
    row = "".join(f"{{p{number}}}{{c{number}}}" for number in range(count))
    write = f"[f'{row}{{end}}'.encode() for {cells}, in zip(*columns, strict=True)]"
    made: Callable[..., _Write] = eval(f"lambda {pieces}, end: lambda columns: {write}", {"zip": zip})  # noqa: S307 - of it, a file decides the number of columns
    return made
