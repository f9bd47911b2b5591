"""Following references: what a credential names is fetched when the job runs, and checked as if it had been sent."""

import http.client
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from headwater import settings
from headwater.connectors.spec import ConnectorSpec
from headwater.errors import KeyUnavailable, Permanent
from headwater.settings import HashicorpSettings, ReferenceSettings
from headwater.vault import references
from headwater.vault.hashicorp import Client, Refused
from headwater.vault.references import NotAllowed, Reference


def follow(spec: ConnectorSpec, organization_id: UUID, secrets: Mapping[str, str]) -> dict[str, str]:
    """`secrets` with what the references among them name.

    Raises:
        Permanent: `reference_refused`, `reference_not_found`; the message names the field.
        KeyUnavailable: `reference_unavailable`, Vault does not answer.
    """
    followed = dict(secrets)
    for field, text in secrets.items():
        if references.is_reference(text):
            followed[field] = _checked(spec, field, _found(field, text, organization_id))
    return followed


def _found(field: str, text: str, organization_id: UUID) -> str:
    allowed = ReferenceSettings()
    try:
        reference = references.allowed(text, organization_id, allowed)
    except NotAllowed as error:
        raise _refused(field, str(error)) from error
    if reference.store == "env":
        value: Any = settings.variable(f"HEADWATER_SECRET_{reference.name}")
    else:
        value = _in_vault(field, reference, organization_id, allowed)
    if not isinstance(value, str):
        raise Permanent(
            f"Nothing is kept where `{field}` refers to.",
            code="reference_not_found",
            hint="Check the path and the field of the reference; what it names must be text.",
        )
    return value


def _in_vault(field: str, reference: Reference, organization_id: UUID, settings: ReferenceSettings) -> Any:
    vault = HashicorpSettings()
    if vault.hashicorp_url is None:
        raise _refused(field, "This worker has no Vault: an operator sets HEADWATER_HASHICORP_URL.")
    try:
        data = Client(vault).request("GET", references.vault_path(reference, organization_id, settings))
    except Refused as error:
        if error.status == http.client.NOT_FOUND:
            return None
        raise _refused(field, f"Vault answers {error.status}: an operator looks at the token's policy.") from error
    except KeyUnavailable as error:
        message = f"The store that `{field}` refers to does not answer."
        raise KeyUnavailable(message, code="reference_unavailable", hint=error.hint) from error
    kept = data.get("data") if settings.reference_vault_kv == 2 and isinstance(data, dict) else data
    return kept.get(reference.field) if isinstance(kept, dict) else None


def _checked(spec: ConnectorSpec, field: str, value: str) -> str:
    try:
        found = spec.credentials.model_validate({field: value}).secrets()[field]
    except ValidationError:
        # Not chained: what was refused must not get into a log.
        raise _refused(field, "What is kept there is not what this field takes.") from None
    return found or ""


def _refused(field: str, reason: str) -> Permanent:
    return Permanent(f"The reference in `{field}` cannot be followed.", code="reference_refused", hint=reason)
