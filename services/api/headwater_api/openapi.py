"""The OpenAPI document: what FastAPI writes by itself, with our errors in place of its own."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from headwater_api.problems import MEDIA_TYPE, Problem

_TEXTS: Final = {
    400: "The request is not valid",
    401: "No valid key or token",
    403: "The role does not allow it",
    404: "Nothing here that you can see",
    408: "The body did not come in time",
    409: "The current state does not allow it; `code` says why",
    412: "`If-Match` names an older revision",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "The `Idempotency-Key` was used for another request",
    428: "`If-Match` is missing",
    429: "Too many requests of this key, too many guesses of one, or a quota is used up; `code` says which",
    503: "The database is away, or the identity provider whose token was sent",
}
EVERYWHERE: Final = (400, 401, 403, 404, 503)

ETAG: Final = {"ETag": {"description": "The revision, for `If-Match`.", "schema": {"type": "string"}}}
LOCATION: Final = {"Location": {"description": "Where the new object is.", "schema": {"type": "string"}}}


def _if_match(required: bool) -> dict[str, Any]:
    parameter = {
        "name": "If-Match",
        "in": "header",
        "required": required,
        "schema": {"type": "string"},
        "description": "The ETag of what you read.",
    }
    return {"parameters": [parameter]}


IF_MATCH_REQUIRED: Final = _if_match(required=True)
IF_MATCH_OPTIONAL: Final = _if_match(required=False)
REPLAYED: Final = {
    "Idempotency-Replayed": {
        "description": "`true`: the stored answer of the first request with this key.",
        "schema": {"type": "string"},
    }
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documented problems, for `responses=`."""
    return {status: {"model": Problem, "description": _TEXTS[status]} for status in statuses}


_RATE_HEADERS: Final = {
    "Retry-After": ("Seconds until another one may come.", "integer"),
    "RateLimit": ('How many are left: `"key";r=<requests>;t=<seconds until there are more>`.', "string"),
    "RateLimit-Policy": ('The limit: `"key";q=<requests>;w=<seconds>`.', "string"),
}
RATE_LIMITED: Final = refusals(429)
RATE_LIMITED[429]["headers"] = {
    name: {"description": description, "schema": {"type": kind}} for name, (description, kind) in _RATE_HEADERS.items()
}


def install(app: FastAPI) -> None:
    """Give `app` a document in which every error is a problem and nothing is left of FastAPI's own 422."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            made.setdefault("components", {})["securitySchemes"] = {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key: `hw_...`; or a token of the identity provider, where one is set.",
                }
            }
            for path in made["paths"].values():
                for operation in path.values():
                    _mend(operation["responses"])
            for unused in ("HTTPValidationError", "ValidationError"):
                made["components"].get("schemas", {}).pop(unused, None)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _mend(responses: dict[str, Any]) -> None:
    for status, response in list(responses.items()):
        content = response.get("content", {})
        schema = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        if schema.endswith("/HTTPValidationError"):
            del responses[status]
        elif schema.endswith("/Problem"):
            response["content"] = {MEDIA_TYPE: content["application/json"]}
