"""An inventory compared with the catalogue: the verdicts of a listing and of a sync."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import making
import pytest
from psycopg.errors import ForeignKeyViolation

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.catalogue import inventory, reading
from headwater.db import Connection

EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def source_id(connection: Connection, organization: CreatedOrganization) -> UUID:
    project_id = making.make_project(connection, organization.organization_id)
    return making.make_source(connection, organization.organization_id, project_id)


def _known(connection: Connection, organization: CreatedOrganization, source_id: UUID, **columns: Any) -> None:
    """One file `a` that the catalogue knows."""
    row = {
        "data_source_id": source_id,
        "organization_id": organization.organization_id,
        "path": "a",
        "size": 1,
        "etag": "e1",
        "modified_at": EARLY,
        "state": "imported",
        "imported_etag": "e1",
        "imported_fingerprint": "f1",
        "item_count": 1,
        "error_count": 0,
    } | columns
    names = ", ".join(row)
    values = ", ".join(f"%({name})s" for name in row)
    connection.execute(f"insert into file ({names}) values ({values})", row)


def _see(
    connection: Connection,
    organization: CreatedOrganization,
    source_id: UUID,
    *,
    fingerprint: str | None = None,
    whole: bool = True,
    **columns: Any,
) -> tuple[str, str]:
    """Compare an inventory with the one file `a`: (the verdict, its state afterwards)."""
    seen = {"path": "a", "size": 1, "etag": "e1", "modified_at": EARLY} | columns
    db.run(connection, inventory.create())
    connection.execute("insert into inventory values (%(path)s, %(size)s, %(etag)s, %(modified_at)s)", seen)
    statement = inventory.see(
        organization_id=organization.organization_id,
        data_source_id=source_id,
        after="",
        through=None,
        whole=whole,
        fingerprint=fingerprint,
    )
    counts = db.run(connection, statement).fetchone()
    row = connection.execute("select state from file where data_source_id = %s", (source_id,)).fetchone()
    assert counts is not None
    assert row is not None
    verdicts = [verdict for verdict in ("new", "changed") if counts[verdict]] or ["unchanged"]
    assert counts["new"] + counts["changed"] <= 1
    return verdicts[0], row["state"]


@pytest.mark.parametrize(
    ("known", "seen", "fingerprint", "expected"),
    [
        ({}, {}, None, ("unchanged", "imported")),
        ({}, {"modified_at": LATE}, None, ("unchanged", "imported")),
        ({}, {"etag": "e2"}, None, ("changed", "changed")),
        ({}, {"size": 2, "etag": "e2"}, None, ("changed", "changed")),
        ({"state": "changed", "etag": "e2"}, {"etag": "e2"}, None, ("unchanged", "changed")),
        ({"state": "changed", "etag": "e2"}, {"etag": "e1"}, None, ("changed", "imported")),
        ({"state": "missing"}, {}, None, ("unchanged", "imported")),
        ({"state": "missing"}, {"etag": "e2"}, None, ("changed", "changed")),
        ({"state": "rejected", "item_count": 0, "error_count": 1}, {}, None, ("unchanged", "rejected")),
        ({}, {}, "f1", ("unchanged", "imported")),
        ({}, {}, "f2", ("changed", "imported")),
        ({}, {"etag": "e2"}, "f1", ("changed", "changed")),
        ({"state": "changed", "etag": "e2"}, {"etag": "e2"}, "f1", ("changed", "changed")),
        ({"state": "missing"}, {}, "f1", ("unchanged", "imported")),
    ],
)
def test_a_known_file_is_judged_by_its_etag_and_by_how_it_was_read(
    connection: Connection,
    organization: CreatedOrganization,
    source_id: UUID,
    known: dict[str, Any],
    seen: dict[str, Any],
    fingerprint: str | None,
    expected: tuple[str, str],
) -> None:
    """A listing compares with what was seen, a sync with what was imported and how."""
    _known(connection, organization, source_id, **known)
    assert _see(connection, organization, source_id, fingerprint=fingerprint, **seen) == expected


@pytest.mark.parametrize("fingerprint", [None, "f1"])
@pytest.mark.parametrize("state", ["new", "missing"])
def test_a_file_that_was_never_imported_is_new(
    connection: Connection,
    organization: CreatedOrganization,
    source_id: UUID,
    state: str,
    fingerprint: str | None,
) -> None:
    """Seen before or not: a sync has all of it to read."""
    _known(connection, organization, source_id, state=state, imported_etag=None, imported_fingerprint=None)
    verdict, afterwards = _see(connection, organization, source_id, fingerprint=fingerprint)
    assert afterwards == "new"
    assert verdict == ("unchanged" if (state, fingerprint) == ("new", None) else "new")


def test_without_an_etag_size_and_time_tell_a_change(
    connection: Connection, organization: CreatedOrganization, source_id: UUID
) -> None:
    """A listing says changed when either differs; a sync never trusts them and reads again."""
    _known(connection, organization, source_id, etag=None, imported_etag=None)
    same = {"etag": None}
    assert _see(connection, organization, source_id, **same) == ("unchanged", "imported")
    assert _see(connection, organization, source_id, fingerprint="f1", **same) == ("changed", "imported")
    assert _see(connection, organization, source_id, etag=None, modified_at=LATE) == ("changed", "changed")


@pytest.mark.parametrize("whole", [True, False])
def test_seeing_moves_last_seen_and_not_first_seen(
    connection: Connection, organization: CreatedOrganization, source_id: UUID, whole: bool
) -> None:
    """The catalogue knows since when and until when a file was there, whatever a listing was of."""
    _known(connection, organization, source_id, first_seen_at=EARLY, last_seen_at=EARLY)
    _see(connection, organization, source_id, whole=whole)
    if whole:
        db.run(connection, inventory.sight(organization_id=organization.organization_id, data_source_id=source_id))
    row = _read(connection, organization, source_id)
    assert row["first_seen_at"] == EARLY
    assert row["last_seen_at"] > LATE


def test_a_listing_of_the_whole_source_writes_nothing_that_is_as_it_was(
    connection: Connection, organization: CreatedOrganization, source_id: UUID
) -> None:
    """One moment says for all files that they were seen: the row itself is not touched."""
    where = {"organization_id": organization.organization_id, "data_source_id": source_id}
    _known(connection, organization, source_id, last_seen_at=None)
    version = connection.execute("select xmin from file where data_source_id = %s", (source_id,)).fetchone()
    _see(connection, organization, source_id)
    db.run(connection, inventory.sight(**where))
    assert connection.execute("select xmin from file where data_source_id = %s", (source_id,)).fetchone() == version
    before = _read(connection, organization, source_id)["last_seen_at"]
    db.run(connection, inventory.sight(**where))
    assert _read(connection, organization, source_id)["last_seen_at"] > before


def test_a_file_that_is_missing_keeps_when_it_was_seen(
    connection: Connection, organization: CreatedOrganization, source_id: UUID
) -> None:
    """The moment of later listings is not its moment."""
    where = {"organization_id": organization.organization_id, "data_source_id": source_id}
    _known(connection, organization, source_id, first_seen_at=EARLY, last_seen_at=None)
    db.run(connection, inventory.sight(**where))
    seen_at = _read(connection, organization, source_id)["last_seen_at"]
    db.run(connection, inventory.create())
    missed = inventory.mark_missing(data_source_id=source_id, prefix="", after="", through=None)
    assert db.run(connection, missed).fetchone() == {"missing": 1}
    db.run(connection, inventory.sight(**where))
    row = _read(connection, organization, source_id)
    assert (row["state"], row["last_seen_at"]) == ("missing", seen_at)


def test_what_a_newer_listing_saw_is_not_missing(
    connection: Connection, organization: CreatedOrganization, source_id: UUID, database: str
) -> None:
    """It says so after the older one has listed: before it, while it marks, or after it has marked."""
    where = {"organization_id": organization.organization_id, "data_source_id": source_id}
    missed = inventory.mark_missing(data_source_id=source_id, prefix="", after="", through=None)
    _known(connection, organization, source_id, first_seen_at=EARLY, last_seen_at=None)
    db.run(connection, inventory.begin_sight(**where))
    db.run(connection, inventory.create())
    with db.connect(database, application="tests", organization_id=organization.organization_id) as newer:
        with ThreadPoolExecutor(1) as pool:
            with newer.transaction():
                db.run(newer, inventory.sight(**where))
                marking = pool.submit(lambda: db.run(connection, missed).fetchone())
                _await_a_waiter(database, newer)
            assert marking.result() == {"missing": 0}
        connection.execute("delete from sighting where data_source_id = %s", (source_id,))
        db.run(newer, inventory.create())
        newer.execute("insert into inventory values ('a', 1, 'e1', %s)", (EARLY,))
        assert db.run(connection, missed).fetchone() == {"missing": 1}
        db.run(newer, inventory.sight(**where))
        db.run(newer, inventory.see_again(data_source_id=source_id))
    row = _read(connection, organization, source_id)
    assert row["state"] == "imported"
    assert row["last_seen_at"] > LATE


def test_a_file_needs_a_data_source(connection: Connection, organization: CreatedOrganization, source_id: UUID) -> None:
    """As with a foreign key: none without, none left behind, none given away."""
    _known(connection, organization, source_id)
    with pytest.raises(ForeignKeyViolation):
        _known(connection, organization, ids.new())
    with pytest.raises(ForeignKeyViolation):
        connection.execute("update file set data_source_id = %s where data_source_id = %s", (ids.new(), source_id))
    connection.execute("delete from data_source where id = %s", (source_id,))
    assert connection.execute("select from file where data_source_id = %s", (source_id,)).fetchall() == []


def test_a_source_is_not_deleted_beside_a_listing(
    connection: Connection, organization: CreatedOrganization, source_id: UUID, database: str
) -> None:
    """Deleting waits for the files that are being added, and takes them along."""
    with db.connect(database, application="tests") as listing, ThreadPoolExecutor(1) as pool:
        with listing.transaction():
            _known(listing, organization, source_id)
            gone = pool.submit(connection.execute, "delete from data_source where id = %s", (source_id,))
            _await_a_waiter(database, listing)
        gone.result()
    assert connection.execute("select from file where data_source_id = %s", (source_id,)).fetchall() == []


def _await_a_waiter(database: str, holder: Connection) -> None:
    """Until somebody waits for a lock of `holder`."""
    query = "select from pg_stat_activity where %s = any(pg_blocking_pids(pid))"
    deadline = time.monotonic() + 30
    with db.connect(database, application="tests") as looking:
        while looking.execute(query, (holder.info.backend_pid,)).fetchone() is None:
            assert time.monotonic() < deadline


def _read(connection: Connection, organization: CreatedOrganization, source_id: UUID) -> dict[str, Any]:
    """The one file of the source, as readers see it."""
    statement = reading.files(organization_id=organization.organization_id, data_source_id=source_id, limit=2)
    (row,) = db.run(connection, statement).fetchall()
    return row
