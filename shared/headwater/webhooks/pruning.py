"""Forgetting old deliveries, secrets that no longer sign, and webhooks that were deleted, in bounded steps."""

from collections.abc import Callable
from typing import Final

from headwater import db
from headwater.db import Connection, Statement

_DELIVERIES: Final = 1_000


def prune(
    connection: Connection, *, retention_days: int, interrupt: Callable[[], None] = lambda: None, steps: int = 50
) -> int:
    """Delete deliveries that are that old, each step in a transaction; how many.

    `interrupt` is called between steps and may raise. The connection is in autocommit.
    """
    db.run(connection, end_previous_secrets())
    deleted = 0
    for _ in range(steps):
        interrupt()
        gone = db.run(connection, delete_old(retention_days=retention_days)).rowcount
        deleted += gone
        if gone < _DELIVERIES:
            break
    db.run(connection, delete_webhooks())
    return deleted


def end_previous_secrets() -> Statement:
    """Destroy the secrets whose time beside their successor is over."""
    return Statement(
        """
        with ended as (
            update webhook set previous_secret_until = null where previous_secret_until < now()
            returning id, secret_number
        )
        delete from sealed_credential c using ended
        where c.subject_id = ended.id and c.field <> 'secret.' || ended.secret_number
        """
    )


def delete_old(*, retention_days: int) -> Statement:
    """Delete up to 1,000 deliveries with their attempts, the oldest first."""
    return Statement(
        """
        delete from webhook_delivery where id = any(array(
            select id from webhook_delivery where created_at < now() - make_interval(days => %(retention_days)s)
            order by created_at limit %(limit)s
        ))
        """,
        {"retention_days": retention_days, "limit": _DELIVERIES},
    )


def delete_webhooks() -> Statement:
    """Delete the rows of webhooks that were deleted a day ago, once nothing of theirs is left."""
    return Statement(
        """
        delete from webhook w where w.deleted_at < now() - interval '1 day'
          -- The oldest, by the index: looking for any, the planner may read those of all webhooks.
          and (select d.id from webhook_delivery d where d.webhook_id = w.id order by d.created_at limit 1) is null
        """
    )
