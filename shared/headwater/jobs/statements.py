"""The job engine's SQL: pure functions that give a statement and its parameters.

Run alike on the API's async pool, on the ORM's connection, in the worker and in the scheduler. A statement that
changes a job's state locks the job's row first and its lease second, always in this order, so that none deadlocks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from headwater.db import Statement, json
from headwater.jobs.outcome import Progress

CHANNEL: Final = "headwater_job"
"""NOTIFY carries a job's id here, after the commit of each change that somebody can wait for."""

STATUSES: Final = ("queued", "running", "cancelling", "succeeded", "partially_succeeded", "failed", "cancelled")
_FINAL: Final = "('succeeded', 'partially_succeeded', 'failed', 'cancelled')"


def submit(*, organization_id: UUID, requests: Sequence[Mapping[str, Any]]) -> Statement:
    """Submit jobs of one organization: rows {answer} in their order, each {outcome, job?, status?, job_id?, limit?}.

    Each is answered as if it came behind those before it. No `idempotency_key` may be in two of them.
    See `jobs_submit` in migrations/sql.
    """
    return Statement(
        "select answer from jobs_submit(%(organization_id)s, %(requests)s) as answer",
        {"organization_id": organization_id, "requests": json([dict(request) for request in requests])},
    )


def read(jobs: Sequence[tuple[UUID, UUID]]) -> Statement:
    """Of each (organization, job), in their order, one row {job}: a row of `job_view` as JSON, or null."""
    return Statement(
        """
        select job_read(organization_id, job_id) as job
        from unnest(%(organization_ids)s::uuid[], %(job_ids)s::uuid[]) as wanted (organization_id, job_id)
        """,
        pairs(jobs),
    )


def cancel(
    *,
    organization_id: UUID,
    job_id: UUID,
    actor_id: UUID,
    key_id: UUID | None,
    reason: str | None,
    request_id: str,
    address: str | None,
) -> Statement:
    """Cancel a job; one column `answer`: {outcome, job}. See `job_cancel` in migrations/sql."""
    return Statement(
        """
        select job_cancel(
            %(organization_id)s, %(job_id)s, %(actor_id)s, %(key_id)s, %(reason)s, %(request_id)s, %(address)s
        ) as answer
        """,
        {
            "organization_id": organization_id,
            "job_id": job_id,
            "actor_id": actor_id,
            "key_id": key_id,
            "reason": reason,
            "request_id": request_id,
            "address": address,
        },
    )


def lock_live(*, organization_id: UUID, data_source_id: UUID) -> Statement:
    """Lock the jobs of a data source that have not ended, in one order; their ids."""
    return Statement(
        f"""
        select id from job
        where data_source_id = %(data_source_id)s and organization_id = %(organization_id)s and status not in {_FINAL}
        order by id for no key update
        """,
        {"organization_id": organization_id, "data_source_id": data_source_id},
    )


def marks(jobs: Sequence[tuple[UUID, UUID]]) -> Statement:
    """What a waiter watches of many jobs at once, as (organization, job): rows {id, status, attempt, cancelling}."""
    return Statement("select * from job_marks(%(organization_ids)s::uuid[], %(job_ids)s::uuid[])", pairs(jobs))


def pairs(jobs: Sequence[tuple[UUID, UUID]]) -> dict[str, Any]:
    """(organization, job) as the two arrays that `job_marks` and `job_views` take."""
    return {"organization_ids": [organization for organization, _ in jobs], "job_ids": [job for _, job in jobs]}


def act_for_owner(job_id: UUID) -> Statement:
    """From here on the connection acts for the organization of this job: one row, or none if it is not queued.

    The commit of the transaction does not wait for the disk. A claim that Postgres loses when it dies is a job that is
    queued again, and what its worker writes after that finds no lease; all that a claim allows to be written waits.
    """
    return Statement(
        """
        select set_config('headwater.organization', organization_id::text, false),
               set_config('synchronous_commit', 'off', true)
        from job where id = %(job_id)s and status = 'queued'
        """,
        {"job_id": job_id},
    )


def act_for_nobody() -> Statement:
    """The end of that: the connection sees no organization's rows any more."""
    return Statement("select set_config('headwater.organization', '', false)")


def hold_organization() -> Statement:
    """Let no other claim of our organization come between its count of running jobs and its commit."""
    return Statement("select from organization where id = current_organization() for no key update")


