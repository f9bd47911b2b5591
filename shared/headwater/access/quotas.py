"""How many data sources, live jobs, uploaded bytes and webhooks an organization may have."""

from typing import Final, Literal
from uuid import UUID

from headwater.db import Statement
from headwater.errors import QuotaExceeded
from headwater.settings import QuotaSettings

Quota = Literal["data_sources", "live_jobs", "upload_bytes", "webhooks"]

# A limit that no count reaches: 0 in the settings.
NO_LIMIT: Final = 2**62

_WORDS: Final[dict[Quota, str]] = {
    "data_sources": "data sources",
    "live_jobs": "jobs that have not ended",
    "upload_bytes": "bytes of uploaded files",
    "webhooks": "webhooks",
}
_WAYS_OUT: Final[dict[Quota, str]] = {
    "data_sources": "Delete some that are no longer needed, or ask the operator for more.",
    "live_jobs": "Wait until some have ended, or cancel some.",
    "upload_bytes": "Delete files that are no longer needed, or ask the operator for more.",
    "webhooks": "Delete some that are no longer needed, or ask the operator for more.",
}


def hold(organization_id: UUID, settings: QuotaSettings) -> Statement:
    """Lock the organization's row, so that no two count at once. One row: what it may have of each, by its name."""
    return Statement(
        """
        select coalesce(data_source_limit, %(data_sources)s) as data_sources,
               coalesce(live_job_limit, %(live_jobs)s) as live_jobs,
               coalesce(upload_bytes_limit, %(upload_bytes)s) as upload_bytes,
               coalesce(webhook_limit, %(webhooks)s) as webhooks
        from organization where id = %(organization_id)s for no key update
        """,
        {"organization_id": organization_id, **limits(settings)},
    )


def usage(organization_id: UUID, settings: QuotaSettings) -> Statement:
    """What an organization has and may have: rows {quota, used, limit}; `limit` is null where there is none."""
    return Statement(
        """
        select q.quota, q.used, nullif(q.may_have, %(no_limit)s) as "limit" from organization o
        cross join lateral (values
            ('data_sources', (
                select count(*) from data_source s where s.organization_id = o.id and s.deleted_at is null
            ), coalesce(o.data_source_limit, %(data_sources)s)),
            ('live_jobs', (
                select count(*) from job j
                where j.organization_id = o.id and j.status in ('queued', 'running', 'cancelling')
            ), coalesce(o.live_job_limit, %(live_jobs)s)),
            ('upload_bytes', (
                select coalesce(sum(greatest(u.size, u.total)), 0)::bigint from upload u
                where u.organization_id = o.id and u.state <> 'dropped'
            ), coalesce(o.upload_bytes_limit, %(upload_bytes)s)),
            ('webhooks', (
                select count(*) from webhook w where w.organization_id = o.id and w.deleted_at is null
            ), coalesce(o.webhook_limit, %(webhooks)s))
        ) as q (quota, used, may_have)
        where o.id = %(organization_id)s
        """,
        {"organization_id": organization_id, "no_limit": NO_LIMIT, **limits(settings)},
    )


def limits(settings: QuotaSettings) -> dict[str, int]:
    """The deployment's limits; 0 is none."""
    return {
        "data_sources": settings.quota_data_sources or NO_LIMIT,
        "live_jobs": settings.quota_live_jobs or NO_LIMIT,
        "upload_bytes": settings.quota_upload_bytes or NO_LIMIT,
        "webhooks": settings.quota_webhooks or NO_LIMIT,
    }


def require_room(quota: Quota, *, limit: int, used: int) -> None:
    """Raise `QuotaExceeded` if `used` is more than `limit`."""
    if used > limit:
        raise exceeded(quota, limit)


def exceeded(quota: Quota, limit: int) -> QuotaExceeded:
    """The organization has as many as it may have."""
    message = f"This organization may have {limit} {_WORDS[quota]}, and no more."
    return QuotaExceeded(message, quota=quota, limit=limit, hint=_WAYS_OUT[quota])
