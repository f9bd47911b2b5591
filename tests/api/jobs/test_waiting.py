"""Waiting for jobs, over HTTP and on the hub alone."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import httpx2
import psycopg
import pytest
from psycopg.rows import dict_row

from headwater.db import Connection, Row, Statement
from headwater.jobs import statements
from headwater.jobs.outcome import Progress
from headwater.settings import JobSettings
from headwater_api.jobs import waiting
from headwater_api.jobs.rendering import JobView
from headwater_api.jobs.waiting import Hub

T = TypeVar("T")

# From the commit to the answer: a notice takes milliseconds, a lost one a tick of 1 s. The rest is a busy machine's.
PROMPT_SECONDS = 0.9
TICK_SECONDS = 2.0


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Clients that wait."""
    with ThreadPoolExecutor(60) as pool:
        yield pool


def _until_waiting() -> None:
    """A request that was sent before waits by now: nothing better can be seen from outside."""
    time.sleep(0.3)


def _get(client: httpx2.Client, job: dict[str, Any], **options: Any) -> tuple[httpx2.Response, float]:
    answer = client.get(f"jobs/{job['id']}", **options)
    return answer, time.perf_counter()


class TestRules:
    """What `?wait=` and `If-None-Match` promise."""

    def test_without_etag_it_answers_when_the_job_ends(
        self, client: httpx2.Client, submitted: dict[str, Any], worker: Any, threads: ThreadPoolExecutor
    ) -> None:
        """Not when it starts: within a second of the end."""
        waiter: Future[tuple[httpx2.Response, float]] = threads.submit(_get, client, submitted, params={"wait": 25})
        _until_waiting()
        claim = worker.claim(submitted)
        worker.connection.execute("select pg_notify(%s, %s)", (statements.CHANNEL, str(claim.job_id)))
        time.sleep(0.3)
        assert not waiter.done()
        ended_at = time.perf_counter()
        worker.end(claim)
        answer, answered_at = waiter.result(timeout=10)
        assert answer.json()["status"] == "succeeded"
        assert "Retry-After" not in answer.headers
        assert answered_at - ended_at < PROMPT_SECONDS

    def test_with_etag_it_answers_on_a_change_of_state(
        self, client: httpx2.Client, submitted: dict[str, Any], worker: Any, threads: ThreadPoolExecutor
    ) -> None:
        """The start is a change."""
        etag = client.get(f"jobs/{submitted['id']}").headers["ETag"]
        waiter = threads.submit(_get, client, submitted, params={"wait": 25}, headers={"If-None-Match": etag})
        _until_waiting()
        worker.claim(submitted)
        worker.connection.execute("select pg_notify(%s, %s)", (statements.CHANNEL, str(worker.id_of(submitted))))
        answer, _ = waiter.result(timeout=10)
        assert (answer.status_code, answer.json()["status"]) == (200, "running")
        assert answer.headers["ETag"] != etag

    def test_with_etag_and_no_change_it_is_304(self, client: httpx2.Client, submitted: dict[str, Any]) -> None:
        """When the time is over."""
        etag = client.get(f"jobs/{submitted['id']}").headers["ETag"]
        answer = client.get(f"jobs/{submitted['id']}", params={"wait": 0.3}, headers={"If-None-Match": etag})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)

    def test_with_a_stale_etag_it_answers_at_once(
        self, client: httpx2.Client, submitted: dict[str, Any], worker: Any
    ) -> None:
        """What changed before the request need not be waited for."""
        etag = client.get(f"jobs/{submitted['id']}").headers["ETag"]
        worker.claim(submitted)
        began = time.perf_counter()
        answer = client.get(f"jobs/{submitted['id']}", params={"wait": 25}, headers={"If-None-Match": etag})
        assert answer.json()["status"] == "running"
        assert time.perf_counter() - began < 5

    def test_progress_alone_wakes_nobody(
        self, client: httpx2.Client, submitted: dict[str, Any], worker: Any, threads: ThreadPoolExecutor
    ) -> None:
        """The ETag covers state, attempt and cancel; a poll with it stays 304 while the job moves."""
        claim = worker.claim(submitted)
        etag = client.get(f"jobs/{submitted['id']}").headers["ETag"]
        waiter = threads.submit(_get, client, submitted, params={"wait": 1.6}, headers={"If-None-Match": etag})
        worker.report(claim, _at(50))
        assert waiter.result(timeout=10)[0].status_code == 304

    def test_a_wait_that_is_over_answers_with_the_job_of_now(
        self, client: httpx2.Client, submitted: dict[str, Any]
    ) -> None:
        """200 and the queued job."""
        answer = client.get(f"jobs/{submitted['id']}", params={"wait": 0.2})
        assert (answer.status_code, answer.json()["status"]) == (200, "queued")
        assert int(answer.headers["Retry-After"]) >= 1

    def test_an_ended_job_is_not_waited_for(
        self, client: httpx2.Client, submitted: dict[str, Any], worker: Any
    ) -> None:
        """It answers at once; with its ETag 304 at once."""
        worker.end(worker.claim(submitted))
        began = time.perf_counter()
        answer = client.get(f"jobs/{submitted['id']}", params={"wait": 25})
        etag = answer.headers["ETag"]
        unchanged = client.get(f"jobs/{submitted['id']}", params={"wait": 25}, headers={"If-None-Match": etag})
        assert (answer.status_code, unchanged.status_code) == (200, 304)
        assert time.perf_counter() - began < 5

    def test_a_cancel_wakes(
        self, client: httpx2.Client, submitted: dict[str, Any], threads: ThreadPoolExecutor
    ) -> None:
        """Through the API's own notice."""
        waiter = threads.submit(_get, client, submitted, params={"wait": 25})
        _until_waiting()
        began = time.perf_counter()
        client.post(f"jobs/{submitted['id']}/cancel")
        answer, answered_at = waiter.result(timeout=10)
        assert answer.json()["status"] == "cancelled"
        assert answered_at - began < PROMPT_SECONDS

    @pytest.mark.parametrize("wait", ["31", "-1", "nan", "inf", "soon"])
    def test_a_wait_is_at_most_30_seconds(self, client: httpx2.Client, submitted: dict[str, Any], wait: str) -> None:
        """400 that names it."""
        answer = client.get(f"jobs/{submitted['id']}", params={"wait": wait})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "wait")

    def test_a_submit_can_be_waited_for(
        self, client: httpx2.Client, source: Any, worker: Any, threads: ThreadPoolExecutor
    ) -> None:
        """`Prefer: wait=N` answers 200 with the ended job."""
        waiter = threads.submit(client.post, f"{source.path}/test", headers={"Prefer": "respond-async, wait=20"})
        deadline = time.monotonic() + 10
        while not (jobs := client.get("jobs", params={"data_source_id": source.id}).json()["data"]):
            assert time.monotonic() < deadline
        worker.end(worker.claim(jobs[0]))
        answer = waiter.result(timeout=10)
        assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
        assert answer.headers["Preference-Applied"] == "wait=20"

    def test_a_submit_that_does_not_end_in_time_is_202(self, client: httpx2.Client, source: Any) -> None:
        """The job goes on."""
        answer = client.post(f"{source.path}/test", headers={"Prefer": "wait=1"})
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")


