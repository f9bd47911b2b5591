"""SQL for many jobs at once: find and cancel them."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from headwater.db import Statement


def projects_of(*, organization_id: UUID, data_source_ids: Sequence[UUID]) -> Statement:
    """Those of the data sources that are there: rows {id, project_id}."""
    return Statement(
        """
        select id, project_id from data_source
        where id = any(%(data_source_ids)s) and organization_id = %(organization_id)s and deleted_at is null
        """,
        {"organization_id": organization_id, "data_source_ids": list(data_source_ids)},
    )


def lock_matching(
    *,
    organization_id: UUID,
    kinds: Collection[str] | None,
    statuses: Collection[str] | None,
    data_source_id: UUID | None,
    project_id: UUID | None,
    project_ids: Collection[UUID] | None,
    job_ids: Collection[UUID] | None,
    created_before: datetime | None,
    limit: int,
) -> Statement:
    """Up to `limit` jobs that can be cancelled and match all that is not None, locked, the oldest first: rows {id}."""
    return Statement(
        """
        select id from job
        where organization_id = %(organization_id)s and status = any(coalesce(%(statuses)s, '{queued,running}'::text[]))
          and (%(kinds)s::text[] is null or kind = any(%(kinds)s))
          and (%(data_source_id)s::uuid is null or data_source_id = %(data_source_id)s)
          and (%(project_id)s::uuid is null or project_id = %(project_id)s)
          and (%(project_ids)s::uuid[] is null or project_id = any(%(project_ids)s))
          and (%(job_ids)s::uuid[] is null or id = any(%(job_ids)s))
          and (%(created_before)s::timestamptz is null or created_at < %(created_before)s)
        order by created_at, id limit %(limit)s for no key update
        """,
        {
            "organization_id": organization_id,
            "kinds": _listed(kinds),
            "statuses": _listed(statuses),
            "data_source_id": data_source_id,
            "project_id": project_id,
            "project_ids": _listed(project_ids),
            "job_ids": _listed(job_ids),
            "created_before": created_before,
            "limit": limit,
        },
    )


def cancel(
    *,
    organization_id: UUID,
    job_ids: Sequence[UUID],
    actor_id: UUID,
    key_id: UUID | None,
    reason: str | None,
    request_id: str,
    address: str | None,
) -> Statement:
    """Cancel each of these jobs: rows {id, status}. See `job_cancel`."""
    return Statement(
        """
        select w.id, job_cancel(
            %(organization_id)s, w.id, %(actor_id)s, %(key_id)s, %(reason)s, %(request_id)s, %(address)s
        ) #>> '{job,status}' as status
        from unnest(%(job_ids)s::uuid[]) with ordinality as w (id, place) order by w.place
        """,
        {
            "organization_id": organization_id,
            "job_ids": list(job_ids),
            "actor_id": actor_id,
            "key_id": key_id,
            "reason": reason,
            "request_id": request_id,
            "address": address,
        },
    )


def _listed(values: Collection[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)
