"""Opening what an organization has sealed, for whoever rotates or verifies its keys: batch by batch, and audited."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError

from headwater import db, failpoints
from headwater.audit import log as audit_log
from headwater.audit.acts import Act
from headwater.connectors import registry
from headwater.db import Connection, Row
from headwater.errors import CannotUnseal
from headwater.vault import keys, unseal
from headwater.vault.providers import KeyProvider
from headwater.vault.seal import Binding
from headwater.webhooks import signing

_BATCH: Final = 100

_SEALED: Final = """
    select c.subject_id, c.field, c.ciphertext, c.suite, c.key_id, w.id is not null as of_webhook,
           coalesce(s.type, j.draft ->> 'type') as type, coalesce(v.config, j.draft -> 'config') as config
    from organization_key k
    join sealed_credential c on c.key_id = k.id
    left join webhook w on w.id = c.subject_id
    left join data_source s on s.id = c.subject_id
    left join data_source_version v on v.data_source_id = s.id and v.version = s.version
    left join job j on j.id = c.subject_id
    where k.organization_id = %(organization_id)s and (k.retired_at is not null or %(whole)s)
      and (c.key_id, c.subject_id, c.field) > (%(key_id)s, %(subject_id)s, %(field)s)
    order by c.key_id, c.subject_id, c.field limit %(limit)s
"""
_PRIVATE: Final = """
    select p.* from organization_private_key p join organization_key k on k.id = p.key_id
    where p.key_id = %(key_id)s and k.organization_id = %(organization_id)s
"""


@dataclass(frozen=True)
class Unopened:
    """A secret that does not open where it stands, and why."""

    subject_id: UUID
    field: str
    reason: str


@dataclass(frozen=True)
class Opener:
    """What opens the secrets of one organization. Unwrapped keys are kept as long as it lives."""

    connection: Connection
    organization_id: UUID
    provider: KeyProvider
    _private: dict[UUID, bytes] = field(default_factory=dict, repr=False)

    @contextmanager
    def acting(self) -> Iterator[dict[str, Any]]:
        """One transaction for the organization; gives the parameter that every statement in it names."""
        with self.connection.transaction():
            db.set_organization(self.connection, self.organization_id)
            yield {"organization_id": self.organization_id}

    def audit(self, act: Act, **details: Any) -> None:
        """Write an entry of the open transaction. `details` are ids, names and counts."""
        entry = audit_log.entry(
            organization_id=self.organization_id,
            actor_id=None,
            act=act,
            subject_id=self.organization_id,
            details={name: str(value) if isinstance(value, UUID) else value for name, value in details.items()},
        )
        db.run(self.connection, entry)

    def batches(self, act: Act, *, whole: bool) -> Iterator[list[Row]]:
        """The secrets that are sealed to retired keys or, `whole`, all of them. `act` is audited for each batch."""
        after: dict[str, Any] = {"key_id": UUID(int=0), "subject_id": UUID(int=0), "field": ""}
        while True:
            with self.acting() as ours:
                rows = self.connection.execute(_SEALED, ours | after | {"whole": whole, "limit": _BATCH}).fetchall()
                if not rows:
                    return
                self.audit(act, subjects=sorted({str(row["subject_id"]) for row in rows}), secrets=len(rows))
            failpoints.reach("rotation.read")
            yield rows
            after = {name: rows[-1][name] for name in after}

    def open(self, row: Row) -> str | Unopened:
        """The secret in a row of `batches`. Raises `KeyUnavailable`, `KeyRefused`."""
        try:
            private_key = self._private_key(row["key_id"])
            return unseal.unseal(
                row["ciphertext"], suite=row["suite"], private_key=private_key, binding=self.binding(row)
            )
        except CannotUnseal:
            reason = "it was sealed for another target, or its key is gone"
        except LookupError:
            reason = f"no connector for {row['type']} is installed here"
        except ValidationError:
            reason = "the config of its source is not valid for this version"
        return Unopened(row["subject_id"], row["field"], reason)

    def binding(self, row: Row) -> Binding:
        """Where the secret belongs. Raises `LookupError`, `ValidationError` where its target is not known."""
        if row["of_webhook"]:
            target = signing.PURPOSE
        else:
            spec = registry.specs()[row["type"]]
            target = spec.target_fingerprint(spec.config.model_validate(row["config"]))
        return Binding(self.organization_id, row["subject_id"], row["field"], target)

    def _private_key(self, key_id: UUID) -> bytes:
        if key_id not in self._private:
            with self.acting() as ours:
                row = self.connection.execute(_PRIVATE, ours | {"key_id": key_id}).fetchone()
            if row is None:
                raise CannotUnseal
            context = keys.wrap_context(self.organization_id, key_id)
            self._private[key_id] = self.provider.unwrap(keys.wrapped(row), context)
        return self._private[key_id]
