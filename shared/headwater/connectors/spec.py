"""What a connector says about itself."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, SecretStr


class Capability(StrEnum):
    """What a source of some type can do; a job that needs what it cannot is refused at submit."""

    TEST = "test"
    """its connection can be tested"""
    FILES = "files"
    """its files can be listed"""
    SYNC = "sync"
    """its records can be brought in"""
    TABLES = "tables"
    """its tables can be discovered"""
    UPLOADS = "uploads"
    """files can be uploaded to it"""


class _Target:
    """Marks the config fields that say where a secret would be sent: `Annotated[str, TARGET]`."""


TARGET: Final = _Target()


class ConnectorConfig(BaseModel):
    """A config: closed, immutable, every field bounded. Subclasses declare `type: Literal["..."] = "..."`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ConnectorCredentials(BaseModel):
    """The secret fields, each `SecretStr | None = None`: a partial update sends only some of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def secrets(self) -> dict[str, str | None]:
        """The fields that were sent: {field: secret, or None to clear}."""
        return {name: _revealed(getattr(self, name)) for name in self.model_fields_set}


class NoCredentials(ConnectorCredentials):
    """For types that need no secret."""


def _revealed(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


ConfigClass: TypeAlias = type[ConnectorConfig]
CredentialsClass: TypeAlias = type[ConnectorCredentials]


@dataclass(frozen=True)
class ConnectorSpec:
    """One connector type.

    `missing_credentials(config, set_fields)` names the fields that must be set before a job can connect, given those
    that are; with none missing it is empty.
    """

    API_VERSION: ClassVar[int] = 1

    type: str
    title: str
    description: str
    config: ConfigClass
    credentials: CredentialsClass
    capabilities: frozenset[Capability]
    missing_credentials: Callable[[Any, frozenset[str]], tuple[str, ...]] = lambda _config, _set: ()

    def target(self, config: ConnectorConfig) -> Mapping[str, Any]:
        """The fields of `config` that say where a secret would be sent."""
        return {
            name: getattr(config, name)
            for name, field in sorted(type(config).model_fields.items())
            if any(isinstance(mark, _Target) for mark in field.metadata)
        }

    def target_fingerprint(self, config: ConnectorConfig) -> bytes:
        """32 bytes that change when a secret would be sent elsewhere: SHA-256 over type and target, length-prefixed."""
        parts = [
            self.type,
            *(text for name, value in self.target(config).items() for text in (name, repr(value))),
        ]
        digest = hashlib.sha256()
        for part in (text.encode() for text in parts):
            digest.update(len(part).to_bytes(4, "big") + part)
        return digest.digest()
