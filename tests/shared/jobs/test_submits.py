"""Submits together: each is answered, written and refused as if it came behind those before it."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import making
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection, Row
from headwater.jobs import dispatching

# What differs between a set and one after another: moments, and how many already wait in front.
_BLOCKED: Final = "select pg_blocking_pids(%s) as by"
_MOMENTARY: Final = ("created_at", "run_at", "queue_position")


@dataclass(frozen=True)
class Ground:
    """Sources to submit for, by what becomes of it. One key was used before."""

    connection: Connection
    organization: CreatedOrganization
    project_id: UUID
    sources: dict[str, UUID]

    def request(self, **move: Any) -> dict[str, Any]:
        """One submit as `MOVES` draws it."""
        source_id = self.sources.get(move.pop("source"))
        if source_id is None:
            move |= {"kind": "connection_test", "draft": {"type": "scripted", "config": {}}}
        request = making.submit_request(self.organization, self.project_id, source_id or ids.new(), **move)
        return request | {"data_source_id": source_id and str(source_id)}


@pytest.fixture(scope="module")
def elsewhere(database: str, organization: CreatedOrganization) -> UUID:
    """A project in which the sources are not."""
    with db.connect(database, application="tests") as connection:
        return making.make_project(connection, organization.organization_id)


@pytest.fixture(scope="module")
def ground(database: str, organization: CreatedOrganization, project_id: UUID, elsewhere: UUID) -> Any:
    """Two sources that are good, and others that are not."""
    ours = organization.organization_id
    with db.connect(database, application="tests") as connection:
        sources = {
            name: making.make_source(connection, ours, project_id)
            for name in ("one", "two", "inactive", "running", "deleted")
        }
        sources["elsewhere"] = making.make_source(connection, ours, elsewhere)
        connection.execute("update data_source set is_active = false where id = %s", (sources["inactive"],))
        connection.execute("update data_source set deleted_at = now() where id = %s", (sources["deleted"],))
        making.submit(
            connection, organization, project_id, sources["running"], "sync",
            params={"prefix": "a"}, idempotency_key="used", route="POST /tests", fingerprint="00",
        )  # fmt: skip
        connection.execute(
            "update organization set live_job_limit = 4, deadline_limit_seconds = 100 where id = %s", (ours,)
        )
        yield Ground(connection, organization, project_id, sources | {"unknown": ids.new()})


MOVES: Final = st.lists(
    st.fixed_dictionaries(
        {
            "source": st.sampled_from(
                ["one", "two", "one", "two", "running", "inactive", "deleted", "elsewhere", "unknown", "draft"]
            ),
            "kind": st.sampled_from(["connection_test", "sync"]),
            "params": st.sampled_from([{}, {"prefix": "a"}]),
            "priority": st.sampled_from([0, 0, 5]),
            "deadline_seconds": st.sampled_from([None, 60, 60, 101]),
            "default_deadline_seconds": st.sampled_from([50, 200]),
            "types": st.sampled_from([["scripted"], ["scripted"], ["s3"]]),
            "key": st.sampled_from([None, None, "fresh", "used", "mismatched"]),
        }
    ),
    min_size=1,
    max_size=8,
)


def _keyed(moves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the keys written out: the used one can be in a set once."""
    seen: set[str] = set()
    keyed = []
    for index, move in enumerate(moves):
        move, key = dict(move), move["key"]
        del move["key"]
        if key == "fresh":
            move |= {"idempotency_key": f"fresh {index}", "route": "POST /tests", "fingerprint": "00"}
        elif key is not None and "used" not in seen:
            seen.add("used")
            fingerprint = "00" if key == "used" else "01"
            move |= {"idempotency_key": "used", "route": "POST /tests", "fingerprint": fingerprint}
        keyed.append(move)
    return keyed


