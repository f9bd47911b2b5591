"""SQL for those who read jobs: pages, attempts, the views that waiters share, what a retry repeats."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from headwater.db import Statement
from headwater.jobs.kinds import KINDS
from headwater.jobs.statements import STATUSES, pairs


def views(jobs: Sequence[tuple[UUID, UUID]]) -> Statement:
    """Many jobs of many organizations at once, as (organization, job): rows {id, job, last_event}.

    `job` is a row of `job_view` as JSON, or null if the organization has none such; `last_event` its newest event's
    number, or null.
    """
    return Statement("select * from job_views(%(organization_ids)s::uuid[], %(job_ids)s::uuid[])", pairs(jobs))


def page(
    *,
    organization_id: UUID,
    kinds: Sequence[str] = (),
    statuses: Sequence[str] = (),
    data_source_id: UUID | None = None,
    project_id: UUID | None = None,
    project_ids: Collection[UUID] | None = None,
    job_ids: Sequence[UUID] | None = None,
    created_after: datetime | None = None,
    descending: bool = True,
    after: tuple[datetime, UUID] | None = None,
    limit: int,
) -> Statement:
    """Jobs in the order of (created_at, id) behind `after`: rows {id, created_at, job}, `job` a row of `job_view`.

    Empty `kinds` or `statuses` and None mean all; an empty `job_ids` or `project_ids` means none.
    """
    if project_id is not None:
        project_ids = [project_id] if project_ids is None or project_id in project_ids else []
    parameters: dict[str, Any] = {
        "organization_id": organization_id,
        "kinds": list(kinds) or list(KINDS),
        "statuses": list(statuses) or list(STATUSES),
        "data_source_id": data_source_id,
        "project_ids": None if project_ids is None else list(project_ids),
        "job_ids": None if job_ids is None else list(job_ids),
        "created_after": created_after,
        "limit": limit,
    }
    conditions = ["j.organization_id = %(organization_id)s"]
    conditions += [condition for name, condition in _CONDITIONS.items() if parameters[name] is not None]
    # Each branch gives a page in its index' order, and the newest of all are the page: filtered along the one order of
    # the whole organization, jobs that are rare would be looked for through all that there are.
    branches = "(values (true)) branch"
    by_source = data_source_id is not None or job_ids is not None
    if by_source:
        conditions += ["j.kind = any(%(kinds)s)"] * bool(kinds) + ["j.status = any(%(statuses)s)"] * bool(statuses)
    elif kinds or statuses:
        branches = "unnest(%(kinds)s::text[]) as k (kind), unnest(%(statuses)s::text[]) as s (status)"
        conditions += ["j.kind = k.kind", "j.status = s.status"]
    elif project_ids is not None:
        branches = "unnest(%(project_ids)s::uuid[]) as p (project_id)"
        conditions += ["j.project_id = p.project_id"]
    direction, beyond = ("desc", "<") if descending else ("asc", ">")
    if after is not None:
        conditions.append(f"(j.created_at, j.id) {beyond} (%(after_at)s, %(after_id)s)")
        parameters |= {"after_at": after[0], "after_id": after[1]}
    order = f"created_at {direction}, id {direction}"
    return Statement(
        f"""
        with page as (
            select found.id from {branches}
            cross join lateral (
                select j.id, j.created_at from job j
                where {" and ".join(conditions)} order by {order} limit %(limit)s
            ) found
            order by {order} limit %(limit)s
        )
        select v.id, v.created_at, to_jsonb(v) as job from page join job_view v on v.id = page.id order by {order}
        """,
        parameters,
    )


_CONDITIONS: Final = {
    "data_source_id": "j.data_source_id = %(data_source_id)s",
    "project_ids": "j.project_id = any(%(project_ids)s::uuid[])",
    "job_ids": "j.id = any(%(job_ids)s::uuid[])",
    "created_after": "j.created_at > %(created_after)s",
}


def attempts(*, organization_id: UUID, job_id: UUID) -> Statement:
    """The attempts at a job in order: rows {attempt, worker, started_at, ended_at, outcome, error}."""
    return Statement(
        """
        select a.attempt, a.worker, a.started_at, a.ended_at, a.outcome, a.error
        from job_attempt a
        join job j on j.id = a.job_id and j.organization_id = %(organization_id)s
        where a.job_id = %(job_id)s order by a.attempt
        """,
        {"organization_id": organization_id, "job_id": job_id},
    )


def order(*, organization_id: UUID, job_id: UUID) -> Statement:
    """What a retry repeats.

    One row {kind, status, is_draft, project_id, data_source_id, params, priority, deadline_seconds}.
    """
    return Statement(
        """
        select kind, status, draft is not null as is_draft, project_id, data_source_id, params, priority,
               deadline_seconds
        from job where id = %(job_id)s and organization_id = %(organization_id)s
        """,
        {"organization_id": organization_id, "job_id": job_id},
    )
