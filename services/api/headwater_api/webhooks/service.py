"""The rules of webhooks: a quota, a secret that is shown once, two of them while it changes."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy import update as update_rows
from sqlmodel import Session, col
from starlette.requests import Request

from headwater import clock, db
from headwater.access import quotas
from headwater.audit.acts import Act
from headwater.errors import Conflict, NotFound
from headwater.settings import QuotaSettings
from headwater.webhooks import messages, signing
from headwater.webhooks.rows import Webhook, WebhookAttempt, WebhookDelivery
from headwater_api import preconditions
from headwater_api.access import service as access
from headwater_api.credentials import service as vault
from headwater_api.pagination import Selection
from headwater_api.transaction import Transaction
from headwater_api.webhooks.schemas import WebhookCreate, WebhookUpdate

# All but whose it is at the moment, which is the deliverer's business.
_DELIVERY: Final = (
    col(WebhookDelivery.id), col(WebhookDelivery.webhook_id), col(WebhookDelivery.type), col(WebhookDelivery.job_id),
    col(WebhookDelivery.data), col(WebhookDelivery.status), col(WebhookDelivery.attempt),
    col(WebhookDelivery.next_at), col(WebhookDelivery.status_code), col(WebhookDelivery.error_code),
    col(WebhookDelivery.created_at), col(WebhookDelivery.ended_at),
)  # fmt: skip


def selection(organization_id: UUID) -> Selection:
    """The organization's webhooks."""
    return select(Webhook).where(col(Webhook.organization_id) == organization_id, col(Webhook.deleted_at).is_(None))


def get(session: Session, organization_id: UUID, webhook_id: UUID) -> Webhook:
    """One of them. Raises `NotFound`."""
    webhook: Webhook | None = session.execute(
        selection(organization_id).where(col(Webhook.id) == webhook_id)
    ).scalar_one_or_none()
    if webhook is None:
        raise NotFound
    return webhook


def create(transaction: Transaction, body: WebhookCreate, *, quota: QuotaSettings) -> tuple[Webhook, str]:
    """A new webhook and its secret. Raises `InvalidRequest`, `QuotaExceeded`."""
    access.require_projects(transaction, body.project_ids)
    _require_room(transaction, quota)
    now = clock.now()
    values = {name: getattr(body, name) for name in WebhookCreate.model_fields}
    webhook = Webhook(organization_id=transaction.organization_id, created_at=now, updated_at=now, **values)
    transaction.session.add(webhook)
    transaction.session.flush()
    secret = _new_secret(transaction, webhook)
    transaction.audit(Act.WEBHOOK_CREATE, webhook.id, fields=body.model_fields_set)
    return webhook, secret


def update(transaction: Transaction, request: Request, webhook_id: UUID, body: WebhookUpdate) -> Webhook:
    """Change what was sent. Raises `NotFound`, `StaleRevision`, `InvalidRequest`."""
    webhook = _lock(transaction, webhook_id)
    preconditions.require_fresh(request, webhook.revision, required=False)
    changes = {name: value for name, value in body.changes().items() if getattr(webhook, name) != value}
    access.require_projects(transaction, changes.get("project_ids"))
    if changes:
        for name, value in changes.items():
            setattr(webhook, name, value)
        if "enabled" in changes:
            webhook.disabled_reason = webhook.failing_since = None
        _touch(transaction, webhook)
        transaction.audit(Act.WEBHOOK_UPDATE, webhook.id, fields=changes)
    return webhook


def rotate(transaction: Transaction, webhook_id: UUID, *, overlap_seconds: int) -> tuple[Webhook, str]:
    """Give it another secret; the one before signs beside it for a while, any older one no more. Raises `NotFound`."""
    webhook = _lock(transaction, webhook_id)
    ended = [webhook.secret_number - 1] + ([] if overlap_seconds else [webhook.secret_number])
    vault.clear(transaction, webhook.id, [signing.field(number) for number in ended])
    webhook.secret_number += 1
    webhook.previous_secret_until = clock.now() + timedelta(seconds=overlap_seconds) if overlap_seconds else None
    secret = _new_secret(transaction, webhook)
    _touch(transaction, webhook)
    transaction.audit(Act.WEBHOOK_ROTATE, webhook.id, details={"overlap_seconds": overlap_seconds})
    return webhook, secret


def delete(transaction: Transaction, request: Request, webhook_id: UUID) -> None:
    """Delete it: its secrets are destroyed, nothing more is sent. Raises `NotFound`, `StaleRevision`."""
    webhook = _lock(transaction, webhook_id)
    preconditions.require_fresh(request, webhook.revision, required=False)
    webhook.deleted_at = clock.now()
    webhook.enabled = False
    vault.clear(transaction, webhook.id)
    transaction.audit(Act.WEBHOOK_DELETE, webhook.id)


