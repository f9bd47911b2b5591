"""Ringing for a worker: a Celery message with a job's id (`job_...`) on a Redis list. Losing one costs only latency."""

import queue as queues
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import redis

from headwater import ids, log
from headwater.jobs import messages
from headwater.jobs.kinds import KINDS, Queue

_SHORT: Final = 8  # a longer queue is the dispatcher's to fill, in fair order
_BATCH: Final = 500
_LEFT_SECONDS: Final = 0.2  # as long as the dispatcher rests at most
# What Celery keeps in Redis, and as what: rings, and who listens for which.
_KEPT: Final = {queue.value: "list" for queue in Queue} | {
    f"_kombu.binding.{name}": "set"
    for name in (*(queue.value for queue in Queue), "celery.pidbox", "reply.celery.pidbox", "celeryev")
}

_log = log.get(__name__)


@dataclass(frozen=True)
class Ring:
    """One job to ring for."""

    job_id: UUID
    kind: str
    organization_id: UUID


class Doorbell:
    """A publisher on one Redis. Thread-safe; made after any fork."""

    def __init__(self, redis_url: str, *, timeout_seconds: float = 2.0) -> None:
        self._redis = redis.Redis.from_url(
            redis_url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            health_check_interval=10,
        )

    def depth(self, queue: str) -> int:
        """How many messages wait in `queue`. Raises `OSError` when Redis is away."""
        try:
            return int(self._redis.llen(queue))
        except redis.RedisError as error:
            raise OSError("Redis is away") from error

    def run_id(self) -> str:
        """Changes when Redis was restarted. Raises `OSError` when it is away."""
        try:
            return str(self._redis.info("server")["run_id"])
        except redis.RedisError as error:
            raise OSError("Redis is away") from error

    def mend(self) -> list[str]:
        """Remove the keys that somebody made something else of, which would refuse every ring; their names.

        Raises `OSError` when Redis is away.
        """
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for key in _KEPT:
                    pipeline.type(key)
                found = [kind.decode() for kind in pipeline.execute()]
            spoiled = [
                key for (key, kept), kind in zip(_KEPT.items(), found, strict=True) if kind not in (kept, "none")
            ]
            if spoiled:
                self._redis.delete(*spoiled)
        except redis.RedisError as error:
            raise OSError("Redis is away") from error
        return spoiled

    def ring(self, rings: Sequence[Ring]) -> None:
        """Send one message for each, all at once. Raises `OSError` when Redis is away; they may have been sent."""
        by_queue: dict[str, list[bytes]] = {}
        for ring in rings:
            kind = KINDS[ring.kind]
            by_queue.setdefault(kind.queue.value, []).append(messages.ring(kind, ids.encode("job", ring.job_id)))
        try:
            for queue, written in by_queue.items():
                self._redis.lpush(queue, *written)
        except redis.RedisError as error:
            raise OSError("Redis is away") from error

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()


class Bellboy:
    """The API's background thread: takes rings behind commits, so that no request ever waits for Redis.

    What cannot be rung, or should not because the queue is long, goes to `unring`, in batches. After that jobs are left
    to the dispatcher as they are made (`may_ring`), but for one in a while, which tries whether there is room again.
    """

    def __init__(self, doorbell: Doorbell, unring: Callable[[Sequence[Ring]], None]) -> None:
        self._doorbell = doorbell
        self._unring = unring
        self._waiting: queues.SimpleQueue[Ring | None] = queues.SimpleQueue()
        self._tried_at: dict[str, float] = {}  # only queues that had no room when it was last seen
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def reachable(self) -> bool:
        """Whether Redis answers."""
        try:
            self._doorbell.depth("interactive")
        except OSError:
            return False
        return True

    def may_ring(self, queue: str) -> bool:
        """Whether a job that is made now is to be rung for from here."""
        tried_at = self._tried_at.get(queue)
        if tried_at is None:
            return True
        if time.monotonic() - tried_at < _LEFT_SECONDS:
            return False
        self._tried_at[queue] = time.monotonic()
        return True

    def ring(self, ring: Ring) -> None:
        """Ring for a job that was committed; returns at once."""
        self._waiting.put(ring)

    def stop(self) -> None:
        """Ring for what is waiting, then end."""
        self._waiting.put(None)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        running = True
        while running:
            batch = [self._waiting.get()]
            while len(batch) < _BATCH and not self._waiting.empty():
                batch.append(self._waiting.get())
            running = None not in batch
            self._serve([ring for ring in batch if ring is not None])

    def _serve(self, batch: Sequence[Ring]) -> None:
        by_queue: dict[str, list[Ring]] = {}
        for ring in batch:
            by_queue.setdefault(KINDS[ring.kind].queue.value, []).append(ring)
        for queue, rings in by_queue.items():
            try:
                room = max(0, _SHORT - self._doorbell.depth(queue))
                self._doorbell.ring(rings[:room])
                left = rings[room:]
            except OSError as error:
                _log.warning("doorbell.failed", queue=queue, count=len(rings), error=str(error))
                left = rings
            if left:
                self._tried_at[queue] = time.monotonic()
                self._unring(left)
            else:
                self._tried_at.pop(queue, None)
