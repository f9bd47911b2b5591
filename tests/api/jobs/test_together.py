"""Submits of one member that come at one moment: one statement, an answer for each, nobody spoils another's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import making
import psycopg
import pytest

from headwater import ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection, Row, Statement
from headwater_api.actor import Actor
from headwater_api.hot_lane import HotLane
from headwater_api.jobs.together import Submits

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Ground:
    """`sizes` are those of the sets that were sent; the answer of one of `lost` of them never arrives."""

    lane: HotLane
    organization: CreatedOrganization
    project_id: UUID
    source_id: UUID
    sizes: list[int] = field(default_factory=list)
    lost: int = 0

    async def call(self, statement: Statement) -> list[Row]:
        size = len(statement.parameters["requests"].obj)
        self.sizes.append(size)
        rows = await self.lane.call(statement)
        if size == self.lost:
            raise psycopg.OperationalError("the connection is lost")
        return rows

    def actor(self, member_id: UUID | None = None) -> Actor:
        return Actor(
            key_id=None,
            organization_id=self.organization.organization_id,
            organization_name="Acme",
            member_id=member_id or self.organization.member_id,
            name="Ada",
            email=None,
            role="admin",
            project_ids=None,
        )

    def request(self, source_id: UUID | None = None, **changes: Any) -> dict[str, Any]:
        return making.submit_request(self.organization, self.project_id, source_id or self.source_id, **changes)

    async def submit(self, requests: Sequence[dict[str, Any]]) -> list[Any]:
        """All at one moment, behind one that is alone: what each gets."""
        submits = Submits(self.call)
        asked = [submits.submit(self.actor(), request) for request in (self.request(), *requests)]
        _, *answers = await asyncio.gather(*asked, return_exceptions=True)
        return answers


@pytest.fixture
async def ground(database: str, connection: Connection, organization: CreatedOrganization) -> AsyncIterator[Ground]:
    """A source, and the lane with the API's login."""
    lane = HotLane(making.as_service(database, "api"), size=4)
    project_id = making.make_project(connection, organization.organization_id)
    source_id = making.make_source(connection, organization.organization_id, project_id)
    yield Ground(lane, organization, project_id, source_id)
    await lane.close()


def _made(connection: Connection, requests: Sequence[dict[str, Any]]) -> list[int]:
    """How many jobs, events and audit entries there are of each."""
    counts = """
        select (select count(*) from job where id = %(id)s)
            + (select count(*) from event where job_id = %(id)s)
            + (select count(*) from audit_entry where subject_id = %(id)s) as made
    """
    rows = [connection.execute(counts, {"id": request["id"]}).fetchone() for request in requests]
    return [row["made"] if row else 0 for row in rows]


async def test_submits_at_one_moment_share_a_statement(ground: Ground, connection: Connection) -> None:
    """Each gets its own job, or why there is none."""
    requests = [ground.request(), ground.request(ids.new()), ground.request(types=["s3"]), ground.request()]
    answers = await ground.submit(requests)
    assert ground.sizes == [1, 4]
    assert [answer["outcome"] for answer in answers] == ["created", "not_found", "unsupported", "created"]
    assert [answer["job"]["id"] for answer in (answers[0], answers[3])] == [requests[0]["id"], requests[3]["id"]]
    assert _made(connection, requests) == [3, 0, 0, 3]


async def test_one_that_postgres_refuses_spoils_no_other(ground: Ground, connection: Connection) -> None:
    """Its secret is sealed to a key that is gone: it alone hears so, and the others have one job each."""
    sealed = [{"field": "password", "ciphertext": "00", "suite": "suite", "key_id": str(ids.new())}]
    requests = [ground.request(), ground.request(sealed=sealed), ground.request()]
    answers = await ground.submit(requests)
    assert ground.sizes == [1, 3, 1, 1, 1]
    assert isinstance(answers[1], psycopg.errors.ForeignKeyViolation)
    assert [answer["outcome"] for answer in (answers[0], answers[2])] == ["created", "created"]
    assert _made(connection, requests) == [3, 0, 3]


async def test_a_key_that_is_sent_twice_at_one_moment_acts_once(ground: Ground, connection: Connection) -> None:
    """The second is the first one's replay, and their neighbour notices nothing."""
    keyed = {"idempotency_key": ids.new().hex, "route": "POST /tests", "fingerprint": "00"}
    requests = [ground.request(**keyed), ground.request(**keyed), ground.request()]
    answers = await ground.submit(requests)
    assert sorted(answer["outcome"] for answer in answers) == ["created", "created", "replayed"]
    assert len({answer["job"]["id"] for answer in answers}) == 2
    assert sorted(_made(connection, requests[:2])) == [0, 3]


async def test_what_may_be_committed_is_not_sent_again(ground: Ground, connection: Connection) -> None:
    """The connection breaks before the answer is there: all hear so, as each would alone."""
    ground.lost = 2
    requests = [ground.request(), ground.request()]
    answers = await ground.submit(requests)
    assert ground.sizes == [1, 2]
    assert [str(answer) for answer in answers] == ["the connection is lost"] * 2
    assert _made(connection, requests) == [3, 3]


async def test_members_wait_for_nobody_else(ground: Ground, connection: Connection) -> None:
    """While a source of one's is being deleted, another's submits go on; of the same organization, too."""
    other = ids.new()
    connection.execute(
        "insert into member (id, organization_id, name, email, role) values (%s, %s, 'Bob', %s, 'admin')",
        (other, ground.organization.organization_id, "bob@example.com"),
    )
    source_id = making.make_source(connection, ground.organization.organization_id, ground.project_id)
    submits = Submits(ground.call)
    with connection.transaction():
        connection.execute("select from data_source where id = %s for update", (source_id,))
        held = asyncio.create_task(submits.submit(ground.actor(), ground.request(source_id)))
        await asyncio.sleep(0)  # it is asked first
        free = await submits.submit(ground.actor(other), ground.request(actor_id=str(other)))
        assert not held.done()
    assert (free["outcome"], (await held)["outcome"], ground.sizes) == ("created", "created", [1, 1])
