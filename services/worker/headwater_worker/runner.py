"""Running a job: claim it, run one handler, record the outcome."""

import importlib
import os
import signal
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

import psycopg
import structlog

from headwater import db, ids, log, masking
from headwater.db import Connection
from headwater.errors import (
    CancelRequested,
    DeadlineExceeded,
    Draining,
    HeadwaterError,
    KeyUnavailable,
    LeaseLost,
)
from headwater.jobs import dispatching, lifecycle
from headwater.jobs.lifecycle import Claim
from headwater.jobs.outcome import Cancelled, Failed, JobFailure, Outcome, Progress, Released, Waiting, failed
from headwater.settings import DatabaseSettings, EgressSettings, JobSettings, UploadSettings, VaultSettings
from headwater.uploads import configured
from headwater.uploads.reading import Uploads
from headwater.vault import keyring
from headwater_worker import heartbeat, presence
from headwater_worker.context import JobContext
from headwater_worker.progress import Reporter

_DATABASE_AWAY: Final = JobFailure(
    code="database_unavailable",
    message="Headwater's own database was away for a moment.",
    origin="platform",
    retryable=True,
)
_FAULT: Final = JobFailure(
    code="internal_error",
    message="Something went wrong on our side.",
    hint="The worker's log has more under this job's id.",
    origin="platform",
)
_RECORD_PAUSE_SECONDS: Final = 0.5
# A fail-over of Postgres takes a minute or two, and without it there is no other work for this child.
_RECORD_SECONDS: Final = 300.0

_log = log.get(__name__)


