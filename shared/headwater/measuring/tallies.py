"""What has ended, counted once each and kept when the jobs are gone.

A job or an attempt that has ended carries a mark, `tallied`, which is set in the transaction that adds it to the
tallies: commits may come in any order, and whoever dies in between has neither marked nor counted.
"""

from collections.abc import Callable, Mapping
from typing import Final, LiteralString

from psycopg.types.json import Jsonb

from headwater import db, failpoints
from headwater.db import Connection, Statement
from headwater.measuring import turn
from headwater.measuring.families import BOUNDS

_ENDED: Final = 1_000


def add(
    connection: Connection, *, per_source: bool, interrupt: Callable[[], None] = lambda: None, steps: int = 50
) -> int:
    """Tally what has ended, up to 1,000 attempts and jobs a step; how many of both.

    Each step is a transaction, the connection in autocommit. `interrupt` is called between steps and may raise. Of
    several schedulers one gets on, the others find nothing to do. `per_source` also counts for each data source.
    """
    added = 0
    for _ in range(steps):
        interrupt()
        with connection.transaction():
            if not turn.take(connection):
                break
            attempts = _count(connection, attempts_ended())
            jobs = _count(connection, jobs_ended(per_source=per_source))
            failpoints.reach("tally.written")
        failpoints.reach("tally.committed")
        added += attempts + jobs
        if max(attempts, jobs) < _ENDED:
            break
    return added


def forget_sources(connection: Connection, *, per_source: bool) -> int:
    """Drop the tallies of data sources that were deleted; of all of them, where nobody wants any."""
    return db.run(connection, _forget(per_source=per_source)).rowcount


def _count(connection: Connection, statement: Statement) -> int:
    row = db.run(connection, statement).fetchone()
    assert row is not None
    return int(row["count"])


_ADD: Final[LiteralString] = """
    insert into tally as t (name, labels, value)
    select name, labels, value from counted
    on conflict (name, labels) do update set value = t.value + excluded.value
"""


def refused(counts: Mapping[str, int]) -> Statement:
    """Add the messages that a worker refused, {reason: how many}."""
    return Statement(
        f"""
        with counted (name, labels, value) as (
            select 'headwater_messages_refused_total', jsonb_build_object('reason', key), value::float
            from jsonb_each_text(%(counts)s)
        ) {_ADD}
        """,
        {"counts": Jsonb(dict(counts))},
    )


def attempts_ended() -> Statement:
    """Tally up to 1,000 attempts. One row {count}."""
    return Statement(
        f"""
        with ended as materialized (
            select a.job_id, a.attempt, a.outcome, j.kind from job_attempt a join job j on j.id = a.job_id
            where a.ended_at is not null and not a.tallied
            order by a.ended_at limit %(limit)s for no key update of a skip locked
        ), marked as (
            update job_attempt a set tallied = true
            from ended where a.job_id = ended.job_id and a.attempt = ended.attempt
        ), counted (name, labels, value) as (
            select 'headwater_job_attempts_total', jsonb_build_object('kind', kind, 'outcome', outcome), count(*)
            from ended group by kind, outcome
            union all
            select 'headwater_job_lease_losses_total', jsonb_build_object('kind', kind), count(*)
            from ended where outcome = 'lost' group by kind
        ), added as ({_ADD})
        select count(*) from ended
        """,
        {"limit": _ENDED},
    )


def jobs_ended(*, per_source: bool) -> Statement:
    """Tally up to 1,000 jobs. One row {count}."""
    return Statement(
        f"""
        with ended as materialized (
            select j.id, j.kind, j.status, j.data_source_id,
                   extract(epoch from j.started_at - j.created_at)::float as start_seconds,
                   extract(epoch from j.finished_at - j.started_at)::float as run_seconds
            from job j
            where j.finished_at is not null and not j.tallied
            order by j.finished_at limit %(limit)s for no key update skip locked
        ), marked as (
            update job j set tallied = true from ended where j.id = ended.id
        ), timed (name, kind, seconds) as (
            select 'headwater_job_start_seconds', kind, greatest(0, start_seconds)
            from ended where start_seconds is not null
            union all
            select 'headwater_job_run_seconds', kind, greatest(0, run_seconds)
            from ended where run_seconds is not null
        ), brought (type, data_source_id, items, errors) as (
            select s.type, s.id, sum(coalesce((p.counters ->> 'landed')::bigint, 0)),
                   sum(coalesce((p.counters ->> 'rejected')::bigint, 0))
            from ended
            join data_source s on s.id = ended.data_source_id
            join job_progress p on p.job_id = ended.id
            where ended.kind = 'sync' group by s.id
        ), counted (name, labels, value) as (
            select 'headwater_jobs_finished_total', jsonb_build_object('kind', kind, 'status', status), count(*)
            from ended group by kind, status
            union all
            select name || '_bucket', jsonb_build_object('kind', kind, 'le', bound), count(*)
            from timed join unnest(%(bounds)s::text[]) as bound on seconds <= bound::float group by name, kind, bound
            union all
            select name || '_sum', jsonb_build_object('kind', kind), sum(seconds) from timed group by name, kind
            union all
            select 'headwater_items_synced_total', jsonb_build_object('type', type), sum(items)
            from brought group by type
            union all
            select 'headwater_item_errors_total', jsonb_build_object('type', type), sum(errors)
            from brought group by type
            union all
            select 'headwater_source_items_synced_total',
                   jsonb_build_object('type', type, 'data_source', data_source_id), items
            from brought where %(per_source)s
            union all
            select 'headwater_source_item_errors_total',
                   jsonb_build_object('type', type, 'data_source', data_source_id), errors
            from brought where %(per_source)s
        ), added as ({_ADD})
        select count(*) from ended
        """,
        {"limit": _ENDED, "bounds": list(BOUNDS), "per_source": per_source},
    )


def _forget(*, per_source: bool) -> Statement:
    return Statement(
        """
        delete from tally t where t.labels ? 'data_source' and (not %(per_source)s or not exists (
            select from data_source s where s.id = (t.labels ->> 'data_source')::uuid and s.deleted_at is null
        ))
        """,
        {"per_source": per_source},
    )
