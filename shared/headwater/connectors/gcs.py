"""Google Cloud Storage."""

import base64
import binascii
import json
import re
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from headwater.connectors.origins import check_endpoint_url
from headwater.connectors.spec import TARGET, Capability, ConnectorConfig, ConnectorCredentials, ConnectorSpec
from headwater.settings import EgressSettings

GOOGLE_TOKEN_URL: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address

_UNIVERSE: Final = "googleapis.com"
# What key files of different ages name. All of them are Google's, and the worker asks `GOOGLE_TOKEN_URL`.
_GOOGLES_TOKEN_URLS: Final = (
    GOOGLE_TOKEN_URL,
    "https://accounts.google.com/o/oauth2/token",
    "https://www.googleapis.com/oauth2/v3/token",
    "https://www.googleapis.com/oauth2/v4/token",
)
_EMAIL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}@[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PROJECT: Final = re.compile(r"[a-z0-9][a-z0-9.:-]{0,127}")
_PEM: Final = re.compile(
    r"\s*-----BEGIN (?P<label>(?:RSA )?PRIVATE KEY)-----\s+(?P<body>[A-Za-z0-9+/=\s]+)-----END (?P=label)-----\s*"
)
_DER_SEQUENCE: Final = 0x30
_SHORTEST_KEY_BYTES: Final = 300  # an RSA key of 512 bits; Google's have 2048


class GcsConfig(ConnectorConfig):
    """A bucket, or a prefix in it."""

    type: Literal["gcs"] = "gcs"
    bucket: Annotated[str, TARGET] = Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$", examples=["my-bucket"])
    prefix: str = Field(default="", max_length=1024, description="Only names that start with this are seen.")
    endpoint_url: Annotated[str | None, TARGET] = Field(
        default=None,
        max_length=512,
        description="Origin of an emulator or of a private endpoint; omit it for Google's own.",
    )
    use_workload_identity: Annotated[bool, TARGET] = Field(
        default=False,
        description="Use the worker's own service account instead of a key, where the operator allows it; with "
        "Google's own endpoint only.",
    )

    @field_validator("endpoint_url")
    @classmethod
    def _is_an_origin(cls, value: str | None) -> str | None:
        return None if value is None else check_endpoint_url(value)

    @model_validator(mode="after")
    def _own_identity_is_for_google(self) -> Self:
        # Who receives the worker's token can use it.
        if self.endpoint_url is not None and self.use_workload_identity:
            raise ValueError(
                "`use_workload_identity` goes with Google's own endpoint: give a key, or leave `endpoint_url` out"
            )
        return self


@dataclass(frozen=True)
class ServiceAccount:
    """What matters of a service account's key file. Nothing in it says where to go."""

    client_email: str
    private_key: str
    private_key_id: str | None = None
    project_id: str | None = None

    def as_json(self) -> str:
        """The key file with these fields alone; `service_account` reads it."""
        return json.dumps({"type": "service_account"} | {k: v for k, v in asdict(self).items() if v is not None})


def service_account(text: str) -> ServiceAccount:
    """The service account of a key file.

    Only keys of service accounts: the other kinds of Google's credential files name URLs and local files that the
    worker would read. Raises `ValueError` with a sentence for people that repeats nothing of `text`.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be the key file's content, as JSON text") from None
    if not isinstance(content, dict) or content.get("type") != "service_account":
        raise ValueError("must be the key file of a service account: `type` is `service_account`")
    _check_destinations(content)
    return ServiceAccount(
        client_email=_field(content, "client_email", _EMAIL),
        private_key=_private_key(content.get("private_key")),
        private_key_id=_optional(content, "private_key_id", _KEY_ID),
        project_id=_optional(content, "project_id", _PROJECT),
    )


def _check_destinations(content: dict[str, Any]) -> None:
    if content.get("universe_domain", _UNIVERSE) != _UNIVERSE:
        raise ValueError("`universe_domain` must be googleapis.com, or missing")
    named = content.get("token_uri")
    if named is not None and named not in _GOOGLES_TOKEN_URLS and named != EgressSettings().gcs_token_url:
        raise ValueError(
            "`token_uri` must be Google's, or the endpoint that the operator set as HEADWATER_GCS_TOKEN_URL"
        )


def _field(content: dict[str, Any], name: str, grammar: re.Pattern[str]) -> str:
    value = content.get(name)
    if not isinstance(value, str) or not grammar.fullmatch(value):
        raise ValueError(f"`{name}` is missing or not well-formed")
    return value


def _optional(content: dict[str, Any], name: str, grammar: re.Pattern[str]) -> str | None:
    return None if content.get(name) is None else _field(content, name, grammar)


def _private_key(value: Any) -> str:
    """`value`, if it has the form of an RSA key in PEM; whether it is one shows when it signs."""
    found = _PEM.fullmatch(value) if isinstance(value, str) else None
    try:
        der = base64.b64decode("".join(found["body"].split()), validate=True) if found else b""
    except binascii.Error:
        der = b""
    if len(der) < _SHORTEST_KEY_BYTES or der[0] != _DER_SEQUENCE:
        raise ValueError("`private_key` is not a private key in PEM; copy the file whole, with its \\n")
    return str(value)


class GcsCredentials(ConnectorCredentials):
    """The key of a service account."""

    service_account_json: SecretStr | None = Field(
        default=None, min_length=1, max_length=16384, description="The key file's content, as it was downloaded."
    )

    @field_validator("service_account_json")
    @classmethod
    def _only_what_matters(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(service_account(value.get_secret_value()).as_json())


def _missing(config: GcsConfig, set_fields: frozenset[str]) -> tuple[str, ...]:
    if config.use_workload_identity:
        return ()
    return tuple(name for name in ("service_account_json",) if name not in set_fields)


SPEC: Final = ConnectorSpec(
    type="gcs",
    title="Google Cloud Storage",
    description="A bucket in Google Cloud Storage.",
    config=GcsConfig,
    credentials=GcsCredentials,
    capabilities=frozenset({Capability.TEST, Capability.FILES, Capability.SYNC}),
    missing_credentials=_missing,
)
