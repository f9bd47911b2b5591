"""The scheduler, a process of its own: rings for queued jobs in fair order, takes back leases, seals, measures, prunes.

Any number of instances may run: every duty is one statement that skips what another holds. It is no Celery task, for
it must not sit in the queue that it watches.
"""

import contextvars
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from headwater import __version__, db, failpoints, hardening, ids, log
from headwater.audit import chain
from headwater.catalogue import pruning
from headwater.db import Connection
from headwater.errors import StorageError
from headwater.jobs import dispatching, lifecycle, statements
from headwater.jobs import pruning as jobs_pruning
from headwater.jobs.doorbell import Doorbell, Ring
from headwater.jobs.kinds import Queue
from headwater.measuring import gauges, tallies
from headwater.settings import (
    DatabaseSettings,
    JobSettings,
    MetricsSettings,
    RedisSettings,
    RetentionSettings,
    UploadSettings,
)
from headwater.uploads import configured
from headwater.uploads import pruning as uploads_pruning
from headwater.webhooks import pruning as webhooks_pruning

_TICK_SECONDS: Final = 0.5
_ROUND_SECONDS: Final = 0.02
_REST: Final = 4  # times as long as a round took
_LONGEST_REST_SECONDS: Final = 0.2  # the queues are filled for half a second
_REAP_SECONDS: Final = 2.0
_SETTLE_SECONDS: Final = 5.0
_MEND_SECONDS: Final = 1.0
_SEAL_SECONDS: Final = 1.0
_MEASURE_SECONDS: Final = 5.0
_PRUNE_SECONDS: Final = 30.0
_DELETED_SOURCE_DAYS: Final = 30  # how long a deleted source's items can be brought back by an operator
_LONGEST_QUEUE: Final = 200
_SHORTEST_QUEUE: Final = 4  # also without a living worker: the first one to come finds work
_PAUSE_AFTER_FAULT_SECONDS: Final = 1.0
_LAST_ROUND_SECONDS: Final = 5.0

_log = log.get(__name__)


@dataclass
class _Duty:
    """Something to do every `seconds`, and not before `settle_seconds` of a new connection have passed."""

    name: str
    seconds: float
    do: Callable[[Connection], None]
    settle_seconds: float = 0.0
    due_at: float = 0.0


