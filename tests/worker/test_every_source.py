"""The same files through every source: the same items, rejects and counters, byte for byte."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import api_stub
import making
import pytest
from api_stub import Asked, Reply

from headwater import db
from headwater.access.organizations import CreatedOrganization
from headwater.catalogue import reading
from headwater.connectors import registry
from headwater.db import Connection
from headwater.settings import EgressSettings
from headwater.uploads.reading import Uploads
from headwater_cli.demo import bucket
from headwater_cli.errors import Failure
from headwater_worker.connectors.conformance import Access
from headwater_worker.context import JobContext

from . import corpus
from .connectors import azurite, gcs_emulator
from .connectors.test_azure_blob import AzuriteStore
from .connectors.test_file_upload import Uploaded
from .connectors.test_gcs import GateStore
from .connectors.test_local_files import FolderStore
from .connectors.test_s3 import MotoStore
from .sync.conftest import Ended, Source

COUNTERS = ("listed", "matched", "new", "bytes_read", "parsed", "valid", "rejected", "landed")
ENTRIES = {"uri", "etag"}
"""What says where a plain file is, and is another thing for each source."""

Item = tuple[str, int, str]
Reject = tuple[str, int | None, int | None, str, str | None, str, str | None]
Fault = tuple[str, int | None, int | None, str, str | None]


@dataclass(frozen=True)
class Imported:
    """What a sync brought in: (path, record_number, data), and (path, line, record_number, code, pointer, message,
    excerpt); plain files apart, without what is the source's own."""

    items: list[Item]
    rejects: list[Reject]
    plain: dict[str, Any]
    counters: dict[str, int]
    status: str | None


@dataclass
class AnySource(Source):
    """A data source of any type."""

    type_: str = ""
    egress: EgressSettings = field(default_factory=EgressSettings)
    uploads: Uploads | None = None

    def create(self) -> None:
        """Its rows, credentials included."""
        organization_id = self.organization.organization_id
        self.id = making.make_source(self.connection, organization_id, self.project_id, type_=self.type_)

    def open_up(self, access: Access, **egress: str) -> None:
        """Point the source at what `access` leads to."""
        self.connection.execute(
            """
            insert into data_source_version (data_source_id, version, organization_id, config, validation, reading)
            values (%s, 2, %s, %s, %s, '{}')
            """,
            (
                self.id,
                self.organization.organization_id,
                db.json({"type": self.type_, **access.config}),
                db.json({"schema": corpus.SCHEMA}),
            ),
        )
        self.connection.execute("update data_source set version = 2 where id = %s", (self.id,))
        making.put_credentials(
            self.connection,
            self.organization.organization_id,
            self.id,
            registry.specs()[self.type_],
            config={"type": self.type_, **access.config},
            secrets=access.credentials,
        )
        self.egress = EgressSettings(egress_allow="127.0.0.0/8", **egress)

    def submit(self, **params: Any) -> UUID:
        answer = making.submit(
            self.connection,
            self.organization,
            self.project_id,
            self.id,
            "sync",
            types=[self.type_],
            params=params,
        )
        return UUID(answer["job"]["id"])

    def claim(self, job_id: UUID, interrupt: Callable[[], None] = lambda: None) -> JobContext:
        context = super().claim(job_id, interrupt)
        return JobContext(**(vars(context) | {"egress": self.egress, "uploads": self.uploads}))

    def imported(self, ended: Ended) -> Imported:
        """Everything that is visible, in the order of the API."""
        these = {"organization_id": self.organization.organization_id, "data_source_id": self.id, "limit": 200_000}
        plain_paths = {file.path for file in corpus.files() if file.plain}
        items = db.run(self.connection, reading.items(**these)).fetchall()
        rejects = db.run(self.connection, reading.rejects(**these)).fetchall()
        names = ("path", "line", "record_number", "code", "pointer", "message", "excerpt")
        return Imported(
            [(row["path"], row["record_number"], row["data"]) for row in items if row["path"] not in plain_paths],
            [tuple(row[name] for name in names) for row in rejects],  # type: ignore[misc]
            {
                row["path"]: {name: value for name, value in json.loads(row["data"]).items() if name not in ENTRIES}
                for row in items
                if row["path"] in plain_paths
            },
            {name: ended.counters.get(name, 0) for name in COUNTERS},
            ended.status,
        )


