"""Whole syncs of files in memory: submitted, claimed, run by the handler, recorded."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import making
import pytest
from shelf_source import SHELVES, Shelf

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.catalogue import reading
from headwater.db import Connection, Row
from headwater.errors import HeadwaterError
from headwater.jobs import lifecycle
from headwater.jobs.outcome import Failed, Outcome, failed
from headwater.settings import EgressSettings, JobSettings
from headwater.vault.providers import KeyFile
from headwater_worker.context import JobContext
from headwater_worker.handlers import sync
from headwater_worker.progress import Reporter
from headwater_worker.sync import readers
from headwater_worker.sync.judging import Judged
from headwater_worker.sync.landing import Landing
from headwater_worker.sync.loading import Loading

SETTINGS = JobSettings(retry_base_seconds=0)


def readers_now() -> Iterator[int]:
    """The pids of this process's readers."""
    with suppress(OSError):
        nursery = readers.nursery().pid
        yield from map(int, Path(f"/proc/{nursery}/task/{nursery}/children").read_text().split())


def spoil(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on Postgres gets U+0000 where a record holds the escape of U+0001: what no check of ours has seen."""
    add = Landing.add

    def spoilt(self: Landing, loading: Loading, judged: Judged) -> None:
        add(self, loading, replace(judged, rows=judged.rows.replace(b"u0001", b"u0000")))

    monkeypatch.setattr(Landing, "add", spoilt)


@dataclass
class Ended:
    """A sync that is over."""

    job_id: UUID
    status: str | None
    outcome: Outcome
    counters: dict[str, Any]
    warnings: list[str]
    error_summary: list[dict[str, Any]]

    @property
    def code(self) -> str | None:
        """Why it failed."""
        return self.outcome.failure.code if isinstance(self.outcome, Failed) else None


@dataclass
class Source:
    """A data source of type `shelf` and the shelf behind it. Its jobs run on `working`."""

    database: str
    connection: Connection
    working: Connection
    organization: CreatedOrganization
    project_id: UUID
    master_key_file: Path
    id: UUID = field(default_factory=ids.new)
    shelf: Shelf = field(default_factory=Shelf)
    version: int = 0

    def configure(self, *, validation: dict[str, Any] | None = None, **reading_options: Any) -> None:
        """A new version of the source."""
        self.version += 1
        self.connection.execute(
            """
            insert into data_source_version (data_source_id, version, organization_id, config, validation, reading)
            values (%s, %s, %s, %s, %s, %s)
            """,
            (
                self.id,
                self.version,
                self.organization.organization_id,
                db.json({"type": "shelf", "shelf": self.id.hex}),
                db.json(validation or {}),
                db.json(reading_options),
            ),
        )
        self.connection.execute("update data_source set version = %s where id = %s", (self.version, self.id))

    def submit(self, **params: Any) -> UUID:
        """A queued sync."""
        answer = making.submit(
            self.connection, self.organization, self.project_id, self.id, "sync", types=["shelf"], params=params
        )
        return UUID(answer["job"]["id"])

    def claim(self, job_id: UUID, interrupt: Callable[[], None] = lambda: None) -> JobContext:
        """The next attempt at a queued job."""
        self.connection.execute("update job set run_at = now() where id = %s and status = 'queued'", (job_id,))
        claim = lifecycle.claim(self.working, job_id, worker="tests", settings=SETTINGS)
        assert claim is not None
        return JobContext(
            claim=claim,
            connection=self.working,
            progress=Reporter(),
            vault=KeyFile(self.master_key_file),
            egress=EgressSettings(),
            settings=SETTINGS,
            interrupt=interrupt,
        )

    def attempt(self, context: JobContext) -> Ended:
        """Run the handler and record what came of it, as the runner does."""
        try:
            outcome = sync.run(context)
        except HeadwaterError as error:
            outcome = failed(error)
        progress = context.progress.snapshot()
        status = lifecycle.record(self.working, context.claim, outcome, progress, settings=SETTINGS)
        return Ended(
            job_id=context.claim.job_id,
            status=status,
            outcome=outcome,
            counters=progress.counters,
            warnings=[warning["code"] for warning in progress.warnings],
            error_summary=list(progress.error_summary),
        )

    def sync(self, **params: Any) -> Ended:
        """One sync from submit to record."""
        return self.attempt(self.claim(self.submit(**params)))

    def die(self, context: JobContext, error: type[BaseException]) -> None:
        """Run the handler until `error` ends it, then let the lease go as a reaper would."""
        with pytest.raises(error):
            sync.run(context)
        self.connection.execute("delete from job_lease where job_id = %s", (context.claim.job_id,))
        self.connection.execute("update job set status = 'queued' where id = %s", (context.claim.job_id,))

    def items(self, **filters: Any) -> list[Row]:
        """What a reader sees, in pages of 7."""
        return list(self._walk(reading.items, "record_number", **filters))

    def data(self) -> dict[str, list[str]]:
        """The visible records' JSON texts by path."""
        found: dict[str, list[str]] = {}
        for item in self.items():
            found.setdefault(item["path"], []).append(item["data"])
        return found

    def rejects(self) -> list[Row]:
        """The rejects of what is live."""
        return list(self._walk(reading.rejects, "number"))

    def rejects_of(self, job_id: UUID) -> list[Row]:
        """What one job refused."""
        statement = reading.rejects_of_job(
            organization_id=self.organization.organization_id, job_id=job_id, limit=200_000
        )
        return db.run(self.connection, statement).fetchall()

    def files(self) -> dict[str, str]:
        """The catalogue: state by path."""
        return {row["path"]: row["state"] for row in self.catalogue()}

    def catalogue(self) -> list[Row]:
        """The catalogue's rows."""
        statement = reading.files(organization_id=self.organization.organization_id, data_source_id=self.id, limit=1000)
        return db.run(self.connection, statement).fetchall()

    def totals(self) -> Row:
        """The source's totals."""
        row = self.connection.execute("select * from data_source_totals where data_source_id = %s", (self.id,))
        found = row.fetchone()
        assert found is not None
        return found

    def stored_items(self) -> Counter[str]:
        """How many item rows there are for each path, visible or not."""
        rows = self.connection.execute(
            "select l.path from load l join item i on i.load_id = l.id where l.data_source_id = %s", (self.id,)
        )
        return Counter(row["path"] for row in rows)

    def _walk(self, page_of: Callable[..., db.Statement], key: str, **filters: Any) -> Iterator[Row]:
        cursor: dict[str, Any] = {}
        while True:
            statement = page_of(
                organization_id=self.organization.organization_id,
                data_source_id=self.id,
                limit=7,
                **(filters | cursor),
            )
            page = db.run(self.connection, statement).fetchall()
            yield from page
            if len(page) < 7:
                return
            last = page[-1]
            cursor = {"snapshot": last["snapshot"], "after_path": last["path"], f"after_{key}": last[key]}


def new_source(
    database: str,
    connection: Connection,
    working: Connection,
    organization: CreatedOrganization,
    project_id: UUID,
    master_key_file: Path,
) -> Iterator[Source]:
    """A source with an empty shelf, lenient."""
    making.act_for(connection, organization.organization_id)
    source = Source(database, connection, working, organization, project_id, master_key_file)
    connection.execute(
        "insert into data_source (id, organization_id, project_id, name, type) values (%s, %s, %s, %s, 'shelf')",
        (source.id, organization.organization_id, project_id, source.id.hex),
    )
    connection.execute(
        "insert into data_source_totals (data_source_id, organization_id) values (%s, %s)",
        (source.id, organization.organization_id),
    )
    source.configure()
    SHELVES[source.id.hex] = source.shelf
    yield source
    del SHELVES[source.id.hex]


@pytest.fixture
def source(
    database: str,
    connection: Connection,
    working: Connection,
    organization: CreatedOrganization,
    master_key_file: Path,
) -> Iterator[Source]:
    """A source with an empty shelf, lenient."""
    # Jobs that a test leaves running would count against the cap of the next.
    connection.execute("update job set status = 'failed' where status in ('running', 'queued')")
    project_id = making.make_project(connection, organization.organization_id)
    yield from new_source(database, connection, working, organization, project_id, master_key_file)
