"""Whose turn it is."""

from uuid import UUID

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.jobs import dispatching


def make_organization(connection: Connection, *jobs: int) -> UUID:
    """An organization with a project, and for each number a source with so many queued tests."""
    organization_id, project_id = ids.new(), ids.new()
    connection.execute("insert into organization (id, name) values (%s, 'o')", (organization_id,))
    connection.execute(
        "insert into project (id, organization_id, name) values (%s, %s, 'p')", (project_id, organization_id)
    )
    for count in jobs:
        source_id = ids.new()
        connection.execute(
            "insert into data_source (id, organization_id, project_id, name, type) values (%s, %s, %s, %s, 'scripted')",
            (source_id, organization_id, project_id, source_id.hex),
        )
        make_jobs(connection, organization_id, project_id, source_id, count)
    return organization_id


def make_jobs(
    connection: Connection, organization_id: UUID, project_id: UUID, source_id: UUID | None, count: int
) -> None:
    """So many queued tests of a source; None: of configs that are not saved."""
    connection.execute(
        """
        insert into job (
            id, organization_id, project_id, data_source_id, draft, kind, queue, max_attempts, deadline_seconds
        )
        select uuid_v7(), %s, %s, %s, '{}', 'connection_test', 'interactive', 1, 60 from generate_series(1, %s)
        """,
        (organization_id, project_id, source_id, count),
    )


def rung(connection: Connection, limit: int, source_limit: int = 1000) -> dict[UUID, int]:
    """Ring for `limit` jobs; how many of each organization were chosen."""
    statement = dispatching.dispatch(
        queue="interactive", limit=limit, running_limit=1000, source_limit=source_limit, rering_seconds=15
    )
    chosen = [row["id"] for row in db.run(connection, statement)]
    rows = connection.execute(
        "select organization_id, count(*) as n from job where id = any(%s) group by 1", (chosen,)
    ).fetchall()
    return {row["organization_id"]: row["n"] for row in rows}


def test_a_flood_of_one_organization_does_not_hold_up_another(
    connection: Connection, organization: CreatedOrganization
) -> None:
    """Of ten rings, an organization with three waiting gets its three, the one with 2,000 the rest."""
    flooding, small = make_organization(connection, 2000), make_organization(connection, 3)
    assert rung(connection, 10) == {flooding: 7, small: 3}


def test_what_was_rung_is_not_rung_again_at_once(connection: Connection) -> None:
    """Only the unrung ones are chosen next; after the wait, or when the ring did not get through, all again."""
    connection.execute("delete from job")
    own = make_organization(connection, 5)
    assert rung(connection, 3) == {own: 3}
    assert rung(connection, 10) == {own: 2}
    assert rung(connection, 10) == {}
    connection.execute("update job set rung_at = now() - interval '16 seconds'")
    assert rung(connection, 10) == {own: 5}
    db.run(connection, dispatching.unring_all())
    assert rung(connection, 10) == {own: 5}


def test_a_suspended_organization_is_passed_over(connection: Connection) -> None:
    """Its jobs wait."""
    connection.execute("delete from job")
    own = make_organization(connection, 2)
    connection.execute("update organization set suspended_at = now() where id = %s", (own,))
    assert rung(connection, 10) == {}


def test_one_source_does_not_hold_up_another_of_the_same_organization(connection: Connection) -> None:
    """A source gets as many as may run of it at once, less those that run; the others go past it."""
    connection.execute("delete from job")
    own = make_organization(connection, 2000, 3)
    assert rung(connection, 10, source_limit=4) == {own: 7}
    by_source = "select count(*) as n from job where {} group by data_source_id order by n"
    assert [row["n"] for row in connection.execute(by_source.format("rung_at is not null"))] == [3, 4]
    connection.execute("update job set status = 'running', attempt = 1, rung_at = null where rung_at is not null")
    assert rung(connection, 10, source_limit=4) == {}
    assert rung(connection, 10, source_limit=5) == {own: 1}


def test_unsaved_tests_have_no_source_to_be_capped_by(connection: Connection) -> None:
    """They count for the organization alone."""
    connection.execute("delete from job")
    own = make_organization(connection, 2)
    project = connection.execute("select id from project where organization_id = %s", (own,)).fetchone()
    assert project is not None
    make_jobs(connection, own, project["id"], None, 6)
    assert rung(connection, 20, source_limit=1) == {own: 7}


def test_priority_and_age_decide_between_the_sources_of_an_organization(connection: Connection) -> None:
    """Not the order in which the sources are walked."""
    connection.execute("delete from job")
    make_organization(connection, 1, 1, 1)
    order = [row["id"] for row in connection.execute("select id from job order by random()")]
    for place, job_id in enumerate(order):
        connection.execute(
            "update job set priority = %s, created_at = now() - make_interval(secs => %s) where id = %s",
            (5 if place == 0 else 0, len(order) - place, job_id),
        )
    for job_id in order:
        statement = dispatching.dispatch(
            queue="interactive", limit=1, running_limit=1000, source_limit=4, rering_seconds=15
        )
        assert [row["id"] for row in db.run(connection, statement)] == [job_id]
