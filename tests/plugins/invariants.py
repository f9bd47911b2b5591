"""What is promised of jobs whatever dies, asked of Postgres, the logs and Redis after a scenario.

`check` raises with every promise that does not hold. Each promise has a name, a sentence, and a query whose rows are
what broke it; docs/faults.md lists them. A scenario calls `engine.settled()` first, so that nothing goes on.
"""

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import redis
from engines import CANARY, FINAL, Engine
from psycopg import sql

from headwater.audit import chain

_FINAL: Final = str(FINAL)
_SHOWN: Final = 5


@dataclass(frozen=True)
class Promise:
    """A sentence that holds after every fault, and how to find what broke it."""

    name: str
    words: str
    broken: Callable[[Engine], Iterator[Any]]


def check(engine: Engine) -> None:
    """Raise `AssertionError` naming each promise that does not hold, with the first rows that broke it."""
    lines = [
        f"{promise.name}: {promise.words} Broken by {len(rows)}: {rows[:_SHOWN]}"
        for promise, rows in broken(engine).items()
    ]
    if lines:
        raise AssertionError("\n".join(lines) + "\n" + engine.log_tail())


def broken(engine: Engine) -> dict[Promise, list[Any]]:
    """The promises that do not hold, each with what broke it."""
    found = {promise: list(promise.broken(engine)) for promise in PROMISES}
    return {promise: rows for promise, rows in found.items() if rows}


def _rows(query: str) -> Callable[[Engine], Iterator[Any]]:
    def broken(engine: Engine) -> Iterator[Any]:
        yield from engine.connection.execute(query)  # type: ignore[call-overload]

    return broken


def _kept(engine: Engine) -> Iterator[Any]:
    made = {row["id"] for row in engine.connection.execute("select id from job")}
    yield from ({"key": key, "job": job} for key, job in engine.answers.items() if job is not None and job not in made)


def _once(engine: Engine) -> Iterator[Any]:
    rows = engine.connection.execute(
        """
        select r.key, r.subject_id from idempotency_record r where r.key = any(%s)
        """,
        (list(engine.answers),),
    ).fetchall()
    by_key: dict[str, UUID] = {row["key"]: row["subject_id"] for row in rows}
    for key, job in engine.answers.items():
        if job is not None and by_key.get(key) != job:
            yield {"key": key, "answered": job, "known": by_key.get(key)}
    # A job that no key leads to was made by a request that was made again.
    if engine.answers:
        yield from engine.connection.execute(
            """
            select j.id as unasked from job j
            where j.request_id is distinct from 'test'
              and not exists (select from idempotency_record r where r.subject_id = j.id)
            """
        )


def _audit(engine: Engine) -> Iterator[Any]:
    for organization_id in chain.organizations(engine.connection):
        found = chain.verify(engine.connection, organization_id)
        if found.reason is not None or found.unsealed:
            yield {"organization": organization_id, "reason": found.reason, "unsealed": found.unsealed}


def _logs(engine: Engine) -> Iterator[Any]:
    for process in engine.processes:
        for line in process.log.read_text().splitlines():
            if any(event in line for event in _FAULTS):
                yield f"{process.log.name}: {line[:300]}"


def _secrets(engine: Engine) -> Iterator[Any]:
    searched = sorted(spellings(CANARY))
    for process in engine.processes:
        text = process.log.read_text()
        yield from (f"{process.log.name} has {spelling}" for spelling in searched if spelling in text)
    for row in engine.connection.execute(_TABLES).fetchall():
        query = sql.SQL("select count(*) as n from {} t where t::text like any(%s)").format(sql.Identifier(row["name"]))
        found = engine.one(query, [f"%{spelling}%" for spelling in searched])
        if found is not None and found["n"]:
            yield f"table {row['name']} has it in {found['n']} rows"
    with redis.Redis.from_url(engine.redis_url) as client:
        for key in client.scan_iter():
            dump = client.dump(key) or b""
            yield from (f"Redis has {spelling}" for spelling in searched if spelling.encode() in dump)


def spellings(secret: str) -> set[str]:
    """What shows that a secret is somewhere.

    Its first part is alike in text, JSON and URLs; base64 has it in three ways, by what stands before it.
    """
    core = re.split(r"\W", secret)[0]
    shifted = [base64.b64encode(b"?" * shift + core.encode())[4 * (shift > 0) : -4].decode() for shift in range(3)]
    return {core, core.encode().hex(), core.encode().hex().upper(), *shifted}


_FAULTS: Final = ('"job.fault"', '"scheduler.fault"', '"request.failed"')
_TABLES: Final = """
    select relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'public' and c.relkind in ('r', 'p')
"""

# The items and rejects that readers of a source see.
_LIVE: Final = "l.valid_from is not null and l.valid_to is null and l.emptied_at is null"

