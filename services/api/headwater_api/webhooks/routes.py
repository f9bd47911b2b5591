"""Routes of webhooks."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from sqlmodel import col

from headwater import ids
from headwater.webhooks.rows import Webhook
from headwater_api import openapi, pagination, preconditions, services
from headwater_api.dependencies import ActorDep, SessionDep, WebhookId
from headwater_api.guard import GuardedRoute, allow
from headwater_api.once import Answer, OnceDep
from headwater_api.pagination import CursorQuery, Order, Page, SortKey
from headwater_api.transaction import TransactionDep
from headwater_api.webhooks import service
from headwater_api.webhooks.schemas import WebhookCreate, WebhookCreated, WebhookRead, WebhookRotate, WebhookUpdate

router = APIRouter(route_class=GuardedRoute, tags=["webhooks"])

_NEWEST_FIRST: Final = [
    Order(SortKey(col(Webhook.created_at), pagination.parse_moment), descending=True),
    Order(SortKey(col(Webhook.id)), descending=True),
]


@router.post(
    "/webhooks",
    status_code=201,
    summary="Create a webhook",
    response_model=WebhookCreated,
    responses={
        201: {"headers": openapi.ETAG | openapi.LOCATION},
        **openapi.refusals(409, 413, 415, 422),
    },
)
@allow("webhook:write")
def create_webhook(body: WebhookCreate, request: Request, transaction: TransactionDep, once: OnceDep) -> Response:
    """Have a server told of jobs that end. `secret`, which messages are signed with, is shown this once: a repeat under
    the same `Idempotency-Key` is refused with `409 already_created` and a link to it.
    """

    def act() -> Answer:
        webhook, secret = service.create(transaction, body, quota=services.of(request).quotas)
        return _shown_once(201, webhook, secret)

    return once.perform(transaction.session, act)


@router.get("/webhooks", summary="List webhooks")
@allow("webhook:read")
def list_webhooks(
    request: Request, query: Annotated[CursorQuery, Query()], actor: ActorDep, session: SessionDep
) -> Page[WebhookRead]:
    """List the organization's webhooks, the newest first."""
    rows, next_cursor = pagination.fetch(
        session,
        service.selection(actor.organization_id),
        orders=_NEWEST_FIRST,
        query=query,
        cursors=pagination.cursors(request),
    )
    return pagination.page_of([_render(row[0]) for row in rows], next_cursor)


@router.get("/webhooks/{webhook_id}", summary="Read a webhook", responses={200: {"headers": openapi.ETAG}})
@allow("webhook:read")
def get_webhook(webhook_id: WebhookId, actor: ActorDep, session: SessionDep, response: Response) -> WebhookRead:
    """One webhook; its secret is never shown again."""
    webhook = service.get(session, actor.organization_id, webhook_id)
    response.headers["ETag"] = preconditions.etag(webhook.revision)
    return _render(webhook)


@router.patch(
    "/webhooks/{webhook_id}",
    summary="Change a webhook",
    responses={200: {"headers": openapi.ETAG}, **openapi.refusals(412, 413, 415)},
    openapi_extra=openapi.IF_MATCH_OPTIONAL,
)
@allow("webhook:write", if_match="optional")
def update_webhook(
    webhook_id: WebhookId,
    request: Request,
    transaction: TransactionDep,
    response: Response,
    body: WebhookUpdate | None = None,
) -> WebhookRead:
    """Change the fields that are sent. The secret stays, wherever it points.

    While it is off nothing is sent: what comes due meanwhile has failed (`webhook_disabled`) and can be sent by hand.
    """
    webhook = service.update(transaction, request, webhook_id, body or WebhookUpdate())
    response.headers["ETag"] = preconditions.etag(webhook.revision)
    return _render(webhook)


@router.delete(
    "/webhooks/{webhook_id}",
    status_code=204,
    summary="Delete a webhook",
    responses=openapi.refusals(412),
    openapi_extra=openapi.IF_MATCH_OPTIONAL,
)
@allow("webhook:write", if_match="optional")
def delete_webhook(webhook_id: WebhookId, request: Request, transaction: TransactionDep) -> None:
    """Delete a webhook: its secrets are destroyed, and nothing more is sent."""
    service.delete(transaction, request, webhook_id)


@router.post(
    "/webhooks/{webhook_id}/rotate",
    summary="Rotate a webhook's secret",
    response_model=WebhookCreated,
    responses={200: {"headers": openapi.ETAG}, **openapi.refusals(409, 413, 415, 422)},
)
@allow("webhook:write")
def rotate_webhook(
    webhook_id: WebhookId, transaction: TransactionDep, once: OnceDep, body: WebhookRotate | None = None
) -> Response:
    """Make another secret, which is shown this once, as for a new webhook. The one before signs beside it for
    `overlap_seconds` more, a day if you say nothing; one that is older still ends at once.
    """
    rotate = body or WebhookRotate()

    def act() -> Answer:
        webhook, secret = service.rotate(transaction, webhook_id, overlap_seconds=rotate.overlap_seconds)
        return _shown_once(200, webhook, secret)

    return once.perform(transaction.session, act)


def _shown_once(status: int, webhook: Webhook, secret: str) -> Answer:
    return Answer(
        status=status,
        body=WebhookCreated(**_render(webhook).model_dump(), secret=secret).model_dump(mode="json"),
        headers={
            "Location": f"/api/v1/webhooks/{ids.encode('hook', webhook.id)}",
            "ETag": preconditions.etag(webhook.revision),
        },
        subject_id=webhook.id,
        secret=True,
    )


def _render(webhook: Webhook) -> WebhookRead:
    return WebhookRead.model_validate(webhook, from_attributes=True)
