"""What a body says about a source, checked against the spec of its type."""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from headwater.connectors.spec import ConnectorConfig, ConnectorSpec
from headwater.errors import FieldError, InvalidRequest
from headwater.settings import ReferenceSettings
from headwater.vault import references
from headwater.vault.references import NotAllowed
from headwater_api import problems

Model = TypeVar("Model", bound=BaseModel)

# What a form shows in place of a secret.
_MASK: Final = re.compile(r"[*\u2022\u25cf]{3,}")


def config(spec: ConnectorSpec, value: dict[str, Any]) -> ConnectorConfig:
    """The config in `value`, whose `type` may be omitted. Raises `InvalidRequest` with pointers below `/config`."""
    if value.get("type", spec.type) != spec.type:
        raise InvalidRequest(errors=[FieldError("/config/type", "type_mismatch", "It must equal `type`.")])
    return validated(spec.config, value, "/config")


def secrets(
    spec: ConnectorSpec, value: dict[str, Any], *, organization_id: UUID, pointer: str = "/credentials"
) -> dict[str, str | None]:
    """The secret fields that were sent, None to clear one; references stay as they are.

    Raises `InvalidRequest` with pointers below `pointer`.
    """
    referring = {
        name: text
        for name, text in value.items()
        if name in spec.credentials.model_fields and isinstance(text, str) and references.is_reference(text)
    }
    _require_allowed(referring, organization_id, pointer)
    literal = {name: secret for name, secret in value.items() if name not in referring}
    sent = validated(spec.credentials, literal, pointer).secrets()
    detail = "This is a mask, not a secret. Send the value itself, or omit the field to keep what is stored."
    masked = [
        FieldError(f"{pointer}/{field}", "masked_value", detail)
        for field, secret in sent.items()
        if secret is not None and _MASK.fullmatch(secret)
    ]
    if masked:
        raise InvalidRequest(errors=masked)
    return sent | referring


def _require_allowed(referring: Mapping[str, str], organization_id: UUID, pointer: str) -> None:
    refused = []
    for name, text in referring.items():
        try:
            references.allowed(text, organization_id, ReferenceSettings())
        except NotAllowed as error:
            refused.append(FieldError(f"{pointer}/{name}", "reference_refused", str(error)))
    if refused:
        raise InvalidRequest(errors=refused)


def validated(model: type[Model], value: dict[str, Any], pointer: str) -> Model:
    """`value` as a `model`. Raises `InvalidRequest` with pointers below `pointer`, never with the input."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise problems.from_model(error, pointer) from None