class TestNotices:
    """What wakes a waiter, and what does when that is lost."""

    def test_a_lost_notice_costs_a_second(
        self,
        client: httpx2.Client,
        submitted: dict[str, Any],
        worker: Any,
        threads: ThreadPoolExecutor,
        connection: Connection,
    ) -> None:
        """A commit that tells nobody is found by the tick."""
        waiter = threads.submit(_get, client, submitted, params={"wait": 25})
        _until_waiting()
        ended_at = time.perf_counter()
        connection.execute(
            "update job set status = 'failed', finished_at = now() where id = %s", (worker.id_of(submitted),)
        )
        answer, answered_at = waiter.result(timeout=10)
        assert answer.json()["status"] == "failed"
        assert answered_at - ended_at < TICK_SECONDS

    def test_a_listener_that_was_cut_comes_back(
        self,
        client: httpx2.Client,
        submitted: dict[str, Any],
        worker: Any,
        threads: ThreadPoolExecutor,
        connection: Connection,
    ) -> None:
        """Its connection is killed; a wait goes on, and the listener listens again."""
        waiter = threads.submit(_get, client, submitted, params={"wait": 25})
        _until_waiting()
        cut = _listener(connection)
        connection.execute("select pg_terminate_backend(%s)", (cut,))
        worker.end(worker.claim(submitted))
        assert waiter.result(timeout=10)[0].json()["status"] == "succeeded"
        deadline = time.monotonic() + 10
        while _listener(connection) in (None, cut):
            assert time.monotonic() < deadline, "the listener did not come back"
            time.sleep(0.1)

    def test_a_waiter_holds_no_connection(
        self, client: httpx2.Client, source: Any, worker: Any, threads: ThreadPoolExecutor
    ) -> None:
        """Fifty waiters on a pool of eight leave room for everybody else, and one commit wakes them all."""
        job = client.post(f"{source.path}/test").json()
        waiters = [threads.submit(_get, client, job, params={"wait": 25}) for _ in range(50)]
        _until_waiting()
        began = time.perf_counter()
        assert client.get("projects").status_code == 200
        assert time.perf_counter() - began < PROMPT_SECONDS
        worker.end(worker.claim(job))
        answers = [future.result(timeout=10)[0] for future in waiters]
        assert {answer.json()["status"] for answer in answers} == {"succeeded"}


