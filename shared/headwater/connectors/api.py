"""HTTP APIs that answer with records: JSON, NDJSON or CSV, on one page or on many."""

import re
from typing import Annotated, Final, Literal, Self, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, field_validator, model_validator

from headwater.connectors import headers
from headwater.connectors.origins import check_endpoint_url
from headwater.connectors.spec import TARGET, Capability, ConnectorConfig, ConnectorCredentials, ConnectorSpec

DEFAULT_KEY_HEADER: Final = "X-API-Key"

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
# They are the connection's, the client's or the way's, and never a user's.
_RESERVED: Final = frozenset(
    {
        "host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length",
        "content-encoding", "accept-encoding", "expect", "forwarded", "via", "http2-settings", "cookie", "set-cookie",
        "range", "if-none-match", "if-modified-since", "if-match", "if-range", "if-unmodified-since",
    }
)  # fmt: skip
_RESERVED_PREFIXES: Final = ("proxy-", "x-forwarded-", "x-headwater-", "sec-")
# What a name says that holds a secret: those are sealed, and never stand in a config.
_KEY_LIKE: Final = re.compile(
    r"auth|cookie|credential|jwt|passw|secret|signature|session|token|(^|[^a-z])(api)?_?-?key([^a-z]|$)|apikey"
    r"|access_?-?key|private_?-?key|bearer"
)

Parameter = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-\[\]$:@]{1,100}$")]
FieldPath = Annotated[
    str, StringConstraints(max_length=200, pattern=r"^[^.\x00-\x1f]{1,100}(\.[^.\x00-\x1f]{1,100}){0,9}$")
]
"""Names of members, from the outside in, joined by dots: `data.items`."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sized(_Closed):
    """Pagination where the API can be told how many records a page has."""

    size_parameter: Parameter | None = Field(default=None, description="Where the API takes the size of a page.")
    size: int | None = Field(default=None, ge=1, le=10_000, description="Records on a page; with `size_parameter`.")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.size is None) != (self.size_parameter is None):
            raise ValueError("`size` and `size_parameter` go together")
        return self


class NoPagination(_Closed):
    """All records are in one answer."""

    type: Literal["none"] = "none"


class PagePagination(Sized):
    """Numbered pages; the first one without records is the end."""

    type: Literal["page"]
    parameter: Parameter = "page"
    first: int = Field(default=1, ge=0, le=1, description="The number of the first page.")


class OffsetPagination(_Closed):
    """So many records are skipped; the first answer without records is the end."""

    type: Literal["offset"]
    parameter: Parameter = "offset"
    limit_parameter: Parameter = "limit"
    limit: int = Field(default=100, ge=1, le=10_000)


class CursorPagination(Sized):
    """Each answer holds a cursor for the next; the end is an answer where it is missing, null or empty."""

    type: Literal["cursor"]
    parameter: Parameter = "cursor"
    cursor_path: FieldPath = Field(default="next_cursor", description="Where the cursor stands in the answer.")


class LinkHeaderPagination(Sized):
    """Each answer names the next page in its `Link` header with `rel="next"` (RFC 8288)."""

    type: Literal["link_header"]


class NextUrlPagination(Sized):
    """Each answer holds the URL of the next page; it must be of the endpoint's own origin."""

    type: Literal["next_url"]
    path: FieldPath = Field(default="next", description="Where the URL stands in the answer.")


Pagination: TypeAlias = Annotated[
    NoPagination | PagePagination | OffsetPagination | CursorPagination | LinkHeaderPagination | NextUrlPagination,
    Field(discriminator="type"),
]

CursorFormat: TypeAlias = Literal["rfc3339", "date", "unix_seconds", "unix_milliseconds", "integer", "text"]


class Incremental(_Closed):
    """Ask only for what changed: the highest value seen so far is sent along."""

    parameter: Parameter = Field(description="The query parameter that takes the value.", examples=["updated_since"])
    cursor_path: FieldPath = Field(description="Where the value stands in a record.", examples=["updated_at"])
    format: CursorFormat = Field(default="rfc3339", description="How values are compared; they are sent as they came.")


