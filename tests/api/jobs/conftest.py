"""Jobs to ask for: a data source to start them on, and a worker that runs them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2
import pytest

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.jobs import lifecycle
from headwater.jobs.lifecycle import Claim
from headwater.jobs.outcome import Outcome, Progress, Succeeded
from headwater.settings import JobSettings

CONFIG = {"type": "s3", "bucket": "bucket", "region": "eu-central-1", "prefix": ""}


@dataclass(frozen=True)
class Source:
    """A data source on the wire. `path` is its route."""

    id: str
    project_id: str

    @property
    def path(self) -> str:
        return f"projects/{self.project_id}/data-sources/{self.id}"


MakeSource = Callable[..., Source]


@pytest.fixture
def make_source(connection: Connection, organization: CreatedOrganization, project: dict[str, Any]) -> MakeSource:
    """Makes a data source; the caller may name columns of its row."""

    def make(**columns: Any) -> Source:
        source_id, project_id = ids.new(), ids.decode("proj", project["id"])
        row = {"type": "s3", "name": source_id.hex, "is_active": True} | columns
        connection.execute(
            "insert into data_source (id, organization_id, project_id, name, type, is_active)"
            " values (%s, %s, %s, %s, %s, %s)",
            (source_id, organization.organization_id, project_id, row["name"], row["type"], row["is_active"]),
        )
        connection.execute(
            "insert into data_source_version (data_source_id, version, organization_id, config, validation, reading)"
            " values (%s, 1, %s, %s, '{}', '{}')",
            (source_id, organization.organization_id, db.json(CONFIG)),
        )
        connection.execute(
            "insert into data_source_totals (data_source_id, organization_id) values (%s, %s)",
            (source_id, organization.organization_id),
        )
        return Source(ids.encode("dsrc", source_id), project["id"])

    return make


@pytest.fixture
def source(make_source: MakeSource) -> Source:
    """A data source."""
    return make_source()


@dataclass(frozen=True)
class Worker:
    """Runs jobs by hand, through the lifecycle that the real worker uses."""

    connection: Connection
    settings: JobSettings

    def claim(self, job: dict[str, Any]) -> Claim:
        """Start the job. While the API takes its ring back the row is locked, and a claim passes it by: ask again."""
        deadline = time.monotonic() + 10
        while True:
            claim = lifecycle.claim(self.connection, self.id_of(job), worker="tests", settings=self.settings)
            if claim is not None:
                return claim
            assert time.monotonic() < deadline, "the job cannot be claimed"

    def report(self, claim: Claim, progress: Progress) -> None:
        """Say how far it is."""
        lifecycle.report(self.connection, claim, progress)

    def end(self, claim: Claim, outcome: Outcome | None = None) -> None:
        """Record how it ended."""
        ended = outcome or Succeeded({"success": True, "message": "fine", "latency_ms": 1, "checks": []})
        lifecycle.record(self.connection, claim, ended, Progress("done"), settings=self.settings)

    @staticmethod
    def id_of(job: dict[str, Any]) -> UUID:
        return ids.decode("job", job["id"])


@pytest.fixture
def worker(connection: Connection) -> Worker:
    """A worker. Its caps never stand in the way of a test."""
    return Worker(connection, JobSettings(running_per_organization=10_000))


@pytest.fixture
def submitted(client: httpx2.Client, source: Source) -> dict[str, Any]:
    """A connection test that waits for a worker."""
    return accepted(client.post(f"{source.path}/test"))


def accepted(answer: httpx2.Response) -> dict[str, Any]:
    """The job of a 202."""
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job