def claim(
    *,
    job_id: UUID,
    kind: str | None,
    token: UUID,
    worker: str,
    lease_seconds: float,
    running_limit: int,
    source_limit: int,
) -> Statement:
    """Make a queued job ours: running, attempt + 1, a lease. No row: somebody else has it, or a cap is reached.

    With a `kind`, a job of another one gives no row either.

    Behind `act_for_owner` and `hold_organization` in one transaction: many claims at once would each count before the
    others are there. Their commit does not wait for the disk, so that it can wake those who wait for the job itself
    (`notify` says why others cannot). The row is the job with what it is pinned to: `type`, `config`, `validation`,
    `reading` of its version, `current_config` of the version that counts now, and `seconds_left` until its deadline.
    """
    return Statement(
        """
        with candidate as (
            select j.id from job j
            join organization o on o.id = j.organization_id
            where j.id = %(job_id)s and j.status = 'queued' and j.run_at <= now() and o.suspended_at is null
              and j.kind = coalesce(%(kind)s, j.kind)
              and (
                  select count(*) from job r
                  where r.organization_id = j.organization_id and r.status in ('running', 'cancelling')
              ) < coalesce(o.running_limit, %(running_limit)s)
              and (
                  select count(*) from job r
                  where r.data_source_id = j.data_source_id and r.status in ('running', 'cancelling')
              ) < %(source_limit)s
            for no key update of j
        ), claimed as (
            update job j set
                status = 'running', attempt = j.attempt + 1, rung_at = null,
                started_at = coalesce(j.started_at, now()),
                deadline_at = coalesce(j.deadline_at, now() + make_interval(secs => j.deadline_seconds))
            from candidate where j.id = candidate.id
            returning j.*
        ), lease as (
            insert into job_lease (job_id, organization_id, token, worker, until)
            select id, organization_id, %(token)s, %(worker)s,
                   clock_timestamp() + make_interval(secs => %(lease_seconds)s)
            from claimed
        ), attempt as (
            insert into job_attempt (job_id, organization_id, attempt, token, worker)
            select id, organization_id, attempt, %(token)s, %(worker)s from claimed
        ), told as (
            insert into event (organization_id, data_source_id, job_id, act, details)
            select organization_id, data_source_id, id, 'job.started',
                   jsonb_build_object('kind', kind, 'status', 'running', 'attempt', attempt)
            from claimed
        )
        select c.*, coalesce(s.type, c.draft ->> 'type') as type, coalesce(v.config, c.draft -> 'config') as config,
               v.validation, v.reading, current.config as current_config,
               extract(epoch from c.deadline_at - clock_timestamp())::float as seconds_left,
               pg_notify(%(channel)s, c.id::text)
        from claimed c
        left join data_source s on s.id = c.data_source_id
        left join data_source_version v on v.data_source_id = c.data_source_id and v.version = c.config_version
        left join data_source_version current on current.data_source_id = s.id and current.version = s.version
        """,
        {
            "channel": CHANNEL,
            "job_id": job_id,
            "kind": kind,
            "token": token,
            "worker": worker,
            "lease_seconds": lease_seconds,
            "running_limit": running_limit,
            "source_limit": source_limit,
        },
    )


def beat(*, job_id: UUID, token: UUID, lease_seconds: float) -> Statement:
    """Extend the lease. One row {cancel}: still ours. No row: it is lost."""
    return Statement(
        """
        update job_lease
        set until = clock_timestamp() + make_interval(secs => %(lease_seconds)s), beat_at = clock_timestamp()
        where job_id = %(job_id)s and token = %(token)s
        returning cancel
        """,
        {"job_id": job_id, "token": token, "lease_seconds": lease_seconds},
    )


def end_lease(*, job_id: UUID, worker: str) -> Statement:
    """`worker` died with this job: its lease runs out now. Nothing happens if another has the job since."""
    return Statement(
        "update job_lease set until = clock_timestamp() where job_id = %(job_id)s and worker = %(worker)s",
        {"job_id": job_id, "worker": worker},
    )


def hold(*, job_id: UUID, token: UUID) -> Statement:
    """First statement of every effect batch: no row, no write. It blocks a change of owner until the batch commits."""
    return Statement(
        "select 1 as held from job_lease where job_id = %(job_id)s and token = %(token)s for key share",
        {"job_id": job_id, "token": token},
    )


def report(*, job_id: UUID, token: UUID, progress: Progress) -> Statement:
    """Write progress, while the lease is ours. One row {cancel} then."""
    return Statement(
        f"""
        with lease as (
            select job_id, organization_id, cancel from job_lease
            where job_id = %(job_id)s and token = %(token)s for key share
        ), written as ({_UPSERT_PROGRESS} from lease {_ON_PROGRESS_CONFLICT})
        select cancel from lease
        """,
        {"job_id": job_id, "token": token} | _progress_parameters(progress),
    )