def _written(connection: Connection) -> dict[str, list[Row]]:
    """Jobs, events, audit entries and keys, without what counts up or is a moment."""
    queries = {
        "job": "select to_jsonb(j) - '{created_at,run_at,rung_at}'::text[] as row from job j order by id",
        "event": "select to_jsonb(e) - '{id,number,created_at}'::text[] as row from event e order by number",
        "audit_entry": "select to_jsonb(a) - '{id,number,created_at,xid}'::text[] as row from audit_entry a"
        " order by number",
        "idempotency_record": "select to_jsonb(r) - '{created_at,body}'::text[]"
        " || jsonb_build_object('job', r.body -> 'id') as row from idempotency_record r order by key",
    }
    return {table: connection.execute(query).fetchall() for table, query in queries.items()}  # type: ignore[call-overload]


def _lasting(answer: dict[str, Any]) -> dict[str, Any]:
    if not answer.get("job"):
        return answer
    return answer | {"job": {name: value for name, value in answer["job"].items() if name not in _MOMENTARY}}


def _move(source: str, kind: str = "connection_test") -> dict[str, Any]:
    return {"source": source, "kind": kind, "deadline_seconds": 60, "key": None}


@given(moves=MOVES)
# Three places are left: one is a sync's, which the next one joins without another.
@example(
    moves=[_move("one", "sync"), _move("one", "sync"), _move("two"), _move("one"), _move("two"), _move("two", "sync")]
)
# No place is left for the first sync of a source, nor then for the second.
@example(moves=[*[_move("one")] * 3, _move("two", "sync"), _move("two", "sync"), _move("running", "sync")])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_set_is_answered_and_written_as_one_after_another(ground: Ground, moves: list[dict[str, Any]]) -> None:
    """Whatever stands in it: refused neighbours, syncs of one source, keys, and a quota that ends in its middle."""
    requests = [ground.request(**move) for move in _keyed(moves)]
    connection = ground.connection
    with connection.transaction(force_rollback=True):
        alone = [making.submit_all(connection, ground.organization, [request])[0] for request in requests]
        expected = _written(connection)
    with connection.transaction(force_rollback=True):
        together = making.submit_all(connection, ground.organization, requests)
        written = _written(connection)
    assert [_lasting(answer) for answer in together] == [_lasting(answer) for answer in alone]
    assert written == expected


def test_what_is_not_rung_for_is_left_to_the_dispatcher(ground: Ground) -> None:
    """In one set: who rings says so of each, and the former API, which says nothing, rings for all."""
    connection = ground.connection
    requests = [ground.request(source="one", rung=False), ground.request(source="one", rung=True)]
    with connection.transaction(force_rollback=True):
        making.submit_all(connection, ground.organization, [*requests, ground.request(source="one")])
        jobs = connection.execute("select rung_at is not null as rung from job order by id").fetchall()
        chosen = dispatching.dispatch(
            queue="interactive", limit=1000, running_limit=1000, source_limit=1000, rering_seconds=15
        )
        left = {str(row["id"]) for row in db.run(connection, chosen)}
    assert [job["rung"] for job in jobs[-3:]] == [False, True, True]
    assert [each["id"] in left for each in requests] == [True, False]


def test_each_answer_is_what_the_view_shows(ground: Ground) -> None:
    """Field by field, with its own place in the queue, of drafts too."""
    wanted = [
        {"source": "one", "kind": "sync"}, {"source": "two", "priority": 5}, {"source": "draft"},
        {"source": "running", "priority": -1}, {"source": "one", "kind": "file_listing", "retry_of": str(ids.new())},
        {"source": "one", "priority": 5}, {"source": "two"},
    ]  # fmt: skip
    connection = ground.connection
    with connection.transaction(force_rollback=True):
        connection.execute("update organization set live_job_limit = null, running_limit = 7")
        connection.execute("insert into worker (name, queue, slots, version) values ('w', 'bulk', 1, '1')")
        running = making.submit(connection, ground.organization, ground.project_id, ground.sources["one"])["job"]
        connection.execute("update job set status = 'running' where id = %s", (running["id"],))
        making.submit(connection, ground.organization, ground.project_id, ground.sources["one"])
        answers = making.submit_all(connection, ground.organization, [ground.request(**each) for each in wanted])
        shown = [
            connection.execute(
                "select to_jsonb(v) as job from job_view v where id = %s", (each["job"]["id"],)
            ).fetchone()
            for each in answers
        ]
    assert [{"job": answer["job"]} for answer in answers] == shown
    # Two of priority 5, one job of before, then those of priority 0; the sync is in a queue of its own.
    positions = [answer["job"]["queue_position"] for answer in answers]
    assert positions == [2, 1, 4, 7, 5, 2, 6]