PROMISES: Final = (
    Promise("kept", "A job that a client was answered for is there.", _kept),
    Promise("once", "One key makes one job, and all its answers name it; no job comes from nowhere.", _once),
    Promise(
        "ended",
        "Every job ends.",
        _rows(f"select id, kind, status, attempt, run_at, rung_at from job where status not in {_FINAL}"),
    ),
    Promise(
        "final once",
        "A job ends once: one event says so, the last one, and the job says the same.",
        _rows(
            f"""
            select j.id, j.status, j.finished_at, array_agg(e.details ->> 'status' order by e.number) as told
            from job j left join event e on e.job_id = j.id and e.details ? 'status'
            where j.status in {_FINAL}
            group by j.id
            having j.finished_at is null
                or count(*) filter (where e.details ->> 'status' in {_FINAL}) <> 1
                or (array_agg(e.details ->> 'status' order by e.number desc))[1] <> j.status
            """
        ),
    ),
    Promise(
        "steps",
        "A job goes from state to state only as its lifecycle has it, and its events tell each step once.",
        _rows(
            """
            select * from (
                select job_id, number, lag(details ->> 'status') over same as before, details ->> 'status' as after
                from event where job_id is not null and details ? 'status'
                window same as (partition by job_id order by number)
            ) step
            where (coalesce(before, ''), after) not in (
                ('', 'queued'), ('queued', 'running'), ('queued', 'cancelled'),
                ('running', 'queued'), ('running', 'cancelling'), ('running', 'succeeded'),
                ('running', 'partially_succeeded'), ('running', 'failed'), ('running', 'cancelled'),
                ('cancelling', 'succeeded'), ('cancelling', 'partially_succeeded'), ('cancelling', 'failed'),
                ('cancelling', 'cancelled')
            )
            """
        ),
    ),
    Promise(
        "attempts",
        "Attempts are numbered without a gap, each was told and has ended, as the job counts them, within its limit.",
        _rows(
            f"""
            select j.id, j.status, j.attempt, j.interruptions, j.crashes, j.max_attempts, a.* from job j
            cross join lateral (
                select count(*) as attempts, coalesce(max(attempt), 0) as last,
                       count(*) filter (where outcome is null) as open,
                       count(*) filter (where outcome = 'released') as released,
                       count(*) filter (where outcome = 'lost') as lost,
                       count(*) filter (where outcome in {_FINAL}) as ends,
                       (array_agg(outcome order by attempt desc))[1] as last_outcome
                from job_attempt where job_id = j.id
            ) a
            cross join lateral (
                select count(*) as started from event where job_id = j.id and act = 'job.started'
            ) e
            where (a.attempts, a.last, e.started) is distinct from (j.attempt, j.attempt, j.attempt)
               or (a.released, a.lost) is distinct from (j.interruptions, j.crashes)
               or j.attempt - j.interruptions > j.max_attempts or j.crashes > 2
               or a.open <> (j.status in ('running', 'cancelling'))::int
               or a.ends > 1 or (a.ends = 1 and a.last_outcome is distinct from j.status)
            """
        ),
    ),
    Promise(
        "crashes",
        "Two lost leases end a job as worker_crash, its deadline as deadline_exceeded; one does neither.",
        _rows(
            """
            select id, status, crashes, attempt, error from job
            where (error ->> 'code' = 'worker_crash' and crashes < 2 and attempt - interruptions < max_attempts)
               or (crashes = 2 and status in ('succeeded', 'partially_succeeded'))
               or (error ->> 'code' = 'deadline_exceeded' and (deadline_at is null or finished_at < deadline_at))
            """
        ),
    ),
    Promise(
        "leases",
        "Who runs a job holds its one lease, by the token of the open attempt; nobody holds another.",
        _rows(
            """
            select j.id, j.status, l.token, a.token as attempt_token
            from job j
            full join job_lease l on l.job_id = j.id
            left join job_attempt a on a.job_id = coalesce(j.id, l.job_id) and a.outcome is null
            where (coalesce(j.status, '') in ('running', 'cancelling')) is distinct from (l.token is not null)
               or l.token is distinct from a.token
            """
        ),
    ),
    Promise(
        "rings",
        "No running job counts as rung, and no queued one waits for a ring that will not come.",
        _rows(
            """
            select id, status, rung_at from job
            where rung_at is not null and (
                status in ('running', 'cancelling', 'succeeded', 'partially_succeeded', 'failed')
                or (status = 'queued' and rung_at < now() - interval '30 seconds')
            )
            """
        ),
    ),
    Promise(
        "cancelled",
        "A job is cancelled because somebody asked for it, and who and why stay with it.",
        _rows(
            """
            select j.id, j.status, j.cancel_requested_at, j.cancel_requested_by, j.cancel_reason from job j
            where (j.status = 'cancelled' and j.cancel_requested_at is null)
               or (j.cancel_requested_at is not null and j.cancel_requested_by is null)
               or (j.cancel_requested_at > j.finished_at)
            """
        ),
    ),
    Promise(
        "effects",
        "What a sync brought in is what the source has: each file once, each record once, no reject twice.",
        _rows(
            f"""
            with synced as (
                select distinct j.data_source_id as id, (v.config ->> 'files')::bigint as files,
                       (v.config ->> 'records')::bigint as records,
                       coalesce((v.config ->> 'broken')::bigint, 0) as broken
                from job j join data_source_version v
                    on v.data_source_id = j.data_source_id and v.version = j.config_version
                where j.kind = 'sync' and j.status in ('succeeded', 'partially_succeeded')
                  and v.config ? 'files' and v.config ? 'records'
            )
            select s.*, i.items, i.different, i.paths, r.rejects from synced s
            cross join lateral (
                select count(*) as items, count(distinct i.data) as different, count(distinct l.path) as paths
                from load l join item i on i.load_id = l.id where l.data_source_id = s.id and {_LIVE}
            ) i
            cross join lateral (
                select count(*) as rejects from load l join reject r on r.load_id = l.id
                where l.data_source_id = s.id and {_LIVE}
            ) r
            where (i.items, i.different, i.paths, r.rejects)
                is distinct from (s.files * s.records, s.files * s.records, s.files, s.files * s.broken)
            """
        ),
    ),
    Promise(
        "files",
        "The catalogue has each file of a listed source once, and says of each what its live load holds.",
        _rows(
            """
            select f.data_source_id, f.path, f.item_count, f.error_count, l.item_count as of_load
            from file f left join load l on l.id = f.load_id
            where (f.item_count, f.error_count) is distinct from (coalesce(l.item_count, 0), coalesce(l.error_count, 0))
               or l.valid_to is not null or (f.load_id is not null and l.valid_from is null)
            union all
            select j.data_source_id, 'files listed', max((j.result ->> 'file_count')::bigint), 0,
                   (select count(*) from file f where f.data_source_id = j.data_source_id)
            from job j where j.kind = 'file_listing' and j.status = 'succeeded' and j.params = '{}'
            group by j.data_source_id
            having max((j.result ->> 'file_count')::bigint)
                <> (select count(*) from file f where f.data_source_id = j.data_source_id)
            """
        ),
    ),
    Promise(
        "counts",
        "Every count equals its rows: of loads, of sources, of a sync's counters.",
        _rows(
            f"""
            select 'load' as of, l.id::text as id, l.item_count, l.error_count, i.n as items, r.n as rejects
            from load l
            cross join lateral (select count(*) as n from item where load_id = l.id) i
            cross join lateral (select count(*) as n from reject where load_id = l.id) r
            where l.loaded and l.emptied_at is null and (l.item_count, l.error_count) is distinct from (i.n, r.n)
            union all
            select 'source', t.data_source_id::text, t.item_count, t.error_count, live.items, live.rejects
            from data_source_totals t
            cross join lateral (
                select coalesce(sum(l.item_count), 0)::bigint as items,
                       coalesce(sum(l.error_count), 0)::bigint as rejects
                from load l where l.data_source_id = t.data_source_id and {_LIVE}
            ) live
            where (t.item_count, t.error_count) is distinct from (live.items, live.rejects)
            union all
            select 'sync', j.id::text, (p.counters ->> 'landed')::bigint, (p.counters ->> 'rejected')::bigint,
                   mine.items, mine.rejects
            from job j join job_progress p on p.job_id = j.id
            cross join lateral (
                select coalesce(sum(l.item_count), 0)::bigint as items,
                       coalesce(sum(l.error_count), 0)::bigint as rejects
                from load l where l.job_id = j.id and l.loaded
            ) mine
            where j.kind = 'sync' and j.status in ('succeeded', 'partially_succeeded')
              and (coalesce((p.counters ->> 'landed')::bigint, 0), coalesce((p.counters ->> 'rejected')::bigint, 0))
                  is distinct from (mine.items, mine.rejects)
            """
        ),
    ),
    Promise(
        "walls",
        "What a job wrote belongs to its organization.",
        _rows(
            """
            select j.id, x.of, x.organization_id from job j
            join (
                select 'attempt' as of, job_id, organization_id from job_attempt
                union all select 'lease', job_id, organization_id from job_lease
                union all select 'progress', job_id, organization_id from job_progress
                union all select 'event', job_id, organization_id from event
                union all select 'load', job_id, organization_id from load
            ) x on x.job_id = j.id
            where x.organization_id <> j.organization_id
            """
        ),
    ),
    Promise("audit", "The audit log's chain holds, and nothing waits outside it.", _audit),
    Promise(
        "entries",
        "A submit and a cancel leave one audit entry each.",
        _rows(
            """
            select j.id, a.submits, a.cancels from job j
            cross join lateral (
                select count(*) filter (where act = 'job.submit') as submits,
                       count(*) filter (where act = 'job.cancel') as cancels
                from audit_entry where subject_id = j.id
            ) a
            where (a.submits, a.cancels) is distinct from (1, (j.cancel_requested_by is not null)::int)
            """
        ),
    ),
    Promise("secrets", "A credential shows in no log, no table and no message, in no spelling.", _secrets),
    Promise(
        "sessions",
        "No transaction is left open.",
        _rows(
            """
            select application_name, pid, state, xact_start from pg_stat_activity
            where datname = current_database() and state like 'idle in transaction%'
              and xact_start < now() - interval '10 seconds'
            """
        ),
    ),
    Promise("faults", "No process says that it met a fault of its own.", _logs),
)