def record(
    *,
    job_id: UUID,
    token: UUID,
    status: str,
    attempt_outcome: str,
    act: str,
    result: dict[str, Any] | None,
    error: dict[str, Any] | None,
    progress: Progress,
    delay_seconds: float,
    released: bool,
    verdict: str | None,
    verdict_reason: str | None,
) -> Statement:
    """End the attempt that holds the lease by `token`: state, result or error, event and attempt in one write.

    `status` `queued` hands the job back, to run after `delay_seconds`; if somebody asked to cancel it meanwhile it is
    cancelled instead. `verdict` (ready, failing, None) is the source's status, kept only if neither its target nor
    its credentials changed since the submit; a sync's `ready` only takes back `failing`. The row is {status}; no row:
    the lease is lost and nothing is written.
    """
    return Statement(
        _RECORD,
        {
            "job_id": job_id,
            "token": token,
            "status": status,
            "attempt_outcome": attempt_outcome,
            "act": act,
            "result": None if result is None else json(result),
            "error": None if error is None else json(error),
            "delay_seconds": delay_seconds,
            "released": released,
            "verdict": verdict,
            "verdict_reason": verdict_reason,
        }
        | _progress_parameters(progress),
    )


def reap(
    *, error: dict[str, Any], deadline_error: dict[str, Any], base_seconds: float, cap_seconds: float
) -> Statement:
    """Take back the leases that ran out, at most 100: the job is queued again, or ends. Rows {id, status}.

    A lease lost twice is a job that kills its workers: it fails with `error` (`worker_crash`). SKIP LOCKED, because a
    worker frozen inside a batch holds its lease row.
    """
    return Statement(
        f"""
        with expired as (
            select l.job_id, case
                when j.cancel_requested_at is not null then 'cancelled'
                when j.deadline_at < now() or j.crashes >= 1
                    or j.attempt - j.interruptions >= j.max_attempts then 'failed'
                else 'queued'
            end as status
            from job_lease l join job j on j.id = l.job_id
            where l.until < clock_timestamp()
            order by l.until limit 100
            for no key update of j skip locked
            for update of l skip locked
        ), lost as (
            delete from job_lease l using expired
            where l.job_id = expired.job_id returning l.job_id, l.token, expired.status
        ), attempt as (
            update job_attempt a set outcome = 'lost', ended_at = now()
            from lost where a.job_id = lost.job_id and a.token = lost.token
        ), ended as (
            update job j set
                status = lost.status,
                crashes = j.crashes + 1,
                finished_at = case when lost.status <> 'queued' then now() end,
                error = case when lost.status = 'failed' then
                    case when j.deadline_at < now() then %(deadline_error)s::jsonb else %(error)s::jsonb end end,
                run_at = case when lost.status = 'queued' then now() + make_interval(secs =>
                    random() * least(%(cap_seconds)s, %(base_seconds)s * 2 ^ least(j.attempt, 32))) else j.run_at end,
                rung_at = null
            from lost
            where j.id = lost.job_id
            returning j.id, j.organization_id, j.data_source_id, j.kind, j.status, j.attempt, j.error
        ), told as (
            insert into event (organization_id, data_source_id, job_id, act, details)
            select organization_id, data_source_id, id,
                   case status when 'queued' then 'job.requeued' else 'job.' || status end,
                   jsonb_build_object('kind', kind, 'status', status, 'attempt', attempt,
                                      'code', coalesce(error ->> 'code', 'lease_lost'))
            from ended
        ), forgotten as (
            delete from sealed_credential c using ended e where c.subject_id = e.id and e.status in {_FINAL}
        )
        select id, status from ended
        """,
        {
            "error": json(error),
            "deadline_error": json(deadline_error),
            "base_seconds": base_seconds,
            "cap_seconds": cap_seconds,
        },
    )


def notify(job_id: UUID) -> Statement:
    """Wake those who wait for the job: a statement of its own, after the commit; inside one it serialises commits."""
    return Statement("select pg_notify(%(channel)s, %(job_id)s)", {"channel": CHANNEL, "job_id": str(job_id)})


def notify_all(job_ids: Sequence[UUID]) -> Statement:
    """The same for many jobs."""
    return Statement(
        "select pg_notify(%(channel)s, id::text) from unnest(%(job_ids)s::uuid[]) as id",
        {"channel": CHANNEL, "job_ids": list(job_ids)},
    )


