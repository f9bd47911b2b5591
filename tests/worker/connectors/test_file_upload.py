"""Uploaded files as a source: the suite that all share, on files that came through the API's own statements."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import making
import pytest

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.connectors.file_upload import SPEC, FileUploadConfig
from headwater.connectors.spec import ConnectorConfig
from headwater.db import Connection
from headwater.errors import Permanent, Transient
from headwater.uploads import pruning, statements
from headwater.uploads.folder import Folder
from headwater.uploads.reading import Uploads
from headwater_worker.connectors import ladder
from headwater_worker.connectors.base import Opening
from headwater_worker.connectors.conformance import LOOPBACK, Access, FileSourceConformance, FileStore
from headwater_worker.connectors.file_upload import FileUploadConnector
from headwater_worker.egress import Policy, Proxy

NO_NETWORK = frozenset({"resolve", "egress", "connect", "tls", "authenticate"})


class Uploaded(FileStore):
    """What was uploaded to a source."""

    def __init__(
        self,
        connection: Connection,
        folder: Path,
        connect: Callable[[UUID], Connection],
        organization_id: UUID,
        source_id: UUID,
    ) -> None:
        self._connection = connection
        self.organization_id = organization_id
        self.storage = Folder(folder)
        self.source_id = source_id
        self.uploads = Uploads(self.storage, connect)

    def access(self) -> Access:
        return Access({})

    def put(self, path: str, body: bytes) -> None:
        if "/" in path:
            pytest.skip("names of uploads have no folders")
        upload_id, key = ids.new(), ids.new()
        begin = statements.begin(
            upload_id=upload_id,
            organization_id=self.organization_id,
            data_source_id=self.source_id,
            name=path,
            content_type="text/plain",
            key=key,
            created_by=ids.new(),
        )
        db.run(self._connection, begin)
        writer = self.storage.put(key)
        writer.write(body)
        writer.keep()
        with self._connection.transaction():
            self._drop(path)
            store = statements.store(
                upload_id=upload_id,
                size=len(body),
                sha256=hashlib.sha256(body).hexdigest(),
                segments=[{"key": key.hex, "size": len(body)}],
            )
            assert db.run(self._connection, store).fetchone()

    def put_in_parts(self, name: str, *parts: bytes) -> None:
        """As `PUT` with `Content-Range` does it."""
        total, start, segments = sum(map(len, parts)), 0, []
        upload_id = ids.new()
        for part in parts:
            key = ids.new()
            if start == 0:
                begin = statements.begin_partial(
                    total=total,
                    upload_id=upload_id,
                    organization_id=self.organization_id,
                    data_source_id=self.source_id,
                    name=name,
                    content_type="text/plain",
                    key=key,
                    created_by=ids.new(),
                )
            else:
                begin = statements.go_on(data_source_id=self.source_id, name=name, start=start, total=total, key=key)
            assert db.run(self._connection, begin).fetchone()
            writer = self.storage.put(key)
            writer.write(part)
            writer.keep()
            db.run(self._connection, statements.add_segment(upload_id=upload_id, key=key, size=len(part)))
            start += len(part)
            segments.append({"key": key.hex, "size": len(part)})
        store = statements.store(upload_id=upload_id, size=total, sha256="0" * 64, segments=segments)
        db.run(self._connection, store)

    def delete(self, path: str) -> None:
        self._drop(path)

    def _drop(self, name: str) -> None:
        db.run(
            self._connection,
            statements.drop_named(data_source_id=self.source_id, name=name, states=["stored"]),
        )


@pytest.fixture
def store(database: str, connection: Connection, organization: CreatedOrganization, tmp_path: Path) -> Uploaded:
    """A source without files."""
    organization_id = organization.organization_id
    project_id = making.make_project(connection, organization_id)
    source_id = making.make_source(connection, organization_id, project_id)
    return Uploaded(connection, tmp_path, making.uploads_of(database), organization_id, source_id)


@pytest.fixture
def opened(store: Uploaded) -> Iterator[FileUploadConnector]:
    """The connector as a job has it."""
    with ExitStack() as stack:
        uploads = store.uploads.of(store.organization_id, store.source_id)
        stack.callback(uploads.close)
        opening = Opening(FileUploadConfig(), {}, LOOPBACK, Proxy(LOOPBACK), uploads=uploads)
        yield stack.enter_context(FileUploadConnector(opening))


class TestFileUploadConformance(FileSourceConformance):
    """What every source of files must do."""

    spec = SPEC
    runtime = FileUploadConnector
    inapplicable = NO_NETWORK

    @pytest.fixture(autouse=True)
    def _bound(self, store: Uploaded) -> Iterator[None]:
        with ExitStack() as stack:
            self._store, self._stack = store, stack
            yield

    def opening(self, config: ConnectorConfig, access: Access, policy: Policy, proxy: Proxy) -> Opening:
        uploads = self._store.uploads.of(self._store.organization_id, self._store.source_id)
        self._stack.callback(uploads.close)
        return Opening(config, dict(access.credentials), policy, proxy, uploads=uploads)


def test_a_file_that_came_in_parts_is_one_file(store: Uploaded, opened: FileUploadConnector) -> None:
    """Its parts follow one another, however they are read."""
    store.put_in_parts("a.csv", b"id,na", b"me\n1,", b"Ada\n")
    with opened.open_file("a.csv") as file:
        assert file.stream.read() == b"id,name\n1,Ada\n"
    with opened.open_file("a.csv") as file:
        assert b"".join(iter(lambda: file.stream.read(3), b"")) == b"id,name\n1,Ada\n"


def test_a_file_that_is_replaced_while_it_is_read_stays_what_it_was(
    store: Uploaded, opened: FileUploadConnector, connection: Connection
) -> None:
    """The reader ends with the old bytes, also when pruning comes by; who opens it then gets the new ones."""
    store.put_in_parts("a.csv", b"old " * 1000, b"end of old")
    with opened.open_file("a.csv") as file:
        first = file.stream.read(10)
        store.put("a.csv", b"new")
        pruning.prune(connection, store.storage)
        assert first + file.stream.read() == b"old " * 1000 + b"end of old"
    with opened.open_file("a.csv") as file:
        assert file.stream.read() == b"new"


def test_a_read_goes_on_over_the_end_of_a_part(store: Uploaded, opened: FileUploadConnector) -> None:
    """It gives what was asked for: in how many parts a file was sent does not show."""
    store.put_in_parts("a.csv", b"one", b"two", b"three")
    with opened.open_file("a.csv") as file:
        assert [file.stream.read(5) for _ in range(4)] == [b"onetw", b"othre", b"e", b""]


def test_the_uploads_of_a_deleted_source_are_unreachable_at_once(
    store: Uploaded, opened: FileUploadConnector, connection: Connection
) -> None:
    """Neither listed nor opened, also by a job that is on its way."""
    store.put("a.csv", b"id\n1\n")
    connection.execute("update data_source set deleted_at = now() where id = %s", (store.source_id,))
    assert list(opened.list_files()) == []
    with pytest.raises(Permanent) as caught:
        opened.open_file("a.csv")
    assert caught.value.code == "file_not_found"


def test_another_sources_uploads_are_not_seen(
    store: Uploaded, opened: FileUploadConnector, connection: Connection, organization: CreatedOrganization
) -> None:
    """A runtime sees one source."""
    project_id = making.make_project(connection, organization.organization_id)
    other = making.make_source(connection, organization.organization_id, project_id)
    store.source_id = other
    store.put("a.csv", b"id\n1\n")
    assert list(opened.list_files()) == []


def test_a_storage_that_is_away_is_worth_another_try(
    store: Uploaded, opened: FileUploadConnector, tmp_path: Path
) -> None:
    """The source is not at fault, and its file is not rejected."""
    store.put("a.csv", b"id\n1\n")
    (made,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    made.rename(tmp_path / "aside")
    made.mkdir()
    with pytest.raises(Transient) as caught:
        opened.open_file("a.csv")
    assert caught.value.code == "upload_storage_unavailable"


def test_an_unsaved_source_can_be_tested(tmp_path: Path) -> None:
    """It is fine, and has nothing to see yet."""
    opening = Opening(FileUploadConfig(), {}, LOOPBACK, Proxy(LOOPBACK))
    with FileUploadConnector(opening) as connector:
        result = ladder.run(connector)
    assert result["success"] is True
    assert [check["code"] for check in result["checks"] if check["status"] == "warning"] == ["empty_scope"]
