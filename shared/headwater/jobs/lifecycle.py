"""The life of a job: submitted, claimed, held, recorded. A job's state changes here and nowhere else.

    queued ──claim──▶ running ──record──▶ succeeded | partially_succeeded | failed | cancelled
       ▲                 │  └──cancel──▶ cancelling ──record / reap──▶ any of the four
       └── retry, release, lease lost

Whoever holds the token of the job's lease may write its effects. Each function is one short transaction of its own,
unless it says otherwise; the connections are in autocommit.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from headwater import db, failpoints, ids, masking
from headwater.db import Connection
from headwater.errors import DeadlineExceeded, LeaseLost
from headwater.jobs import dispatching, statements
from headwater.jobs.kinds import KINDS, Kind
from headwater.jobs.outcome import (
    FAILING_CODES,
    WAITING_FOR_KEY,
    Cancelled,
    Failed,
    JobFailure,
    Outcome,
    Progress,
    Released,
    Succeeded,
    Waiting,
    failed,
)
from headwater.settings import JobSettings

_LONGEST_WAIT_SECONDS: Final = 60.0
_MOST_DOUBLINGS: Final = 32


@dataclass(frozen=True)
class Claim:
    """A running job that is ours while its lease lives.

    `config`, `validation` and `reading` are those of the version that the job is pinned to; `current_config` is the
    one that counts now, None for an unsaved test. `seconds_left` until the deadline, measured at the claim.
    """

    job_id: UUID
    token: UUID
    organization_id: UUID
    project_id: UUID
    data_source_id: UUID | None
    kind: Kind
    type: str
    params: Mapping[str, Any]
    config: Mapping[str, Any]
    current_config: Mapping[str, Any] | None
    validation: Mapping[str, Any]
    reading: Mapping[str, Any]
    config_version: int | None
    attempt: int
    attempts_left: int
    seconds_left: float
    created_by: UUID | None
    request_id: str | None

    @property
    def subject_id(self) -> UUID:
        """Whose credentials the job uses: its data source's, or its own for an unsaved test."""
        return self.data_source_id or self.job_id


def claim(
    connection: Connection, job_id: UUID, *, worker: str, settings: JobSettings, kind: str | None = None
) -> Claim | None:
    """Make the queued job ours, or None if somebody else has it, it is final, or a cap is reached.

    `kind` is what the ring says that it is: whoever heard it gives the job as long as that kind may take, so a job of
    another kind is not ours. Ours, it leaves the connection acting for the job's organization, until `leave`. Who waits
    for the job is woken by the commit itself.
    """
    failpoints.reach("claim.begun")
    token = ids.new()
    statement = statements.claim(
        job_id=job_id,
        kind=kind,
        token=token,
        worker=worker,
        lease_seconds=settings.lease_seconds,
        running_limit=settings.running_per_organization,
        source_limit=settings.running_per_source,
    )
    # Three statements in one message, which is a transaction; without an owner to act for, the others find nothing.
    # `connection.transaction()` would ask Postgres twice more.
    with connection.pipeline():
        db.run(connection, statements.act_for_owner(job_id))
        db.run(connection, statements.hold_organization())
        claimed = db.run(connection, statement)
    row = claimed.fetchone()
    if row is None:
        # Left rung, it would wait for the next ring; if a cap refused it, the dispatcher is to know now.
        db.run(connection, dispatching.unring([job_id]))
        db.run(connection, statements.act_for_nobody())
        return None
    failpoints.reach("claim.committed")
    return Claim(
        job_id=job_id,
        token=token,
        organization_id=row["organization_id"],
        project_id=row["project_id"],
        data_source_id=row["data_source_id"],
        kind=KINDS[row["kind"]],
        type=row["type"],
        params=row["params"],
        config=row["config"],
        current_config=row["current_config"],
        validation=row["validation"] or {},
        reading=row["reading"] or {},
        config_version=row["config_version"],
        attempt=row["attempt"],
        attempts_left=row["max_attempts"] - (row["attempt"] - row["interruptions"]),
        seconds_left=row["seconds_left"],
        created_by=row["created_by"],
        request_id=row["request_id"],
    )


def leave(connection: Connection) -> None:
    """The end of a claim's rights: no row of its organization and no temporary table of its attempt is left."""
    # In one message, which no prepared statement can be.
    connection.execute(f"discard temp; {statements.act_for_nobody().text}", prepare=False)


def beat(connection: Connection, claim: Claim, *, settings: JobSettings) -> bool:
    """Extend the lease; True if somebody asked to cancel. Raises `LeaseLost`."""
    failpoints.reach("beat.begun")
    statement = statements.beat(job_id=claim.job_id, token=claim.token, lease_seconds=settings.lease_seconds)
    cancel = _cancel_flag(connection, statement)
    failpoints.reach("beat.sent")
    return cancel


def report(connection: Connection, claim: Claim, progress: Progress) -> bool:
    """Write progress; True if somebody asked to cancel. Raises `LeaseLost`."""
    statement = statements.report(job_id=claim.job_id, token=claim.token, progress=masking.of(progress))
    return _cancel_flag(connection, statement)


