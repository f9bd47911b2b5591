"""Rotating the keys of an organization: a new one, every secret sealed to it, the old ones deleted.

A rotation is a walk of short transactions, and what is left to do stands in the rows: a key with `retired_at` still
opens, and seals nothing any more. Whoever is killed goes on by beginning again; two at once do no harm. Every secret
opens at every moment: a row changes only from the ciphertext that was read to the same secret sealed anew, and the
database lets a key go only when nothing is sealed to it (the foreign key of `sealed_credential`).
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import psycopg

from headwater import db, failpoints
from headwater.audit.acts import Act
from headwater.db import Row
from headwater.vault import keys, seal
from headwater_cli.errors import Failure
from headwater_cli.opening import Opener, Unopened

_PAUSE_SECONDS: Final = 0.1
# The longest transaction of the API ends in ten.
_PATIENCE_SECONDS: Final = 30.0

# Whoever changes a row at this moment wins: it is passed over, and looked at again.
_RESEAL: Final = """
    with new as (
        select * from unnest(%(subject_ids)s::uuid[], %(fields)s::text[], %(old)s::bytea[], %(ciphertexts)s::bytea[])
            as n (subject_id, field, old, ciphertext)
    ), unchanged as (
        select c.subject_id, c.field, n.ciphertext from new n
        join sealed_credential c using (subject_id, field)
        where c.organization_id = %(organization_id)s and c.ciphertext = n.old
        for update of c skip locked
    )
    update sealed_credential c
    set ciphertext = u.ciphertext, suite = %(suite)s, key_id = %(key_id)s, rotated_at = now()
    from unchanged u where c.subject_id = u.subject_id and c.field = u.field
"""
_RETIRED: Final = """
    select id from organization_key where organization_id = %(organization_id)s and retired_at is not null
    order by created_at, id
"""
_LEFT: Final = """
    select count(*) as n from sealed_credential c join organization_key k on k.id = c.key_id
    where k.organization_id = %(organization_id)s and k.retired_at is not null
"""
_DELETE: Final = """
    delete from organization_key k
    where k.id = %(key_id)s and k.organization_id = %(organization_id)s and k.retired_at is not null
      and not exists (select from sealed_credential c where c.key_id = k.id)
"""


@dataclass
class Progress:
    """How far a rotation is. What is `unopened` keeps its key, and the key stays."""

    resealed: int = 0
    deleted: list[UUID] = field(default_factory=list)
    unopened: list[Unopened] = field(default_factory=list)


def begin(opener: Opener) -> bool:
    """Make the new key, which seals from the commit on; False if an earlier rotation has to be ended first.

    Raises `Failure` for an organization that is being deleted, `KeyUnavailable`, `KeyRefused`.
    """
    if _retired(opener):
        return False
    made = keys.make(opener.organization_id, opener.provider)
    with opener.acting() as ours:
        # Of two that begin at the same moment one makes the key.
        row = opener.connection.execute(
            "select deleted_at from organization where id = %(organization_id)s for no key update", ours
        ).fetchone()
        if row is None or row["deleted_at"] is not None:
            raise Failure("This organization is being deleted: its keys are gone.")
        if opener.connection.execute(_RETIRED, ours).fetchone() is not None:
            return False
        opener.connection.execute(
            "update organization_key set retired_at = now() where organization_id = %(organization_id)s", ours
        )
        keys.store(opener.connection, made)
        opener.audit(Act.KEY_CREATE, key_id=made.id)
    failpoints.reach("rotation.begun")
    return True


def go_on(opener: Opener) -> Iterator[Progress]:
    """Seal to the newest key what is sealed to retired ones, and delete each of these that nothing needs any more.

    Yields where it is, after each step. At its end the retired keys are gone, or `unopened` says what holds them.
    Raises `Failure` where others hold on to what is left, `KeyUnavailable`, `KeyRefused`.
    """
    progress, moved_at = Progress(), time.monotonic()
    while True:
        before, progress.unopened = progress.resealed, []
        for batch in opener.batches(Act.KEY_RESEAL, whole=False):
            _reseal(opener, batch, progress)
            yield progress
        progress.deleted += [key_id for key_id in _retired(opener) if _delete(opener, key_id)]
        yield progress
        left = _left(opener)
        if left == len(progress.unopened) and (left or not _retired(opener)):
            return
        if progress.resealed > before:
            moved_at = time.monotonic()
        if time.monotonic() - moved_at > _PATIENCE_SECONDS:
            raise Failure(f"{left} secrets are held by transactions that do not end.", hint="Run the same again.")
        time.sleep(_PAUSE_SECONDS)


def _reseal(opener: Opener, rows: Sequence[Row], progress: Progress) -> None:
    with opener.acting():
        key = db.run(opener.connection, seal.sealing_key(opener.organization_id)).fetchone()
    assert key is not None, "a key that seals nothing was retired by one that does"
    opened: list[tuple[Row, bytes]] = []
    for row in rows:
        found = opener.open(row)
        if isinstance(found, Unopened):
            progress.unopened.append(found)
            continue
        binding = opener.binding(row)
        opened.append((row, seal.seal(found, suite=key["suite"], public_key=key["public_key"], binding=binding)))
    with opener.acting() as ours:
        resealed = opener.connection.execute(
            _RESEAL,
            ours
            | {
                "subject_ids": [row["subject_id"] for row, _ in opened],
                "fields": [row["field"] for row, _ in opened],
                "old": [row["ciphertext"] for row, _ in opened],
                "ciphertexts": [ciphertext for _, ciphertext in opened],
                "suite": key["suite"],
                "key_id": key["id"],
            },
        ).rowcount
        failpoints.reach("rotation.written")
    progress.resealed += resealed
    failpoints.reach("rotation.committed")


def _delete(opener: Opener, key_id: UUID) -> bool:
    """Delete a retired key with its private half, if nothing is sealed to it."""
    try:
        with opener.acting() as ours:
            gone = opener.connection.execute(_DELETE, ours | {"key_id": key_id}).rowcount
            if gone:
                opener.audit(Act.KEY_DELETE, key_id=key_id)
    except (psycopg.errors.ForeignKeyViolation, psycopg.errors.LockNotAvailable):
        # Somebody who read the key before it was retired sealed to it now.
        return False
    failpoints.reach("rotation.deleted")
    return bool(gone)


def _retired(opener: Opener) -> list[UUID]:
    with opener.acting() as ours:
        return [row["id"] for row in opener.connection.execute(_RETIRED, ours)]


def _left(opener: Opener) -> int:
    with opener.acting() as ours:
        row = opener.connection.execute(_LEFT, ours).fetchone()
    assert row is not None
    return int(row["n"])
