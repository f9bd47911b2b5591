"""Settings from the environment, one group per concern. Each process builds only the groups that it needs.

Every variable starts with `HEADWATER_`; `docs/settings.md` lists them all. Generic variables (`DATABASE_URL`,
`PG*`, `CELERY_*`, `AWS_*`) are not read here.
"""

import ipaddress
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from headwater import ids
from headwater.errors import NotFound

_ASYMMETRIC: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_SHORTEST_TOKEN: Final = 16
_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(?::\d{1,5})?")


_PREFIX: Final = "HEADWATER_"
_withheld: dict[str, str] = {}


def withhold() -> None:
    """Take our variables out of the environment, where a driver or a program that it starts would find our passwords.

    Settings know them still, in this process and in those that are forked from it.
    """
    for name in [name for name in os.environ if name.startswith(_PREFIX)]:
        _withheld[name] = os.environ.pop(name)


def variable(name: str) -> str | None:
    """A variable of ours that is of no group, such as `HEADWATER_SECRET_...`; None if it is not set."""
    return _withheld.get(name, os.environ.get(name))


class _Environment(EnvSettingsSource):
    def _load_env_vars(self) -> Mapping[str, str | None]:
        withheld = {name.lower(): value for name, value in _withheld.items()}
        return {**withheld, **super()._load_env_vars()}


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic calls
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment; no files."""
        return init_settings, _Environment(settings_cls)


class DatabaseSettings(_Settings):
    """Where Postgres is."""

    database_url: str = Field(description="postgresql://user:password@host:port/database")
    database_pool: int = Field(default=8, ge=1, le=200, description="connections of one API process, per lane")


class LoginSettings(_Settings):
    """With which login each service will come. Only `headwater admin migrate` has this group: it makes them."""

    api_database_url: str | None = None
    worker_database_url: str | None = None
    scheduler_database_url: str | None = None


class RedisSettings(_Settings):
    """Where the doorbell is."""

    redis_url: str = Field(description="redis://:password@host:port/0, of a Redis or Valkey for Headwater alone")


def _networks(value: str) -> str:
    """CIDRs, separated by commas, without blanks. Raises `ValueError`."""
    networks = []
    for part in filter(None, map(str.strip, value.split(","))):
        try:
            network = ipaddress.ip_network(part)
        except ValueError:
            raise ValueError(
                f"{part}: each must be an address, or a network such as 10.1.0.0/16 without bits of a host;"
                " between two stands a comma"
            ) from None
        if network.prefixlen == 0:
            raise ValueError(f"{part}: that is everybody, and everybody could then name any address")
        networks.append(str(network))
    return ",".join(networks)


class ApiSettings(_Settings):
    """The API process."""

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=0, le=65535)
    pepper_file: Path = Field(description="32 random bytes, base64; keys the hashes of API keys and idempotency")
    max_body_bytes: int = Field(default=1024 * 1024, description="largest JSON body")
    rate_limit: int = Field(default=0, ge=0, description="requests a second of one key; 0 is no limit")
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = Field(
        default="", description="CIDRs, separated by commas: from there X-Forwarded-For and -Proto are believed"
    )


class BrowserSettings(_Settings):
    """What pages in a browser may do with the API."""

    cors_origins: str = Field(default="", description="origins whose pages may read answers, separated by commas")
    hsts_seconds: int = Field(default=0, ge=0, description="browsers come over TLS alone for so long; 0 says nothing")

    @field_validator("cors_origins")
    @classmethod
    def _exact(cls, value: str) -> str:
        origins = [origin.strip() for origin in value.split(",") if origin.strip()]
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin}: each must be an origin as browsers send it, https://app.example.com or"
                    " http://localhost:3000: scheme, host in lower case, a port that is not the usual one, and no slash"
                )
        return ",".join(origins)

    @property
    def origins(self) -> Sequence[str]:
        """Those in `cors_origins`."""
        return [origin for origin in self.cors_origins.split(",") if origin]


def is_https_or_loopback(url: str) -> bool:
    """Whether what is read at `url` comes from its host: over TLS, or without leaving this machine."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port  # a port that is none raises too
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _json_object(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError('must be a JSON object, such as {"a value of the claim": "what it stands for"}')
    return found


def _organization_id(value: Any) -> Any:
    try:
        return ids.decode("org", value) if isinstance(value, str) else value
    except NotFound:
        raise ValueError("must be the id of an organization: org_ and 26 characters") from None


def _issuer(value: str) -> str:
    if not is_https_or_loopback(value) or set("@?#") & set(value):
        raise ValueError(
            "must be an https:// URL without user, query and fragment (http:// only on a loopback address)"
        )
    return value


class OidcSettings(_Settings):
    """Sign-in with tokens of an OpenID Connect provider; off without an issuer. Only the API has this group."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    oidc_issuer: Annotated[str, AfterValidator(_issuer)] | None = Field(
        default=None, description="exactly as the provider's own document spells it"
    )
    oidc_audience: str | None = Field(default=None, description="one of a token's `aud`; goes with the issuer")
    oidc_algorithms: str = Field(default="RS256,ES256,EdDSA", description="of signatures, separated by commas")
    oidc_organization_claim: str = Field(default="headwater_organization", description="says for which organization")
    oidc_organizations: Annotated[
        dict[str, Annotated[UUID, BeforeValidator(_organization_id)]] | None, NoDecode, BeforeValidator(_json_object)
    ] = Field(default=None, description="JSON: a value of that claim to org_...; without it the claim holds the id")
    oidc_role_claim: str | None = Field(default=None, description="without it members have the role they have here")
    oidc_roles: Annotated[
        dict[str, Literal["admin", "operator", "viewer"]] | None, NoDecode, BeforeValidator(_json_object)
    ] = Field(default=None, description="JSON: a value of that claim to a role; without it the claim holds the role")

    @field_validator("oidc_algorithms")
    @classmethod
    def _all_asymmetric(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        if refused := [name for name in names if name not in _ASYMMETRIC]:
            raise ValueError(f"{', '.join(refused)}: each must be one of {', '.join(_ASYMMETRIC)}")
        return ",".join(names)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.oidc_issuer and not self.oidc_audience:
            raise ValueError("HEADWATER_OIDC_ISSUER needs HEADWATER_OIDC_AUDIENCE: a token says for whom it was made")
        if self.oidc_roles is not None and self.oidc_role_claim is None:
            raise ValueError("HEADWATER_OIDC_ROLES needs HEADWATER_OIDC_ROLE_CLAIM: which claim has these values?")
        return self

    @property
    def algorithms(self) -> frozenset[str]:
        """The names in `oidc_algorithms`."""
        return frozenset(self.oidc_algorithms.split(","))


class KmsSettings(_Settings):
    """AWS KMS as a key provider. Without an access key of its own it uses the role of the machine."""

    kms_key: str | None = Field(default=None, description="of `aws_kms`: ARN, id or alias of a symmetric key")
    kms_region: str | None = Field(default=None, description="goes with the key")
    kms_endpoint_url: str | None = Field(default=None, description="an endpoint other than Amazon's own")
    kms_access_key_id: str | None = Field(default=None, description="without it: the role of the EC2 instance")
    kms_secret_access_key: SecretStr | None = Field(default=None, description="goes with the access key")


def _vault_url(value: str) -> str:
    if not is_https_or_loopback(value) or urlsplit(value).path.strip("/") or set("@?#") & set(value):
        raise ValueError("must be an https:// origin (http:// only on a loopback address)")
    return value


class HashicorpSettings(_Settings):
    """HashiCorp Vault, or OpenBao: its transit engine as a key provider, and what references name."""

    model_config = SettingsConfigDict(env_ignore_empty=True, hide_input_in_errors=True)

    hashicorp_url: Annotated[str, AfterValidator(_vault_url)] | None = Field(default=None, description="its origin")
    hashicorp_token_file: Path | None = Field(default=None, description="holds its token; read for each request")
    hashicorp_token: SecretStr | None = Field(default=None, description="the token itself, without a file")
    hashicorp_namespace: str | None = Field(default=None, description="sent with each request")
    hashicorp_ca_file: Path | None = Field(default=None, description="its authorities, in PEM; else the machine's")
    transit_key: str | None = Field(default=None, pattern=r"^[\w.-]+$", description="of `transit`: the key's name")
    transit_mount: str = Field(default="transit", pattern=r"^[\w.-]+(/[\w.-]+)*$", description="where the engine is")


class VaultSettings(KmsSettings, HashicorpSettings):
    """Who wraps the organizations' private keys. Only workers, deliverer and `headwater admin` have this group."""

    model_config = SettingsConfigDict(env_ignore_empty=True, hide_input_in_errors=True)

    key_provider: Literal["file", "environment", "aws_kms", "transit"] = Field(
        default="file", description="who wraps; others still unwrap"
    )
    master_key_file: Path | None = Field(default=None, description="of `file`: a key a line, in base64, newest last")
    master_key: SecretStr | None = Field(default=None, description="of `environment`: keys in base64, newest last")

    @model_validator(mode="after")
    def _provider_has_its_settings(self) -> Self:
        needed = {
            "file": ("master_key_file",),
            "environment": ("master_key",),
            "aws_kms": ("kms_key", "kms_region"),
            "transit": ("transit_key", "hashicorp_url"),
        }[self.key_provider]
        if missing := [f"HEADWATER_{name.upper()}" for name in needed if getattr(self, name) is None]:
            raise ValueError(f"the key provider `{self.key_provider}` needs {' and '.join(missing)}")
        if (self.kms_access_key_id is None) != (self.kms_secret_access_key is None):
            raise ValueError("HEADWATER_KMS_ACCESS_KEY_ID and HEADWATER_KMS_SECRET_ACCESS_KEY go together")
        return self


class ReferenceSettings(_Settings):
    """Which references credentials may be; none unless the operator says so. API and workers have this group."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    reference_vault_mount: str | None = Field(
        default=None, pattern=r"^[\w.-]+(/[\w.-]+)*$", description="of a KV engine; without it no vault:// is followed"
    )
    reference_vault_kv: Literal[1, 2] = Field(default=2, description="the engine's version")
    reference_vault_path: str = Field(
        default="headwater/{organization}",
        pattern=r"^(\w[\w.-]*/)*\{organization\}(/\w[\w.-]*)*$",
        description="the folder of an organization in it; {organization} is its id",
    )
    reference_variables: Annotated[
        dict[Annotated[UUID, BeforeValidator(_organization_id)], list[str]], NoDecode, BeforeValidator(_json_object)
    ] = Field(default={}, description="JSON: org_... to the names that env:// may have for it")


class EgressSettings(_Settings):
    """Where the worker may connect to beside the public internet."""

    egress_allow: str = Field(default="", description="CIDRs, separated by commas")
    allow_ambient_credentials: bool = Field(default=False, description="sources may use the worker's own role")
    local_files_roots: str = Field(default="", description="paths, separated by colons")
    gcs_token_url: str | None = Field(default=None, description="token endpoint instead of Google's")


class UploadSettings(_Settings):
    """Where uploaded files are kept: a folder, or a bucket for many machines. API, workers and scheduler share it."""

    uploads_dir: Path | None = Field(default=None, description="a folder that all of them see")
    uploads_bucket: str | None = Field(default=None, description="a bucket, instead of the folder")
    uploads_prefix: str = Field(default="", description="what its keys start with")
    uploads_region: str = Field(default="us-east-1", description="the bucket's region")
    uploads_endpoint_url: str | None = Field(default=None, description="origin of an S3-compatible store")
    uploads_access_key_id: str | None = Field(default=None, description="goes with the bucket")
    uploads_secret_access_key: SecretStr | None = Field(default=None, description="goes with the bucket")

    @model_validator(mode="after")
    def _bucket_has_keys(self) -> Self:
        if self.uploads_bucket and not (self.uploads_access_key_id and self.uploads_secret_access_key):
            raise ValueError("HEADWATER_UPLOADS_BUCKET needs HEADWATER_UPLOADS_ACCESS_KEY_ID and its secret")
        return self


class JobSettings(_Settings):
    """The clockwork of jobs. The defaults are the product's promise; tests shorten them."""

    lease_seconds: float = Field(default=30, gt=0, description="a lease that is not extended ends after this")
    heartbeat_seconds: float = Field(default=5, gt=0)
    grace_seconds: float = Field(default=5, gt=0, description="after a deadline or cancel, before the child is ended")
    drain_seconds: float = Field(default=5, ge=0, description="a stopping worker lets jobs run on for this long")
    rering_seconds: float = Field(default=15, gt=0, description="rung and not claimed for this long: rung again")
    retry_base_seconds: float = Field(default=2, ge=0)
    retry_cap_seconds: float = Field(default=300, ge=0)
    running_per_organization: int = Field(default=16, ge=1, description="jobs of one organization at once")
    running_per_source: int = Field(default=4, ge=1, description="jobs of one data source at once")


class WebhookSettings(_Settings):
    """The deliverer."""

    webhook_slots: int = Field(default=32, ge=1, le=256, description="requests of one process at once")
    webhook_slots_per_endpoint: int = Field(default=4, ge=1, description="of them, to one webhook")
    webhook_timeout_seconds: float = Field(default=15, gt=0, le=30, description="from the look-up to the answer's end")
    webhook_disable_days: float = Field(default=5, gt=0, description="failing for so long, a webhook is switched off")


class RetentionSettings(_Settings):
    """How long the scheduler keeps what has ended."""

    job_retention_days: int = Field(default=90, ge=1, description="ended jobs, with their events and rejects")
    webhook_retention_days: int = Field(default=30, ge=1, description="deliveries of webhooks, arrived or not")


class QuotaSettings(_Settings):
    """What one organization may have, unless its row says another number; 0 is no limit."""

    quota_data_sources: int = Field(default=10_000, ge=0, description="data sources")
    quota_live_jobs: int = Field(default=10_000, ge=0, description="jobs that have not ended")
    quota_upload_bytes: int = Field(default=0, ge=0, description="all uploaded files together")
    quota_webhooks: int = Field(default=20, ge=0, description="webhooks")


def _unguessable(value: SecretStr | None) -> SecretStr | None:
    if value is not None and len(value) < _SHORTEST_TOKEN:
        raise ValueError(f"must have {_SHORTEST_TOKEN} characters or more, such as `openssl rand -hex 32` makes")
    return value


class MetricsSettings(_Settings):
    """What Prometheus may read at `/metrics`."""

    model_config = SettingsConfigDict(env_ignore_empty=True, hide_input_in_errors=True)

    metrics_token: Annotated[SecretStr | None, AfterValidator(_unguessable)] = Field(
        default=None, description="the bearer token that Prometheus sends; without it there is no /metrics"
    )
    metrics_per_source: bool = Field(default=False, description="items and errors also for each data source, by its id")


class FlowerSettings(_Settings):
    """Flower's process."""

    flower_host: str = Field(default="127.0.0.1", description="the address it listens on")
    flower_port: int = Field(default=5555, ge=0, le=65535)
    flower_user: str = "headwater"
    flower_password: str = Field(min_length=1, repr=False)


class LogSettings(_Settings):
    """How the log looks."""

    log_format: Literal["json", "console"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
