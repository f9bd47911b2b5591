"""Jobs that live and end as workers make them, and what the scheduler says of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import making
import pytest

from headwater import db
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.jobs import lifecycle
from headwater.jobs.lifecycle import Claim
from headwater.jobs.outcome import Outcome, Progress, Succeeded
from headwater.settings import JobSettings

SETTINGS = JobSettings(retry_base_seconds=0)
DONE = Succeeded({"success": True, "message": "fine"})

Tallies = dict[tuple[str, ...], float]


@dataclass(frozen=True)
class Bench:
    """Jobs of one source in an empty queue; `connection` is the superuser's."""

    connection: Connection
    organization: CreatedOrganization
    project_id: UUID
    source_id: UUID

    def submit(self, kind: str = "connection_test", **changes: Any) -> UUID:
        """A queued job."""
        source_id = changes.pop("source_id", self.source_id)
        answer = making.submit(self.connection, self.organization, self.project_id, source_id, kind, **changes)
        return UUID(answer["job"]["id"])

    def claim(self, job_id: UUID) -> Claim:
        """Run it."""
        claim = lifecycle.claim(self.connection, job_id, worker="tests", settings=SETTINGS)
        assert claim is not None
        return claim

    def end(self, claim: Claim, outcome: Outcome = DONE, **counters: int) -> None:
        """End its attempt."""
        lifecycle.record(self.connection, claim, outcome, Progress("done", counters=counters), settings=SETTINGS)

    def run(self, kind: str = "connection_test", outcome: Outcome = DONE, **counters: int) -> UUID:
        """A job from its submit to its end."""
        job_id = self.submit(kind)
        self.end(self.claim(job_id), outcome, **counters)
        return job_id

    def ended(self, number: int) -> None:
        """Insert so many jobs that failed without an attempt."""
        self.connection.execute(
            """
            insert into job (id, organization_id, project_id, data_source_id, kind, queue, max_attempts,
                             deadline_seconds, status, finished_at)
            select uuid_v7(), %s, %s, %s, 'connection_test', 'interactive', 1, 60, 'failed', now()
            from generate_series(1, %s)
            """,
            (self.organization.organization_id, self.project_id, self.source_id, number),
        )

    def tallies(self) -> Tallies:
        """{(name, values of its labels by the labels' names)}: the tallies now, without those of histograms."""
        rows = self.connection.execute("select name, labels, value from tally where name not like '%%seconds%%'")
        return {(row["name"], *(row["labels"][name] for name in sorted(row["labels"]))): row["value"] for row in rows}

    def histogram(self, name: str, kind: str) -> dict[str, float]:
        """{bound: count} of the stored buckets."""
        rows = self.connection.execute(
            "select labels ->> 'le' as le, value from tally where name = %s and labels ->> 'kind' = %s",
            (f"{name}_bucket", kind),
        )
        return {row["le"]: row["value"] for row in rows}

    def gauges(self) -> dict[tuple[str, ...], float]:
        """{(name, the value of its label if any)}: the gauges as they were last measured."""
        row = self.connection.execute("select gauges from measurement").fetchone()
        assert row is not None
        return {(gauge["name"], *gauge["labels"].values()): gauge["value"] for gauge in row["gauges"]}


@pytest.fixture
def bench(connection: Connection, organization: CreatedOrganization) -> Bench:
    """No job, no tally, nothing measured."""
    connection.execute("delete from job")
    connection.execute("delete from tally")
    connection.execute("update measurement set measured_at = null, gauges = '[]'")
    project_id = making.make_project(connection, organization.organization_id)
    source_id = making.make_source(connection, organization.organization_id, project_id)
    return Bench(connection, organization, project_id, source_id)


@pytest.fixture
def another_scheduler(database: str) -> Iterator[Callable[[], Connection]]:
    """Makes connections of further schedulers."""
    made: list[Connection] = []

    def make() -> Connection:
        made.append(db.connect(making.as_service(database, "scheduler"), application="tests"))
        return made[-1]

    yield make
    for connection in made:
        connection.close()
