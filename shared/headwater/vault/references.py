"""References: credentials that are kept elsewhere, and named here. `vault://warehouse/orders#password`, `env://NAME`.

What a reference says is no secret. It is sealed like one all the same, so that it counts only where it was put. Whose
secrets a reference reaches does not stand in it: a path is below the organization's own folder in the operator's Vault,
and a name is one of those that the operator lists for the organization.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from headwater import ids
from headwater.settings import ReferenceSettings

_SCHEMES: Final = ("vault://", "env://")
# No segment is `..` or hidden, and nothing needs to be escaped.
_VAULT: Final = re.compile(
    r"vault://(?P<path>[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*)#(?P<field>[A-Za-z0-9_.-]{1,128})"
)
_VARIABLE: Final = re.compile(r"env://(?P<name>[A-Z][A-Z0-9_]{0,99})")
_LONGEST: Final = 512


class NotAllowed(ValueError):
    """A reference that this deployment does not follow; the text says why, for people."""


@dataclass(frozen=True)
class Reference:
    """Where a secret is kept: `name` is a path below the organization's folder, or a variable's name."""

    store: Literal["vault", "env"]
    name: str
    field: str = ""


def is_reference(value: str) -> bool:
    """Whether `value` is meant as one: no secret can begin like this."""
    return value.startswith(_SCHEMES)


def allowed(value: str, organization_id: UUID, settings: ReferenceSettings) -> Reference:
    """The reference in `value`, if the operator lets the organization use it. Raises `NotAllowed`."""
    if (found := _VAULT.fullmatch(value)) and len(value) <= _LONGEST:
        if settings.reference_vault_mount is None:
            raise NotAllowed("References to Vault are switched off: send the secret itself, or ask your operator.")
        return Reference("vault", found["path"], found["field"])
    if found := _VARIABLE.fullmatch(value):
        if found["name"] not in settings.reference_variables.get(organization_id, ()):
            raise NotAllowed("Your operator has not listed this name for your organization.")
        return Reference("env", found["name"])
    raise NotAllowed("A reference is vault://PATH#FIELD or env://NAME, and a secret cannot begin like one.")


def vault_path(reference: Reference, organization_id: UUID, settings: ReferenceSettings) -> str:
    """What follows `/v1/` in the request for it."""
    folder = settings.reference_vault_path.replace("{organization}", ids.encode("org", organization_id))
    data = "data/" if settings.reference_vault_kv == 2 else ""
    return f"{settings.reference_vault_mount}/{data}{folder}/{reference.name}"
