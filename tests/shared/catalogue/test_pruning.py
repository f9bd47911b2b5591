"""Dead loads are forgotten in bounded steps, and nothing that somebody can still see."""

import making
import pytest

from headwater import db
from headwater.catalogue import loads, pruning, reading
from headwater.catalogue.loads import Landed


@pytest.fixture
def place(connection, organization):
    """A source with a running job: (source, job)."""
    making.act_for(connection, organization.organization_id)
    project_id = making.make_project(connection, organization.organization_id)
    source_id = making.make_source(connection, organization.organization_id, project_id)
    answer = making.submit(connection, organization, project_id, source_id, "sync")
    connection.execute("update job set status = 'running' where id = %s", (answer["job"]["id"],))
    return source_id, answer["job"]["id"]


def _load(connection, organization, place, *, items=3, path="a", **columns):
    """A load with items and one reject; `columns` are set on its row."""
    source_id, job_id = place
    load_id = db.run(connection, loads.reserve(1)).fetchone()["id"]
    landed = Landed(id=load_id, path=path, etag="e", loaded=True, item_count=items, error_count=1)
    db.run(
        connection,
        loads.put(
            organization_id=organization.organization_id,
            data_source_id=source_id,
            job_id=job_id,
            fingerprint="f",
            loads=[landed],
        ),
    )
    connection.execute(
        "insert into item select %s, n, to_jsonb(n) from generate_series(1, %s::int) n", (load_id, items)
    )
    connection.execute("insert into reject (load_id, number, code, message) values (%s, 1, 'x', 'x')", (load_id,))
    for name, value in columns.items():
        connection.execute(f"update load set {name} = {value} where id = %s", (load_id,))
    return load_id


def _items(connection, load_id):
    return connection.execute("select count(*) from item where load_id = %s", (load_id,)).fetchone()["count"]


def _end(connection, job_id):
    connection.execute("update job set status = 'failed', finished_at = now() where id = %s", (job_id,))


@pytest.mark.parametrize(
    ("columns", "left"),
    [
        ({"valid_from": "1"}, 3),
        ({"valid_from": "1", "valid_to": "2", "closed_at": "now() - interval '59 minutes'"}, 3),
        ({"valid_from": "1", "valid_to": "2", "closed_at": "now() - interval '62 minutes'"}, 0),
        ({}, 3),
    ],
)
def test_only_what_no_cursor_can_need_is_emptied(connection, scheduling, organization, place, columns, left):
    """Live loads, freshly replaced ones and those of a running job keep their items; an hour later they go."""
    load_id = _load(connection, organization, place, **columns)
    pruning.prune(scheduling)
    assert _items(connection, load_id) == left


def test_an_ended_job_keeps_the_rejects_of_what_it_never_showed(connection, scheduling, organization, place):
    """Its items go at once; its rejects can be read until the job is gone, and go then."""
    load_id = _load(connection, organization, place)
    _end(connection, place[1])
    assert pruning.prune(scheduling) > 0
    assert _items(connection, load_id) == 0
    of_job = reading.rejects_of_job(organization_id=organization.organization_id, job_id=place[1], limit=10)
    assert len(db.run(connection, of_job).fetchall()) == 1
    assert pruning.prune_forgotten(scheduling) == 0
    connection.execute("delete from job where id = %s", (place[1],))
    assert pruning.prune_forgotten(scheduling) == 1
    assert connection.execute("select 1 from reject where load_id = %s", (load_id,)).fetchone() is None


def test_a_large_load_goes_in_steps(connection, scheduling, organization, place, monkeypatch):
    """No step deletes more than its bound, and the last one says that nothing is left."""
    monkeypatch.setattr(pruning, "_ITEMS", 4)
    load_id = _load(connection, organization, place, items=10)
    _end(connection, place[1])
    pruning.prune(scheduling, steps=1)
    assert _items(connection, load_id) == 6
    pruning.prune(scheduling)
    assert _items(connection, load_id) == 0
    assert pruning.prune(scheduling) == 0


def test_a_deleted_source_is_emptied_after_its_retention(connection, scheduling, organization, place):
    """Live loads of a source deleted long ago are closed, and pruned then."""
    load_id = _load(connection, organization, place, valid_from="1")
    for days, left in ((29, 3), (31, 0)):
        connection.execute(
            "update data_source set deleted_at = now() - make_interval(days => %s) where id = %s", (days, place[0])
        )
        db.run(connection, pruning.close_deleted_sources(retention_days=30))
        pruning.prune(scheduling)
        assert _items(connection, load_id) == left
