"""Watching a job by server-sent events."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2
import psycopg
import pytest
from psycopg.rows import dict_row

from headwater.db import Connection, Row, Statement
from headwater.jobs.outcome import Progress
from headwater.settings import JobSettings
from headwater_api.jobs import streaming
from headwater_api.jobs.rendering import JobView


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    id: int | None
    name: str
    data: dict[str, Any]


def _events(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"]))
            fields = {}


def _all(client: httpx2.Client, job: dict[str, Any], *, after: int | None = None) -> list[Event]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with client.stream("GET", f"jobs/{job['id']}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        return list(_events(answer.iter_lines()))


def test_a_stream_tells_all_and_ends_with_the_job(
    client: httpx2.Client, submitted: dict[str, Any], worker: Any
) -> None:
    """A watcher from the start sees submit, start, progress and end, as they happen; the last event is the job."""
    with client.stream("GET", f"jobs/{submitted['id']}/events") as answer:
        events = _events(answer.iter_lines())
        assert next(events).name == "job.submitted"
        claim = worker.claim(submitted)
        assert next(events).name == "job.started"
        worker.report(claim, Progress("reading", current=3, total=10, percent=30, counters={"listed": 3}))
        progress = next(events)
        assert (progress.id, progress.name) == (None, "progress")
        assert (progress.data["progress"]["percent"], progress.data["counters"]) == (30, {"listed": 3})
        worker.end(claim)
        *between, last = list(events)
    assert {event.name for event in between} <= {"progress"}
    assert last.name == "job.succeeded"
    assert last.data["job"]["status"] == "succeeded"
    assert last.data["job"]["id"] == submitted["id"]


def test_a_resumed_stream_has_no_gap_and_no_double(
    client: httpx2.Client, submitted: dict[str, Any], worker: Any
) -> None:
    """Cut behind each event in turn: what was seen and what comes then are all the events, once."""
    worker.end(worker.claim(submitted))
    whole = _all(client, submitted)
    assert [event.name for event in whole] == ["job.submitted", "job.started", "job.succeeded"]
    for seen, event in enumerate(whole[:-1], start=1):
        assert whole[:seen] + _all(client, submitted, after=event.id) == whole


def test_a_live_stream_resumes_behind_the_last_event(
    client: httpx2.Client, submitted: dict[str, Any], worker: Any
) -> None:
    """Cut while the job runs, and ended while nobody watched."""
    claim = worker.claim(submitted)
    seen: list[Event] = []
    with client.stream("GET", f"jobs/{submitted['id']}/events") as answer:
        events = _events(answer.iter_lines())
        seen += [next(events), next(events)]
    worker.end(claim)
    rest = _all(client, submitted, after=seen[-1].id)
    assert [event.name for event in seen + rest] == ["job.submitted", "job.started", "job.succeeded"]


def test_every_watcher_sees_the_same(client: httpx2.Client, submitted: dict[str, Any], worker: Any) -> None:
    """Twenty at once, all numbered events, in order, once."""
    with ThreadPoolExecutor(20) as pool:
        watching = [pool.submit(_all, client, submitted) for _ in range(20)]
        worker.end(worker.claim(submitted))
        numbered = [
            [(event.id, event.name) for event in future.result(timeout=20) if event.id is not None]
            for future in watching
        ]
    assert {tuple(name for _, name in events) for events in numbered} == {
        ("job.submitted", "job.started", "job.succeeded")
    }
    assert len({tuple(events) for events in numbered}) == 1


def test_an_end_that_came_since_is_held_back(
    database: str, client: httpx2.Client, submitted: dict[str, Any], worker: Any
) -> None:
    """Events are read behind the view: one that ends the job is only told with a view that can carry the end."""

    async def scenario() -> tuple[bytes, bytes]:
        async with await psycopg.AsyncConnection.connect(
            database, autocommit=True, row_factory=dict_row, options="-c TimeZone=UTC"
        ) as connection:

            async def fetch_all(statement: Statement) -> list[Row]:
                return await (await connection.execute(statement.text, statement.parameters)).fetchall()

            async def read() -> JobView:
                rows = await fetch_all(
                    Statement(
                        "select to_jsonb(v) as job from job_view v where id = %(id)s", {"id": worker.id_of(submitted)}
                    )
                )
                return JobView(rows[0]["job"], JobSettings())

            cursor = streaming.Cursor(0)
            old = await read()
            worker.end(worker.claim(submitted))
            return await streaming.behind(fetch_all, old, cursor), await streaming.behind(
                fetch_all, await read(), cursor
            )

    before, after = asyncio.run(scenario())
    assert b"event: job.started" in before
    assert b"job.succeeded" not in before
    assert [event.name for event in _events(iter(after.decode().split("\n")))] == ["job.succeeded"]


def test_nothing_behind_the_last_event_tells_the_client_to_stay_away(
    client: httpx2.Client, submitted: dict[str, Any], worker: Any
) -> None:
    """204, on which a browser's EventSource stops reconnecting."""
    worker.end(worker.claim(submitted))
    last = _all(client, submitted)[-1].id
    answer = client.get(f"jobs/{submitted['id']}/events", headers={"Last-Event-ID": str(last)})
    assert (answer.status_code, answer.content) == (204, b"")


def test_more_events_than_a_read_holds_all_come(
    client: httpx2.Client, submitted: dict[str, Any], worker: Any, connection: Connection
) -> None:
    """450 of them, in the order of their numbers."""
    claim = worker.claim(submitted)
    connection.execute(
        "insert into event (organization_id, job_id, act, details)"
        " select %s, %s, 'job.noted', jsonb_build_object('n', n) from generate_series(1, 450) n",
        (claim.organization_id, claim.job_id),
    )
    worker.end(claim)
    events = _all(client, submitted)
    assert [event.data["n"] for event in events if event.name == "job.noted"] == list(range(1, 451))
    assert events[-1].name == "job.succeeded"


@pytest.mark.parametrize("given", ["abc", "-1", "1.5", "99999999999999999999", "\u0661".encode()])
def test_a_made_up_event_id_is_refused(client: httpx2.Client, submitted: dict[str, Any], given: Any) -> None:
    """400, not a stream from somewhere."""
    answer = client.get(f"jobs/{submitted['id']}/events", headers={"Last-Event-ID": given})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "Last-Event-ID")


def test_other_peoples_jobs_cannot_be_watched(other_client: httpx2.Client, submitted: dict[str, Any]) -> None:
    """404, as everywhere."""
    assert other_client.get(f"jobs/{submitted['id']}/events").status_code == 404