class ApiConfig(ConnectorConfig):
    """One endpoint that is asked with GET."""

    type: Literal["api"] = "api"
    endpoint: Annotated[str, TARGET] = Field(
        min_length=1, max_length=2048, examples=["https://api.example.com/v1/customers"]
    )
    auth_type: Annotated[Literal["none", "api_key", "bearer", "basic"], TARGET] = "none"
    header_name: Annotated[str | None, TARGET] = Field(
        default=None,
        max_length=100,
        description=f"With `api_key`: the header that takes it; {DEFAULT_KEY_HEADER} if omitted.",
    )
    headers: dict[str, Annotated[str, StringConstraints(max_length=1024)]] = Field(
        default_factory=dict, max_length=20, description="Sent with every request. Never credentials."
    )
    records_path: FieldPath | None = Field(
        default=None, description="Where the list of records stands in a JSON answer; omit it if that is the answer."
    )
    record_key: FieldPath | None = Field(
        default=None, description="What identifies a record. With it, a later record replaces an earlier one."
    )
    pagination: Pagination = Field(default_factory=NoPagination)
    incremental: Incremental | None = None

    @field_validator("endpoint")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        return _check_endpoint(value)

    @field_validator("header_name")
    @classmethod
    def _is_a_header(cls, value: str | None) -> str | None:
        if value is not None and (not _TOKEN.fullmatch(value) or _is_reserved(value.lower())):
            raise ValueError("must be the name of a header that may carry a key")
        return value

    @field_validator("headers")
    @classmethod
    def _carry_no_credentials(cls, value: dict[str, str]) -> dict[str, str]:
        if len({name.lower() for name in value}) != len(value):
            raise ValueError("must name each header once, whatever its case")
        for name, text in value.items():
            _check_header(name, text)
        return value

    @model_validator(mode="after")
    def _fields_go_together(self) -> Self:
        if self.header_name is not None and self.auth_type != "api_key":
            raise ValueError("`header_name` goes with `auth_type` api_key")
        if self.key_header.lower() in {name.lower() for name in self.headers}:
            raise ValueError("`headers` must not hold the header that takes the key")
        if self.incremental is not None and self.record_key is None:
            raise ValueError(
                "`incremental` needs `record_key`: without it nothing says which record a later one replaces"
            )
        return self

    @property
    def key_header(self) -> str:
        """The header that takes an API key."""
        return self.header_name or DEFAULT_KEY_HEADER

    @property
    def path(self) -> str:
        """The endpoint's path: what the catalogue calls it."""
        return urlsplit(self.endpoint).path or "/"


def _check_endpoint(text: str) -> str:
    """`text`, scheme and host in lower case, if it is `http(s)://host[:port]/path?query` without credentials.

    Raises `ValueError`.
    """
    if not text.isascii() or any(character <= " " or character in '\\#<>"`{}|^\x7f' for character in text):
        raise ValueError("must be a URL such as https://api.example.com/v1/items, its path and query percent-encoded")
    scheme, separator, rest = text.partition("://")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    origin = check_endpoint_url(f"{scheme}{separator}{authority}")
    for name, _ in parse_qsl(urlsplit(text).query, keep_blank_values=True):
        if _is_key_like(name):
            raise ValueError("must not carry a key in its query: use `auth_type`, so that it is sealed")
    return origin + rest[len(authority) :]


def _check_header(name: str, text: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise ValueError("must have header names of letters, digits and hyphens, up to 100 characters")
    lowered = name.lower()
    if _is_reserved(lowered):
        raise ValueError("must not hold Host, Cookie, Proxy-*, Forwarded or a header of the connection itself")
    if _is_key_like(lowered):
        raise ValueError(
            "must not hold credentials (Authorization, keys, tokens): use `auth_type`, so that they are sealed"
        )
    if not headers.is_visible(text):
        raise ValueError("must have values of visible ASCII characters")


def _is_reserved(lowered: str) -> bool:
    return lowered in _RESERVED or lowered.startswith(_RESERVED_PREFIXES)


def _is_key_like(name: str) -> bool:
    return _KEY_LIKE.search(name.lower()) is not None


class ApiCredentials(ConnectorCredentials):
    """`api_key`, or `token` for bearer, or `username` and `password` for basic."""

    api_key: SecretStr | None = Field(default=None, min_length=1, max_length=4096)
    token: SecretStr | None = Field(default=None, min_length=1, max_length=8192)
    username: SecretStr | None = Field(default=None, min_length=1, max_length=512)
    password: SecretStr | None = Field(default=None, min_length=1, max_length=4096)

    _fit_a_header = field_validator("api_key", "token")(headers.check_secret)
    _fit_basic = field_validator("username", "password")(headers.check_no_control)

    @field_validator("username")
    @classmethod
    def _has_no_colon(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and ":" in value.get_secret_value():
            raise ValueError("must not hold a colon: Basic authentication cannot carry it")
        return value


CREDENTIALS_OF: Final[dict[str, tuple[str, ...]]] = {
    "none": (),
    "api_key": ("api_key",),
    "bearer": ("token",),
    "basic": ("username", "password"),
}
"""The secret fields that each `auth_type` needs and uses."""


def _missing(config: ApiConfig, set_fields: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in CREDENTIALS_OF[config.auth_type] if name not in set_fields)


SPEC: Final = ConnectorSpec(
    type="api",
    title="HTTP API",
    description="An endpoint that answers with records in JSON, NDJSON or CSV, on one page or on many.",
    config=ApiConfig,
    credentials=ApiCredentials,
    capabilities=frozenset({Capability.TEST, Capability.FILES, Capability.SYNC}),
    missing_credentials=_missing,
)