def test(transaction: Transaction, webhook_id: UUID) -> db.Row:
    """Have a `webhook.test` sent; the row of `deliveries`. Raises `NotFound`, `Conflict` (`webhook_disabled`)."""
    webhook = get(transaction.session, transaction.organization_id, webhook_id)
    _require_enabled(webhook)
    now = clock.now()
    delivery = WebhookDelivery(
        organization_id=transaction.organization_id,
        webhook_id=webhook.id,
        type=messages.TEST_EVENT,
        next_at=now,
        created_at=now,
    )
    transaction.session.add(delivery)
    transaction.session.flush()
    transaction.audit(Act.WEBHOOK_TEST, webhook.id, details={"delivery_id": str(delivery.id)})
    return get_delivery(transaction.session, transaction.organization_id, webhook_id, delivery.id)


def deliveries(organization_id: UUID, webhook_id: UUID) -> Selection:
    """The deliveries of a webhook."""
    return select(*_DELIVERY).where(
        col(WebhookDelivery.organization_id) == organization_id, col(WebhookDelivery.webhook_id) == webhook_id
    )


def get_delivery(session: Session, organization_id: UUID, webhook_id: UUID, delivery_id: UUID) -> db.Row:
    """One of them. Raises `NotFound`."""
    return _one(session, deliveries(organization_id, webhook_id).where(col(WebhookDelivery.id) == delivery_id))


def attempts(session: Session, organization_id: UUID, delivery_id: UUID, *, limit: int) -> list[db.Row]:
    """The requests of a delivery, the newest first."""
    statement = (
        select(
            col(WebhookAttempt.attempt),
            col(WebhookAttempt.started_at),
            col(WebhookAttempt.duration_ms),
            col(WebhookAttempt.status_code),
            col(WebhookAttempt.error_code),
        )
        .where(col(WebhookAttempt.delivery_id) == delivery_id, col(WebhookAttempt.organization_id) == organization_id)
        .order_by(col(WebhookAttempt.attempt).desc())
        .limit(limit)
    )
    return [dict(row._mapping) for row in session.execute(statement)]


def redeliver(transaction: Transaction, webhook_id: UUID, delivery_id: UUID) -> db.Row:
    """Send it now, and again after failures as if it were new, with the same id; its row.

    Raises `NotFound`, `Conflict` (`webhook_disabled`, `delivery_in_progress`).
    """
    session, organization_id = transaction.session, transaction.organization_id
    _require_enabled(get(session, organization_id, webhook_id))
    one = deliveries(organization_id, webhook_id).where(col(WebhookDelivery.id) == delivery_id)
    if _one(session, one.with_for_update(key_share=True))["status"] == "delivering":
        raise Conflict("It is being sent at this moment.", code="delivery_in_progress", hint="Look again in a moment.")
    session.execute(
        update_rows(WebhookDelivery)
        .where(col(WebhookDelivery.id) == delivery_id, col(WebhookDelivery.organization_id) == organization_id)
        .values(status="pending", tries=0, next_at=func.now(), ended_at=None)
    )
    transaction.audit(Act.WEBHOOK_REDELIVER, webhook_id, details={"delivery_id": str(delivery_id)})
    return get_delivery(session, organization_id, webhook_id, delivery_id)


def _one(session: Session, statement: Selection) -> db.Row:
    row = session.execute(statement).first()
    if row is None:
        raise NotFound
    return dict(row._mapping)


def _new_secret(transaction: Transaction, webhook: Webhook) -> str:
    secret = signing.new_secret()
    binding = signing.binding(transaction.organization_id, webhook.id, webhook.secret_number)
    vault.store(transaction, secret, binding=binding, key=vault.sealing_key(transaction))
    return secret


def _touch(transaction: Transaction, webhook: Webhook) -> None:
    webhook.revision += 1
    webhook.updated_at = clock.now()
    transaction.session.flush()


def _require_enabled(webhook: Webhook) -> None:
    if not webhook.enabled:
        raise Conflict(
            "This webhook is switched off: nothing is sent.",
            code="webhook_disabled",
            hint='Switch it on with PATCH {"enabled": true}.',
        )


def _require_room(transaction: Transaction, quota: QuotaSettings) -> None:
    """Make sure that there may be one more, and that nobody else makes one at this moment."""
    limits = db.run_in(transaction.session, quotas.hold(transaction.organization_id, quota))[0]
    statement = select(func.count()).where(
        col(Webhook.organization_id) == transaction.organization_id, col(Webhook.deleted_at).is_(None)
    )
    used = transaction.session.execute(statement).scalar_one()
    quotas.require_room("webhooks", limit=limits["webhooks"], used=used + 1)


def _lock(transaction: Transaction, webhook_id: UUID) -> Webhook:
    statement = selection(transaction.organization_id).where(col(Webhook.id) == webhook_id)
    webhook: Webhook | None = transaction.session.execute(
        statement.with_for_update(key_share=True)
    ).scalar_one_or_none()
    if webhook is None:
        raise NotFound
    return webhook
