"""Ringing for a worker: a Celery message with a job's id (`job_...`) on a Redis list. Losing one costs only latency."""

import queue as queues
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from headwater import ids, log
from headwater.jobs.kinds import KINDS, Queue

# A broken or frozen Redis is given up on within seconds, and a silent peer is noticed.
TRANSPORT_OPTIONS: Final = {
    "socket_timeout": 15,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "retry_on_timeout": False,
    # A ring that is lost is made again: none is kept aside until it is acked, where somebody could put others.
    "ack_emulation": False,
    # One list a queue.
    "priority_steps": [0],
}
_PUBLISH_POLICY: Final = {"max_retries": 0}
_SHORT: Final = 8  # a longer queue is the dispatcher's to fill, in fair order
_BATCH: Final = 500
_PAUSE_SECONDS: Final = 0.05
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
        options = TRANSPORT_OPTIONS | {
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": timeout_seconds,
        }
        self._redis = redis.Redis.from_url(
            redis_url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            health_check_interval=10,
        )
        self._celery = Celery("headwater.doorbell", broker=redis_url, set_as_current=False)
        self._celery.conf.update(
            broker_url=redis_url,
            broker_transport_options=options,
            broker_connection_timeout=timeout_seconds,
            task_ignore_result=True,
            task_publish_retry=False,
            task_publish_retry_policy=_PUBLISH_POLICY,
            result_backend=None,
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
        """Send one message for each. Raises `OSError` when Redis is away; some may have been sent."""
        try:
            with self._celery.producer_or_acquire() as producer:
                for ring in rings:
                    kind, job_id = KINDS[ring.kind], ids.encode("job", ring.job_id)
                    # The task's id is the job's: operators find it in Flower.
                    self._celery.send_task(
                        kind.task, args=[job_id], task_id=job_id, queue=kind.queue.value, producer=producer, retry=False
                    )
        except (OperationalError, redis.RedisError) as error:
            raise OSError("Redis is away") from error

    def close(self) -> None:
        """Give the connections back."""
        self._celery.close()
        self._redis.close()


class Bellboy:
    """The API's background thread: takes rings behind commits, so that no request ever waits for Redis.

    What cannot be rung, or should not because the queue is long, goes to `unring`, in batches.
    """

    def __init__(self, doorbell: Doorbell, unring: Callable[[Sequence[Ring]], None]) -> None:
        self._doorbell = doorbell
        self._unring = unring
        self._waiting: queues.SimpleQueue[Ring | None] = queues.SimpleQueue()
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
                self._unring(left)
                # Nobody waits for a ring that is left to the dispatcher: more of them at once cost less.
                time.sleep(_PAUSE_SECONDS)
