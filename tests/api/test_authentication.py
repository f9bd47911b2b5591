"""Looking up a key when many requests want to know it at the same moment."""

import asyncio
from pathlib import Path
from typing import Any

import making
import psycopg
import pytest
from psycopg.rows import dict_row

from headwater import db
from headwater.access import api_keys
from headwater.access.organizations import CreatedOrganization
from headwater.db import Row, Statement
from headwater_api.admission import Strangers
from headwater_api.authentication import Authenticator
from headwater_api.denials import Denials

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Lane:
    """Runs calls with the API's login, each when `open` is set; `asked` counts them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.asked = 0
        self.open = asyncio.Event()

    async def __call__(self, statement: Statement) -> list[Row]:
        if "api_key_read" in statement.text:
            self.asked += 1
        await self.open.wait()
        async with await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, row_factory=dict_row, **db.CONNECT
        ) as connection:
            return await (await connection.execute(statement.text, statement.parameters)).fetchall()


@pytest.fixture
def lane(database: str) -> Lane:
    """To this module's database."""
    return Lane(making.as_service(database, "api"))


@pytest.fixture
def authenticator(lane: Lane, pepper_file: Path) -> Authenticator:
    """It remembers nobody yet, and keeps no refusals."""

    async def write(*_: Any) -> list[Row]:
        return []

    return Authenticator(lane, api_keys.read_pepper(pepper_file), Denials(write), Strangers(), None)


async def ask(authenticator: Authenticator, key: str) -> Any:
    """Who sends this key."""
    return await authenticator.actor(f"Bearer {key}", request_id="r", address="203.0.113.7")


async def test_a_key_is_looked_up_once_for_all_who_come_together(
    authenticator: Authenticator, lane: Lane, organization: CreatedOrganization
) -> None:
    """A hundred of them, of whom the first hangs up; the next moment it is remembered."""
    requests = [asyncio.create_task(ask(authenticator, organization.api_key)) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    requests[0].cancel()
    lane.open.set()
    first, *others = await asyncio.gather(*requests, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert {actor.organization_id for actor in others} == {organization.organization_id}
    assert (await ask(authenticator, organization.api_key)).organization_id == organization.organization_id
    assert lane.asked == 1


async def test_another_secret_is_another_look_up(
    authenticator: Authenticator, lane: Lane, organization: CreatedOrganization
) -> None:
    """Whoever guesses gets nothing of what the owner is told at that moment."""
    body = organization.api_key.rpartition("_")[0][:-2] + "22"
    forged = f"{body}_{api_keys._checksum(body)}"
    assert forged != organization.api_key
    requests = [asyncio.create_task(ask(authenticator, key)) for key in (organization.api_key, forged)]
    lane.open.set()
    good, bad = await asyncio.gather(*requests, return_exceptions=True)
    assert good.organization_id == organization.organization_id
    assert getattr(bad, "code", None) == "api_key_unknown"