@contextmanager
def fenced(connection: Connection, claim: Claim) -> Iterator[Connection]:
    """One transaction of effects: written while the lease is ours, or not at all. Raises `LeaseLost`.

    Short, and with no call to a customer's system inside. Shared counters are touched last.
    """
    with connection.transaction():
        db.set_organization(connection, claim.organization_id)
        if db.run(connection, statements.hold(job_id=claim.job_id, token=claim.token)).fetchone() is None:
            raise LeaseLost
        failpoints.reach("batch.begun")
        yield connection
        failpoints.reach("batch.written")
    failpoints.reach("batch.committed")


def record(
    connection: Connection, claim: Claim, outcome: Outcome, progress: Progress, *, settings: JobSettings
) -> str | None:
    """Write down how the attempt ended; the job's status now, or None if the lease was lost and nothing is written.

    What a driver put into a result or a message is masked like a line of the log.
    """
    failpoints.reach("record.begun")
    statement = _record_statement(claim, masking.of(outcome), masking.of(progress), settings)
    row = db.run(connection, statement).fetchone()
    failpoints.reach("record.committed")
    if row is None:
        return None
    db.run(connection, statements.notify(claim.job_id))
    return str(row["status"])


def reap(connection: Connection, *, settings: JobSettings) -> list[tuple[UUID, str]]:
    """Take back leases that ran out; (job, status) of each."""
    crash = JobFailure(
        code="worker_crash",
        message="Two workers in a row died while they ran this job.",
        hint="A file that needs more memory than a worker has is the usual cause; see the runbook.",
    )
    failpoints.reach("reap.begun")
    rows = db.run(
        connection,
        statements.reap(
            error=crash.as_json(),
            deadline_error=failed(DeadlineExceeded()).failure.as_json(),
            base_seconds=settings.retry_base_seconds,
            cap_seconds=settings.retry_cap_seconds,
        ),
    ).fetchall()
    if rows:
        failpoints.reach("reap.committed")
    for row in rows:
        db.run(connection, statements.notify(row["id"]))
    return [(row["id"], row["status"]) for row in rows]


def retry_delay(attempt: int, retry_after_seconds: float | None, settings: JobSettings) -> float:
    """Seconds until the next attempt: full jitter below base * 2^attempt, never sooner than the source asked for."""
    ceiling = min(settings.retry_cap_seconds, _doubled(attempt, settings))
    return max(random.uniform(0, ceiling), retry_after_seconds or 0)  # noqa: S311 - jitter, not a secret


def waiting_delay(attempt: int, settings: JobSettings) -> float:
    """Seconds until somebody looks again whether what is away is back: longer each time, a minute at most."""
    ceiling = min(_LONGEST_WAIT_SECONDS, settings.retry_cap_seconds, _doubled(attempt, settings))
    return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret


def _doubled(attempt: int, settings: JobSettings) -> float:
    # A job that waits for long has had more attempts than a power of two can tell.
    return settings.retry_base_seconds * 2.0 ** min(attempt, _MOST_DOUBLINGS)


def _cancel_flag(connection: Connection, statement: db.Statement) -> bool:
    row = db.run(connection, statement).fetchone()
    if row is None:
        raise LeaseLost
    return bool(row["cancel"])


def _record_statement(claim: Claim, outcome: Outcome, progress: Progress, settings: JobSettings) -> db.Statement:
    status, act, attempt_outcome = "queued", "job.requeued", "released"
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    delay, counts = 0.0, True
    match outcome:
        case Succeeded():
            status = attempt_outcome = "partially_succeeded" if outcome.partially else "succeeded"
            act, result = f"job.{status}", outcome.result
            progress = replace(progress, percent=100, eta_seconds=None)
        case Cancelled():
            status, attempt_outcome, act = "cancelled", "cancelled", "job.cancelled"
        case Failed(failure=failure) if failure.retryable and claim.attempts_left > 0:
            attempt_outcome, error = "retried", failure.as_json()
            delay = retry_delay(claim.attempt, outcome.retry_after_seconds, settings)
        case Waiting(failure=failure) if (pause := waiting_delay(claim.attempt, settings)) < claim.seconds_left:
            attempt_outcome, error, delay, counts = "retried", failure.as_json(), pause, False
            progress = replace(progress, phase=WAITING_FOR_KEY)
        case Failed(failure=failure) | Waiting(failure=failure):
            status, attempt_outcome, act, error = "failed", "failed", "job.failed", failure.as_json()
        case Released():
            counts = False
    verdict, reason = _verdict(claim.kind, outcome) if status != "queued" else (None, None)
    return statements.record(
        job_id=claim.job_id,
        token=claim.token,
        status=status,
        attempt_outcome=attempt_outcome,
        act=act,
        result=result,
        error=error,
        progress=progress,
        delay_seconds=delay,
        released=not counts,
        verdict=verdict,
        verdict_reason=reason,
    )


def _verdict(kind: Kind, outcome: Outcome) -> tuple[str | None, str | None]:
    """What the outcome says about the source: ready, failing with the reason, or nothing."""
    match outcome:
        case Succeeded(result=result) if kind.name == "connection_test":
            return ("ready", None) if result["success"] else ("failing", result["message"])
        case Succeeded() if kind.name == "sync":
            return "ready", None
        case Failed(failure=failure) if kind.name == "sync" and failure.code in FAILING_CODES:
            return "failing", failure.message
        case _:
            return None, None
