"""Submitting a job: one round trip, shared by those who come together, and nothing is waited for but Postgres."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Header, Request
from starlette.responses import Response

from headwater import errors, failpoints, idempotency, ids
from headwater.access import quotas
from headwater.connectors import registry
from headwater.db import Row
from headwater.jobs.doorbell import Ring
from headwater.jobs.kinds import Kind, Queue
from headwater_api import services
from headwater_api.constraints import KEY_REPLACED, named_violations
from headwater_api.dependencies import get_actor
from headwater_api.jobs import rendering
from headwater_api.jobs.rendering import JobView
from headwater_api.jobs.schemas import Start
from headwater_api.once import REPLAYED, IdempotencyKey

LONGEST_WAIT_SECONDS: Final = 30
_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


@dataclass(frozen=True)
class Order:
    """One job to be made. `draft` is an unsaved {type, config}; `sealed` its secrets, bound to `id`.

    `deadline_seconds` is what the caller asks for; without one it is `usual_deadline_seconds`, within the limit of the
    organization.
    """

    kind: Kind
    project_id: UUID
    data_source_id: UUID | None
    params: Mapping[str, Any]
    priority: int = 0
    deadline_seconds: int | None = None
    usual_deadline_seconds: int | None = None
    retry_of: UUID | None = None
    draft: Mapping[str, Any] | None = None
    sealed: Sequence[Mapping[str, Any]] = ()
    id: UUID = field(default_factory=ids.new)


@dataclass(frozen=True)
class Terms:
    """How the caller wants it done: once per key, and waited for."""

    idempotency_key: str | None
    wait_seconds: int


async def get_terms(
    idempotency_key: IdempotencyKey = None,
    prefer: Annotated[
        str | None,
        Header(description="`wait=N`: answer 200 with the ended job if it ends within N seconds, at most 30."),
    ] = None,
) -> Terms:
    """The terms of a request; `Prefer` as in RFC 7240."""
    found = _WAIT.search(prefer or "")
    return Terms(idempotency_key, min(int(found[1]), LONGEST_WAIT_SECONDS) if found else 0)


TermsDep = Annotated[Terms, Depends(get_terms)]


async def submit(request: Request, order: Order, *, terms: Terms, start: Start) -> Response:
    """Make the job and answer for it: 202, 200 with a live sync that does the same, or the stored answer of its key.

    `start` is the parsed body. A new job is waited for as `terms` say, and answers 200 if it ends meanwhile.

    Raises `NotFound`, `Conflict` (`data_source_inactive`, `capability_missing`, `sync_in_progress`),
    `IdempotencyMismatch`, and `Unavailable` if the key that a secret was sealed to was replaced meanwhile.
    """
    held = services.of(request)
    asked = request_of(request, order) | await _once(request, terms.idempotency_key, start)
    failpoints.reach("submit.begun")
    with named_violations(KEY_REPLACED):
        answer = await held.submits.submit(get_actor(request), asked)
    failpoints.reach("submit.committed")
    outcome = answer["outcome"]
    if outcome not in ("created", "joined", "replayed"):
        raise refusal(outcome, answer)
    view = JobView(answer["job"], held.caps)
    status: int = {"created": 202, "joined": 200}.get(outcome) or answer["status"]
    headers = {"Location": rendering.link(view.id)}
    if outcome == "replayed":
        headers[REPLAYED] = "true"
    if outcome == "created":
        if asked["rung"]:
            held.bellboy.ring(Ring(view.id, order.kind.name, view.organization_id))
        if terms.wait_seconds:
            headers["Preference-Applied"] = f"wait={terms.wait_seconds}"
            ended = await held.hub.wait(view, until=lambda newer: newer.final, seconds=terms.wait_seconds)
            view, status = (ended, 200) if ended else (view, 202)
    return Response(view.body, status, headers | view.headers(), "application/json")


async def _once(request: Request, key: str | None, start: Start) -> dict[str, str]:
    """What `jobs_submit` takes so that the request acts once."""
    if key is None:
        return {}
    # An empty object and no body are the same request.
    body = await request.body() if start.model_fields_set else b""
    fingerprint = idempotency.fingerprint(
        services.of(request).pepper, method=request.method, path=request.url.path, body=body
    )
    route = f"{request.method} {request.scope['route'].path}"
    return {"idempotency_key": key, "route": route, "fingerprint": fingerprint.hex()}


def request_of(request: Request, order: Order) -> dict[str, Any]:
    """What `jobs_submit` takes; see migrations/sql."""
    actor, held = get_actor(request), services.of(request)
    return {
        "actor_id": actor.member_id,
        "key_id": actor.key_id,
        "project_id": order.project_id,
        "data_source_id": order.data_source_id,
        "id": order.id,
        "live_job_limit": quotas.limits(held.quotas)["live_jobs"],
        "queues": [queue.value for queue in Queue],
        "types": registry.types_with(order.kind.capability),
        "kind": order.kind.name,
        "queue": order.kind.queue.value,
        "rung": held.bellboy.may_ring(order.kind.queue.value),
        "params": dict(order.params),
        "draft": order.draft,
        "sealed": list(order.sealed),
        "priority": order.priority,
        "max_attempts": order.kind.max_attempts,
        "deadline_seconds": order.deadline_seconds,
        "default_deadline_seconds": order.usual_deadline_seconds or order.kind.deadline_seconds,
        "retry_of": order.retry_of,
        "request_id": request.state.request_id,
        "address": request.client.host if request.client else None,
    }


def refusal(outcome: str, answer: Row) -> errors.RequestError:
    """What to say where `jobs_submit` made no job."""
    match outcome:
        case "mismatch":
            return errors.IdempotencyMismatch()
        case "inactive":
            return errors.Conflict(
                "This data source is switched off.",
                code="data_source_inactive",
                hint="Set `is_active` to true to start jobs again.",
            )
        case "unsupported":
            return capability_missing()
        case "quota_exceeded":
            return quotas.exceeded("live_jobs", answer["limit"])
        case "deadline_too_long":
            detail = f"Jobs of your organization may take {answer['limit']} seconds at most."
            return errors.InvalidRequest(errors=[errors.FieldError("/deadline_seconds", "less_than_equal", detail)])
        case "sync_in_progress":
            link = rendering.link(UUID(answer["job_id"]))
            return errors.Conflict(
                "Another sync of this data source is still going on.",
                code="sync_in_progress",
                hint="Wait for it, or cancel it; `links.job` leads to it.",
                links={"job": link},
            )
        case _:
            return errors.NotFound()


def capability_missing() -> errors.Conflict:
    """The source's type has nothing of the kind that was asked for."""
    return errors.Conflict(
        "Data sources of this type cannot do this.",
        code="capability_missing",
        hint="`GET /data-source-types` says what each type can do.",
    )
