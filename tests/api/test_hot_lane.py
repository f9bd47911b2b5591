"""The hot lane when things go wrong: what breaks is replaced, what is refused harms nobody else."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import making
import psycopg
import pytest

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection, Row, Statement
from headwater_api.hot_lane import HotLane
from headwater_api.jobs.together import Readings

pytestmark = pytest.mark.anyio

_WHO = Statement("select pg_backend_pid() as pid")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def lane(database: str) -> AsyncIterator[HotLane]:
    """One connection at a time, with the API's login."""
    made = HotLane(making.as_service(database, "api"), size=1)
    yield made
    await made.close()


async def test_a_connection_that_broke_while_nobody_used_it_is_not_used_again(
    lane: HotLane, connection: Connection
) -> None:
    """Nobody gets an error for it: the lane has noticed."""
    [before] = await lane.call(_WHO)
    end = "select pg_terminate_backend(%s, 5000)"
    await asyncio.to_thread(connection.execute, end, (before["pid"],))
    [after] = await lane.call(_WHO)
    assert after["pid"] != before["pid"]


async def test_what_postgres_refuses_leaves_the_connection_to_the_next(lane: HotLane) -> None:
    """Prepared or not, in one message or alone."""
    [before] = await lane.call(_WHO)
    refused = Statement("select 1 / %(by)s", {"by": 0})
    with pytest.raises(psycopg.errors.DivisionByZero):
        await lane.call(refused)
    with pytest.raises(psycopg.errors.DivisionByZero):
        await lane.run_in_one(_WHO, refused)
    with pytest.raises(psycopg.errors.UndefinedTable):
        await lane.call(Statement("select from nowhere"))
    assert await lane.call(_WHO) == [before]


async def test_a_call_that_is_given_up_takes_its_connection_along(lane: HotLane, connection: Connection) -> None:
    """The next one does not get its answer."""
    [before] = await lane.call(_WHO)
    given_up = asyncio.create_task(lane.call(Statement("select pg_advisory_lock(42)")))
    with db.connect(connection.info.dsn + f" password={connection.info.password}", application="tests") as holder:
        holder.execute("select pg_advisory_lock(42)")
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        [after] = await lane.call(_WHO)
    assert after["pid"] != before["pid"]


async def test_a_value_that_no_buffer_holds_arrives_whole(lane: HotLane) -> None:
    """It is written as the socket takes it."""
    size = 32 << 20
    assert await lane.call(Statement("select length(%(text)s) as size", {"text": "x" * size})) == [{"size": size}]


async def test_readings_at_one_moment_share_a_statement_and_get_their_own_row(
    lane: HotLane, connection: Connection, organization: CreatedOrganization
) -> None:
    """In two lanes that take turns. Who hangs up meanwhile takes nothing from the others."""
    ours = organization.organization_id
    project_id = making.make_project(connection, ours)
    source_id = making.make_source(connection, ours, project_id)
    jobs = [
        UUID(making.submit(connection, organization, project_id, source_id, "connection_test")["job"]["id"])
        for _ in range(5)
    ]
    asked: list[int] = []

    async def call(statement: Statement) -> list[Row]:
        asked.append(len(statement.parameters["job_ids"]))
        return await lane.call(statement)

    readings = Readings(call)
    tasks = [asyncio.create_task(readings.read(ours, job)) for job in (*jobs, ids.new())]
    await asyncio.sleep(0)
    tasks[3].cancel()
    rows = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(rows.pop(3), asyncio.CancelledError)
    assert [row["id"] if isinstance(row, dict) else row for row in rows] == [
        *(str(job) for job in (*jobs[:3], jobs[4])), None,
    ]  # fmt: skip
    assert asked == [1, 1, 2, 2]
