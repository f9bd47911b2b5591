"""The gate: what of Redis reaches a worker, and Flower. Whoever can write there may have written anything.

A ring is read for its two words, the task and the job, and written anew from them; a command is one of those that only
ask; an event is one that a worker says, in fields of the types that workers fill. Nothing else of a message is kept, so
that no header, no option and no encoding of somebody else's is ever looked at: not by Celery, not by this process, and
not by its children. What is refused is counted, and never repeated.
"""

import base64
import binascii
import re
import threading
from collections import Counter
from enum import StrEnum
from typing import Any, Final

import orjson

from headwater import ids
from headwater.errors import NotFound
from headwater.jobs import messages
from headwater.jobs.kinds import KINDS, Queue

LARGEST_BYTES: Final = 8 * 1024
"""Of one message; a ring has 900 bytes."""
LARGEST_EVENTS_BYTES: Final = 64 * 1024
"""Of the events that come together: two dozen at most, which have 20,000 bytes."""

# They change nothing and take no argument that is heeded; Flower asks them.
COMMANDS: Final = frozenset(
    {
        "active", "active_queues", "conf", "enable_events", "ping", "registered", "reserved", "revoked", "scheduled",
        "stats",
    }
)  # fmt: skip
_REPLIES: Final = "reply.celery.pidbox"
_TICKET: Final = re.compile(r"[0-9a-f-]{36}")
_MOST_NAMES: Final = 64
_TASKS: Final = {kind.task: kind for kind in KINDS.values()}
_OF_TASKS: Final = frozenset(
    f"task-{act}"
    for act in ("received", "started", "succeeded", "failed", "retried", "rejected", "revoked", "cancelled")
)
_OF_WORKERS: Final = frozenset(f"worker-{act}" for act in ("online", "heartbeat", "offline"))
_WORKER: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,255}")
# Between which a number lies; of a later year Flower can show none.
_NUMBERS: Final = {
    "timestamp": (0, 2**32), "clock": (0, 2**53), "utcoffset": (-24, 24), "pid": (0, 2**32), "freq": (0, 3600),
    "active": (0, 2**32), "processed": (0, 2**53), "retries": (0, 2**32), "runtime": (0, 2**32),
}  # fmt: skip
_REQUIRED: Final = frozenset({"timestamp", "clock"})
_WORDS: Final = ("exception", "traceback", "result", "sw_ident", "sw_ver", "sw_sys")
_LONGEST_WORDS: Final = 4096
_LOADS: Final = 3


class Reason(StrEnum):
    """Why a message was refused."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    FOREIGN_TASK = "foreign_task"
    FOREIGN_COMMAND = "foreign_command"


class _Refused(Exception):
    def __init__(self, reason: Reason) -> None:
        self.reason = reason


class Refusals:
    """How many messages were refused since they were last taken."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, counts: dict[str, int]) -> None:
        """Count so many more."""
        with self._lock:
            self._counts.update(counts)

    def take(self) -> dict[str, int]:
        """{reason: count}, which are counted no more."""
        with self._lock:
            counts, self._counts = dict(self._counts), Counter()
        return counts


REFUSALS: Final = Refusals()


def ring(queue: str, message: bytes) -> bytes | None:
    """The ring in `message`, as Celery would have written it, or None if there is none for this queue."""
    try:
        envelope = _object(message)
        kind = _TASKS.get(_text(envelope, "headers", "task"))
        if kind is None or kind.queue != queue:
            raise _Refused(Reason.FOREIGN_TASK)
        return messages.ring(kind, _job_id(envelope))
    except _Refused as refused:
        REFUSALS.add({refused.reason: 1})
        return None


def command(message: bytes) -> bytes | None:
    """The command in `message`, without its arguments, or None if it is none of those that only ask."""
    try:
        envelope = _object(message)
        asked = _decoded(_text(envelope, "body"))
        if not isinstance(asked, dict):
            raise _Refused(Reason.MALFORMED)
        method = asked.get("method")
        if not isinstance(method, str) or method not in COMMANDS:
            raise _Refused(Reason.FOREIGN_COMMAND)
        return messages.envelope({"method": method, "arguments": {}, **_addressed(asked)}, {}, "celery.pidbox")
    except _Refused as refused:
        REFUSALS.add({refused.reason: 1})
        return None


