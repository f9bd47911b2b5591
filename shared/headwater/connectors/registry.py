"""From a `type` to its spec, through the entry-point group that outside connectors use too."""

import functools
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Final

from headwater import log
from headwater.connectors.spec import Capability, ConnectorSpec
from headwater.errors import FieldError, InvalidRequest

SPECS_GROUP: Final = "headwater.connector_specs"

_log = log.get(__name__)


@functools.cache
def specs() -> Mapping[str, ConnectorSpec]:
    """Every installed spec by type. One that does not load is logged and left out; the others work."""
    loaded: dict[str, ConnectorSpec] = {}
    for entry in sorted(entry_points(group=SPECS_GROUP), key=lambda entry: entry.name):
        try:
            spec = entry.load()
        except (ImportError, AttributeError) as error:
            _log.error("connector.spec_not_loaded", type=entry.name, error=repr(error))
            continue
        loaded[spec.type] = spec
    return loaded


def get_spec(type_: str) -> ConnectorSpec:
    """The spec of `type_`. Raises `InvalidRequest` naming `/type` if no such connector is installed."""
    spec = specs().get(type_)
    if spec is None:
        known = ", ".join(specs())
        raise InvalidRequest(errors=[FieldError("/type", "unknown_type", f"Use one of: {known}.")])
    return spec


def types_with(capability: Capability) -> list[str]:
    """The types whose sources can do this."""
    return [spec.type for spec in specs().values() if capability in spec.capabilities]