class Runner:
    """Runs jobs one after another in one child process; its connection is made when it is first needed."""

    def __init__(self, *, draining: Callable[[], bool], end_process: Callable[[], None]) -> None:
        self._database_url = DatabaseSettings().database_url
        self._settings = JobSettings()
        self._egress = EgressSettings()
        self._vault = keyring.configured(VaultSettings())
        self._uploads = _uploads(self._database_url)
        self._draining = draining
        self._end_process = end_process
        self._connection: Connection | None = None
        self._name = presence.child(os.getpid())

    def run(self, job_id: UUID, *, kind: str) -> None:
        """Run the job if it is there to be claimed and of that kind; otherwise nothing."""
        with structlog.contextvars.bound_contextvars(job_id=ids.encode("job", job_id)):
            try:
                claim = self._claim(job_id, kind)
            except psycopg.Error as error:
                # The job stays queued and is rung for again.
                _log.warning("job.not_claimed", error=type(error).__name__)
                self._disconnect()
                return
            if claim is not None:
                bound = structlog.contextvars.bound_contextvars(kind=claim.kind.name, attempt=claim.attempt)
                # An error is logged when the connector that knew the secrets is closed.
                with bound, masking.masks_kept():
                    self._attempt_or_end(claim)

    def _claim(self, job_id: UUID, kind: str) -> Claim | None:
        connection = self._connected()
        if self._draining():
            db.run(connection, dispatching.unring([job_id]))
            return None
        claim = lifecycle.claim(connection, job_id, kind=kind, worker=self._name, settings=self._settings)
        if claim is None:
            _log.info("job.not_claimed", reason="another has it, it is final or of another kind, or a cap is reached")
        return claim

    def _attempt_or_end(self, claim: Claim) -> None:
        try:
            self._attempt(claim)
        except BaseException:
            # Celery would log it, and tell it to Flower, when its secrets are masked no more. What nobody foresaw, such
            # as the panic of a driver in Rust, ends the child: the job is taken back from it.
            _log.exception("job.fault")
            raise SystemExit(1) from None

    def _attempt(self, claim: Claim) -> None:
        began = time.monotonic()
        source_id = claim.data_source_id and ids.encode("dsrc", claim.data_source_id)
        _log.info("job.claimed", data_source_id=source_id, request_id=claim.request_id)
        reporter = Reporter()
        with heartbeat.Heartbeat(
            claim,
            reporter,
            connect=heartbeat.connector(self._database_url, claim, self._settings),
            settings=self._settings,
            draining=self._draining,
            end_process=self._end_process,
        ) as beating:
            outcome = self._work(claim, reporter, beating.interrupt)
        status = self._record(claim, outcome, reporter.snapshot()) if outcome is not None else None
        self._leave_nothing_behind()
        _log.info(
            "job.recorded",
            outcome=type(outcome).__name__ if outcome is not None else "LeaseLost",
            status=status,
            code=outcome.failure.code if isinstance(outcome, Failed | Waiting) else None,
            duration_ms=round((time.monotonic() - began) * 1000),
        )

    def _work(self, claim: Claim, reporter: Reporter, interrupt: Callable[[], None]) -> Outcome | None:
        try:
            connection = self._connected(claim.organization_id)
        except psycopg.Error:
            return Failed(_DATABASE_AWAY)
        context = JobContext(
            claim=claim,
            connection=connection,
            progress=reporter,
            vault=self._vault,
            egress=self._egress,
            settings=self._settings,
            interrupt=interrupt,
            uploads=self._uploads,
        )
        return _perform(context)

    def _record(self, claim: Claim, outcome: Outcome, progress: Progress) -> str | None:
        """Record, whatever happens to the connection: repeating is safe, the token is good only once."""
        began = time.monotonic()
        while True:
            try:
                connection = self._connected(claim.organization_id)
                return lifecycle.record(connection, claim, outcome, progress, settings=self._settings)
            except psycopg.Error as error:
                _log.warning("job.record_failed", error=type(error).__name__)
                self._disconnect()
                if isinstance(error, psycopg.DataError):
                    # What the handler had to say cannot be stored; that it has ended can.
                    outcome, progress = Failed(_FAULT), Progress("recording")
                is_away = isinstance(error, psycopg.OperationalError) and not self._draining()
                if time.monotonic() - began > (_RECORD_SECONDS if is_away else self._settings.lease_seconds):
                    return None  # the lease runs out, and the reaper decides
                time.sleep(_RECORD_PAUSE_SECONDS)

    def _leave_nothing_behind(self) -> None:
        """The next job is another organization's: no temporary table and no right of this one stays."""
        try:
            lifecycle.leave(self._connected())
        except psycopg.Error:
            self._disconnect()

    def _connected(self, organization_id: UUID | None = None) -> Connection:
        """The connection as it is; a new one acts for `organization_id`, as a claim leaves it."""
        if self._connection is None or self._connection.closed:
            self._connection = db.connect(
                self._database_url, application="headwater-worker", organization_id=organization_id
            )
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _uploads(database_url: str) -> Uploads | None:
    storage = configured.storage(UploadSettings())
    if storage is None:
        return None
    # A connection beside the job's own, which is busy with COPY while files are read.
    return Uploads(
        storage,
        lambda organization_id: db.connect(
            database_url, application="headwater-worker-uploads", organization_id=organization_id
        ),
    )


def _perform(context: JobContext) -> Outcome | None:
    """Run the kind's handler; None when the lease is lost and nothing may be written."""
    try:
        handler = importlib.import_module(f"headwater_worker.handlers.{context.claim.kind.name}")
        outcome: Outcome = handler.run(context)
    except CancelRequested:
        return Cancelled()
    except Draining:
        return Released()
    except LeaseLost:
        return None
    except DeadlineExceeded as error:
        return failed(error)
    except KeyUnavailable as error:
        failure = JobFailure(error.code, error.message, error.hint, origin="platform", retryable=True)
        _log.warning("job.waits_for_key", code=error.code, hint=error.hint)
        return Waiting(failure)
    except HeadwaterError as error:
        _log.info("job.failing", code=error.code, cause=repr(error.__cause__) if error.__cause__ else None)
        return failed(error)
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
        _log.warning("job.database_away", error=type(error).__name__)
        return Failed(_DATABASE_AWAY)
    except Exception:
        _log.exception("job.fault")
        return Failed(_FAULT)
    return outcome


def end_own_process_group() -> None:
    """End this child and whatever it started. Only in a child that leads a group of its own."""
    os.killpg(os.getpgrp(), signal.SIGKILL)
