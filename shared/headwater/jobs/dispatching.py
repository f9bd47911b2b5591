"""The queues' SQL: what is rung for and in which order, at what pace, and who is there to hear it.

Pure functions that give a statement and its parameters, as in `statements`.
"""

from collections.abc import Sequence
from uuid import UUID

from headwater.db import Statement


def dispatch(*, queue: str, limit: int, running_limit: int, source_limit: int, rering_seconds: float) -> Statement:
    """Choose up to `limit` queued jobs to ring for and mark them rung. Rows {id, kind, organization_id}.

    Fair across organizations: an organization's n-th waiting job counts behind every other's first n - 1, and running
    ones count as well. The recursions hop along the index, from organization to organization and in each from source
    to source, instead of reading the thousands that one of them may have. An organization's unsaved tests hop as one
    source, without a cap of its own.
    """
    return Statement(
        """
        with recursive waiting as (
            (select organization_id from job where queue = %(queue)s and status = 'queued'
             order by organization_id limit 1)
            union all
            select (
                select j.organization_id from job j
                where j.queue = %(queue)s and j.status = 'queued' and j.organization_id > waiting.organization_id
                order by j.organization_id limit 1
            )
            from waiting where waiting.organization_id is not null
        ), room as (
            select w.organization_id, live.running, coalesce(o.running_limit, %(running_limit)s) - live.running as free
            from waiting w
            join organization o on o.id = w.organization_id and o.suspended_at is null
            cross join lateral (
                select count(*) as running from job r
                where r.organization_id = w.organization_id and r.status in ('running', 'cancelling')
            ) live
        ), source as (
            (select room.organization_id, (
                select coalesce(j.data_source_id, '00000000-0000-0000-0000-000000000000') from job j
                where j.queue = %(queue)s and j.status = 'queued' and j.organization_id = room.organization_id
                order by coalesce(j.data_source_id, '00000000-0000-0000-0000-000000000000') limit 1
            ) as id from room where room.free > 0)
            union all
            select source.organization_id, (
                select coalesce(j.data_source_id, '00000000-0000-0000-0000-000000000000') from job j
                where j.queue = %(queue)s and j.status = 'queued' and j.organization_id = source.organization_id
                  and coalesce(j.data_source_id, '00000000-0000-0000-0000-000000000000') > source.id
                order by coalesce(j.data_source_id, '00000000-0000-0000-0000-000000000000') limit 1
            )
            from source where source.id is not null
        ), ready as (
            select source.organization_id, n.*
            from source
            cross join lateral (
                select j.id, j.created_at, j.priority from job j
                where j.queue = %(queue)s and j.organization_id = source.organization_id and j.status = 'queued'
                  and coalesce(j.data_source_id, '00000000-0000-0000-0000-000000000000') = source.id
                  and j.run_at <= now()
                  and (j.rung_at is null or j.rung_at < now() - make_interval(secs => %(rering_seconds)s))
                order by j.priority desc, j.created_at, j.id
                limit least(%(limit)s, case
                    when source.id = '00000000-0000-0000-0000-000000000000' then %(limit)s
                    else greatest(0, %(source_limit)s - (
                        select count(*) from job r
                        where r.data_source_id = source.id and r.status in ('running', 'cancelling')
                    ))
                end)
            ) n
        ), ranked as (
            select n.id, room.running + n.rank as turn, n.created_at
            from room
            join (
                select r.*, row_number() over (
                    partition by r.organization_id order by r.priority desc, r.created_at, r.id
                ) as rank
                from ready r
            ) n on n.organization_id = room.organization_id and n.rank <= room.free
            order by turn, n.created_at, n.id
            limit %(limit)s
        ), chosen as (
            select j.id from job j join ranked on ranked.id = j.id
            where j.status = 'queued'
            for no key update of j skip locked
        )
        update job j set rung_at = now() from chosen where j.id = chosen.id
        returning j.id, j.kind, j.organization_id
        """,
        {
            "queue": queue,
            "limit": limit,
            "running_limit": running_limit,
            "source_limit": source_limit,
            "rering_seconds": rering_seconds,
        },
    )


def unring(job_ids: Sequence[UUID]) -> Statement:
    """The ring did not get through, or the queue is long enough: leave these to the dispatcher."""
    return Statement(
        "update job set rung_at = null where id = any(%(job_ids)s) and status = 'queued'",
        {"job_ids": list(job_ids)},
    )


def unring_all() -> Statement:
    """Redis lost its memory: everything queued is to be rung again."""
    return Statement("update job set rung_at = null where status = 'queued' and rung_at is not null")


def pace() -> Statement:
    """Rows {queue, slots, started}: living slots of each queue, and jobs started in the last 500 ms."""
    return Statement(
        """
        select w.queue, sum(w.slots)::int as slots, (
            select count(*)::int from job_attempt a join job j on j.id = a.job_id
            where a.started_at > now() - interval '500 milliseconds' and j.queue = w.queue
        ) as started
        from worker w where w.seen_at > now() - interval '20 seconds'
        group by w.queue
        """
    )


def worker_seen(*, name: str, queue: str, slots: int, version: str) -> Statement:
    """Say that a worker process is alive."""
    return Statement(
        """
        insert into worker (name, queue, slots, version) values (%(name)s, %(queue)s, %(slots)s, %(version)s)
        on conflict (name) do update set queue = excluded.queue, slots = excluded.slots,
            version = excluded.version, seen_at = now()
        """,
        {"name": name, "queue": queue, "slots": slots, "version": version},
    )


def worker_gone(name: str) -> Statement:
    """A worker process said goodbye."""
    return Statement("delete from worker where name = %(name)s", {"name": name})