class Scheduler:
    """One instance. `run` returns when `stop` is set.

    Four rounds of duties, each in a thread with a connection of its own: what somebody waits for, what is to be done
    within seconds, what is measured, and what may take its time.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._settings = JobSettings()
        self._retention = RetentionSettings()
        self._per_source = MetricsSettings().metrics_per_source
        self._database_url = DatabaseSettings().database_url
        self._doorbell = Doorbell(RedisSettings().redis_url)
        self._storage = configured.storage(UploadSettings())
        self._redis_run_id: str | None = None
        self._urgent = (
            _Duty("mend", _MEND_SECONDS, self._mend),
            _Duty("dispatch", 0.0, self._dispatch),
            # Workers that were cut off from Postgres together with us speak first: they have not crashed.
            _Duty(
                "reap",
                min(_REAP_SECONDS, self._settings.lease_seconds / 5),
                self._reap,
                settle_seconds=min(_SETTLE_SECONDS, self._settings.lease_seconds / 2),
            ),
        )
        self._steady = (_Duty("seal", _SEAL_SECONDS, self._seal),)
        self._measured = (_Duty("measure", _MEASURE_SECONDS, self._measure),)
        self._patient = (_Duty("prune", _PRUNE_SECONDS, self._prune),)

    def run(self) -> None:
        """Do every duty in its time, whatever happens to Postgres or Redis meanwhile."""
        beside = [
            self._beside("steady", self._steady),
            self._beside("measured", self._measured),
            self._beside("patient", self._patient),
        ]
        self._rounds(self._urgent)
        for thread in beside:
            thread.join(timeout=_LAST_ROUND_SECONDS)

    def _beside(self, name: str, duties: Sequence[_Duty]) -> threading.Thread:
        # With this thread's context, which names the service in its log lines.
        run_here = contextvars.copy_context().run
        thread = threading.Thread(target=run_here, args=(self._rounds, duties), name=name, daemon=True)
        thread.start()
        return thread

    def _rounds(self, duties: Sequence[_Duty]) -> None:
        while not self._stop.is_set():
            try:
                with db.connect(
                    self._database_url, application="headwater-scheduler", statement_timeout_seconds=30
                ) as connection:
                    connection.execute("set lock_timeout = '1s'")
                    connection.execute(sql.SQL("listen {}").format(sql.Identifier(statements.CHANNEL)))
                    self._serve(connection, duties)
            except psycopg.OperationalError as error:
                _log.warning("scheduler.database_away", error=type(error).__name__)
            except Exception:
                _log.exception("scheduler.fault")
            self._stop.wait(_PAUSE_AFTER_FAULT_SECONDS)

    def _serve(self, connection: Connection, duties: Sequence[_Duty]) -> None:
        for duty in duties:
            duty.due_at = max(duty.due_at, time.monotonic() + duty.settle_seconds)
        while not self._stop.is_set():
            now = time.monotonic()
            for duty in duties:
                if now >= duty.due_at:
                    # Due again in its time even if it fails now: one broken duty must not hold up the others.
                    duty.due_at = now + duty.seconds
                    duty.do(connection)
            rest = min(_LONGEST_REST_SECONDS, max(_ROUND_SECONDS, _REST * (time.monotonic() - now)))
            # A job that ended frees a slot: fill it now, not at the next tick.
            for _notice in connection.notifies(timeout=_TICK_SECONDS, stop_after=1):
                pass
            # Where many end, a round for each would cost more than the jobs, the more the longer the queues are.
            for _notice in connection.notifies(timeout=rest):
                pass

    def _mend(self, connection: Connection) -> None:
        try:
            spoiled = self._doorbell.mend()
        except OSError:
            return  # the dispatcher says so
        if spoiled:
            _log.warning("redis.keys_removed", keys=spoiled, hint="Somebody else writes to this Redis.")
            db.run(connection, dispatching.unring_all())

    def _dispatch(self, connection: Connection) -> None:
        try:
            self._notice_restart(connection)
            for queue, free in self._room(connection).items():
                if free > 0:
                    self._ring(connection, queue, free)
        except OSError:
            if self._redis_run_id is not None:
                _log.warning("scheduler.redis_away", hint="Jobs stay queued in Postgres.")
            self._redis_run_id = None

    def _notice_restart(self, connection: Connection) -> None:
        run_id = self._doorbell.run_id()
        if run_id != self._redis_run_id:
            db.run(connection, dispatching.unring_all())
            _log.info("scheduler.redis_found")
            self._redis_run_id = run_id

    def _room(self, connection: Connection) -> dict[str, int]:
        """How many more messages each queue should hold."""
        paces = {row["queue"]: row for row in db.run(connection, dispatching.pace())}
        room = {}
        for queue in Queue:
            pace = paces.get(queue.value, {"slots": 0, "started": 0})
            wanted = min(_LONGEST_QUEUE, max(_SHORTEST_QUEUE, 2 * pace["slots"], pace["started"]))
            room[queue.value] = wanted - self._doorbell.depth(queue.value)
        return room

    def _ring(self, connection: Connection, queue: str, limit: int) -> None:
        rows = db.run(
            connection,
            dispatching.dispatch(
                queue=queue,
                limit=limit,
                running_limit=self._settings.running_per_organization,
                source_limit=self._settings.running_per_source,
                rering_seconds=self._settings.rering_seconds,
            ),
        ).fetchall()
        if not rows:
            return
        failpoints.reach("dispatch.marked")
        try:
            self._doorbell.ring([Ring(row["id"], row["kind"], row["organization_id"]) for row in rows])
        except OSError:
            db.run(connection, dispatching.unring([row["id"] for row in rows]))
            raise
        failpoints.reach("dispatch.rung")

    def _reap(self, connection: Connection) -> None:
        for job_id, status in lifecycle.reap(connection, settings=self._settings):
            _log.warning("job.lease_lost", job_id=ids.encode("job", job_id), status=status)

    def _seal(self, connection: Connection) -> None:
        while chain.seal(connection):
            self._heed_stop()

    def _measure(self, connection: Connection) -> None:
        tallies.add(connection, per_source=self._per_source, interrupt=self._heed_stop)
        gauges.measure(connection, redis_up=self._redis_run_id is not None)

    def _prune(self, connection: Connection) -> None:
        db.run(connection, pruning.close_deleted_sources(retention_days=_DELETED_SOURCE_DAYS))
        jobs_pruning.prune(connection, retention_days=self._retention.job_retention_days, interrupt=self._heed_stop)
        pruning.prune(connection, interrupt=self._heed_stop)
        pruning.prune_forgotten(connection, interrupt=self._heed_stop)
        webhooks_pruning.prune(
            connection, retention_days=self._retention.webhook_retention_days, interrupt=self._heed_stop
        )
        self._prune_uploads(connection)
        tallies.forget_sources(connection, per_source=self._per_source)
        connection.execute("delete from idempotency_record where created_at < now() - interval '24 hours'")
        connection.execute("delete from worker where seen_at < now() - interval '1 hour'")

    def _prune_uploads(self, connection: Connection) -> None:
        if self._storage is None:
            return
        try:
            uploads_pruning.prune(connection, self._storage)
        except StorageError as error:
            _log.warning("scheduler.uploads_not_pruned", error=repr(error.__cause__))

    def _heed_stop(self) -> None:
        if self._stop.is_set():
            raise SystemExit  # ends the thread of these rounds


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    hardening.seal()
    log.configure("scheduler")
    stop = threading.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: stop.set())
    _log.info("scheduler.started", version=__version__)
    Scheduler(stop).run()
    _log.info("scheduler.stopped")


if __name__ == "__main__":
    main()
