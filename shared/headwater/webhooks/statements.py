"""The deliverer's SQL: who is due, whose it is meanwhile, how it ended.

    pending ──claim──▶ delivering ──record──▶ succeeded | failed
       ▲                   │
       └── record, take_back┘

What waits is of everybody: `take_back` and `claim` act for nobody. All else is said in a transaction that acts for the
delivery's organization.
"""

from typing import Final, Literal
from uuid import UUID

from headwater.db import Statement

RETRY_SECONDS: Final = (5, 30, 120, 600, 3_600, 3 * 3_600, 6 * 3_600, 12 * 3_600)
"""How long after each failed try the next one is made; after the last one the delivery has failed."""

MOST_TRIES: Final = len(RETRY_SECONDS) + 1

Disabled = Literal["gone", "failing"]
Status = Literal["pending", "succeeded", "failed"]


def take_back() -> Statement:
    """What a deliverer held that has died is due again, with the same id, or has failed: rows {id, status}."""
    return Statement(
        """
        with expired as (
            select id, attempt from webhook_delivery
            where status = 'delivering' and leased_until < clock_timestamp()
            order by leased_until limit 100 for no key update skip locked
        ), lost as (
            update webhook_attempt a set error_code = 'deliverer_lost'
            from expired where a.delivery_id = expired.id and a.attempt = expired.attempt
        )
        update webhook_delivery d set
            status = case when d.tries < %(most_tries)s then 'pending' else 'failed' end,
            ended_at = case when d.tries < %(most_tries)s then null else now() end,
            next_at = now(), token = null, leased_until = null, status_code = null, error_code = 'deliverer_lost'
        from expired where d.id = expired.id
        returning d.id, d.status
        """,
        {"most_tries": MOST_TRIES},
    )


def claim(*, token: UUID, limit: int, endpoint_limit: int, lease_seconds: float) -> Statement:
    """Make up to `limit` due deliveries ours, of one webhook at most `endpoint_limit` at once: their rows.

    A webhook's n-th delivery under way or due comes behind every other's first n - 1. The recursion hops along the
    index from webhook to webhook, instead of reading the thousands that one of them may have. Two claims at the same
    moment may each take as many of one webhook as its limit has left.
    """
    return Statement(
        """
        with recursive waiting as (
            (select webhook_id from webhook_delivery where status = 'pending' order by webhook_id limit 1)
            union all
            select (
                select d.webhook_id from webhook_delivery d
                where d.status = 'pending' and d.webhook_id > waiting.webhook_id order by d.webhook_id limit 1
            )
            from waiting where waiting.webhook_id is not null
        ), under_way as (
            select webhook_id, count(*) as count from webhook_delivery where status = 'delivering' group by webhook_id
        ), due as (
            select d.id, d.next_at, coalesce(u.count, 0)
                + row_number() over (partition by w.webhook_id order by d.next_at, d.id) as turn
            from waiting w
            left join under_way u on u.webhook_id = w.webhook_id
            cross join lateral (
                select p.id, p.next_at from webhook_delivery p
                where p.webhook_id = w.webhook_id and p.status = 'pending' and p.next_at <= now()
                order by p.next_at, p.id limit greatest(0, %(endpoint_limit)s - coalesce(u.count, 0))
            ) d
            order by turn, d.next_at, d.id limit %(limit)s
        ), chosen as (
            select d.id from webhook_delivery d join due on due.id = d.id
            where d.status = 'pending' for no key update of d skip locked
        ), claimed as (
            update webhook_delivery d set
                status = 'delivering', attempt = d.attempt + 1, tries = d.tries + 1, token = %(token)s,
                leased_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
            from chosen where d.id = chosen.id
            returning d.*
        ), attempt as (
            insert into webhook_attempt (delivery_id, attempt, organization_id)
            select id, attempt, organization_id from claimed
        )
        select * from claimed
        """,
        {"token": token, "limit": limit, "endpoint_limit": endpoint_limit, "lease_seconds": lease_seconds},
    )


def endpoint(*, organization_id: UUID, webhook_id: UUID) -> Statement:
    """Where it goes: one row {url, enabled, deleted, secret_number, previous_counts}."""
    return Statement(
        """
        select url, enabled, deleted_at is not null as deleted, secret_number,
               coalesce(previous_secret_until > now(), false) as previous_counts
        from webhook where id = %(webhook_id)s and organization_id = %(organization_id)s
        """,
        {"organization_id": organization_id, "webhook_id": webhook_id},
    )


def record(
    *,
    organization_id: UUID,
    delivery_id: UUID,
    token: UUID,
    status: Status,
    delay_seconds: float,
    duration_ms: int,
    status_code: int | None,
    error_code: str | None,
) -> Statement:
    """End the attempt that holds the delivery by `token`; `pending`: again after `delay_seconds`.

    One row {id}. No row: the lease is lost, and nothing is written.
    """
    return Statement(
        """
        with lease as (
            select id, attempt from webhook_delivery
            where id = %(delivery_id)s and organization_id = %(organization_id)s
              and status = 'delivering' and token = %(token)s
            for no key update
        ), attempt as (
            update webhook_attempt a set
                duration_ms = %(duration_ms)s, status_code = %(status_code)s, error_code = %(error_code)s
            from lease where a.delivery_id = lease.id and a.attempt = lease.attempt
        )
        update webhook_delivery d set
            status = %(status)s, token = null, leased_until = null, status_code = %(status_code)s,
            error_code = %(error_code)s, next_at = now() + make_interval(secs => %(delay_seconds)s),
            ended_at = case when %(status)s <> 'pending' then now() end
        from lease where d.id = lease.id
        returning d.id
        """,
        {
            "organization_id": organization_id,
            "delivery_id": delivery_id,
            "token": token,
            "status": status,
            "delay_seconds": delay_seconds,
            "duration_ms": duration_ms,
            "status_code": status_code,
            "error_code": error_code,
        },
    )


def heard(*, organization_id: UUID, webhook_id: UUID) -> Statement:
    """A delivery arrived: the webhook is not failing."""
    return Statement(
        """
        update webhook set failing_since = null
        where id = %(webhook_id)s and organization_id = %(organization_id)s and failing_since is not null
        """,
        {"organization_id": organization_id, "webhook_id": webhook_id},
    )


def missed(*, organization_id: UUID, webhook_id: UUID) -> Statement:
    """A delivery did not arrive: the webhook is failing, from the first one on."""
    return Statement(
        """
        update webhook set failing_since = now()
        where id = %(webhook_id)s and organization_id = %(organization_id)s and failing_since is null
        """,
        {"organization_id": organization_id, "webhook_id": webhook_id},
    )


def disable(*, organization_id: UUID, webhook_id: UUID, reason: Disabled, failing_days: float = 0) -> Statement:
    """Switch the webhook off if it has been failing for so long. One row {id} then."""
    return Statement(
        """
        update webhook set enabled = false, disabled_reason = %(reason)s, revision = revision + 1, updated_at = now()
        where id = %(webhook_id)s and organization_id = %(organization_id)s and enabled and deleted_at is null
          and failing_since <= now() - make_interval(secs => %(failing_seconds)s)
        returning id
        """,
        {
            "organization_id": organization_id,
            "webhook_id": webhook_id,
            "reason": reason,
            "failing_seconds": failing_days * 86_400,
        },
    )
