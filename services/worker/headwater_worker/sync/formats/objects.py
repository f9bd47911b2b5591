"""Objects from columns, many at a time."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

_Make = Callable[[Sequence[Sequence[Any]]], list[dict[str, Any]]]

# More are few rows a batch anyway, and code that is long to compile.
MOST_WRITTEN_OUT: Final = 100


def maker(names: Sequence[str]) -> _Make:
    """What makes columns of equal lengths, one for each name, into an object for each row.

    As `dict(zip(names, row))`: of two columns of one name the last one counts, in the place of the first.
    """
    if 0 < len(names) <= MOST_WRITTEN_OUT:
        make: _Make = _written_out(len(names))(*names)
        return make
    return lambda columns: [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


@lru_cache(maxsize=MOST_WRITTEN_OUT)
def _written_out(count: int) -> Callable[..., _Make]:
    """Code with a display of `count` pairs: a third of the time of `dict(zip(...))`. Names are arguments of it."""
    names = ", ".join(f"n{number}" for number in range(count))
    cells = ", ".join(f"c{number}" for number in range(count))
    pairs = ", ".join(f"n{number}: c{number}" for number in range(count))
    code = f"lambda {names}: lambda columns: [{{{pairs}}} for {cells}, in zip(*columns, strict=True)]"
    made: Callable[..., _Make] = eval(code, {"zip": zip})  # noqa: S307 - of it, a file decides the number of columns
    return made
