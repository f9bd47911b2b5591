"""Forgetting what nobody can see any more, in bounded steps.

A load is dead when it was replaced and no cursor can still need it, or when its job ended without showing it. Its items
go first; the load and its rejects stay for the readers of the job, until the job itself is gone.
"""

from collections.abc import Callable
from typing import Final

from headwater import db
from headwater.catalogue import keyed
from headwater.catalogue.item_keys import DELETE_GOING
from headwater.catalogue.reading import SNAPSHOT_KEPT_SECONDS
from headwater.db import Connection, Statement

_ITEMS: Final = 20_000
_LOADS: Final = 200
# A cursor may be a little younger than its last reader: an hour, and a minute on top.
_KEPT_SECONDS: Final = SNAPSHOT_KEPT_SECONDS + 60


def prune(connection: Connection, *, interrupt: Callable[[], None] = lambda: None, steps: int = 50) -> int:
    """Delete items of dead loads and replaced records, each step in a short transaction; how many rows went.

    `interrupt` is called between steps and may raise. Several processes may prune at once. The connection is in
    autocommit. Call it about once a minute; 0 says that nothing is left to do.
    """
    deleted = 0
    for step in (_prune_loads, _prune_replaced):
        for _ in range(steps):
            interrupt()
            with connection.transaction():
                gone = step(connection)
            if gone is None:
                break
            deleted += max(gone, 1)
    return deleted


def _prune_loads(connection: Connection) -> int | None:
    """One step; None if there is no dead load."""
    dead = [row["id"] for row in db.run(connection, dead_loads()).fetchall()]
    if not dead:
        return None
    gone = db.run(connection, empty(dead)).rowcount
    if gone < _ITEMS:
        db.run(connection, mark_emptied(dead))
    return gone


def _prune_replaced(connection: Connection) -> int | None:
    """One step; None if no record was replaced long enough ago."""
    replacing = [
        row["id"] for row in db.run(connection, keyed.sweepable(kept_seconds=_KEPT_SECONDS, limit=_LOADS)).fetchall()
    ]
    if not replacing:
        return None
    held = [row["load_id"] for row in db.run(connection, keyed.sweep(replacing, limit=_ITEMS)).fetchall()]
    if len(held) < _ITEMS:
        db.run(connection, keyed.mark_swept(replacing))
    db.run(connection, keyed.close_hollow(sorted(set(held))))
    return len(held)


def prune_forgotten(connection: Connection, *, interrupt: Callable[[], None] = lambda: None, steps: int = 50) -> int:
    """Delete emptied loads, with their rejects, whose job is gone; how many loads. Call it after jobs were pruned."""
    deleted = 0
    for _ in range(steps):
        interrupt()
        gone = db.run(connection, delete_forgotten()).rowcount
        deleted += gone
        if gone < _LOADS:
            break
    return deleted


def dead_loads() -> Statement:
    """Up to 200 replaced and 200 never shown loads that may still have items, locked: rows {id}."""
    return Statement(
        """
        with recursive replaced as (
            select l.id from load l
            where l.closed_at < now() - make_interval(secs => %(kept_seconds)s) and l.emptied_at is null
            order by l.closed_at limit %(limit)s for no key update skip locked
        ), pending as (
            -- From job to job along the index: a sync at work may have a million loads that nobody may touch.
            (select job_id from load where valid_from is null and emptied_at is null order by job_id limit 1)
            union all
            select (
                select l.job_id from load l
                where l.valid_from is null and l.emptied_at is null and l.job_id > pending.job_id
                order by l.job_id limit 1
            )
            from pending where pending.job_id is not null
        ), never_shown as (
            select l.id from pending p
            join load l on l.job_id = p.job_id and l.valid_from is null and l.emptied_at is null
            where l.closed_at is null
              and not exists (
                  select from job j where j.id = p.job_id and j.status in ('queued', 'running', 'cancelling')
              )
            limit %(limit)s for no key update of l skip locked
        )
        select id from replaced union all select id from never_shown
        """,
        {"kept_seconds": _KEPT_SECONDS, "limit": _LOADS},
    )


def empty(load_ids: list[int]) -> Statement:
    """Delete up to 20,000 items of these loads."""
    return Statement(
        f"""
        with going as materialized (
            select ctid, load_id, record_number from item where load_id = any(%(load_ids)s) limit %(limit)s
        ), {DELETE_GOING}
        """,
        {"load_ids": load_ids, "limit": _ITEMS},
    )


def mark_emptied(load_ids: list[int]) -> Statement:
    """These loads have no items any more."""
    return Statement("update load set emptied_at = now() where id = any(%(load_ids)s)", {"load_ids": load_ids})


def delete_forgotten() -> Statement:
    """Delete up to 200 emptied loads whose job is gone, with their rejects."""
    return Statement(
        """
        with forgotten as materialized (
            select l.id from load l
            where l.emptied_at is not null and not exists (select from job j where j.id = l.job_id)
            limit %(limit)s for update skip locked
        ), refused as (
            delete from reject r using forgotten where r.load_id = forgotten.id
        )
        delete from load l using forgotten where l.id = forgotten.id
        """,
        {"limit": _LOADS},
    )


def close_deleted_sources(*, retention_days: int) -> Statement:
    """Close the live loads of sources deleted that long ago, at most 1,000; `prune` then takes their items."""
    return Statement(
        """
        update load set closed_at = now() - make_interval(secs => %(kept_seconds)s + 1) where id = any(array(
            select l.id from load l join data_source s on s.id = l.data_source_id
            where s.deleted_at is not null and s.deleted_at < now() - make_interval(days => %(retention_days)s)
              and l.valid_from is not null and l.closed_at is null and l.emptied_at is null limit 1000
        ))
        """,
        {"kept_seconds": _KEPT_SECONDS, "retention_days": retention_days},
    )
