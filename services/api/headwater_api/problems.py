"""Errors as RFC 9457 problems: the one table from our errors to HTTP, and the handlers that use it."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import psycopg
import sqlalchemy.exc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from headwater import errors, log, masking

_STATUS: Final[dict[type[errors.RequestError], int]] = {
    errors.InvalidRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.RequestTimeout: 408,
    errors.Conflict: 409,
    errors.Gone: 410,
    errors.StaleRevision: 412,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.IdempotencyMismatch: 422,
    errors.PreconditionRequired: 428,
    errors.TooManyRequests: 429,
    errors.Unavailable: 503,
}
_BY_STATUS: Final = {status: error for error, status in _STATUS.items()}
MEDIA_TYPE: Final = "application/problem+json"

_log = log.get(__name__)


class ProblemField(BaseModel):
    """One refused field."""

    pointer: str = Field(examples=["/config/bucket"])
    code: str = Field(examples=["missing"])
    detail: str = Field(examples=["Field required"])


class ProblemQuota(BaseModel):
    """What the organization has as many of as it may have."""

    name: str = Field(examples=["data_sources"])
    limit: int


class Problem(BaseModel):
    """What every error looks like (RFC 9457, `application/problem+json`)."""

    type: str = Field(examples=["urn:headwater:error:invalid_request"])
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    detail: str
    instance: str = Field(examples=["/api/v1/projects"])
    code: str = Field(examples=["invalid_request"], description="Stable; decide by this.")
    request_id: str
    errors: list[ProblemField] = Field(default_factory=list)
    quota: ProblemQuota | None = Field(default=None, description="With `quota_exceeded`.")


def status_of(error: errors.RequestError) -> int:
    """The HTTP status of an error of ours."""
    return next(status for kind, status in _STATUS.items() if isinstance(error, kind))


def response(request: Request, error: errors.RequestError) -> Response:
    """The answer for an error of ours."""
    status = status_of(error)
    headers = {}
    if status == HTTPStatus.REQUEST_TIMEOUT:
        headers["Connection"] = "close"  # what is left of the body would be taken for the next request
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="headwater"'
    if status == HTTPStatus.SERVICE_UNAVAILABLE or error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds or 2)
    detail = f"{error.message} {error.hint}" if error.hint else error.message
    more: dict[str, Any] = {"links": dict(error.links)} if error.links else {}
    if isinstance(error, errors.QuotaExceeded):
        more["quota"] = {"name": error.quota, "limit": error.limit}
    return _problem(request, status, error.code, detail, error.errors, headers, more)


def _problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    fields: Iterable[errors.FieldError] = (),
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    request_id = getattr(request.state, "request_id", "")
    found = content(status, code, detail, instance=request.url.path, request_id=request_id, fields=fields)
    return JSONResponse(found | dict(more or {}), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def content(
    status: int, code: str, detail: str, *, instance: str, request_id: str, fields: Iterable[errors.FieldError] = ()
) -> dict[str, Any]:
    """A problem's members. What is said in words passes the sink: a connector may repeat what it refuses."""
    return {
        "type": f"urn:headwater:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": masking.masked(detail),
        "instance": instance,
        "code": code,
        "request_id": request_id,
        "errors": [
            {"pointer": field.pointer, "code": field.code, "detail": masking.masked(field.detail)} for field in fields
        ],
    }


def from_validation(error: RequestValidationError) -> errors.RequestError:
    """Pydantic's findings as ours: where and why, never the input. A malformed id in the path is simply not found."""
    fields = []
    for finding in error.errors():
        place, *rest = finding["loc"]
        if place == "path":
            return errors.NotFound()
        if finding["type"] == "json_invalid":
            # Its place is an offset in the text, not a member of it.
            return errors.InvalidRequest(
                errors=[errors.FieldError("", "json_invalid", "The body is not JSON in UTF-8.")]
            )
        members = _members(error.body, rest) if place == "body" else rest
        fields.append(errors.FieldError(_pointer(str(place), members), finding["type"], _detail(finding)))
    return errors.InvalidRequest(errors=fields)


def from_model(error: ValidationError, pointer: str) -> errors.InvalidRequest:
    """The findings of a model that was checked by hand; `pointer` is where in the body its value stood."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return errors.InvalidRequest(
        errors=[
            errors.FieldError(pointer + _pointer("body", list(finding["loc"])), finding["type"], _detail(finding))
            for finding in found
        ]
    )


def _members(body: Any, parts: Sequence[Any]) -> list[Any]:
    """`parts` without what is no member of the body: pydantic puts the tag of a union's branch among them."""
    members = []
    for number, part in enumerate(parts, 1):
        if isinstance(body, dict) and part not in body and number < len(parts):
            continue
        members.append(part)
        try:
            body = body[part]
        except (KeyError, IndexError, TypeError):
            body = None
    return members


def _pointer(place: str, parts: list[Any]) -> str:
    if place != "body":
        return str(parts[0]) if parts else place
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _detail(finding: Mapping[str, Any]) -> str:
    # A `value_error` is a sentence of ours; pydantic puts its own prefix before it.
    return str(finding["msg"]).removeprefix("Value error, ")


async def _on_request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.RequestError)
    return response(request, error)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return response(request, from_validation(error))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: unknown routes, wrong methods, bodies that are not JSON."""
    assert isinstance(error, HTTPException)
    known = _BY_STATUS.get(error.status_code)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = "This resource does not take this method; `Allow` says which it takes."
        return _problem(request, 405, "method_not_allowed", detail, headers=error.headers)
    if known is None:
        return _problem(request, error.status_code, "http_error", HTTPStatus(error.status_code).phrase)
    return response(request, known())


async def _on_database_away(request: Request, error: Exception) -> Response:
    _log.error("database.unavailable", error=type(error).__name__)
    return response(request, errors.Unavailable())


async def _on_fault(request: Request, error: Exception) -> Response:
    """A fault of ours. The log has the traceback, the caller the request id."""
    _log.error("request.failed", exc_info=error)
    detail = "Something went wrong on our side. The log has more under this request id."
    return _problem(request, 500, "internal_error", detail)


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem."""
    app.add_exception_handler(errors.RequestError, _on_request_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for away in (psycopg.OperationalError, sqlalchemy.exc.OperationalError, sqlalchemy.exc.TimeoutError):
        app.add_exception_handler(away, _on_database_away)
    app.add_exception_handler(Exception, _on_fault)
