"""What is, at this moment: queues, running jobs, heartbeats, workers, and how far audit log and webhooks are behind."""

from typing import Final

from headwater import db
from headwater.db import Connection, Statement
from headwater.jobs.kinds import KINDS, Queue
from headwater.measuring import turn


def measure(connection: Connection, *, redis_up: bool) -> bool:
    """Replace the gauges, in one transaction; False if another scheduler is at it. The connection is in autocommit."""
    with connection.transaction():
        if not turn.take(connection):
            return False
        db.run(connection, replace(redis_up=redis_up))
    return True


def replace(*, redis_up: bool) -> Statement:
    """Measure, and write it down. What it reads of jobs are those that have not ended, by their indexes."""
    return Statement(_REPLACE, {"queues": [queue.value for queue in Queue], "kinds": list(KINDS), "redis_up": redis_up})


_REPLACE: Final = """
    with queued as (
        select j.queue, count(*) as count,
               extract(epoch from now() - min(j.run_at) filter (where o.suspended_at is null)) as oldest_seconds
        from job j join organization o on o.id = j.organization_id
        where j.status = 'queued' group by j.queue
    ), running as (
        select j.kind, count(*) as count from job j where j.status in ('running', 'cancelling') group by j.kind
    ), leased as (
        select j.queue, extract(epoch from now() - min(l.beat_at)) as age_seconds
        -- The status says what the lease says, and leads the planner to the index of live jobs.
        from job_lease l join job j on j.id = l.job_id and j.status in ('running', 'cancelling') group by j.queue
    ), working as (
        select w.queue, count(*) as count, sum(w.slots) as slots
        from worker w where w.seen_at > now() - interval '20 seconds' group by w.queue
    ), unsealed as (
        select extract(epoch from now() - e.created_at) as age_seconds from audit_entry e
        where e.xid >= (select h.xid from audit_horizon h)
          and not exists (select from audit_chain c where c.entry_id = e.id)
        order by e.xid limit 1
    ), by_queue as (
        select jsonb_build_object('queue', q.queue) as labels, queued.count as queued, queued.oldest_seconds,
               leased.age_seconds, working.count as workers, working.slots
        from unnest(%(queues)s::text[]) as q (queue)
        left join queued using (queue) left join leased using (queue) left join working using (queue)
    ), gauge (name, labels, value) as (
        select 'headwater_jobs_queued', labels, queued from by_queue
        union all select 'headwater_jobs_oldest_queued_seconds', labels, oldest_seconds from by_queue
        union all select 'headwater_job_heartbeat_age_seconds', labels, age_seconds from by_queue
        union all select 'headwater_workers', labels, workers from by_queue
        union all select 'headwater_worker_slots', labels, slots from by_queue
        union all
        select 'headwater_jobs_running', jsonb_build_object('kind', k.kind), running.count
        from unnest(%(kinds)s::text[]) as k (kind) left join running using (kind)
        union all select 'headwater_redis_up', '{}', %(redis_up)s::boolean::int
        union all select 'headwater_audit_unsealed_seconds', '{}', (select age_seconds from unsealed)
        union all
        select 'headwater_webhook_oldest_due_seconds', '{}', (
            select extract(epoch from now() - min(d.next_at)) from webhook_delivery d where d.status = 'pending'
        )
    )
    update measurement set measured_at = now(), gauges = (
        -- Nothing there is 0; a job may be due later, and a heartbeat younger than this transaction.
        select jsonb_agg(jsonb_build_object('name', name, 'labels', labels, 'value', greatest(0, value))) from gauge
    )
"""
