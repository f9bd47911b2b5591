"""An inventory compared with the catalogue: the verdicts of a listing and of a sync."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import making
import pytest

from headwater import db
from headwater.access.organizations import CreatedOrganization
from headwater.catalogue import inventory
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
        fingerprint=fingerprint,
    )
    counts = db.run(connection, statement).fetchone()
    row = connection.execute("select state from file where data_source_id = %s", (source_id,)).fetchone()
    assert counts is not None
    assert row is not None
    assert sum(counts.values()) == 1
    return next(verdict for verdict, count in counts.items() if count), row["state"]


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


def test_seeing_moves_last_seen_and_not_first_seen(
    connection: Connection, organization: CreatedOrganization, source_id: UUID
) -> None:
    """The catalogue knows since when and until when a file was there."""
    _known(connection, organization, source_id, first_seen_at=EARLY, last_seen_at=EARLY)
    _see(connection, organization, source_id)
    row = connection.execute(
        "select first_seen_at, last_seen_at from file where data_source_id = %s", (source_id,)
    ).fetchone()
    assert row is not None
    assert row["first_seen_at"] == EARLY
    assert row["last_seen_at"] > LATE
