"""Whoever can write to Redis makes jobs wait, and nothing else: real workers, and somebody at their Valkey."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attacking
import pytest
import redis
from engines import Engine, Process

from headwater import ids

REFUSED = "select labels ->> 'reason' as reason, value from tally where name = 'headwater_messages_refused_total'"


@pytest.fixture
def client(engine: Engine) -> Iterator[redis.Redis]:
    """At their Valkey, with its password."""
    with redis.Redis.from_url(engine.redis_url) as client:
        yield client


def refused(engine: Engine) -> int:
    """How many messages were refused, as the metrics will say."""
    return int(sum(row["value"] for row in engine.connection.execute(REFUSED)))


def works(engine: Engine, worker: Process) -> None:
    """The worker runs jobs as before, in the same process, and nothing else was run or written."""
    assert engine.ended(engine.post(engine.source()))["status"] == "succeeded"
    assert worker.alive
    assert not (engine.folder / "touched").exists()
    with redis.Redis.from_url(engine.redis_url) as client:
        assert not client.exists("stolen")


def test_what_is_no_ring_is_refused_and_counted(engine: Engine, client: redis.Redis) -> None:
    """Malformed, huge, compressed, pickled, other tasks: each is dropped unread, and the metrics know how many."""
    worker, before = engine.worker(slots=1), refused(engine)
    messages = attacking.messages(ids.encode("job", ids.new()), engine.folder / "touched")
    for message in messages.values():
        attacking.push(client, "interactive", message)
    works(engine, worker)
    engine.until(lambda: refused(engine) - before == len(messages))
    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if "messages.refused" in line]
    assert sum(line.get(reason, 0) for line in lines for reason in ("malformed", "too_large", "foreign_task")) == len(
        messages
    )
    assert len(lines) <= 3  # one in five seconds, however many there are


def test_a_ring_is_a_ring_whatever_stands_around_it(engine: Engine, client: redis.Redis) -> None:
    """ETA, limits, callbacks, answers wanted: none is heeded, and the job runs once."""
    worker = engine.worker(slots=1)
    running = engine.post(engine.source(files=100_000, records=0, pause_seconds=0.2), "file_listing")
    engine.running(running)
    job_id = engine.submit(engine.source())
    rings = list(attacking.options(ids.encode("job", job_id)).values())
    random.shuffle(rings)
    for message in rings:
        attacking.push(client, "interactive", message)
    engine.cancel(running)
    assert engine.ended(job_id)["attempt"] == 1
    works(engine, worker)


def test_a_ring_under_another_kinds_name_runs_nothing(engine: Engine, client: redis.Redis) -> None:
    """A listing would be ended as a crash by the shorter limit of a test."""
    job_id = engine.submit(engine.source(files=500, records=0, pause_seconds=0.2), "file_listing")
    public_id = ids.encode("job", job_id)
    for _ in range(20):
        attacking.push(client, "interactive", attacking.envelope([[public_id], {}, {}]))
    worker = engine.worker(slots=1)
    assert engine.ended(job_id)["attempt"] == 1
    text = worker.log.read_text()
    assert "of another kind" in text
    claimed = [json.loads(line) for line in text.splitlines() if '"job.claimed"' in line]
    assert [(line["job_id"], line["kind"]) for line in claimed] == [(public_id, "file_listing")]


def test_no_command_changes_a_worker(engine: Engine, client: redis.Redis) -> None:
    """Shutdown, revoke, pools, limits, consumers: refused and counted; questions are answered without their words."""
    worker, before = engine.worker(), refused(engine)
    children = set(worker.children())
    job_id = engine.submit(engine.source(files=2_000, records=0, pause_seconds=0.3), "file_listing")
    engine.running(job_id)
    name = f"interactive@{worker_host(engine)}"
    commands = attacking.commands(ids.encode("job", job_id), name)
    for body in [*commands, *attacking.questions()]:
        attacking.broadcast(client, body)
    attacking.broadcast(client, {"method": "ping", "destination": None}, clock="x" * 100, compression="gzip")
    client.publish("/0.celery.pidbox", b"\xff{")
    assert engine.ended(job_id)["status"] == "succeeded"
    works(engine, worker)
    engine.until(lambda: refused(engine) - before == len(commands) + 1)
    assert set(worker.children()) == children


def worker_host(engine: Engine) -> str:
    """The machine's name, as workers have it in theirs."""
    row = engine.one("select split_part(split_part(name, ':', 1), '@', 2) as host from worker limit 1")
    assert row is not None
    return str(row["host"])


@pytest.mark.parametrize("attack", [pytest.param(name, id=name) for name in attacking.KEYS])
def test_keys_that_somebody_spoiled_only_cost_time(engine: Engine, client: redis.Redis, attack: str) -> None:
    """The scheduler removes what is of another type and rings again; the worker goes on."""
    worker = engine.worker(slots=1)
    attacking.KEYS[attack](client)
    works(engine, worker)


@pytest.mark.long
@pytest.mark.parametrize("attack", [pytest.param(name, id=name) for name in attacking.KEYS])
def test_a_worker_starts_on_keys_that_somebody_spoiled(engine: Engine, client: redis.Redis, attack: str) -> None:
    """A machine that comes up in the middle of it."""
    attacking.KEYS[attack](client)
    works(engine, engine.worker(slots=1))


def _each(factory: Any) -> list[Any]:
    return [pytest.param(name, id=name) for name in factory]


@pytest.mark.long
@pytest.mark.parametrize("name", _each(attacking.messages("job_x", Path("x"))))
def test_each_message_alone(engine: Engine, client: redis.Redis, name: str) -> None:
    """So that a failure has a name."""
    worker = engine.worker(slots=1)
    message = attacking.messages(ids.encode("job", ids.new()), engine.folder / "touched")[name]
    for _ in range(20):
        attacking.push(client, "interactive", message)
    works(engine, worker)
