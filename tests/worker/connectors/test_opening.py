"""From a claim to a connector, for sources that need more than a proxy: whole jobs on folders and uploads."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import making
import pytest

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.errors import HeadwaterError
from headwater.jobs import lifecycle
from headwater.jobs.outcome import Failed, Succeeded, failed
from headwater.settings import EgressSettings, JobSettings
from headwater.uploads import statements
from headwater.uploads.folder import Folder
from headwater.uploads.reading import Uploads
from headwater.vault.providers import KeyFile
from headwater_worker.context import JobContext
from headwater_worker.handlers import connection_test, file_listing, sync
from headwater_worker.progress import Reporter

SETTINGS = JobSettings()
HANDLERS = {"connection_test": connection_test, "file_listing": file_listing, "sync": sync}


@dataclass
class Ran:
    """A job that is over."""

    status: str | None
    code: str | None
    result: dict[str, Any]
    counters: dict[str, Any]


@dataclass
class Bench:
    """A place in the database, a folder for sources, a folder for uploads."""

    database: str
    connection: Connection
    working: Connection
    organization: CreatedOrganization
    project_id: UUID
    root: Path
    uploads: Uploads | None
    master_key_file: Path

    def source(self, type_: str, reading: dict[str, Any] | None = None, **config: Any) -> UUID:
        """A source of this type."""
        source_id = making.make_source(self.connection, self.organization.organization_id, self.project_id)
        self.connection.execute("delete from data_source_version where data_source_id = %s", (source_id,))
        self.connection.execute("update data_source set type = %s where id = %s", (type_, source_id))
        self.connection.execute(
            """
            insert into data_source_version (data_source_id, version, organization_id, config, validation, reading)
            values (%s, 1, %s, %s, '{}', %s)
            """,
            (source_id, self.organization.organization_id, db.json({"type": type_, **config}), db.json(reading or {})),
        )
        return source_id

    def upload(self, source_id: UUID, name: str, body: bytes) -> None:
        """As the API stores a file."""
        assert self.uploads is not None
        upload_id, key = ids.new(), ids.new()
        begin = statements.begin(
            upload_id=upload_id,
            organization_id=self.organization.organization_id,
            data_source_id=source_id,
            name=name,
            content_type="text/csv",
            key=key,
            created_by=self.organization.member_id,
        )
        db.run(self.connection, begin)
        writer = self.uploads.storage.put(key)
        writer.write(body)
        writer.keep()
        drop = statements.drop_named(data_source_id=source_id, name=name, states=["stored"])
        db.run(self.connection, drop)
        store = statements.store(
            upload_id=upload_id,
            size=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            segments=[{"key": key.hex, "size": len(body)}],
        )
        db.run(self.connection, store)

    def run(self, source_id: UUID, kind: str) -> Ran:
        """A job from submit to record."""
        type_ = self.connection.execute("select type from data_source where id = %s", (source_id,)).fetchone()
        assert type_ is not None
        answer = making.submit(
            self.connection, self.organization, self.project_id, source_id, kind, types=[type_["type"]]
        )
        claim = lifecycle.claim(self.working, UUID(answer["job"]["id"]), worker="tests", settings=SETTINGS)
        assert claim is not None
        context = JobContext(
            claim=claim,
            connection=self.working,
            progress=Reporter(),
            vault=KeyFile(self.master_key_file),
            egress=EgressSettings(local_files_roots=f"/nowhere:{self.root}"),
            settings=SETTINGS,
            interrupt=lambda: None,
            uploads=self.uploads,
        )
        try:
            outcome = HANDLERS[kind].run(context)
        except HeadwaterError as error:
            outcome = failed(error)
        progress = context.progress.snapshot()
        status = lifecycle.record(self.working, claim, outcome, progress, settings=SETTINGS)
        code = outcome.failure.code if isinstance(outcome, Failed) else None
        result = outcome.result if isinstance(outcome, Succeeded) else {}
        return Ran(status, code, dict(result), progress.counters)

    def files(self, source_id: UUID) -> dict[str, str]:
        """The catalogue: path and state."""
        rows = self.connection.execute("select path, state from file where data_source_id = %s", (source_id,))
        return {row["path"]: row["state"] for row in rows}

    def items(self, source_id: UUID) -> list[Any]:
        """What is live, by path and number."""
        rows = self.connection.execute(
            """
            select i.data from load l join item i on i.load_id = l.id
            where l.data_source_id = %s and l.valid_from is not null and l.valid_to is null
            order by l.path, i.record_number
            """,
            (source_id,),
        )
        return [row["data"] for row in rows]


@pytest.fixture
def bench(
    database: str,
    connection: Connection,
    working: Connection,
    organization: CreatedOrganization,
    master_key_file: Path,
    tmp_path: Path,
) -> Bench:
    """A bench with an empty root."""
    connection.execute("update job set status = 'failed' where status in ('queued', 'running')")
    (tmp_path / "root").mkdir()
    uploads = Uploads(Folder(tmp_path / "uploads"), making.uploads_of(database))
    project_id = making.make_project(connection, organization.organization_id)
    return Bench(database, connection, working, organization, project_id, tmp_path / "root", uploads, master_key_file)


def _check(ran: Ran) -> tuple[str, str] | None:
    return next(((check["name"], check["code"]) for check in ran.result["checks"] if check["status"] == "failed"), None)


def test_a_folder_is_brought_in_and_what_is_no_file_is_counted(bench: Bench) -> None:
    """Records become items; hidden files and links out are `skipped_by`, and there is no reject."""
    (bench.root.parent / "secret.csv").write_text("id\n666\n")
    (bench.root / "deep").mkdir()
    (bench.root / "a.csv").write_text("id\n1\n2\n")
    (bench.root / "deep" / "b.jsonl").write_text('{"id": 3}\n')
    (bench.root / ".c.csv").write_text("id\n4\n")
    (bench.root / "out.csv").symlink_to(bench.root.parent / "secret.csv")
    source_id = bench.source("local_files", path=str(bench.root))
    ran = bench.run(source_id, "sync")
    assert (ran.status, ran.result["item_count"], ran.result["error_count"]) == ("succeeded", 3, 0)
    assert ran.counters["skipped_by"] == {"hidden": 1, "link_out": 1}
    assert (ran.counters["listed"], ran.counters["matched"], ran.counters["skipped"]) == (4, 2, 2)
    assert bench.items(source_id) == [{"id": "1"}, {"id": "2"}, {"id": 3}]
    assert bench.files(source_id) == {"a.csv": "imported", "deep/b.jsonl": "imported"}
    listing = bench.run(source_id, "file_listing")
    assert (listing.result["file_count"], listing.counters["skipped_by"]) == (2, {"hidden": 1, "link_out": 1})


def test_the_format_of_the_config_is_how_files_are_read(bench: Bench) -> None:
    """Whatever they are called; `reading.format` wins over it."""
    (bench.root / "export").write_text('{"id": 1}\n{"id": 2}\n')
    by_config = bench.source("local_files", path=str(bench.root), format="jsonl")
    assert bench.run(by_config, "sync").result["item_count"] == 2
    by_reading = bench.source("local_files", {"format": "plain"}, path=str(bench.root), format="jsonl")
    assert bench.run(by_reading, "sync").result["item_count"] == 1


def test_a_file_that_becomes_a_link_out_is_not_taken_for_deleted(bench: Bench) -> None:
    """It is still there, so a policy that deletes what vanished leaves its items alone."""
    (bench.root / "a.csv").write_text("id\n1\n")
    (bench.root / "b.csv").write_text("id\n2\n")
    source_id = bench.source("local_files", {"on_missing": "delete"}, path=str(bench.root))
    bench.run(source_id, "sync")
    (bench.root.parent / "elsewhere.csv").write_text("id\n666\n")
    (bench.root / "b.csv").unlink()
    (bench.root / "b.csv").symlink_to(bench.root.parent / "elsewhere.csv")
    ran = bench.run(source_id, "sync")
    assert ran.counters["skipped_by"] == {"link_out": 1}
    assert bench.items(source_id) == [{"id": "1"}, {"id": "2"}]


def test_a_folder_that_no_operator_allows_fails_test_and_sync(bench: Bench) -> None:
    """`blocked_target`, for good."""
    source_id = bench.source("local_files", path=str(bench.root.parent))
    assert _check(bench.run(source_id, "connection_test")) == ("config", "blocked_target")
    assert bench.run(source_id, "sync").code == "blocked_target"


def test_uploads_are_brought_in_once(bench: Bench) -> None:
    """The same bytes again are unchanged; new bytes replace the items."""
    source_id = bench.source("file_upload")
    bench.upload(source_id, "a.csv", b"id\n1\n2\n")
    assert bench.run(source_id, "connection_test").result["success"] is True
    assert bench.run(source_id, "sync").result["item_count"] == 2
    bench.upload(source_id, "a.csv", b"id\n1\n2\n")
    assert bench.run(source_id, "sync").counters["unchanged"] == 1
    bench.upload(source_id, "a.csv", b"id\n9\n")
    assert bench.run(source_id, "sync").counters["changed"] == 1
    assert bench.items(source_id) == [{"id": "9"}]


def test_many_uploads_are_read_beside_the_jobs_own_connection(bench: Bench) -> None:
    """Files are opened by threads while the job's connection is busy with COPY."""
    source_id = bench.source("file_upload")
    for number in range(40):
        bench.upload(source_id, f"{number:02}.csv", f"id\n{number}\n".encode() * 1)
    ran = bench.run(source_id, "sync")
    assert (ran.status, ran.result["item_count"]) == ("succeeded", 40)
    assert bench.items(source_id) == [{"id": str(number)} for number in range(40)]


def test_a_deleted_upload_is_missing_at_the_next_sync(bench: Bench) -> None:
    """Marked, as any file that vanished."""
    source_id = bench.source("file_upload")
    bench.upload(source_id, "a.csv", b"id\n1\n")
    bench.upload(source_id, "b.csv", b"id\n2\n")
    bench.run(source_id, "sync")
    drop = statements.drop_named(data_source_id=source_id, name="a.csv", states=["stored"])
    db.run(bench.connection, drop)
    assert bench.run(source_id, "sync").counters["missing"] == 1
    assert bench.files(source_id) == {"a.csv": "missing", "b.csv": "imported"}


def test_a_worker_without_a_place_for_uploads_says_so(bench: Bench) -> None:
    """The test fails at `config`, with a hint for the operator; a sync fails with the same code."""
    source_id = bench.source("file_upload")
    bench.uploads = None
    assert _check(bench.run(source_id, "connection_test")) == ("config", "uploads_not_configured")
    assert bench.run(source_id, "sync").code == "uploads_not_configured"
