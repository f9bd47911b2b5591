"""What a body says about a source, checked against the spec of its type."""

import re
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from headwater.connectors.spec import ConnectorConfig, ConnectorSpec
from headwater.errors import FieldError, InvalidRequest
from headwater_api import problems

Model = TypeVar("Model", bound=BaseModel)

# What a form shows in place of a secret.
_MASK: Final = re.compile(r"[*\u2022\u25cf]{3,}")


def config(spec: ConnectorSpec, value: dict[str, Any]) -> ConnectorConfig:
    """The config in `value`, whose `type` may be omitted. Raises `InvalidRequest` with pointers below `/config`."""
    if value.get("type", spec.type) != spec.type:
        raise InvalidRequest(errors=[FieldError("/config/type", "type_mismatch", "It must equal `type`.")])
    return validated(spec.config, value, "/config")


def secrets(spec: ConnectorSpec, value: dict[str, Any], *, pointer: str = "/credentials") -> dict[str, str | None]:
    """The secret fields that were sent, None to clear one. Raises `InvalidRequest` with pointers below `pointer`."""
    sent = validated(spec.credentials, value, pointer).secrets()
    detail = "This is a mask, not a secret. Send the value itself, or omit the field to keep what is stored."
    masked = [
        FieldError(f"{pointer}/{field}", "masked_value", detail)
        for field, secret in sent.items()
        if secret is not None and _MASK.fullmatch(secret)
    ]
    if masked:
        raise InvalidRequest(errors=masked)
    return sent


def validated(model: type[Model], value: dict[str, Any], pointer: str) -> Model:
    """`value` as a `model`. Raises `InvalidRequest` with pointers below `pointer`, never with the input."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise problems.from_model(error, pointer) from None
