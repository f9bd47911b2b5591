"""Somebody who can write to Redis, and what they may put there.

`MESSAGES` are things to push onto a queue, each by the name of what is wrong with it; `COMMANDS` are remote-control
commands of Celery's; `EVENTS` are what workers are made to say; `KEYS` turn keys that a worker or the scheduler reads
into something else.
"""

import base64
import bz2
import json
import lzma
import pickle
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import redis

from headwater import ids

Sent = list[bytes]
BOMB_BYTES: Final = 20 * 1024 * 1024
HTML: Final = "<img src=x onerror=alert(1)><script>alert(2)</script>"


class _Touch:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self._path,))


def envelope(body: Any, *, task: Any = "headwater.connection_test", raw: str | None = None, **changes: Any) -> Any:
    """A message as Celery's Redis transport writes it; `changes` are for headers, properties, and the rest by name."""
    encoded = raw if raw is not None else base64.b64encode(json.dumps(body).encode()).decode()
    given = changes.get("headers", {})
    return {
        "body": encoded,
        "content-encoding": changes.get("content_encoding", "utf-8"),
        "content-type": changes.get("content_type", "application/json"),
        "headers": {"lang": "py", "task": task, "id": ids.new().hex, **given} if isinstance(given, dict) else given,
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "interactive"},
            "delivery_tag": ids.new().hex,
            **changes.get("properties", {}),
        },
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def messages(unknown_job: str, touched: Path) -> dict[str, Any]:
    """What no worker may read: bytes as they are, all else as JSON."""
    ring = [[unknown_job], {}, {}]
    call = {"task": "headwater.sync", "args": [unknown_job], "kwargs": {}, "options": {"queue": "stolen"}}
    bombs = {"gzip": zlib.compress(b"0" * BOMB_BYTES), "bzip2": bz2.compress(b"0" * BOMB_BYTES)}
    return {
        "nothing": b"",
        "no text": b"\xff\xfe\x00\x00",
        "no JSON": b"{" * 100,
        "deep": b"[" * 100_000 + b"]" * 100_000,
        "a list": [1, 2, 3],
        "a number of many digits": b'{"headers": ' + b"9" * 8_000 + b"}",
        "NaN": b'{"headers": NaN}',
        "null": None,
        "no headers": {"body": "", "properties": {}},
        "no properties": {"body": _base64(b"[]"), "headers": {"task": "headwater.sync", "id": "x"}},
        "headers that are a list": {"headers": ["task"], "properties": {"delivery_tag": "x"}},
        "large": b'{"headers": "' + b"x" * 900_000 + b'"}',
        "a body that is no base64": envelope(ring, raw="!!!"),
        "a body that is no JSON": envelope(ring, raw=_base64(b"\x80\x04")),
        "a body that is an object": envelope({"task": "headwater.sync"}),
        "a body that is empty": envelope([]),
        "no job": envelope([[], {}, {}]),
        "a job that is a number": envelope([[7], {}, {}]),
        "a job of another form": envelope([["../../etc/passwd"], {}, {}]),
        "many jobs": envelope([[unknown_job] * 3, {}, {}]),
        "pickle": envelope(
            None, raw=_base64(pickle.dumps(_Touch(touched))), content_type="application/x-python-serialize",
            content_encoding="binary",
        ),
        "yaml": envelope(
            None, raw=_base64(f'!!python/object/apply:os.mknod ["{touched}"]'.encode()),
            content_type="application/x-yaml",
        ),
        "msgpack": envelope(
            None, raw=_base64(b"\x93\x91\xa1x\x80\x80"), content_type="application/x-msgpack", content_encoding="binary"
        ),
        **{
            f"a bomb in {name}": envelope(None, raw=_base64(bomb), headers={"compression": f"application/x-{kind}"})
            for (name, bomb), kind in zip(bombs.items(), ("gzip", "bz2"), strict=True)
        },
        "lzma": envelope(None, raw=_base64(lzma.compress(b"x")), headers={"compression": "application/x-lzma"}),
        "a type that JSON has not": envelope([[{"__type__": "bytes", "__value__": unknown_job}], {}, {}]),
        "another task": envelope(ring, task="os.system"),
        "Celery's own task": envelope([[], {}, {}], task="celery.backend_cleanup"),
        "Celery's chord": envelope([[[call], {}], {}, {}], task="celery.chord"),
        "a task of another queue": envelope(ring, task="headwater.sync"),
        "a task that is an object": envelope(ring, task={"$": 1}),
        "the first protocol": {**envelope(None), "headers": {}, "body": _base64(json.dumps(
            {"task": "headwater.sync", "id": "x", "args": [unknown_job], "kwargs": {}, "callbacks": [call]}
        ).encode())},
    }  # fmt: skip


