"""The thread that keeps a job ours: extends the lease, writes progress, and ends a child that does not heed it."""

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Final, Self

import psycopg

from headwater import db, log
from headwater.db import Connection
from headwater.errors import CancelRequested, DeadlineExceeded, Draining, JobInterrupted, LeaseLost
from headwater.jobs import lifecycle
from headwater.jobs.lifecycle import Claim
from headwater.jobs.outcome import Cancelled, Outcome, Released, failed
from headwater.settings import JobSettings
from headwater_worker.progress import Reporter

_TICK_SECONDS: Final = 0.5
_REPORT_SECONDS: Final = 1.0

_log = log.get(__name__)


class Heartbeat:
    """Runs beside one attempt, on a connection of its own.

    The handler asks `interrupt` at its checkpoints. If it does not within the grace period, the outcome is recorded
    from here, by the lease's token, and `end_process` is called: a hung driver frees its slot.
    """

    def __init__(
        self,
        claim: Claim,
        reporter: Reporter,
        *,
        connect: Callable[[], Connection],
        settings: JobSettings,
        draining: Callable[[], bool],
        end_process: Callable[[], None],
    ) -> None:
        self._claim = claim
        self._reporter = reporter
        self._connect = connect
        self._settings = settings
        self._draining = draining
        self._end_process = end_process
        self._connection: Connection | None = None
        self._deadline = time.monotonic() + claim.seconds_left
        self._interruption: tuple[JobInterrupted, float] | None = None
        self._drain_at: float | None = None
        self._reported = -1
        self._stop = threading.Event()
        # With the context of the attempt, so that its log lines name the job.
        run_here = contextvars.copy_context().run
        self._thread = threading.Thread(target=run_here, args=(self._run,), name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._connection is not None:
            self._connection.close()

    def interrupt(self) -> None:
        """Raise what the handler must heed, if anything."""
        if self._interruption is not None:
            raise self._interruption[0]
        if time.monotonic() >= self._deadline:
            raise DeadlineExceeded

    def _run(self) -> None:
        now = time.monotonic()
        beaten, next_beat, next_report = now, now + self._settings.heartbeat_seconds, now
        while not self._stop.wait(min(_TICK_SECONDS, self._settings.heartbeat_seconds / 2)):
            now = time.monotonic()
            try:
                # The beat first: whatever becomes of a report, the lease is extended.
                if now >= next_beat:
                    self._heed(lifecycle.beat(self._connected(), self._claim, settings=self._settings))
                    beaten, next_beat = now, now + self._settings.heartbeat_seconds
                if now >= next_report and self._reporter.version != self._reported:
                    next_report = now + _REPORT_SECONDS
                    self._report()
            except LeaseLost as lost:
                self._interrupt(lost)
            except psycopg.Error as error:
                _log.warning("heartbeat.failed", error=type(error).__name__)
                self._disconnect()
                if now - beaten > self._settings.lease_seconds * 2 / 3:
                    # Nobody knows whether the lease still stands: stop before it can be somebody else's. If it stands
                    # when Postgres is back, the job is handed back by its token, and nobody has crashed.
                    self._interrupt(Draining())
            self._watch(now)

    def _report(self) -> None:
        version = self._reporter.version
        self._heed(lifecycle.report(self._connected(), self._claim, self._reporter.snapshot()))
        self._reported = version

    def _heed(self, cancel: bool) -> None:
        if cancel:
            self._interrupt(CancelRequested())

    def _watch(self, now: float) -> None:
        if now >= self._deadline:
            self._interrupt(DeadlineExceeded())
        if self._draining():
            # What is nearly done may finish; the rest goes back to the queue.
            self._drain_at = self._drain_at or now + self._settings.drain_seconds
            if now >= self._drain_at:
                self._interrupt(Draining())
        if self._interruption is not None and now >= self._interruption[1]:
            self._end_child(self._interruption[0])

    def _interrupt(self, interruption: JobInterrupted) -> None:
        if self._interruption is None or isinstance(interruption, LeaseLost):
            self._interruption = (interruption, time.monotonic() + self._settings.grace_seconds)

    def _end_child(self, interruption: JobInterrupted) -> None:
        _log.error("job.unheeded", code=interruption.code)
        outcome: Outcome | None = None
        match interruption:
            case CancelRequested():
                outcome = Cancelled()
            case DeadlineExceeded():
                outcome = failed(interruption)
            case Draining():
                outcome = Released()
        try:
            if outcome is not None:
                progress = self._reporter.snapshot()
                lifecycle.record(self._connected(), self._claim, outcome, progress, settings=self._settings)
        except psycopg.Error as error:
            _log.warning("heartbeat.record_failed", error=type(error).__name__)
        finally:
            self._end_process()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def connector(database_url: str, claim: Claim, settings: JobSettings) -> Callable[[], Connection]:
    """How the heartbeat of `claim` connects: a statement that takes longer than a third of the lease is given up."""

    def connect() -> Connection:
        return db.connect(
            database_url,
            application="headwater-heartbeat",
            organization_id=claim.organization_id,
            statement_timeout_seconds=max(1.0, settings.lease_seconds / 3),
        )

    return connect
