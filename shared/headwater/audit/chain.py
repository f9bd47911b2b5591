"""The hash chain over the audit log: what was sealed cannot be changed, left out or put in without a trace.

Each organization has a chain of its own. Requests only insert entries; the scheduler seals them behind their backs,
because a chain that is written inside a request makes all requests of an organization wait for one another.

An entry's hash is SHA-256 over the hash before it and everything that the entry says (`link`). Entries are sealed in
the order of their transactions, and only those of transactions older than every one that still runs: none can come in
between later. Whoever can write to the database could rewrite a whole chain; a head that was noted elsewhere
(`Head`) shows that.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final
from uuid import UUID

from headwater.db import Connection, Row

_LABEL: Final = b"headwater audit 1"
_BATCH: Final = 5_000
_MISSING: Final = b"\xff\xff\xff\xff"

# `details` as Postgres writes it: parsed and written again it might not be the same text.
_ENTRY: Final = """
    e.id, e.organization_id, e.number, e.actor_id, e.key_id, e.act, e.subject_id, e.request_id, e.address, e.fields,
    e.details::text as details, e.created_at
"""


@dataclass(frozen=True)
class Head:
    """The end of a chain: `seq` entries are sealed, the last one with `hash` (32 bytes)."""

    seq: int
    hash: bytes


@dataclass(frozen=True)
class Verification:
    """What a walk along one organization's chain found.

    `broken_at` is the first `seq` that does not hold, with `reason`; None if all do. `unsealed` entries wait for the
    scheduler, the oldest for `unsealed_seconds`.
    """

    organization_id: UUID
    head: Head
    unsealed: int
    unsealed_seconds: float
    broken_at: int | None = None
    reason: str | None = None


def begin(organization_id: UUID) -> bytes:
    """The hash before an organization's first entry."""
    return hashlib.sha256(_LABEL + organization_id.bytes).digest()


def link(before: bytes, seq: int, entry: Row) -> bytes:
    """The hash of `entry`, a row as `_ENTRY` selects it, behind `before`. Every part stands behind its length."""
    created_at = entry["created_at"].astimezone(UTC).isoformat(timespec="microseconds")
    parts: list[bytes | None] = [
        before,
        seq.to_bytes(8, "big"),
        entry["number"].to_bytes(8, "big"),
        *(entry[name] and entry[name].bytes for name in ("id", "organization_id", "actor_id", "key_id", "subject_id")),
        *(_text(entry[name]) for name in ("act", "request_id", "address", "details")),
        created_at.encode(),
        *(field.encode() for field in entry["fields"]),
    ]
    return hashlib.sha256(_LABEL + b"".join(map(_prefixed, parts))).digest()


def seal(connection: Connection) -> int | None:
    """Seal up to 5,000 entries, in one transaction; how many, or None if another scheduler is at it.

    The connection is in autocommit. Call it until it gives less than a full batch.
    """
    with connection.transaction():
        horizon = connection.execute(
            "select xid::text::bigint as xid, system_identifier from audit_horizon for no key update skip locked"
        ).fetchone()
        if horizon is None:
            return None
        now = connection.execute(
            """
            select system_identifier, pg_snapshot_xmin(pg_current_snapshot())::text::bigint as xid
            from pg_control_system()
            """
        ).fetchone()
        assert now is not None
        same_server = horizon["system_identifier"] == now["system_identifier"]
        entries = _unsealed(connection, horizon["xid"], now["xid"]) if same_server else _unsealed_anywhere(connection)
        _append(connection, entries)
        if len(entries) < _BATCH:
            _move(connection, now["xid"], now["system_identifier"])
        elif same_server:
            _move(connection, entries[-1]["xid"], now["system_identifier"])
    return len(entries)


def organizations(connection: Connection) -> list[UUID]:
    """Whoever has an entry, deleted ones included."""
    rows = connection.execute("select distinct organization_id from audit_entry order by 1").fetchall()
    return [row["organization_id"] for row in rows]


