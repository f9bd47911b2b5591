"""What a body would make of a data source: checked against its type, and nothing written yet."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlmodel import col

from headwater.access.rows import Member
from headwater.connectors import registry
from headwater.connectors.spec import ConnectorConfig, ConnectorSpec
from headwater.data_sources import record_schema
from headwater.data_sources.rows import DataSource, DataSourceVersion
from headwater.errors import FieldError, InvalidRequest
from headwater_api.connectors import checking
from headwater_api.data_sources.merge_patch import merged
from headwater_api.data_sources.schemas import DataSourceCreate, DataSourceUpdate, Reading, Validation
from headwater_api.transaction import Transaction


@dataclass(frozen=True)
class Plan:
    """A checked change: what the source will be, and the names of what changes.

    `settings` are the source's own columns. `secrets` holds what was sent: None clears a field. `moved`: a secret
    would be sent elsewhere than before, so that those that were not sent again are destroyed.
    """

    spec: ConnectorSpec
    config: ConnectorConfig
    validation: dict[str, Any]
    reading: dict[str, Any]
    settings: dict[str, Any]
    secrets: dict[str, str | None]
    moved: bool = False
    fields: set[str] = field(default_factory=set)


def check_new(transaction: Transaction, body: DataSourceCreate) -> Plan:
    """The plan of a new source. Raises `InvalidRequest` naming each refused field."""
    spec = registry.get_spec(body.type)
    if body.validation.record_schema is not None:
        record_schema.check(body.validation.record_schema, pointer="/validation/schema")
    settings = {name: getattr(body, name) for name in ("name", "description", "env", "tags", "owner_id", "is_active")}
    _require_owner(transaction, settings)
    return Plan(
        spec=spec,
        config=checking.config(spec, body.config),
        validation=body.validation.stored(),
        reading=body.reading.stored(),
        settings=settings,
        secrets={name: secret for name, secret in _sent_secrets(transaction, spec, body).items() if secret is not None},
        fields=set(body.model_fields_set),
    )


def check_change(
    transaction: Transaction, source: DataSource, version: DataSourceVersion, body: DataSourceUpdate
) -> Plan:
    """The plan of a merge patch on `source` at its `version`. Raises `InvalidRequest` naming each refused field."""
    spec, sent = registry.get_spec(source.type), body.model_fields_set
    if "type" in sent and body.type != source.type:
        raise InvalidRequest(errors=[FieldError("/type", "immutable", "The type of a data source never changes.")])
    if body.config is not None and body.config.get("type", source.type) != source.type:
        raise InvalidRequest(errors=[FieldError("/config/type", "type_mismatch", "It must equal `type`.")])
    config = checking.config(spec, _patched(version.config, body.config, was_sent="config" in sent))
    validation = _patched(version.validation, body.validation, was_sent="validation" in sent, whole={"schema"})
    checked_validation = checking.validated(Validation, validation, "/validation")
    if "validation" in sent and checked_validation.record_schema is not None:
        record_schema.check(checked_validation.record_schema, pointer="/validation/schema")
    reading = checking.validated(
        Reading, _patched(version.reading, body.reading, was_sent="reading" in sent), "/reading"
    )
    settings = {name: value for name, value in body.settings().items() if getattr(source, name) != value}
    _require_owner(transaction, settings)
    plan = Plan(
        spec=spec,
        config=config,
        validation=checked_validation.stored(),
        reading=reading.stored(),
        settings=settings,
        secrets=_sent_secrets(transaction, spec, body),
        moved=_has_moved(spec, version.config, config),
    )
    plan.fields.update(settings, _changed_members(version, plan, sent))
    return plan


def _patched(
    current: Mapping[str, Any],
    patch: Mapping[str, Any] | None,
    *,
    was_sent: bool,
    whole: Iterable[str] = (),
) -> dict[str, Any]:
    """`current` with what was sent; a null in place of the whole map takes every member back to its default."""
    if not was_sent:
        return dict(current)
    return {} if patch is None else merged(current, patch, whole=frozenset(whole))


def _changed_members(version: DataSourceVersion, plan: Plan, sent: Iterable[str]) -> set[str]:
    changed: set[str] = set()
    parts = (
        ("config", version.config, plan.config.model_dump(mode="json")),
        ("validation", version.validation, plan.validation),
        ("reading", version.reading, plan.reading),
    )
    for part, old, new in parts:
        if part in sent:
            changed |= {f"{part}.{name}" for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    return changed


def _has_moved(spec: ConnectorSpec, stored: Mapping[str, Any], config: ConnectorConfig) -> bool:
    try:
        before = spec.config.model_validate(stored)
    except ValidationError:
        return True
    return spec.target_fingerprint(before) != spec.target_fingerprint(config)


def _sent_secrets(
    transaction: Transaction, spec: ConnectorSpec, body: DataSourceCreate | DataSourceUpdate
) -> dict[str, str | None]:
    if "credentials" not in body.model_fields_set:
        return {}
    if body.credentials is None:
        return dict.fromkeys(spec.credentials.model_fields)
    return checking.secrets(spec, body.credentials, organization_id=transaction.organization_id)


def _require_owner(transaction: Transaction, settings: Mapping[str, Any]) -> None:
    owner_id = settings.get("owner_id")
    if owner_id is None:
        return
    statement = select(col(Member.id)).where(
        col(Member.id) == owner_id,
        col(Member.organization_id) == transaction.organization_id,
        col(Member.removed_at).is_(None),
    )
    if transaction.session.execute(statement).first() is None:
        detail = "No member of the organization has this id; `/members` lists them."
        raise InvalidRequest(errors=[FieldError("/owner_id", "unknown_member", detail)])
