"""What is decided before a route's body is looked at, in the contract's order.

401 who are you, 429 not so fast, 404 is there such a thing, 403 may you, 413 and 415 is that a body, 428 and 412 is it
fresh, 400 is it valid. The checks that need the database are made only when one of the later ones fails: a good request
pays nothing.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import orjson
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from headwater import errors, masking
from headwater.access import policy
from headwater_api import openapi, path_objects, preconditions, problems, services
from headwater_api.actor import Actor
from headwater_api.denials import Refused

BODY_SECONDS: Final = 30.0
"""For a body that is read whole: at the largest that is allowed, 35 kB a second."""

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
IfMatch = Literal["required", "optional", "none"]

# Spelled out in JSON, these may be text that Postgres cannot hold; only then is the body walked through.
_SUSPECT: Final = re.compile(rb"\\u(0000|[dD][89a-fA-F])")
_UTF_8: Final = re.compile(r"\s*charset\s*=\s*\"?utf-?8\"?\s*;?\s*", re.IGNORECASE)
_HIDDEN: Final = re.compile(rb"%(00|2f|5c)", re.IGNORECASE)
_METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True)
class Rule:
    """What a route demands. `streams`: the endpoint reads the body itself, and bounds it.

    `secrets` is the member of the body that holds secrets, "" for all of it.

    `plain` answers in the endpoint's place where there is no query: what FastAPI does to fill in an endpoint's
    parameters takes a sixth of a short request. For the few routes that are asked all day. It answers None where there
    is something to say against the request, which the endpoint then does.
    """

    permission: str
    if_match: IfMatch = "none"
    streams: bool = False
    secrets: str | None = None
    plain: Callable[[Request], Coroutine[Any, Any, Response | None]] | None = None


def allow(permission: str, **demands: Any) -> Callable[[Endpoint], Endpoint]:
    """Declare what an endpoint demands, as `Rule` says. Every guarded route has one; the app does not start without."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__["rule"] = Rule(permission, **demands)
        return endpoint

    return mark


class BoundedRequest(Request):
    """A request whose body is read up to a limit and for a time, then refused."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    self._body = await self._bounded()
            except TimeoutError:
                raise errors.RequestTimeout(f"The body did not come within {BODY_SECONDS:g} seconds.") from None
            except ClientDisconnect:
                raise errors.InvalidRequest("The body broke off before its end.", code="body_incomplete") from None
        return self._body

    async def json(self) -> Any:
        """The body. Raises `InvalidRequest` where a member stands twice: two readers would take different ones."""
        if not hasattr(self, "_json"):
            self._json = json.loads(await self.body(), object_pairs_hook=_members)
        return self._json

    async def _bounded(self) -> bytes:
        limit, size, chunks = services.of(self).settings.max_body_bytes, 0, []
        too_large = errors.PayloadTooLarge(f"The body is larger than {limit} bytes.")
        # The server below has refused a length that is no number.
        if int(self.headers.get("Content-Length", 0)) > limit:
            raise too_large
        async for chunk in self.stream():
            size += len(chunk)
            if size > limit:
                raise too_large
            chunks.append(chunk)
        return b"".join(chunks)


class GuardedRoute(APIRoute):
    """A route with a `Rule`; sets `request.state.actor`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **keywords: Any) -> None:
        self.rule: Rule = endpoint.__dict__["rule"]
        extra = {"x-permission": self.rule.permission, "security": [{"apiKey": []}]}
        keywords["openapi_extra"] = {**extra, **(keywords.get("openapi_extra") or {})}
        reads_body = not self.rule.streams and _METHODS_WITH_BODY & set(keywords.get("methods") or ())
        refused = openapi.RATE_LIMITED | (openapi.refusals(408) if reads_body else {})
        keywords["responses"] = refused | (keywords.get("responses") or {})
        super().__init__(path, endpoint, **keywords)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        rule = self.rule
        query_names = frozenset(_query_names(self))

        async def guarded(request: Request) -> Response:
            request = BoundedRequest(request.scope, request.receive)
            actor = await services.of(request).authenticator.actor(
                request.headers.get("Authorization"),
                request_id=request.state.request_id,
                address=request.client.host if request.client else None,
            )
            request.state.actor = actor
            _admit(request, actor)
            _require_storable_path(request)
            lane = services.of(request).lane(actor.organization_id)
            await path_objects.require_in_reach(lane, actor, request.path_params)
            try:
                if not actor.may(rule.permission):
                    raise _forbidden(actor, rule.permission)
                if request.method in _METHODS_WITH_BODY and not rule.streams:
                    await _require_readable_body(request)
                    if rule.secrets is not None:
                        await _mask_secrets(request, rule.secrets)
                if rule.plain is not None and not request.scope["query_string"]:
                    answer = await rule.plain(request)
                    if answer is not None:
                        return answer
                _require_known_query(request, query_names)
                return await handle(request)
            except errors.NotFound:
                await path_objects.require_not_pruned(lane, actor, request.path_params)
                raise
            except RequestValidationError as error:
                refusal = problems.from_validation(error)
            except (
                errors.Forbidden,
                errors.PayloadTooLarge,
                errors.UnsupportedMediaType,
                errors.InvalidRequest,
            ) as error:
                refusal = error
            await _decide_earlier(request, actor, rule, refusal)
            if isinstance(refusal, errors.Forbidden):
                _note_denial(request, actor, rule, refusal)
            raise refusal

        return guarded