@dataclass(frozen=True)
class Place:
    """Where the tests of this module put their rows."""

    database: str
    connection: Connection
    working: Connection
    organization: CreatedOrganization
    master_key_file: Path
    folder: Path

    def source(self, type_: str) -> AnySource:
        """A source that leads nowhere yet."""
        # Jobs that a test leaves running would count against the cap of the next.
        self.connection.execute("update job set status = 'failed' where status in ('running', 'queued')")
        project_id = making.make_project(self.connection, self.organization.organization_id)
        source = AnySource(
            self.database,
            self.connection,
            self.working,
            self.organization,
            project_id,
            self.master_key_file,
            type_=type_,
        )
        source.create()
        return source


@pytest.fixture(scope="module")
def place(
    database: str,
    organization: CreatedOrganization,
    master_key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    worker = making.as_service(database, "worker")
    with db.connect(database, application="tests") as connection, db.connect(worker, application="tests") as working:
        making.act_for(connection, organization.organization_id)
        yield Place(database, connection, working, organization, master_key_file, tmp_path_factory.mktemp("files"))


@contextmanager
def local_files(place: Place) -> Iterator[AnySource]:
    """A folder."""
    folder = place.folder / secrets.token_hex(4)
    folder.mkdir()
    store = FolderStore(folder)
    for file in corpus.files():
        store.put(file.path, file.body)
    source = place.source("local_files")
    source.open_up(store.access(), local_files_roots=str(place.folder))
    yield source


@contextmanager
def s3(place: Place) -> Iterator[AnySource]:
    """A bucket behind checked signatures."""
    name = f"bucket-{secrets.token_hex(4)}"
    with bucket.serve(buckets={name: {file.path: file.body for file in corpus.files()}}) as server:
        source = place.source("s3")
        source.open_up(MotoStore(server, name).access())
        yield source


@contextmanager
def gcs(place: Place) -> Iterator[AnySource]:
    """A bucket behind checked tokens."""
    with gcs_emulator.serve() as gate:
        name = f"bucket-{secrets.token_hex(4)}"
        gate.create_bucket(name)
        store = GateStore(gate, name)
        for file in corpus.files():
            store.put(file.path, file.body)
        source = place.source("gcs")
        source.open_up(store.access(), gcs_token_url=gate.token_url)
        yield source


@contextmanager
def azure_blob(place: Place) -> Iterator[AnySource]:
    """A container behind checked signatures."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(azurite.serve())
        except Failure as failure:
            if "CI" in os.environ:
                raise
            pytest.skip(f"Azurite cannot be installed from npm: {failure}")
        store = AzuriteStore(server, f"container-{secrets.token_hex(4)}")
        for file in corpus.files():
            store.put(file.path, file.body)
        source = place.source("azure_blob")
        source.open_up(store.access())
        yield source


@contextmanager
def file_upload(place: Place) -> Iterator[AnySource]:
    """What came through the statements of the upload routes."""
    source = place.source("file_upload")
    organization_id = place.organization.organization_id
    folder = place.folder / secrets.token_hex(4)
    folder.mkdir()
    store = Uploaded(
        place.connection,
        folder,
        making.uploads_of(place.database),
        organization_id,
        source.id,
    )
    for number, file in enumerate(corpus.files()):
        if number % 2 and len(file.body) > 1:
            # Nothing shows in how many parts a file was sent.
            third = len(file.body) // 3
            store.put_in_parts(file.path, file.body[:third], file.body[third:])
        else:
            store.put(file.path, file.body)
    source.uploads = store.uploads
    source.open_up(store.access())
    yield source


@pytest.fixture(scope="module")
def reference(place: Place) -> Imported:
    """The corpus through `local_files`."""
    with local_files(place) as source:
        return source.imported(source.sync())


def _faults(rejects: list[Reject]) -> list[Fault]:
    return sorted((reject[:5] for reject in rejects), key=repr)


def test_a_sync_gives_what_the_corpus_holds(reference: Imported) -> None:
    """Each record is an item with its value or a reject with its code, at its number and line; nothing else is."""
    items: dict[str, list[tuple[int, bytes]]] = {}
    for path, number, data in reference.items:
        items.setdefault(path, []).append((number, corpus.canonical(json.loads(data))))
    for file in corpus.files():
        if file.plain:
            continue
        mine = [reject for reject in reference.rejects if reject[0] == file.path]
        read = len(items.get(file.path, [])) + sum(reject[2] is not None for reject in mine)
        rows = list(enumerate(file.rows, start=1))[: read if file.some else None]
        assert not file.some or read > 1_000
        values = [(number, corpus.canonical(row.value)) for number, row in rows if row.code is None]
        assert items.get(file.path, []) == values, file.path
        lines = [None if file.first_line is None else file.first_line + number - 1 for number, _ in rows]
        faults: list[Fault] = [
            (file.path, line, number, row.code, row.pointer)
            for line, (number, row) in zip(lines, rows, strict=True)
            if row.code is not None
        ]
        got = [fault for fault in _faults(mine) if fault[2] is not None]
        assert got == sorted(faults, key=repr), file.path
        assert [reject[3] for reject in mine if reject[2] is None] == ([file.fault] if file.fault else []), file.path
    assert reference.plain == {
        "notes.txt": {"size": 6, "content_type": "text/plain"},
        "picture.PNG": {"size": 256, "content_type": "image/png"},
        "no extension": {"size": 3, "content_type": None},
    }


def test_the_counters_are_those_of_the_corpus(reference: Imported) -> None:
    """Every file is matched, every record is valid or rejected, every valid one has landed."""
    whole = sum(reject[2] is None for reject in reference.rejects)
    counters = reference.counters
    assert counters["matched"] == counters["listed"] == counters["new"] == len(corpus.files())
    assert counters["landed"] == counters["valid"] == len(reference.items) + len(reference.plain)
    assert counters["rejected"] == len(reference.rejects)
    assert counters["parsed"] == counters["valid"] + counters["rejected"] - whole
    assert reference.status == "partially_succeeded"


@pytest.mark.parametrize("served", [s3, gcs, azure_blob, file_upload])
def test_every_source_gives_the_same(place: Place, reference: Imported, served: Callable[[Place], Any]) -> None:
    """What came in through another source is equal, and a second sync reads nothing and leaves it so."""
    with served(place) as source:
        found = source.imported(source.sync())
        assert found.counters == reference.counters
        assert found.rejects == reference.rejects
        assert found.items == reference.items
        assert found == reference
        again = source.sync()
        assert again.counters["unchanged"] == again.counters["matched"] == len(corpus.files())
        assert again.counters.get("bytes_read", 0) == again.counters.get("landed", 0) == 0
        assert (source.imported(again).items, source.imported(again).rejects) == (found.items, found.rejects)


def test_an_api_gives_the_same_records(place: Place, reference: Imported) -> None:
    """Each file of lines as one page: its records and rejects are those of the file, numbered through."""
    pages = [file for file in corpus.files() if file.path.endswith(("jsonl", "jsonl.gz")) and not file.fault]

    def answer(asked: Asked) -> Reply:
        at = int(asked.query.get("at", "0"))
        headers = {"Content-Type": "application/x-ndjson"}
        if pages[at].path.endswith(".gz"):
            headers["Content-Encoding"] = "gzip"
        if at + 1 < len(pages):
            headers["Link"] = f'</v1/items?at={at + 1}>; rel="next"'
        return Reply(pages[at].body, headers=headers)

    with api_stub.running() as stub:
        stub.answer = answer
        source = place.source("api")
        config = {"endpoint": stub.endpoint, "auth_type": "bearer", "pagination": {"type": "link_header"}}
        source.open_up(Access(config, {"token": "t-3cr3t"}))
        found = source.imported(source.sync())
        again = source.imported(source.sync())

    items: list[tuple[int, str]] = []
    rejects: list[tuple[Any, ...]] = []
    before = 0
    for file in pages:
        items += [(before + number, data) for path, number, data in reference.items if path == file.path]
        rejects += [
            (None, before + (number or 0), *rest) for path, _, number, *rest in reference.rejects if path == file.path
        ]
        before += len(file.rows)
    assert [item[1:] for item in found.items] == items
    assert sorted((reject[1:] for reject in found.rejects), key=repr) == sorted(rejects, key=repr)
    assert found.counters["parsed"] == before
    assert (again.items, again.rejects) == (found.items, found.rejects)
