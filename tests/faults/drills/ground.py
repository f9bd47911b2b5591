"""What a drill stands on: an engine whose processes reach the stores without a wire between, and what it asks of it."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from engines import FINAL, Engine, Process, Stores

from headwater import db, ids
from headwater.jobs import many, statements
from headwater.settings import JobSettings

CLOCKWORK: Final = {f"HEADWATER_{name.upper()}": str(value) for name, value in JobSettings().model_dump().items()}
"""The product's own."""

_ENTRIES: Final = 200


@dataclass
class Ground:
    """`stores` are the engine's own, which a drill may end; None where it must not. `chance` draws what is random.

    `say` prints a line of progress. `restarts`, `waiters`: how many. `former`: the version beside this one, None for
    the one before the newest migration.
    """

    engine: Engine
    stores: Stores | None
    chance: random.Random
    say: Callable[[str], None]
    restarts: int = 50
    waiters: int = 2000
    former: str | None = None

    # Processes.

    def api(self) -> Process:
        """The API that runs, or a new one."""
        return next(iter(self.engine.alive("api")), None) or self.engine.api(**self._straight)

    def scheduler(self) -> Process:
        """The scheduler that runs, or a new one."""
        return next(iter(self.engine.alive("scheduler")), None) or self.engine.scheduler(**self._straight)

    def worker(self, queue: str, slots: int) -> Process:
        """One worker more."""
        return self.engine.worker(queue, slots, **self._straight)

    def workers(self, asked: Sequence[tuple[str, int]], **settings: str) -> list[Process]:
        """One for each (queue, slots), started together; they are there."""
        options = self._straight | settings
        started = [
            self.engine.start("worker", "headwater_worker", "--queue", queue, "--slots", str(slots), **options)
            for queue, slots in asked
        ]
        query = "select count(*) as n from worker where split_part(name, ':', 2) = any(%s)"
        names = [str(worker.pid) for worker in started]
        self.engine.until(lambda: self._count(query, names) == len(started))
        return started

    @property
    def _straight(self) -> dict[str, Any]:
        return {"database": self.engine.database, "redis": self.engine.redis_url}

    # Jobs.

    def long(self, source_id: UUID, kind: str, **changes: Any) -> UUID:
        """A job that its deadline does not end."""
        return self.engine.submit(source_id, kind, deadline_seconds=3600, **changes)

    def flood(self, count: int) -> None:
        """Queue so many connection tests of eight sources, with as few requests as it takes."""
        sources = [ids.encode("dsrc", self.engine.source()) for _ in range(8)]
        entries = [
            {"kind": "connection_test", "data_source_id": sources[number % len(sources)]} for number in range(count)
        ]
        for start in range(0, count, _ENTRIES):
            answer = self.engine.client.post("/jobs:batch", json={"jobs": entries[start : start + _ENTRIES]})
            assert answer.status_code == 200, answer.text

    def syncs(self, count: int) -> list[UUID]:
        """So many syncs that take ten minutes, heed a cancel within a second, and run."""
        jobs = [self.long(self.engine.source(files=600, records=1, pause_seconds=1), "sync") for _ in range(count)]
        self.running(jobs, 1)
        return jobs

    def running(self, jobs: Sequence[UUID], attempt: int, seconds: float = 90) -> None:
        """Wait until each runs, in that attempt at least."""
        query = "select count(*) as n from job where id = any(%s) and status = 'running' and attempt >= %s"
        self.engine.until(lambda: self._count(query, jobs, attempt) == len(jobs), seconds)

    def ended(self, jobs: Sequence[UUID], seconds: float = 90) -> None:
        """Wait until each has ended."""
        query = "select count(*) as n from job where id = any(%s) and status = any(%s)"
        self.engine.until(lambda: self._count(query, jobs, list(FINAL)) == len(jobs), seconds)

    def succeeded(self, count: int, seconds: float = 120) -> None:
        """Wait until so many jobs have."""
        query = "select count(*) >= %s as enough from job where status = 'succeeded'"
        self.engine.until(lambda: (self.engine.one(query, count) or {})["enough"], seconds)

    def cancel(self, jobs: Sequence[UUID]) -> float:
        """Cancel each as the API does, in one transaction, and say so behind it; when it was committed (monotonic)."""
        organization = self.engine.organization
        db.run(
            self.engine.connection,
            many.cancel(
                organization_id=organization.organization_id, job_ids=jobs, actor_id=organization.member_id,
                key_id=None, reason=None, request_id="test", address=None,
            ),
        )  # fmt: skip
        committed = time.monotonic()
        db.run(self.engine.connection, statements.notify_all(jobs))
        return committed

    def started(self, jobs: Sequence[UUID], attempt: int) -> dict[UUID, datetime]:
        """When that attempt of each began."""
        rows = self.engine.connection.execute(
            "select job_id, started_at from job_attempt where job_id = any(%s) and attempt = %s", (list(jobs), attempt)
        )
        return {row["job_id"]: row["started_at"] for row in rows}

    def finished(self, jobs: Sequence[UUID]) -> dict[UUID, datetime]:
        """When each ended."""
        rows = self.engine.connection.execute("select id, finished_at from job where id = any(%s)", (list(jobs),))
        return {row["id"]: row["finished_at"] for row in rows}

    def told(self, jobs: Sequence[UUID], act: str) -> dict[UUID, datetime]:
        """When the first event of that kind of each came."""
        rows = self.engine.connection.execute(
            "select job_id, min(created_at) as at from event where job_id = any(%s) and act = %s group by job_id",
            (list(jobs), act),
        )
        return {row["job_id"]: row["at"] for row in rows}

    def now(self) -> datetime:
        """The database's clock."""
        row = self.engine.one("select clock_timestamp() as now")
        assert row is not None
        now: datetime = row["now"]
        return now

    def _count(self, query: str, named: Sequence[Any], *parameters: Any) -> int:
        row = self.engine.one(query, list(named), *parameters)
        assert row is not None
        return int(row["n"])


def between(began: dict[UUID, datetime], ended: dict[UUID, datetime]) -> list[float]:
    """Seconds for each job that is in both."""
    return [(ended[job] - began[job]).total_seconds() for job in began if job in ended]
