"""What a walk knows about its records: their keys, and the highest value of what says when they changed."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from headwater_worker.sync.formats.base import Block, Record, Refusal, excerpt

MISSING_KEY: Final = "missing_key"
LONGEST_CURSOR: Final = 1_000
KEY: Final = "key"
CURSOR: Final = "cursor"


def at_path(value: Any, path: Sequence[str]) -> Any:
    """What stands at `path` in a parsed value; None if nothing does."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


@dataclass(frozen=True)
class Looking:
    """What to look at in each record of a walk: as in `Walk`. `since` is the highest value of those before."""

    key: Sequence[str] | None = None
    cursor: Sequence[str] | None = None
    cursor_format: str = "text"
    since: str | None = None


class Records:
    """Looks at records of one walk as they come by. `cursor` is the highest value so far, as it came.

    `first`: which of `KEY` and `CURSOR` the first record lacks, or why it could not be read; None without a record.
    """

    def __init__(self, looking: Looking) -> None:
        self._looking = looking
        self._rank = _RANKS[looking.cursor_format]
        self.cursor = looking.since
        self._highest = None if looking.since is None else self._rank(looking.since)
        self.odd_cursors = 0
        self.first: Refusal | Sequence[str] | None = None

    def look(self, block: Block) -> Block:
        """The block without lines, which are not the source's; records without a key become refusals."""
        if self.first is None and block.entries:
            self.first = self._lacking(block.entries[0])
        return Block([self._look(entry) for entry in block.entries], block.suspect)

    def _look(self, entry: Record | Refusal) -> Record | Refusal:
        if not isinstance(entry, tuple):
            return dataclasses.replace(entry, line=None)
        _, raw, value = entry
        if self._looking.cursor is not None:
            self._see(at_path(value, self._looking.cursor))
        key = self._looking.key
        if key is not None and not _is_key(at_path(value, key)):
            message = "The record has no text and no number where its key should be."
            return Refusal(None, MISSING_KEY, message, excerpt(raw), _pointer(key))
        return None, raw, value

    def _lacking(self, entry: Record | Refusal) -> Refusal | Sequence[str]:
        if not isinstance(entry, tuple):
            return entry
        paths = {KEY: self._looking.key, CURSOR: self._looking.cursor}
        return [name for name, path in paths.items() if path is not None and at_path(entry[2], path) is None]

    def _see(self, value: Any) -> None:
        rank = None if isinstance(value, bool) or len(str(value)) > LONGEST_CURSOR else self._rank(value)
        if rank is None:
            self.odd_cursors += 1
        elif self._highest is None or rank > self._highest:
            self._highest, self.cursor = rank, str(value)


def _is_key(value: Any) -> bool:
    return (isinstance(value, str) and value != "") or (isinstance(value, int | float) and not isinstance(value, bool))


def _pointer(path: Sequence[str]) -> str:
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path)


def _number(value: Any) -> Any:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _moment(value: Any) -> Any:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _day(value: Any) -> Any:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def _words(value: Any) -> Any:
    # What holds U+0000 could not be kept.
    return value if isinstance(value, str) and value and "\0" not in value else None


# How values of a format are compared; None for one that is not of the format.
_RANKS: Final[dict[str, Callable[[Any], Any]]] = {
    "rfc3339": _moment,
    "date": _day,
    "unix_seconds": _number,
    "unix_milliseconds": _number,
    "integer": _number,
    "text": _words,
}
