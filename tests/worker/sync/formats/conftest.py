"""Files as bytes in, what their parser makes of them out."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from headwater_worker.sync.formats import choice
from headwater_worker.sync.formats.base import CsvOptions, Options, Source, Unreadable


@dataclass
class Parsed:
    """`records` as (line, JSON text), `refused` as (line, code), `broken` the point where the file ends too early.

    `faults` as (member, code), `members`: the member of each record.
    """

    records: list[tuple[int | None, str]]
    values: list[Any]
    refused: list[tuple[int | None, str]]
    broken: Unreadable | None
    details: dict[str, Any]
    faults: list[tuple[str | None, str]]
    members: list[str | None]


class _Trickle(io.BytesIO):
    """Gives at most `most` bytes at a time, as networks do."""

    def __init__(self, body: bytes, most: int) -> None:
        super().__init__(body)
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._most if size is None or size < 0 else min(size, self._most))


def _parse(
    path: str,
    body: bytes,
    *,
    most: int = 1 << 20,
    schema: Any = None,
    named: str | None = None,
    found: Mapping[str, Any] | None = None,
    **csv: Any,
) -> Parsed:
    parsed = Parsed([], [], [], None, {}, [], [])
    options = Options(csv=CsvOptions(**csv), schema=schema, found=found or {}, details=parsed.details)
    try:
        for block in choice.format_of(path, named).blocks(Source(_Trickle(body, most)), options):
            parsed.faults += [(block.member, fault.code) for fault in block.faults]
            for entry in block.entries:
                if isinstance(entry, tuple):
                    parsed.members.append(block.member)
                    parsed.records.append((entry[0], entry[1].decode()))
                    parsed.values.append(entry[2])
                else:
                    parsed.refused.append((entry.line, entry.code))
    except Unreadable as error:
        parsed.broken = error
    return parsed


@pytest.fixture
def parse() -> Callable[..., Parsed]:
    """Parses a file of that path and body, which come in pieces of at most `most` bytes."""
    return _parse
