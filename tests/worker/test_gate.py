"""What the gate lets through, and that it is always the same."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attacking
import pytest
import redis
from celery import Celery

from headwater import ids
from headwater.jobs.doorbell import Doorbell, Ring
from headwater_worker import gate

JOB = ids.encode("job", ids.new())


def raw(message: Any) -> bytes:
    """As it lies in Redis."""
    return message if isinstance(message, bytes) else json.dumps(message).encode()


def untagged(message: bytes | None) -> dict[str, Any]:
    """What was let through, without the tag that each has for itself."""
    assert message is not None
    found: dict[str, Any] = json.loads(message)
    assert len(found["properties"].pop("delivery_tag")) == 32
    return found


def empty(valkey: str) -> None:
    """No ring of another test waits there."""
    with redis.Redis.from_url(valkey) as client:
        client.delete("interactive", "bulk")


@pytest.mark.parametrize(
    "message", [pytest.param(message, id=name) for name, message in attacking.messages(JOB, Path("touched")).items()]
)
def test_what_is_no_ring_is_refused_once(message: Any) -> None:
    """And counted under one reason."""
    gate.REFUSALS.take()
    assert gate.ring("interactive", raw(message)) is None
    assert sum(gate.REFUSALS.take().values()) == 1


@pytest.mark.parametrize(
    ("read", "message", "reason"),
    [
        (gate.command, b'{"body": "' + b"x" * 9_000 + b'"}', "too_large"),
        (lambda message: gate.ring("bulk", message), b'{"body": "' + b"x" * 9_000 + b'"}', "too_large"),
        (gate.events, b'{"body": "' + b"x" * 70_000 + b'"}', "too_large"),
        (
            lambda message: gate.ring("bulk", message),
            attacking.envelope([[7], {}, {}], task="headwater.sync"),
            "malformed",
        ),
        (
            lambda message: gate.ring("bulk", message),
            attacking.envelope([[JOB], {}, {}], task="os.system"),
            "foreign_task",
        ),
        (lambda message: gate.ring("bulk", message), attacking.envelope([[JOB], {}, {}]), "foreign_task"),
        (gate.command, attacking.envelope([]), "malformed"),
        (gate.command, attacking.envelope({"method": "shutdown", "destination": None}), "foreign_command"),
        (gate.events, attacking.envelope([attacking.event(JOB, name="os.system")]), "foreign_task"),
        (gate.events, attacking.envelope([attacking.event(JOB, clock=True)]), "malformed"),
    ],
)
def test_a_refusal_says_why(read: Callable[[bytes], bytes | None], message: Any, reason: str) -> None:
    """It is what the metrics tell the operator."""
    gate.REFUSALS.take()
    assert read(raw(message)) is None
    assert gate.REFUSALS.take() == {reason: 1}


@pytest.mark.parametrize(
    "message", [pytest.param(message, id=name) for name, message in attacking.options(JOB).items()]
)
def test_a_ring_is_written_anew(message: Any) -> None:
    """From task and job alone, whatever else it said."""
    plain = attacking.envelope([[JOB], {}, {}])
    assert untagged(gate.ring("interactive", raw(message))) == untagged(gate.ring("interactive", raw(plain)))


def test_our_rings_are_what_celery_writes(valkey: str) -> None:
    """For a worker: without Celery's headers and options, which none of ours heeds."""
    empty(valkey)
    celery = Celery(broker=valkey, set_as_current=False)
    celery.send_task("headwater.connection_test", args=[JOB], task_id=JOB, queue="interactive")
    celery.close()
    doorbell = Doorbell(valkey)
    doorbell.ring([Ring(ids.decode("job", JOB), "connection_test", ids.new())])
    doorbell.close()
    with redis.Redis.from_url(valkey) as client:
        ours, celerys = client.lrange("interactive", 0, -1)
    assert untagged(gate.ring("interactive", celerys)) == untagged(gate.ring("interactive", ours)) == untagged(ours)


def test_rings_are_heard_in_their_order(valkey: str) -> None:
    """Which is the dispatcher's, fair to all; each on the queue of its kind."""
    empty(valkey)
    jobs = [ids.new() for _ in range(3)]
    kinds = ("connection_test", "sync", "file_listing")
    doorbell = Doorbell(valkey)
    doorbell.ring([Ring(job_id, kind, ids.new()) for job_id, kind in zip(jobs, kinds, strict=True)])
    doorbell.close()
    with redis.Redis.from_url(valkey) as client:
        heard = [json.loads(client.rpop(queue) or "") for queue in ("interactive", "interactive", "bulk")]
    assert [message["headers"]["id"] for message in heard] == [ids.encode("job", jobs[place]) for place in (0, 2, 1)]


@pytest.mark.parametrize("message", [pytest.param(said, id=name) for name, said in attacking.events(JOB).items()])
def test_what_no_worker_says_is_refused_once(message: Any) -> None:
    """Also where it stands among events that are some."""
    gate.REFUSALS.take()
    assert gate.events(raw(message)) is None
    assert sum(gate.REFUSALS.take().values()) == 1


def test_an_event_is_written_anew() -> None:
    """In the fields that workers fill, with its job for what it says of arguments, and words of some length."""
    said = attacking.event(JOB, retries=3, args="('x',)", eta="x" * 50, link=[attacking.HTML], parent_id="p")
    failed = attacking.event(JOB, type="task-failed", name="lies", exception="x" * 5_000)
    beat = {"type": "worker-heartbeat", "hostname": "bulk@here", "clock": 1, "timestamp": 2.5, "loadavg": [0.1, 2, 3]}
    read = untagged(gate.events(raw(attacking.envelope([said, failed, beat | {"uuid": "x"}]))))
    names = ("type", "hostname", "timestamp", "clock", "utcoffset", "pid", "uuid", "root_id")
    assert json.loads(base64.b64decode(read["body"])) == [
        {name: said[name] for name in (*names, "retries", "name")} | {"args": f"['{JOB}']", "kwargs": "{}"},
        {name: failed[name] for name in names} | {"retries": 0, "exception": "x" * 4_096},
        beat,
    ]


def test_no_command_passes_but_questions() -> None:
    """And these without their words."""
    refused = [gate.command(raw(attacking.envelope(body))) for body in attacking.commands(JOB, "interactive@here")]
    assert refused == [None] * len(refused)
    asked = attacking.questions()
    read = [untagged(gate.command(raw(attacking.envelope(body)))) for body in asked]
    bodies = [json.loads(base64.b64decode(command["body"])) for command in read]
    answered = {"reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "0" * 36}, "ticket": "0" * 36}
    assert bodies == [
        {"method": body["method"], "arguments": {}, "destination": None} | (answered if "ticket" in body else {})
        for body in asked
    ]