class TestHub:
    """The hub by itself."""

    def test_a_change_before_the_registration_is_not_lost(
        self, database: str, submitted: dict[str, Any], worker: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The view is old when the wait begins: the hub reads once more behind the registration, without a tick."""
        monkeypatch.setattr(waiting, "_TICK_SECONDS", 3600)

        async def scenario(hub: Hub, read: Callable[[], Awaitable[JobView]]) -> JobView | None:
            view = await read()
            await asyncio.to_thread(_until_two_listen, worker.connection)
            await asyncio.to_thread(lambda: worker.end(worker.claim(submitted)))
            return await hub.wait(view, until=lambda view: view.final, seconds=10)

        newer = _on_a_hub(database, worker, submitted, scenario)
        assert newer is not None
        assert newer.final

    def test_a_notice_wakes_by_itself(
        self, database: str, submitted: dict[str, Any], worker: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With no tick for an hour, the notice of the end does it."""
        monkeypatch.setattr(waiting, "_TICK_SECONDS", 3600)

        async def scenario(hub: Hub, read: Callable[[], Awaitable[JobView]]) -> JobView | None:
            view = await read()
            wait = asyncio.create_task(hub.wait(view, until=lambda view: view.final, seconds=10))
            await asyncio.to_thread(_until_two_listen, worker.connection)
            # The look behind the registration is over.
            await asyncio.sleep(0.5)
            await asyncio.to_thread(lambda: worker.end(worker.claim(submitted)))
            return await wait

        assert _on_a_hub(database, worker, submitted, scenario) is not None

    def test_two_thousand_waiters_share_a_read(self, database: str, submitted: dict[str, Any], worker: Any) -> None:
        """All get the very same view."""

        async def scenario(hub: Hub, read: Callable[[], Awaitable[JobView]]) -> set[int]:
            view = await read()
            waits = [
                asyncio.create_task(hub.wait(view, until=lambda view: view.final, seconds=20)) for _ in range(2000)
            ]
            await asyncio.sleep(0.1)
            await asyncio.to_thread(lambda: worker.end(worker.claim(submitted)))
            return {id(view) for view in await asyncio.gather(*waits)}

        assert len(_on_a_hub(database, worker, submitted, scenario)) == 1

    def test_nothing_is_kept_of_those_who_left(self, database: str, submitted: dict[str, Any], worker: Any) -> None:
        """Waits that ran out or were cut leave no trace."""

        async def scenario(hub: Hub, read: Callable[[], Awaitable[JobView]]) -> tuple[int, int]:
            view = await read()
            assert await hub.wait(view, until=lambda view: view.final, seconds=0.05) is None
            cut = asyncio.create_task(hub.wait(view, until=lambda view: view.final, seconds=10))
            await asyncio.sleep(0.05)
            cut.cancel()
            await asyncio.gather(cut, return_exceptions=True)
            return hub._count, len(hub._groups)

        assert _on_a_hub(database, worker, submitted, scenario) == (0, 0)

    def test_a_job_that_is_gone_ends_the_wait(self, database: str, submitted: dict[str, Any], worker: Any) -> None:
        """Pruned while somebody waits: the wait is over at once."""

        async def scenario(hub: Hub, read: Callable[[], Awaitable[JobView]]) -> tuple[JobView | None, float]:
            view = await read()
            began = time.perf_counter()
            wait = asyncio.create_task(hub.wait(view, until=lambda view: view.final, seconds=10))
            await asyncio.sleep(0.1)
            worker.connection.execute("delete from job where id = %s", (view.id,))
            return await wait, time.perf_counter() - began

        newer, took = _on_a_hub(database, worker, submitted, scenario)
        assert newer is None
        assert took < TICK_SECONDS


def _at(percent: int) -> Progress:
    return Progress("reading", current=percent, total=100, unit="files", percent=percent)


def _listener(connection: Connection) -> int | None:
    row = connection.execute(
        "select pid from pg_stat_activity where application_name = 'headwater-api-listener'"
        " and datname = current_database()"
    ).fetchone()
    return row and row["pid"]


def _until_two_listen(connection: Connection) -> None:
    """That of the API, and that of a hub of the test's own."""
    query = (
        "select count(*) as n from pg_stat_activity where application_name = 'headwater-api-listener'"
        " and datname = current_database() and state = 'idle' and query like 'listen %%'"
    )
    deadline = time.monotonic() + 10
    while (row := connection.execute(query).fetchone()) != {"n": 2}:
        assert time.monotonic() < deadline, row
        time.sleep(0.02)


def _on_a_hub(
    database: str,
    worker: Any,
    job: dict[str, Any],
    scenario: Callable[[Hub, Callable[[], Awaitable[JobView]]], Awaitable[T]],
) -> T:
    """Run `scenario` with a hub of its own and a way to read the job."""

    async def run() -> T:
        async with await psycopg.AsyncConnection.connect(
            database, autocommit=True, row_factory=dict_row, options="-c TimeZone=UTC"
        ) as connection:

            async def fetch_all(statement: Statement) -> list[Row]:
                return await (await connection.execute(statement.text, statement.parameters)).fetchall()

            async def read() -> JobView:
                row = await (
                    await connection.execute(
                        "select to_jsonb(v) as job from job_view v where id = %s", (worker.id_of(job),)
                    )
                ).fetchone()
                assert row is not None
                return JobView(row["job"], JobSettings())

            hub = Hub(database, fetch_all, JobSettings())
            hub.start()
            try:
                return await scenario(hub, read)
            finally:
                await hub.stop()

    return asyncio.run(run())