def test_a_key_stands_in_a_set_once(ground: Ground) -> None:
    """Whoever sends it twice at one moment is told, and nothing is written."""
    keyed = {"idempotency_key": "twice", "route": "POST /tests", "fingerprint": "00"}
    before = _written(ground.connection)
    with pytest.raises(psycopg.errors.CardinalityViolation):
        making.submit_all(
            ground.connection, ground.organization, [ground.request(source="one", **keyed) for _ in range(2)]
        )
    assert _written(ground.connection) == before


def test_what_the_former_api_calls_does_the_same(ground: Ground) -> None:
    """One submit, with its organization in the request."""
    request = ground.request(source="one") | {"organization_id": str(ground.organization.organization_id)}
    with ground.connection.transaction(force_rollback=True):
        row = ground.connection.execute("select job_submit(%s) as answer", (db.json(request),)).fetchone()
    assert row is not None
    assert (row["answer"]["outcome"], row["answer"]["job"]["id"]) == ("created", request["id"])


class TestLocks:
    """Two sets never wait for one another: they lock and insert in one order, whatever order they were sent in."""

    def test_sources_are_locked_in_the_order_of_their_ids(self, ground: Ground, database: str) -> None:
        """Behind a source that is being deleted, a set that waits holds none of a higher id."""
        lower, higher = sorted((ground.sources["one"], ground.sources["two"]))
        with db.connect(database, application="tests") as other, other.transaction(force_rollback=True):
            other.execute("select from data_source where id = %s for update", (lower,))
            tests = [{"source_id": source, "kind": "connection_test"} for source in (higher, lower)]
            with _waiting(ground, database, tests, holder=other):
                found = ground.connection.execute(
                    "select id from data_source where id = %s for update skip locked", (higher,)
                ).fetchone()
        assert found == {"id": higher}

    def test_live_syncs_are_made_in_the_order_of_their_sources(self, ground: Ground, database: str) -> None:
        """Behind a sync that is not committed yet, a set that waits has made none of a higher id."""
        lower, higher = sorted((ground.sources["one"], ground.sources["two"]))
        syncs = [{"source_id": source, "kind": "sync"} for source in (higher, lower)]
        with db.connect(database, application="tests") as other, other.transaction(force_rollback=True):
            making.submit(other, ground.organization, ground.project_id, lower, "sync")
            with (
                _waiting(ground, database, syncs, holder=other),
                ground.connection.transaction(force_rollback=True),
            ):
                ground.connection.execute("set local lock_timeout = '2s'")
                answer = making.submit(ground.connection, ground.organization, ground.project_id, higher, "sync")
        assert answer["outcome"] == "created"


@contextmanager
def _waiting(ground: Ground, database: str, wanted: Sequence[dict[str, Any]], *, holder: Connection) -> Iterator[None]:
    """Meanwhile a set waits in a thread of its own for what `holder` has; it is given up in the end."""
    requests = [
        making.submit_request(ground.organization, ground.project_id, each["source_id"], each["kind"])
        for each in wanted
    ]
    with db.connect(database, application="tests") as own:

        def submit() -> None:
            with suppress(psycopg.errors.QueryCanceled):
                making.submit_all(own, ground.organization, requests)

        thread = threading.Thread(target=submit)
        thread.start()
        by = [holder.info.backend_pid]
        while ground.connection.execute(_BLOCKED, (own.info.backend_pid,)).fetchone() != {"by": by}:
            assert thread.is_alive()
        yield
        own.cancel_safe()
        thread.join()
