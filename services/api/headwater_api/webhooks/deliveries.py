"""Routes of a webhook's deliveries."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field
from sqlmodel import col

from headwater import ids
from headwater.db import Row
from headwater.webhooks import messages
from headwater.webhooks.rows import WebhookDelivery
from headwater_api import openapi, pagination
from headwater_api.dependencies import ActorDep, DeliveryId, SessionDep, WebhookId
from headwater_api.guard import GuardedRoute, allow
from headwater_api.once import Answer, OnceDep
from headwater_api.pagination import CursorQuery, Order, Page, Selection, SortKey
from headwater_api.transaction import TransactionDep
from headwater_api.webhooks import service
from headwater_api.webhooks.schemas import AttemptRead, DeliveryDetail, DeliveryRead, Status
from headwater_api.wire import JobId

router = APIRouter(route_class=GuardedRoute, tags=["webhooks"])

_MOST_ATTEMPTS: Final = 100
_NEWEST_FIRST: Final = [
    Order(SortKey(col(WebhookDelivery.created_at), pagination.parse_moment), descending=True),
    Order(SortKey(col(WebhookDelivery.id)), descending=True),
]
_ACCEPTED: Final[dict[str, Any]] = {
    "status_code": 202,
    "response_model": DeliveryRead,
    "responses": {202: {"headers": openapi.LOCATION | openapi.REPLAYED}, **openapi.refusals(409, 413, 415, 422)},
}


class DeliveryQuery(CursorQuery):
    """Which deliveries. A filter that is given more than once takes any of its values."""

    model_config = ConfigDict(extra="forbid")

    status: list[Status] = Field(default_factory=list, max_length=10)
    job_id: list[JobId] = Field(default_factory=list, max_length=50, description="Of these jobs.")

    def narrow(self, statement: Selection) -> Selection:
        """`statement` with these filters."""
        if self.status:
            statement = statement.where(col(WebhookDelivery.status).in_(self.status))
        if self.job_id:
            statement = statement.where(col(WebhookDelivery.job_id).in_(self.job_id))
        return statement


@router.post("/webhooks/{webhook_id}/test", summary="Test a webhook", **_ACCEPTED)
@allow("webhook:write")
def test_webhook(webhook_id: WebhookId, transaction: TransactionDep, once: OnceDep) -> Response:
    """Have a signed `webhook.test` sent to it, within a second or so. The delivery shows what came of it.

    A webhook that is switched off is refused (`409 webhook_disabled`).
    """
    return once.perform(transaction.session, lambda: _accepted(service.test(transaction, webhook_id)))


@router.get("/webhooks/{webhook_id}/deliveries", summary="List a webhook's deliveries")
@allow("webhook:read")
def list_deliveries(
    webhook_id: WebhookId,
    request: Request,
    query: Annotated[DeliveryQuery, Query()],
    actor: ActorDep,
    session: SessionDep,
) -> Page[DeliveryRead]:
    """What the webhook was told or is to be told, the newest first. Kept for 30 days unless the operator says
    otherwise.
    """
    service.get(session, actor.organization_id, webhook_id)
    rows, next_cursor = pagination.fetch(
        session,
        query.narrow(service.deliveries(actor.organization_id, webhook_id)),
        orders=_NEWEST_FIRST,
        query=query,
        cursors=pagination.cursors(request),
    )
    return pagination.page_of([DeliveryRead(**_shown(dict(row._mapping))) for row in rows], next_cursor)


@router.get("/webhooks/{webhook_id}/deliveries/{delivery_id}", summary="Read a delivery")
@allow("webhook:read")
def get_delivery(
    webhook_id: WebhookId, delivery_id: DeliveryId, actor: ActorDep, session: SessionDep
) -> DeliveryDetail:
    """One delivery: what is sent, and each request that was made: when, what was answered, how long it took."""
    service.get(session, actor.organization_id, webhook_id)
    row = service.get_delivery(session, actor.organization_id, webhook_id, delivery_id)
    attempts = service.attempts(session, actor.organization_id, delivery_id, limit=_MOST_ATTEMPTS)
    return DeliveryDetail(
        **_shown(row), payload=messages.message(row), attempts=[AttemptRead(**attempt) for attempt in attempts]
    )


@router.post("/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", summary="Send a delivery again", **_ACCEPTED)
@allow("webhook:write")
def redeliver(webhook_id: WebhookId, delivery_id: DeliveryId, transaction: TransactionDep, once: OnceDep) -> Response:
    """Send it now, whether it has arrived, has failed or waits, with the same `webhook-id`: a receiver that has seen it
    knows it by that.

    `409 delivery_in_progress` while it is being sent, `409 webhook_disabled` while the webhook is off.
    """
    return once.perform(transaction.session, lambda: _accepted(service.redeliver(transaction, webhook_id, delivery_id)))


def _accepted(row: Row) -> Answer:
    webhook_id, delivery_id = ids.encode("hook", row["webhook_id"]), ids.encode("dlv", row["id"])
    return Answer(
        status=202,
        body=DeliveryRead(**_shown(row)).model_dump(mode="json"),
        headers={"Location": f"/api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}"},
        subject_id=row["id"],
    )


def _shown(row: Row) -> dict[str, Any]:
    shown = {name: row[name] for name in DeliveryRead.model_fields if name != "next_attempt_at"}
    return shown | {"next_attempt_at": row["next_at"] if row["status"] == "pending" else None}