def options(job: str) -> dict[str, Any]:
    """Rings for `job` with what nobody asked for around them; each is a ring and nothing else."""
    ring = [[job], {}, {}]
    call = {"task": "headwater.sync", "args": [job], "kwargs": {}, "options": {"queue": "stolen"}, "immutable": True}
    headers: dict[str, dict[str, Any]] = {
        "an ETA": {"eta": "2999-01-01T00:00:00"},
        "an ETA that is none": {"eta": {"year": 1}},
        "an ETA that overflows": {"eta": "9999-12-31T23:59:59.999999-14:00"},
        "a past end": {"expires": "2001-01-01T00:00:00"},
        "an end that is none": {"expires": "never"},
        "a time limit": {"timelimit": [0.001, 0.001]},
        "a time limit that is none": {"timelimit": "x"},
        "a shadow": {"shadow": "<script>alert(1)</script>"},
        "errbacks": {"errbacks": [call], "retries": 10**9},
        "a group": {"group": "g", "root_id": "r", "parent_id": "p"},
        "stamps": {"stamped_headers": ["x"], "stamps": {"x": ["y"]}, "x": "y"},
        "an id that is none": {"id": None},
        "an id that is an object": {"id": {"a": 1}},
        "names that lie": {"argsrepr": "x" * 3000, "kwargsrepr": 1, "origin": [1]},
        "a result wanted": {"ignore_result": False, "replaced_task_nesting": "x"},
    }
    embedded = {
        "callbacks": {"callbacks": [call], "errbacks": [call], "chain": [call], "chord": call},
        "callbacks that are none": {"callbacks": "x", "chain": 5, "chord": "y"},
    }
    properties: dict[str, dict[str, Any]] = {
        "an answer wanted": {"reply_to": "stolen", "correlation_id": "x"},
        "a priority": {"priority": 9},
        "no tag": {"delivery_tag": None},
        "a tag that is an object": {"delivery_tag": {"x": 1}},
        "a foreign way": {"delivery_info": {"exchange": "x", "routing_key": "stolen"}},
    }
    return {
        **{name: envelope(ring, headers=given) for name, given in headers.items()},
        **{name: envelope([[job], {}, given]) for name, given in embedded.items()},
        **{name: envelope(ring, properties=given) for name, given in properties.items()},
        "words for a task": envelope([[job], {"self": 1, "job_id": 2}, {}]),
    }


def event(job: str, **changes: Any) -> dict[str, Any]:
    """What a worker says when it has received a ring; of `changes`, None takes a field away."""
    said = {
        "type": "task-received", "hostname": "bulk@here", "utcoffset": 0, "pid": 7, "clock": 12, "uuid": job,
        "timestamp": time.time(), "name": "headwater.sync", "args": f"['{job}']", "kwargs": "{}", "root_id": job,
        "parent_id": None, "retries": 0, "eta": None, "expires": None, **changes,
    }  # fmt: skip
    return {name: value for name, value in said.items() if value is not None}


def events(job: str) -> dict[str, Any]:
    """What Flower should not hear: bytes as they are, all else as JSON. Where there are words, they are live HTML."""
    beat = event(job, type="worker-heartbeat", uuid=None, name=None, args=None, kwargs=None, root_id=None, retries=None)
    forged: dict[str, Any] = {
        "no event": 7,
        "an empty one": {},
        "no type": event(job, type=None),
        "a type that is a list": event(job, type=[HTML]),
        "another type": event(job, type="task-" + HTML),
        "no worker": event(job, hostname=None),
        "a worker that is a list": event(job, hostname=[HTML]),
        "a worker of HTML": event(job, hostname=HTML),
        "a worker with a long name": event(job, hostname="x" * 5_000),
        "a clock that is text": event(job, clock=HTML),
        "a clock that overflows": event(job, clock=10**30),
        "a moment that is text": event(job, timestamp=HTML),
        "a moment of no year": event(job, timestamp=1e300),
        "no moment": event(job, timestamp=None),
        "a task of HTML": event(job, name=HTML),
        "a task that is a list": event(job, name=[HTML]),
        "no job": event(job, uuid=None),
        "a job of HTML": event(job, uuid=HTML),
        "a job that is an object": event(job, uuid={"a": HTML}),
        "an exception that is a list": event(job, type="task-failed", exception=[HTML]),
        "a traceback that is an object": event(job, type="task-failed", traceback={"a": HTML}),
        "a result that is a list": event(job, type="task-succeeded", result=[HTML], runtime=1),
        "a time that is text": event(job, type="task-succeeded", runtime=HTML),
        "retries that are a list": event(job, retries=[HTML]),
        "a load that is text": {**beat, "loadavg": HTML},
        "a load of HTML": {**beat, "loadavg": [HTML]},
        "jobs that are a list": {**beat, "active": [HTML]},
        "a pace that is text": {**beat, "freq": HTML},
        "one among others": [event(job), event(job, name=HTML)],
    }
    return {
        "nothing": b"",
        "no text": b"\xff{",
        "deep": b"[" * 30_000 + b"]" * 30_000,
        "large": envelope([event(job, exception="x" * 500_000)]),
        "a body that is no base64": envelope(None, raw="!!!"),
        "pickle": envelope(
            None, raw=_base64(pickle.dumps(_Touch(Path("touched")))), content_type="application/x-python-serialize",
            content_encoding="binary",
        ),
        "a bomb": envelope(
            None, raw=_base64(zlib.compress(b"0" * BOMB_BYTES)), headers={"compression": "application/x-gzip"}
        ),
        **{name: envelope(said) for name, said in forged.items()},
    }  # fmt: skip