def _admit(request: Request, actor: Actor) -> None:
    """Count the request for its key, or for the member behind a token."""
    limiter = services.of(request).rate_limiter
    if limiter is None:
        return
    admission = limiter.admit(actor.key_id or actor.member_id)
    request.state.admission = admission
    if not admission.granted:
        raise errors.TooManyRequests(
            "This key has sent more requests than it may in a second.",
            code="rate_limited",
            hint="Wait as long as `Retry-After` says; `RateLimit` in every answer tells how many are left.",
            retry_after_seconds=admission.wait_seconds,
        )


def _forbidden(actor: Actor, permission: str) -> errors.Forbidden:
    if permission in policy.PERMISSIONS[actor.role]:
        return errors.Forbidden(
            "This key is limited to some projects.",
            code="key_limited",
            hint=f"`{permission}` concerns the organization as a whole: use a key that is not limited.",
        )
    return errors.Forbidden(hint=f"It needs `{permission}`; yours is the role `{actor.role}`.")


def _query_names(route: APIRoute) -> list[str]:
    """Every query parameter that a route or its dependencies declare; a model's fields count each."""
    names: list[str] = []
    waiting = [route.dependant]
    while waiting:
        dependant = waiting.pop()
        waiting.extend(dependant.dependencies)
        for parameter in dependant.query_params:
            fields = getattr(parameter.field_info.annotation, "model_fields", None)
            names.extend([field.alias or name for name, field in fields.items()] if fields else [parameter.alias])
    return names


def _require_storable_path(request: Request) -> None:
    """No U+0000, which Postgres cannot hold, and no encoded slash: a proxy that looks at paths would not see it."""
    if "\0" in request.scope["path"] or _HIDDEN.search(request.scope.get("raw_path") or b""):
        raise errors.NotFound


def _require_known_query(request: Request, known: frozenset[str]) -> None:
    if not request.scope["query_string"]:
        return
    refused = [
        errors.FieldError(name, "unknown_parameter", "This route does not take this parameter.")
        for name in request.query_params
        if name not in known
    ]
    refused += [
        errors.FieldError(name, "not_storable", "Text cannot hold the character U+0000.")
        for name, value in request.query_params.multi_items()
        if "\0" in value or "\0" in name
    ]
    if refused:
        raise errors.InvalidRequest(errors=refused)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        detail = "A member of an object stands there more than once."
        raise errors.InvalidRequest(errors=[errors.FieldError("", "duplicate_member", detail)])
    return members


async def _require_readable_body(request: Request) -> None:
    body = await request.body()
    if not body:
        return
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise errors.UnsupportedMediaType("Send the body as it is, without a `Content-Encoding`.")
    media_type, _, parameters = request.headers.get("Content-Type", "").partition(";")
    media_type = media_type.strip().lower()
    if "charset" in parameters.lower() and not _UTF_8.fullmatch(parameters):
        raise errors.UnsupportedMediaType("JSON is UTF-8 (RFC 8259): send no other `charset`.")
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise errors.UnsupportedMediaType
    # Every JSON text in UTF-16 or UTF-32 has such a byte, none in UTF-8: FastAPI would read them, past `_SUSPECT`.
    if b"\0" in body:
        raise _not_json()
    if _SUSPECT.search(body):
        _require_storable_text(body)


async def _mask_secrets(request: Request, member: str) -> None:
    """Before anybody has read them. A body that is no JSON is refused where it is read."""
    with contextlib.suppress(ValueError, RecursionError, errors.InvalidRequest):
        body = await request.json()
        masking.mask_here(_texts(body.get(member) if member and isinstance(body, dict) else body))


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _not_json() -> errors.InvalidRequest:
    return errors.InvalidRequest(errors=[errors.FieldError("", "json_invalid", "The body is not JSON in UTF-8.")])


def _require_storable_text(body: bytes) -> None:
    try:
        # orjson refuses lone surrogates, and says nothing of what it read.
        waiting: list[tuple[str, Any]] = [("", orjson.loads(body))]
    except orjson.JSONDecodeError:
        raise _not_json() from None
    while waiting:
        pointer, value = waiting.pop()
        if isinstance(value, str) and "\0" in value:
            detail = "Text cannot hold the character U+0000."
            raise errors.InvalidRequest(errors=[errors.FieldError(pointer, "not_storable", detail)])
        if isinstance(value, dict):
            waiting.extend((pointer, key) for key in value)
            waiting.extend((f"{pointer}/{key}", item) for key, item in value.items())
        elif isinstance(value, list):
            waiting.extend((f"{pointer}/{index}", item) for index, item in enumerate(value))


async def _decide_earlier(request: Request, actor: Actor, rule: Rule, refusal: errors.RequestError) -> None:
    """Raise what comes before `refusal` in the contract's order: 404, and for a bad body 428 or 412."""
    lane = services.of(request).lane(actor.organization_id)
    revision = await path_objects.find_revision(lane, actor, request.path_params)
    if revision is not None and isinstance(refusal, errors.InvalidRequest) and rule.if_match != "none":
        preconditions.require_fresh(request, revision, required=rule.if_match == "required")


def _note_denial(request: Request, actor: Actor, rule: Rule, refusal: errors.Forbidden) -> None:
    is_missing = not actor.may(rule.permission)
    refused = Refused(
        organization_id=actor.organization_id,
        member_id=actor.member_id,
        key_id=actor.key_id,
        permission=rule.permission,
        reason=None if is_missing else refusal.code,
    )
    services.of(request).denials.note(
        refused, request_id=request.state.request_id, address=request.client.host if request.client else None
    )
