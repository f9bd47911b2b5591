"""SQL for those who read jobs: pages, attempts, the views that waiters share, what a retry repeats."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from headwater.db import Statement
from headwater.jobs.statements import pairs


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
    conditions = ["v.organization_id = %(organization_id)s"]
    parameters: dict[str, Any] = {"organization_id": organization_id, "limit": limit}
    for given, name, value, condition in (
        (bool(kinds), "kinds", list(kinds), "v.kind = any(%(kinds)s)"),
        (bool(statuses), "statuses", list(statuses), "v.status = any(%(statuses)s)"),
        (data_source_id is not None, "data_source_id", data_source_id, "v.data_source_id = %(data_source_id)s"),
        (project_id is not None, "project_id", project_id, "v.project_id = %(project_id)s"),
        (
            project_ids is not None,
            "project_ids",
            list(project_ids or ()),
            "v.project_id = any(%(project_ids)s::uuid[])",
        ),
        (job_ids is not None, "job_ids", list(job_ids or ()), "v.id = any(%(job_ids)s::uuid[])"),
        (created_after is not None, "created_after", created_after, "v.created_at > %(created_after)s"),
    ):
        if given:
            conditions.append(condition)
            parameters[name] = value
    direction, beyond = ("desc", "<") if descending else ("asc", ">")
    if after is not None:
        conditions.append(f"(v.created_at, v.id) {beyond} (%(after_at)s, %(after_id)s)")
        parameters |= {"after_at": after[0], "after_id": after[1]}
    return Statement(
        f"""
        select v.id, v.created_at, to_jsonb(v) as job from job_view v
        where {" and ".join(conditions)}
        order by v.created_at {direction}, v.id {direction} limit %(limit)s
        """,
        parameters,
    )


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
