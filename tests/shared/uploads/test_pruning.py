"""What nobody can see any more goes, bytes first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import making
import pytest

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.uploads import pruning
from headwater.uploads.folder import Folder

Put = Callable[..., UUID]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def source_id(connection: Connection, organization: CreatedOrganization) -> UUID:
    """A source of whatever type: pruning does not look."""
    project_id = making.make_project(connection, organization.organization_id)
    connection.execute("delete from upload")
    return making.make_source(connection, organization.organization_id, project_id)


@pytest.fixture
def put(connection: Connection, organization: CreatedOrganization, folder: Folder, source_id: UUID) -> Put:
    """Puts an upload of this state and age, with its bytes; its key."""

    def put(state: str, *, hours: float = 0) -> UUID:
        key = ids.new()
        writer = folder.put(key)
        writer.write(b"bytes")
        writer.keep()
        connection.execute(
            """
            insert into upload (id, organization_id, data_source_id, name, state, content_type, keys, updated_at)
            values (%s, %s, %s, %s, %s, 'text/csv', array[%s], now() - make_interval(secs => %s))
            """,
            (ids.new(), organization.organization_id, source_id, key.hex, state, key, hours * 3600),
        )
        return key

    return put


def _states(connection: Connection) -> dict[UUID, Any]:
    return {row["keys"][0]: row["state"] for row in connection.execute("select keys, state from upload")}


def _files(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.rglob("*") if path.is_file()}


def test_dropped_files_go_when_nobody_can_be_reading_them(
    connection: Connection, put: Put, folder: Folder, tmp_path: Path
) -> None:
    """An hour after they were dropped; stored ones stay for ever."""
    old, fresh, stored = put("dropped", hours=2), put("dropped", hours=0.5), put("stored", hours=9999)
    assert pruning.prune(connection, folder) == 1
    assert old.hex not in _files(tmp_path)
    assert _files(tmp_path) == {fresh.hex, stored.hex}
    assert _states(connection) == {fresh: "dropped", stored: "stored"}


def test_what_nobody_brings_to_an_end_is_given_up(connection: Connection, put: Put, folder: Folder) -> None:
    """A request that is silent for an hour, a file in parts after a day."""
    silent, alive = put("receiving", hours=1.5), put("receiving", hours=0.5)
    lost, resumable = put("partial", hours=25), put("partial", hours=23)
    pruning.prune(connection, folder)
    assert _states(connection) == {silent: "dropped", alive: "receiving", lost: "dropped", resumable: "partial"}


def test_files_go_with_the_items_of_a_deleted_source(
    connection: Connection, put: Put, folder: Folder, source_id: UUID
) -> None:
    """Thirty days later, not before."""
    key = put("stored")
    connection.execute("update data_source set deleted_at = now() - interval '29 days' where id = %s", (source_id,))
    pruning.prune(connection, folder)
    assert _states(connection) == {key: "stored"}
    connection.execute("update data_source set deleted_at = now() - interval '31 days' where id = %s", (source_id,))
    pruning.prune(connection, folder)
    assert _states(connection) == {key: "dropped"}


def test_files_of_a_source_that_is_wholly_gone_are_found(
    connection: Connection, put: Put, folder: Folder, source_id: UUID, tmp_path: Path
) -> None:
    """The row of the source takes no row of an upload with it."""
    put("stored")
    connection.execute("delete from data_source where id = %s", (source_id,))
    pruning.prune(connection, folder)
    connection.execute("update upload set updated_at = now() - interval '2 hours'")
    assert pruning.prune(connection, folder) == 1
    assert _files(tmp_path) == set()


def test_a_crash_between_bytes_and_row_harms_nothing(
    connection: Connection, put: Put, folder: Folder, tmp_path: Path
) -> None:
    """The next round deletes again what is gone already, and then the row."""
    key = put("dropped", hours=2)
    folder.delete(key)
    assert pruning.prune(connection, folder) == 1
    assert db.run(connection, db.Statement("select from upload")).fetchall() == []
