"""Real claims of jobs on an S3 source, for handlers to run: rows, sealed keys and a server that checks them."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import making
import pytest

from headwater.access.organizations import CreatedOrganization
from headwater.connectors.s3 import SPEC
from headwater.db import Connection
from headwater.jobs import lifecycle
from headwater.jobs.outcome import Outcome
from headwater.settings import EgressSettings, JobSettings
from headwater.vault.providers import KeyFile
from headwater_cli.demo import bucket
from headwater_worker.context import JobContext
from headwater_worker.progress import Reporter

SETTINGS = JobSettings()


@dataclass
class Bench:
    """A bucket, a place in the database, and jobs to claim there."""

    connection: Connection
    working: Connection
    organization: CreatedOrganization
    project_id: UUID
    server: bucket.Server
    bucket: str
    master_key_file: Path
    reporters: list[Reporter] = field(default_factory=list)

    def put(self, *paths: str, body: bytes = b"{}") -> None:
        """Write files into the bucket."""
        for path in paths:
            self.server.put(self.bucket, path, body)

    def delete(self, *paths: str) -> None:
        """Remove files from the bucket."""
        for path in paths:
            self.server.delete(self.bucket, path)

    def source(self, *, user: str | None = "reader", **config: Any) -> UUID:
        """An S3 source of the bucket with the keys of `user`; None puts no keys."""
        named = {
            "type": "s3",
            "bucket": self.bucket,
            "region": self.server.region,
            "endpoint_url": self.server.endpoint_url,
        } | config
        source_id = making.make_source(
            self.connection, self.organization.organization_id, self.project_id, named, type_="s3"
        )
        if user is not None:
            self._seal(source_id, named, user)
        return source_id

    def claim(self, source_id: UUID, kind: str, **params: Any) -> JobContext:
        """A submitted and claimed job, as its handler gets it."""
        answer = making.submit(
            self.connection, self.organization, self.project_id, source_id, kind, types=["s3"], params=params
        )
        claim = lifecycle.claim(self.working, UUID(answer["job"]["id"]), worker="tests", settings=SETTINGS)
        assert claim is not None
        self.reporters.append(Reporter())
        return JobContext(
            claim=claim,
            connection=self.working,
            progress=self.reporters[-1],
            vault=KeyFile(self.master_key_file),
            egress=EgressSettings(egress_allow="127.0.0.0/8"),
            settings=SETTINGS,
            interrupt=lambda: None,
        )

    def record(self, context: JobContext, outcome: Outcome) -> str | None:
        """Write the outcome down; the job's status."""
        return lifecycle.record(self.working, context.claim, outcome, context.progress.snapshot(), settings=SETTINGS)

    def counters(self) -> dict[str, Any]:
        """What the last claimed job has counted."""
        return self.reporters[-1].snapshot().counters

    def files(self, source_id: UUID) -> dict[str, str]:
        """The catalogue: path and state."""
        rows = self.connection.execute("select path, state from file where data_source_id = %s", (source_id,))
        return {row["path"]: row["state"] for row in rows}

    def _seal(self, source_id: UUID, config: Mapping[str, Any], user: str) -> None:
        keys = self.server.users[user]
        making.put_credentials(
            self.connection,
            self.organization.organization_id,
            source_id,
            SPEC,
            config=config,
            secrets={name: getattr(keys, name) for name in ("access_key_id", "secret_access_key")},
        )


@pytest.fixture
def bench(
    connection: Connection, working: Connection, organization: CreatedOrganization, master_key_file: Path
) -> Iterator[Bench]:
    """A bench with an empty bucket."""
    name = f"bucket-{secrets.token_hex(4)}"
    project_id = making.make_project(connection, organization.organization_id)
    # Jobs that a test leaves running would count against the cap of the next.
    connection.execute("update job set status = 'failed' where status = 'running'")
    with bucket.serve(buckets={name: {}}) as server:
        yield Bench(connection, working, organization, project_id, server, name, master_key_file)