def events(message: bytes) -> bytes | None:
    """The events in `message`, as Flower can show them, or None if one of them is none of ours."""
    try:
        said = _decoded(_text(_object(message, largest=LARGEST_EVENTS_BYTES), "body"))
        heard = [_event(event) for event in (said if isinstance(said, list) else [said])]
        return messages.envelope(heard, {}, "celeryev")
    except _Refused as refused:
        REFUSALS.add({refused.reason: 1})
        return None


def _object(message: bytes, *, largest: int = LARGEST_BYTES) -> dict[str, Any]:
    if len(message) > largest:
        raise _Refused(Reason.TOO_LARGE)
    try:
        found = orjson.loads(message)
    except orjson.JSONDecodeError:
        raise _Refused(Reason.MALFORMED) from None
    if not isinstance(found, dict):
        raise _Refused(Reason.MALFORMED)
    return found


def _text(found: Any, *path: str) -> str:
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, str):
        raise _Refused(Reason.MALFORMED)
    return found


def _decoded(body: str) -> Any:
    try:
        return orjson.loads(base64.b64decode(body, validate=True))
    except (binascii.Error, ValueError):
        raise _Refused(Reason.MALFORMED) from None


def _job_id(envelope: dict[str, Any]) -> str:
    match _decoded(_text(envelope, "body")):
        case [[str(job_id)], *_]:
            return _job(job_id)
    raise _Refused(Reason.MALFORMED)


def _job(job_id: str) -> str:
    try:
        return ids.encode("job", ids.decode("job", job_id))
    except NotFound:
        raise _Refused(Reason.MALFORMED) from None


def _event(said: Any) -> dict[str, Any]:
    kind, worker = _text(said, "type"), _text(said, "hostname")
    if kind not in _OF_TASKS | _OF_WORKERS or not _WORKER.fullmatch(worker):
        raise _Refused(Reason.MALFORMED)
    heard = {"type": kind, "hostname": worker, **_numbers(said)}
    heard |= {name: _text(said, name)[:_LONGEST_WORDS] for name in _WORDS if said.get(name) is not None}
    if kind in _OF_WORKERS:
        return heard | _loads(said)
    job_id = _job(_text(said, "uuid"))
    heard |= {"uuid": job_id, "root_id": job_id}
    if kind != "task-received":
        return heard
    task = _text(said, "name")
    if task not in _TASKS:
        raise _Refused(Reason.FOREIGN_TASK)
    return heard | {"name": task, "args": f"['{job_id}']", "kwargs": "{}"}


def _numbers(said: dict[str, Any]) -> dict[str, Any]:
    found = {name: said[name] for name in _NUMBERS if said.get(name) is not None}
    for name, value in found.items():
        least, most = _NUMBERS[name]
        if type(value) not in (int, float) or not least <= value <= most:
            raise _Refused(Reason.MALFORMED)
    if not found.keys() >= _REQUIRED:
        raise _Refused(Reason.MALFORMED)
    return found


def _loads(said: dict[str, Any]) -> dict[str, Any]:
    loads = said.get("loadavg")
    if loads is None:
        return {}
    if not isinstance(loads, list) or len(loads) > _LOADS or any(type(load) not in (int, float) for load in loads):
        raise _Refused(Reason.MALFORMED)
    return {"loadavg": loads}


def _addressed(asked: dict[str, Any]) -> dict[str, Any]:
    """Whom it asks and where the answer goes; both as Celery writes them."""
    match asked:
        case {"destination": [*names]} if len(names) <= _MOST_NAMES and all(isinstance(name, str) for name in names):
            destination: list[str] | None = names
        case {"destination": None}:
            destination = None
        case _:
            raise _Refused(Reason.MALFORMED)
    match asked:
        case {"reply_to": {"routing_key": str(key)}, "ticket": str(ticket)} if _TICKET.fullmatch(
            key
        ) and _TICKET.fullmatch(ticket):
            reply = {"reply_to": {"exchange": _REPLIES, "routing_key": key}, "ticket": ticket}
        case _:
            reply = {}
    return {"destination": destination, **reply}


QUEUES: Final = frozenset(queue.value for queue in Queue)
"""The lists that hold rings."""
