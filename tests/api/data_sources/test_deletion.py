"""Deleting a data source while its jobs come and go."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx2

from headwater import db, ids
from headwater.jobs import lifecycle, statements
from headwater.jobs.outcome import Progress, Succeeded
from headwater.settings import JobSettings

ANY = {"If-Match": "*"}
RESULT = {"success": True, "message": "", "latency_ms": 1, "checks": []}


def test_a_job_that_is_submitted_meanwhile_is_refused_or_cancelled(
    client: httpx2.Client, sources: str, source: dict[str, Any], connection: db.Connection
) -> None:
    """Forty submits and a deletion at once: no job of the source is left alive."""
    path = f"{sources}/{source['id']}"

    def act(number: int) -> int:
        if number == 20:
            return client.delete(path, headers=ANY).status_code
        return client.post(f"{path}/test").status_code

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(act, range(40)))
    assert answers[20] == 204
    assert set(answers) <= {202, 204, 404}
    live = connection.execute(
        "select from job where data_source_id = %s and status <> 'cancelled'", (ids.decode("dsrc", source["id"]),)
    ).fetchall()
    assert live == []


def test_a_worker_that_ends_the_job_meanwhile_is_not_in_a_deadlock_with_the_deletion(
    client: httpx2.Client, sources: str, source: dict[str, Any], database: str
) -> None:
    """The deletion locks as workers do, job before source: it waits for whoever holds the job, and both get through."""
    path = f"{sources}/{source['id']}"
    job_id = ids.decode("job", client.post(f"{path}/test").json()["id"])
    with db.connect(database, application="worker") as worker, ThreadPoolExecutor(1) as pool:
        _wait_until_unrung(worker, job_id)
        claim = lifecycle.claim(worker, job_id, worker="w", settings=JobSettings())
        assert claim is not None
        with worker.transaction():
            worker.execute("select from job where id = %s for update", (job_id,))
            deletion = pool.submit(client.delete, path, headers=ANY)
            _wait_until_blocked(database)
            status = lifecycle.record(worker, claim, Succeeded(RESULT), Progress(phase="test"), settings=JobSettings())
        assert status == "succeeded"
        assert deletion.result(timeout=10).status_code == 204


def test_a_waiter_learns_of_the_cancellation(
    client: httpx2.Client, sources: str, source: dict[str, Any], database: str
) -> None:
    """A notice goes out after the commit."""
    path = f"{sources}/{source['id']}"
    job_id = ids.decode("job", client.post(f"{path}/test").json()["id"])
    with db.connect(database, application="listener") as listener:
        listener.execute(f"listen {statements.CHANNEL}")
        assert client.delete(path, headers=ANY).status_code == 204
        notices = [notice.payload for notice in listener.notifies(timeout=5, stop_after=1)]
    assert notices == [str(job_id)]


def _wait_until_unrung(connection: db.Connection, job_id: UUID) -> None:
    """While the API takes the ring back that nobody hears, the row is locked: a claim passes it by."""
    tick = threading.Event()
    for _ in range(1000):
        row = connection.execute("select rung_at from job where id = %s", (job_id,)).fetchone()
        if row == {"rung_at": None}:
            return
        tick.wait(0.01)
    raise AssertionError("the ring was not taken back")


def _wait_until_blocked(database: str) -> None:
    with db.connect(database, application="observer") as observer:
        tick = threading.Event()
        for _ in range(500):
            blocked = observer.execute(
                "select from pg_stat_activity where datname = current_database()"
                " and application_name = 'headwater-api' and wait_event_type = 'Lock'"
            ).fetchone()
            if blocked is not None:
                return
            tick.wait(0.01)
    raise AssertionError("the deletion did not wait for the job")