def verify(connection: Connection, organization_id: UUID, *, known: Head | None = None) -> Verification:
    """Walk along the chain, in the space of a few thousand entries. `known` is a head that was noted before.

    The connection is in autocommit, and the walk one transaction.
    """
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        head, broken_at, reason = Head(0, begin(organization_id)), None, None
        with connection.cursor("chain") as cursor:
            cursor.itersize = _BATCH
            cursor.execute(
                f"""
                select c.seq, c.hash, {_ENTRY} from audit_chain c left join audit_entry e
                    on e.id = c.entry_id and e.organization_id = c.organization_id
                where c.organization_id = %s order by c.seq
                """,
                (organization_id,),
            )
            for row in cursor:
                reason = _broken(head, row, known)
                if reason is not None:
                    broken_at = head.seq + 1
                    break
                head = Head(row["seq"], row["hash"])
        if reason is None and known is not None and known.seq > head.seq:
            broken_at, reason = head.seq + 1, "the chain ends before the head that was noted"
        tail = _tail(connection, organization_id)
    return Verification(organization_id, head, tail["count"], tail["seconds"], broken_at, reason)


def _broken(head: Head, row: Row, known: Head | None) -> str | None:
    """Why `row` does not go on from `head`."""
    if row["seq"] != head.seq + 1:
        return "a sealed entry was taken out of the chain"
    if row["id"] is None:
        return "the entry is gone"
    if link(head.hash, row["seq"], row) != row["hash"]:
        return "the entry, or one before it, is not what was sealed"
    if known is not None and known.seq == row["seq"] and known.hash != row["hash"]:
        return "the chain is not the one whose head was noted"
    return None


def _tail(connection: Connection, organization_id: UUID) -> Row:
    row = connection.execute(
        """
        select count(*) as count, coalesce(extract(epoch from now() - min(e.created_at)), 0)::float as seconds
        from audit_entry e
        where e.organization_id = %s and not exists (select from audit_chain c where c.entry_id = e.id)
        """,
        (organization_id,),
    ).fetchone()
    assert row is not None
    return row


def _unsealed(connection: Connection, start: int, end: int) -> list[Row]:
    """Of complete transactions since the horizon, in their order."""
    return connection.execute(
        f"""
        select {_ENTRY}, e.xid::text::bigint as xid from audit_entry e
        where e.xid >= %(start)s::text::xid8 and e.xid < %(end)s::text::xid8
          and not exists (select from audit_chain c where c.entry_id = e.id)
        order by e.xid, e.number limit %(limit)s
        """,
        {"start": str(start), "end": str(end), "limit": _BATCH},
    ).fetchall()


def _unsealed_anywhere(connection: Connection) -> list[Row]:
    """This database was brought here from another server: its transactions' numbers say nothing, once."""
    return connection.execute(
        f"""
        select {_ENTRY} from audit_entry e
        where not exists (select from audit_chain c where c.entry_id = e.id)
        order by e.number limit %(limit)s
        """,
        {"limit": _BATCH},
    ).fetchall()


def _append(connection: Connection, entries: Sequence[Row]) -> None:
    heads = _heads(connection, {entry["organization_id"] for entry in entries})
    links: list[tuple[Any, ...]] = []
    for entry in entries:
        organization_id = entry["organization_id"]
        head = heads.get(organization_id) or Head(0, begin(organization_id))
        head = Head(head.seq + 1, link(head.hash, head.seq + 1, entry))
        heads[organization_id] = head
        links.append((organization_id, head.seq, entry["id"], head.hash))
    if links:
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into audit_chain (organization_id, seq, entry_id, hash) values (%s, %s, %s, %s)", links
            )


def _heads(connection: Connection, organization_ids: Iterable[UUID]) -> dict[UUID, Head]:
    rows = connection.execute(
        """
        select o.id, c.seq, c.hash from unnest(%s::uuid[]) as o (id)
        cross join lateral (
            select seq, hash from audit_chain where organization_id = o.id order by seq desc limit 1
        ) c
        """,
        (list(organization_ids),),
    )
    return {row["id"]: Head(row["seq"], row["hash"]) for row in rows}


def _move(connection: Connection, xid: int, system_identifier: int) -> None:
    connection.execute(
        "update audit_horizon set xid = %s::text::xid8, system_identifier = %s", (str(xid), system_identifier)
    )


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode()


def _prefixed(part: bytes | None) -> bytes:
    return _MISSING if part is None else len(part).to_bytes(4, "big") + part
