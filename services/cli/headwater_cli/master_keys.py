"""The keys as a whole: wrapping them with the newest master key, and proving that everything opens."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from headwater import failpoints, ids
from headwater.audit.acts import Act
from headwater.db import Row
from headwater.errors import CannotUnseal
from headwater.vault import keys, suites
from headwater.vault.providers import KeyProvider, Wrapped
from headwater_cli.opening import Opener, Unopened

_PROBE: Final = b"headwater probe 1"
_SHOWN: Final = 100

_KEYS: Final = """
    select k.id, k.public_key, k.retired_at, p.provider, p.master_key, p.wrapped
    from organization_key k left join organization_private_key p on p.key_id = k.id
    where k.organization_id = %(organization_id)s order by k.created_at, k.id
"""
_REWRAP: Final = """
    update organization_private_key set provider = %s, master_key = %s, wrapped = %s where key_id = %s and wrapped = %s
"""


@dataclass(frozen=True)
class MasterKey:
    """What wraps a private key: a provider, and what it calls its key; None where that was not written down."""

    provider: str
    name: str | None

    def __str__(self) -> str:
        return f"{self.provider}:{self.name or 'unknown'}"


@dataclass(frozen=True)
class Verified:
    """What was found of one organization's keys. `secrets` is how many there are; all but `unopened` open.

    `retired` keys still open something, `broken` ones do not unwrap. `wrapped_by` counts private keys.
    """

    organization_id: UUID
    keys: int
    secrets: int
    retired: list[UUID]
    broken: list[UUID]
    unopened: list[Unopened]
    wrapped_by: Counter[MasterKey]

    def is_done(self, newest: MasterKey) -> bool:
        """Whether everything opens, no key is on its way out, and `newest` alone wraps."""
        return not (self.retired or self.broken or self.unopened) and set(self.wrapped_by) <= {newest}

    def shown(self, newest: MasterKey) -> dict[str, Any]:
        """As `verify-keys` prints it."""
        return {
            "organization_id": ids.encode("org", self.organization_id),
            "valid": self.is_done(newest),
            "keys": self.keys,
            "secrets": self.secrets,
            "retired": [str(key_id) for key_id in self.retired],
            "broken": [str(key_id) for key_id in self.broken],
            "unopened": [
                {"subject_id": str(found.subject_id), "field": found.field, "reason": found.reason}
                for found in self.unopened[:_SHOWN]
            ],
            "unopened_count": len(self.unopened),
            "wrapped_by": {str(master_key): count for master_key, count in self.wrapped_by.items()},
        }


def newest(provider: KeyProvider) -> MasterKey:
    """What the provider wraps with now. Raises `KeyUnavailable`, `KeyRefused`."""
    return _of(provider.wrap(_PROBE, _PROBE))


def rewrap(opener: Opener, wanted: MasterKey) -> int:
    """Wrap each private key of the organization that `wanted` does not wrap yet; how many. Raises `VaultError`.

    Who reads a key meanwhile gets it as it was or as it is; both open while both master keys are there.
    """
    rewrapped = 0
    for row in _keys(opener):
        if row["wrapped"] is None or _of(keys.wrapped(row)) == wanted:
            continue
        new = opener.provider.rewrap(keys.wrapped(row), keys.wrap_context(opener.organization_id, row["id"]))
        with opener.acting():
            replaced = opener.connection.execute(
                _REWRAP, (new.provider, new.master_key, new.blob, row["id"], row["wrapped"])
            ).rowcount
            if replaced:
                opener.audit(Act.KEY_REWRAP, key_id=row["id"], master_key=str(_of(new)))
        rewrapped += replaced
        failpoints.reach("rotation.rewrapped")
    return rewrapped


def wrapped_by(opener: Opener) -> Counter[MasterKey]:
    """How many private keys of the organization each master key wraps."""
    return Counter(_of(keys.wrapped(row)) for row in _keys(opener) if row["wrapped"] is not None)


def verify(opener: Opener) -> Verified:
    """Unwrap every private key of the organization and open every secret. Raises `KeyUnavailable`, `KeyRefused`."""
    rows, secrets = _keys(opener), 0
    unopened: list[Unopened] = []
    for batch in opener.batches(Act.KEY_VERIFY, whole=True):
        secrets += len(batch)
        unopened += [found for row in batch if isinstance(found := opener.open(row), Unopened)]
    return Verified(
        organization_id=opener.organization_id,
        keys=len(rows),
        secrets=secrets,
        retired=[row["id"] for row in rows if row["retired_at"] is not None],
        broken=[row["id"] for row in rows if not _is_sound(opener, row)],
        unopened=unopened,
        wrapped_by=Counter(_of(keys.wrapped(row)) for row in rows if row["wrapped"] is not None),
    )


def _keys(opener: Opener) -> list[Row]:
    with opener.acting() as ours:
        return opener.connection.execute(_KEYS, ours).fetchall()


def _is_sound(opener: Opener, row: Row) -> bool:
    if row["wrapped"] is None:
        return False
    try:
        private = opener.provider.unwrap(keys.wrapped(row), keys.wrap_context(opener.organization_id, row["id"]))
    except CannotUnseal:
        return False
    return suites.is_pair(private, row["public_key"])


def _of(wrapped: Wrapped) -> MasterKey:
    return MasterKey(wrapped.provider, wrapped.master_key)