def events(*, organization_id: UUID, job_id: UUID, after: int) -> Statement:
    """The events of a job behind `after`, in order: {number, act, details, created_at}."""
    return Statement(
        """
        select number, act, details, created_at from event
        where job_id = %(job_id)s and organization_id = %(organization_id)s and number > %(after)s
        order by number limit 200
        """,
        {"organization_id": organization_id, "job_id": job_id, "after": after},
    )


def _progress_parameters(progress: Progress) -> dict[str, Any]:
    return {
        "phase": progress.phase,
        "current": progress.current,
        "total": progress.total,
        "unit": progress.unit,
        "percent": progress.percent,
        "eta_seconds": progress.eta_seconds,
        "counters": json(progress.counters),
        "warnings": json(list(progress.warnings)),
        "error_summary": json(list(progress.error_summary)),
    }


_UPSERT_PROGRESS: Final = """
    insert into job_progress as p
        (job_id, organization_id, phase, current, total, unit, percent, eta_seconds, counters, warnings, error_summary)
    select lease.job_id, lease.organization_id, %(phase)s, %(current)s::bigint, %(total)s::bigint, %(unit)s,
           %(percent)s::smallint, %(eta_seconds)s::int, %(counters)s::jsonb, %(warnings)s::jsonb,
           %(error_summary)s::jsonb
"""
_ON_PROGRESS_CONFLICT: Final = """
    on conflict (job_id) do update set
        phase = excluded.phase, current = excluded.current, total = excluded.total, unit = excluded.unit,
        percent = greatest(p.percent, excluded.percent), eta_seconds = excluded.eta_seconds,
        counters = excluded.counters, warnings = excluded.warnings, error_summary = excluded.error_summary,
        updated_at = now()
"""
_RECORD: Final = f"""
    with locked as (
        -- What a cancel wrote that this lock waited for is seen here, and nowhere else in this statement.
        select id, cancel_requested_at from job where id = %(job_id)s for no key update
    ), lease as (
        delete from job_lease l using locked
        where l.job_id = locked.id and l.token = %(token)s
        returning l.job_id, l.organization_id, l.token, case
            when %(status)s = 'queued' and locked.cancel_requested_at is not null then 'cancelled' else %(status)s
        end as status
    ), attempt as (
        update job_attempt a set outcome = %(attempt_outcome)s, error = %(error)s, ended_at = now()
        from lease where a.job_id = lease.job_id and a.token = lease.token
    ), ended as (
        update job j set
            status = lease.status,
            finished_at = case when lease.status <> 'queued' then now() end,
            result = case when lease.status = %(status)s and lease.status <> 'queued' then %(result)s::jsonb end,
            error = case when lease.status = %(status)s and lease.status <> 'queued' then %(error)s::jsonb end,
            run_at = case when lease.status = 'queued'
                then now() + make_interval(secs => %(delay_seconds)s) else j.run_at end,
            rung_at = null,
            interruptions = j.interruptions + %(released)s::boolean::int
        from lease
        where j.id = lease.job_id
        returning j.*
    ), told as (
        insert into event (organization_id, data_source_id, job_id, act, details)
        select organization_id, data_source_id, id,
               case when status = %(status)s then %(act)s else 'job.' || status end,
               jsonb_build_object('kind', kind, 'status', status, 'attempt', attempt, 'code', error ->> 'code')
        from ended
    ), written as ({_UPSERT_PROGRESS} from lease {_ON_PROGRESS_CONFLICT}
    ), forgotten as (
        delete from sealed_credential c using ended e where c.subject_id = e.id and e.status in {_FINAL}
    ), judged as (
        update data_source_totals t set
            status = %(verdict)s, status_reason = %(verdict_reason)s, status_access_revision = e.access_revision,
            last_test_success = case when e.kind = 'connection_test'
                then %(verdict)s = 'ready' else t.last_test_success end,
            last_test_job_id = case when e.kind = 'connection_test' then e.id else t.last_test_job_id end,
            last_test_at = case when e.kind = 'connection_test' then now() else t.last_test_at end
        from ended e
        join data_source s on s.id = e.data_source_id and s.access_revision = e.access_revision
        where t.data_source_id = e.data_source_id and %(verdict)s::text is not null and e.status = %(status)s
          and (e.kind = 'connection_test' or %(verdict)s = 'failing' or t.status = 'failing')
    )
    select status from ended
"""
