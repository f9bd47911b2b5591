"""The checkers notice: each promise, broken by hand in rows, logs or messages, is named."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import invariants
import making
import pytest
import redis
from engines import CANARY, Engine

from headwater import db
from headwater.access.organizations import CreatedOrganization
from headwater.jobs import lifecycle
from headwater.jobs.outcome import Progress, Succeeded
from headwater.settings import JobSettings
from headwater_cli import home

FINE = Succeeded({"success": True, "message": "fine"})


@pytest.fixture
def engine(
    make_engine: Callable[..., Any], database: str, organization: CreatedOrganization, tmp_path: Path
) -> Iterator[Engine]:
    """An engine whose only work is done by hand: a job that ended, and a source whose one file was brought in."""
    with make_engine(database=database, organization=organization, folder=tmp_path) as engine:
        yield engine
        # The tests break what triggers protect; the next one finds nothing of it.
        engine.connection.execute("set session_replication_role = replica")
        for table in ("job", "event", "load", "item", "reject", "item_key", "file", "data_source", "job_attempt",
                      "job_lease", "job_progress", "data_source_totals", "data_source_version", "audit_chain",
                      "audit_entry", "idempotency_record"):  # fmt: skip
            engine.connection.execute(f"delete from {table}")


@pytest.fixture
def job_id(engine: Engine) -> UUID:
    """A job that ended well, sealed in the audit log."""
    job_id = engine.submit(engine.source(password=CANARY, files=1, records=1))
    worker = making.as_service(engine.database, "worker")
    with db.connect(worker, application="tests") as working:
        claim = lifecycle.claim(working, job_id, worker="w", settings=JobSettings())
        assert claim is not None
        assert lifecycle.record(working, claim, FINE, Progress("done"), settings=JobSettings()) == "succeeded"
    making.bring_in(engine.connection, engine.organization.organization_id, claim.data_source_id)
    engine.connection.execute("delete from upload")
    engine.connection.execute("delete from item_key")
    engine.connection.execute("update load set job_id = %s, counters = '{}'", (job_id,))
    engine.connection.execute("update file set load_id = (select id from load), item_count = 1, error_count = 1")
    engine.connection.execute("update data_source_totals set item_count = 1, error_count = 1")
    making.seal_all(engine.connection)
    engine.connection.execute("set session_replication_role = replica")
    return job_id


def test_what_is_as_it_should_be_breaks_nothing(engine: Engine, job_id: UUID) -> None:
    """Otherwise the other tests here would prove nothing."""
    invariants.check(engine)


_ROWS = {
    "kept": ["delete from job"],
    "ended": ["update job set status = 'running'"],
    "final once": [
        "insert into event (organization_id, job_id, act, details)"
        " select organization_id, id, 'job.failed', '{\"status\": \"failed\"}' from job",
        "update job set status = 'failed'",
        "update job set finished_at = null",
    ],
    "steps": [
        "insert into event (organization_id, job_id, act, details)"
        " select organization_id, id, 'job.started', '{\"status\": \"running\"}' from job",
        "delete from event where act = 'job.started'",
    ],
    "attempts": [
        "update job set attempt = 2",
        "update job set crashes = 1",
        "update job set interruptions = 1",
        "update job_attempt set outcome = null",
        "update job_attempt set outcome = 'failed'",
        "delete from job_attempt",
    ],
    "crashes": [
        "update job set status = 'failed', crashes = 1, error = '{\"code\": \"worker_crash\"}'",
        "update job set error = '{\"code\": \"deadline_exceeded\"}', deadline_at = now() + interval '1 hour'",
    ],
    "leases": [
        "insert into job_lease (job_id, organization_id, token, worker, until)"
        " select job_id, organization_id, token, worker, now() from job_attempt",
        "update job set status = 'running'",
    ],
    "rings": [
        "update job set rung_at = now()",
        "update job set status = 'queued', rung_at = now() - interval '1 minute'",
    ],
    "cancelled": [
        "update job set status = 'cancelled'",
        "update job set cancel_requested_at = now() - interval '1 hour'",
    ],
    "effects": [
        "update job set kind = 'sync'; insert into item (load_id, record_number, data) select id, 2, '{}' from load",
        "update job set kind = 'sync'; delete from item",
    ],
    "files": [
        "update file set item_count = 2",
        "update load set valid_to = 2",
        "update job set kind = 'file_listing', result = '{\"file_count\": 2}'",
    ],
    "counts": [
        "update load set loaded = true, item_count = 2",
        "update load set loaded = true, error_count = 0",
        "update data_source_totals set item_count = 0",
        "update data_source_totals set error_count = 2",
        "update job set kind = 'sync'; update job_progress set counters = '{\"landed\": 2, \"rejected\": 1}'",
    ],
    "walls": ["update load set organization_id = gen_random_uuid()"],
    "audit": [
        "update audit_entry set act = 'job.cancel'",
        "delete from audit_chain",
    ],
    "entries": [
        "update audit_entry set subject_id = gen_random_uuid()",
        "update job set cancel_requested_by = created_by, cancel_requested_at = created_at",
    ],
    "secrets": [f"update job_attempt set worker = '{CANARY}'"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "statement"),
    [(name, statement) for name, statements in _ROWS.items() for statement in statements],
)
def test_a_broken_row_is_noticed(engine: Engine, job_id: UUID, name: str, statement: str) -> None:
    """By the promise that is about it."""
    engine.answers["key"] = job_id
    engine.connection.execute(statement)
    with pytest.raises(AssertionError, match=rf"(?m)^{name}: "):
        invariants.check(engine)


def _says_a_fault(engine: Engine) -> None:
    process = engine.start("scheduler", "headwater")
    process.popen.wait()
    process.log.write_text('{"event": "job.fault"}')


def _logs_the_secret(engine: Engine) -> None:
    process = engine.start("scheduler", "headwater")
    process.popen.wait()
    process.log.write_text(f'{{"event": {CANARY!r}}}')


def _rings_with_the_secret(engine: Engine) -> None:
    with redis.Redis.from_url(engine.redis_url) as client:
        client.set("key", CANARY)


def _answers_twice(engine: Engine) -> None:
    engine.answers["key"] = uuid4()


@pytest.mark.parametrize(
    ("name", "break_it"),
    [
        ("faults", _says_a_fault),
        ("secrets", _logs_the_secret),
        ("secrets", _rings_with_the_secret),
        ("once", _answers_twice),
    ],
)
def test_what_breaks_beside_the_rows_is_noticed(
    engine: Engine, job_id: UUID, name: str, break_it: Callable[[Engine], None]
) -> None:
    """In logs, in Redis, in what clients were told."""
    break_it(engine)
    with pytest.raises(AssertionError, match=rf"(?m)^{name}: "):
        invariants.check(engine)


def test_every_promise_has_been_broken() -> None:
    """A promise without a test above could be one that nothing breaks."""
    beside = {"faults", "secrets", "once"}
    assert {promise.name for promise in invariants.PROMISES} == _ROWS.keys() | beside | {"sessions"}


def test_the_promises_are_those_of_the_page() -> None:
    """docs/faults.md lists them, in the same words."""
    page = (home.checkout() / "docs/faults.md").read_text(encoding="utf-8")
    section = page.partition("## What is promised")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `([a-z ]+)` \| (.+) \|$", section, re.MULTILINE)
    assert listed == [(promise.name, promise.words) for promise in invariants.PROMISES]