def publish(client: redis.Redis, message: Any) -> None:
    """Say it where Flower listens."""
    client.publish("/0.celeryev/task.multi", message if isinstance(message, bytes) else json.dumps(message))


def push(client: redis.Redis, queue: str, message: Any) -> None:
    """Put a message where a worker of `queue` takes the next one."""
    client.rpush(queue, message if isinstance(message, bytes) else json.dumps(message))


def commands(job: str, worker: str) -> list[Any]:
    """Every remote-control command that Celery ever had, those of ours that only ask, and some that are none."""
    changing = {
        "shutdown": {}, "pool_grow": {"n": 50}, "pool_shrink": {"n": 10}, "pool_restart": {"modules": ["os"]},
        "autoscale": {"max": 50, "min": 0}, "rate_limit": {"task_name": "headwater.sync", "rate_limit": "1/h"},
        "time_limit": {"task_name": "headwater.connection_test", "hard": 0.001}, "revoke": {"task_id": job},
        "revoke_by_stamped_headers": {"headers": {"x": "y"}}, "terminate": {"signal": "KILL", "task_id": job},
        "add_consumer": {"queue": "stolen"}, "cancel_consumer": {"queue": "interactive"}, "disable_events": {},
        "heartbeat": {}, "election": {"id": "x", "topic": "y"}, "hello": {"from_node": "x", "revoked": {job: 1}},
        "clock": {}, "objgraph": {}, "memsample": {}, "memdump": {}, "report": {}, "query_task": {"ids": [job]},
        "__class__": {}, "os.system": {"x": "id"},
    }  # fmt: skip
    bodies: list[Any] = [
        {"method": method, "arguments": arguments, "destination": destination}
        for method, arguments in changing.items()
        for destination in (None, [worker])
    ]
    return [*bodies, {"method": ["shutdown"]}, {"arguments": {}}, [], "shutdown", None, 7]


def questions() -> list[Any]:
    """Commands that only ask, with what no worker should heed."""
    ticket = "0" * 36
    where = {"exchange": "reply.celery.pidbox", "routing_key": ticket}
    return [
        {"method": "registered", "arguments": {"taskinfoitems": ["app"] * 100}, "destination": None},
        {
            "method": "conf",
            "arguments": {"with_defaults": True},
            "destination": None,
            "reply_to": where,
            "ticket": ticket,
        },
        {"method": "stats", "arguments": {"nonsense": 1}, "destination": None, "reply_to": {"exchange": "stolen"}},
        {"method": "ping", "arguments": None, "destination": None, "pattern": "(", "matcher": "pcre"},
    ]


def broadcast(client: redis.Redis, body: Any, **headers: Any) -> None:
    """Publish a command to every worker."""
    message = envelope(body, task=None, headers={"clock": 1, **headers})
    client.publish("/0.celery.pidbox", json.dumps(message))


KEYS: Final[dict[str, Callable[[redis.Redis], Any]]] = {
    "a queue that is a text": lambda client: client.set("interactive", "x"),
    "a queue that is a hash": lambda client: (client.delete("interactive"), client.hset("interactive", "a", "b")),
    "what was not acked is a text": lambda client: (client.set("unacked", "x"), client.set("unacked_index", "x")),
    "what was not acked is forged": lambda client: (
        client.delete("unacked", "unacked_index", "unacked_mutex"),
        client.hset("unacked", "x", "no JSON"),
        client.hset("unacked", "y", json.dumps([envelope([]), "", "stolen"])),
        client.zadd("unacked_index", {"x": 1, "y": 1}),
    ),
    "bindings that are texts": lambda client: [
        client.set(f"_kombu.binding.{name}", "x")
        for name in ("interactive", "bulk", "celery.pidbox", "reply.celery.pidbox", "celeryev")
    ],
    "bindings that lead elsewhere": lambda client: [
        (client.delete(f"_kombu.binding.{name}"), client.sadd(f"_kombu.binding.{name}", *forged))
        for name in ("interactive", "celery.pidbox", "reply.celery.pidbox", "celeryev")
        for forged in [("", "no separators", "a\x06\x16b\x06\x16stolen", f"{'0' * 36}\x06\x16\x06\x16interactive")]
    ],
    "lists of other priorities": lambda client: [client.set(f"interactive\x06\x16{step}", "x") for step in (3, 6, 9)],
    "everything is gone": lambda client: client.flushall(),
    # At once: a key that ends by itself meanwhile has no other name.
    "everything has another name": lambda client: client.eval(
        "for _, key in ipairs(redis.call('keys', '*')) do redis.call('rename', key, 'was-' .. key) end", 0
    ),
}
"""What to do to the keys that are there."""
