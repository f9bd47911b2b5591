"""Pages of the catalogue stay inside one organization, one source and one prefix."""

import making
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater import db, ids
from headwater.catalogue import reading


@given(prefix=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), tail=st.text(max_size=3))
def test_the_end_of_a_prefix_is_behind_all_that_start_with_it(prefix, tail):
    """In byte order, as Postgres's collation C has it."""
    end = reading.prefix_end(prefix)
    text = (prefix + tail).encode(errors="replace")
    assert end is None or text < end.encode()
    assert end is None or not end.startswith(prefix)


@pytest.fixture
def source(connection, organization):
    """A source with three files."""
    project_id = making.make_project(connection, organization.organization_id)
    source_id = making.make_source(connection, organization.organization_id, project_id)
    for path in ("a/1", "a/2", "b/1"):
        connection.execute(
            "insert into file (data_source_id, organization_id, path) values (%s, %s, %s)",
            (source_id, organization.organization_id, path),
        )
    return source_id


def test_files_come_by_prefix_and_page(connection, organization, source):
    """In path order, behind the last one seen."""

    def paths(**filters):
        statement = reading.files(
            organization_id=organization.organization_id, data_source_id=source, **({"limit": 2} | filters)
        )
        return [row["path"] for row in db.run(connection, statement).fetchall()]

    assert paths() == ["a/1", "a/2"]
    assert paths(after_path="a/2") == ["b/1"]
    assert paths(prefix="b/") == ["b/1"]
    assert paths(state="missing") == []


def test_another_organization_sees_nothing(connection, source):
    """The organization is part of every read."""
    mine = {"organization_id": ids.new(), "data_source_id": source, "limit": 10}
    for statement in (reading.files(**mine), reading.items(**mine), reading.rejects(**mine)):
        assert db.run(connection, statement).fetchall() == []
