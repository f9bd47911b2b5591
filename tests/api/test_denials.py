"""Counting refusals, without a database: what is written, and when."""

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest

from headwater import ids
from headwater.db import Row, Statement
from headwater_api import denials
from headwater_api.denials import Denials, Refused

WRITER = Refused(ids.new(), ids.new(), ids.new(), permission="project:create")
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Written:
    """Takes what would go into the database."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.away = False
        self._more = asyncio.Event()

    async def until(self, count: int) -> None:
        """Wait for so many."""
        async with asyncio.timeout(5):
            while len(self.entries) < count:
                await self._more.wait()
                self._more.clear()

    async def __call__(self, organization_id: UUID, statement: Statement) -> list[Row]:
        if self.away:
            raise psycopg.OperationalError
        assert statement.parameters["organization_id"] == organization_id
        self.entries.append(dict(statement.parameters) | {"details": statement.parameters["details"].obj})
        self._more.set()
        return []


def note(counted: Denials, refused: Refused, request_id: str = "r") -> None:
    counted.note(refused, request_id=request_id, address="203.0.113.7")


async def test_refusals_that_are_alike_are_one_entry() -> None:
    """With how many there were, from when to when; request and address are the first one's."""
    written = Written()
    counted = Denials(written)
    for number in range(1000):
        note(counted, WRITER, f"r{number}")
    note(counted, Refused(WRITER.organization_id, WRITER.member_id, None, permission="project:create"))
    await counted.stop()
    first, second = written.entries
    assert (first["details"]["count"], first["request_id"], first["address"]) == (1000, "r0", "203.0.113.7")
    assert first["details"]["first_at"] <= first["details"]["last_at"]
    assert (second["details"]["count"], second["key_id"]) == (1, None)


async def test_a_minute_is_written_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is written twice."""
    monkeypatch.setattr(denials, "MINUTE_SECONDS", 0.05)
    written = Written()
    counted = Denials(written)
    counted.start()
    note(counted, WRITER)
    await written.until(1)
    await asyncio.sleep(0.1)
    await counted.stop()
    assert len(written.entries) == 1


async def test_too_many_at_once_do_not_wait_for_the_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted stays bounded, whoever is refused."""
    monkeypatch.setattr(denials, "_MOST_COUNTED", 10)
    written = Written()
    counted = Denials(written)
    counted.start()
    for _ in range(25):
        note(counted, Refused(ids.new(), ids.new(), None, reason="api_key_revoked"))
        await asyncio.sleep(0)
    await written.until(20)
    await counted.stop()
    assert len(written.entries) == 25


async def test_a_database_that_is_away_stops_nothing() -> None:
    """It is logged, and the next ones are written."""
    written = Written()
    written.away = True
    counted = Denials(written)
    note(counted, WRITER)
    await counted.stop()
    written.away = False
    note(counted, WRITER)
    await counted.stop()
    assert len(written.entries) == 1
