"""From an inventory to the catalogue: what a listing saw, compared with the `file` rows of its source in SQL.

A listing is copied into the temporary table `inventory` of one connection, then taken into the catalogue slice by
slice, in path order, each slice in a short fenced transaction:

    db.run(connection, inventory.create())
    copy_inventory(connection, pages)                      # headwater_worker.sync.inventory
    db.run(connection, inventory.analyze())
    after = ""
    while True:
        through = db.run(connection, inventory.slice_end(after=after)).fetchone()["through"]
        with context.fenced():
            db.run(connection, inventory.see(..., after=after, through=through))
        with context.fenced():
            db.run(connection, inventory.mark_missing(..., after=after, through=through))
        if through is None:
            break
        after = through

Nothing here touches what was imported (`imported_etag`, `imported_fingerprint`, `load_id`, counts), so that no listing
ever makes a sync skip a file. Each statement locks its rows in path order and is the only one in its transaction that
locks files: a listing and a sync of one source never deadlock.
"""

from typing import Final
from uuid import UUID

from headwater.db import Statement

SLICE: Final = 50_000
"""Files in one slice: about a quarter of a second of writing."""

# What a file's row says once it was seen with this etag. Without an etag, size and time stand in for it.
_STATE_SEEN: Final = """
    case
        when f.imported_fingerprint is null then 'new'
        when excluded.etag is distinct from f.imported_etag then 'changed'
        when excluded.etag is null
            and (excluded.size, excluded.modified_at) is distinct from (f.size, f.modified_at) then 'changed'
        when f.state in ('imported', 'rejected', 'changed') and excluded.etag is null then f.state
        when f.item_count = 0 and f.error_count > 0 then 'rejected'
        else 'imported'
    end
"""


def create() -> Statement:
    """An empty table `inventory(path, size, etag, modified_at)` for this connection; a former one is dropped.

    The moment is kept with the connection: what somebody else saw since is no more missing than what we see.
    """
    return Statement(
        """
        select set_config('headwater.listed_from', clock_timestamp()::text, false);
        drop table if exists pg_temp.inventory;
        create temporary table inventory (
            path text collate "C" primary key, size bigint, etag text, modified_at timestamptz
        )
        """
    )


def analyze() -> Statement:
    """Once after the copy: nobody else gathers statistics of a temporary table, and the planner needs them."""
    return Statement("analyze inventory")


def slice_end(*, after: str, limit: int = SLICE) -> Statement:
    """One row {through}: the last path of the slice behind `after` ("" at first), null if it reaches to the end."""
    return Statement(
        """
        select (
            select path from inventory where path > %(after)s order by path offset %(limit)s - 1 limit 1
        ) as through
        """,
        {"after": after, "limit": limit},
    )


def see(
    *,
    organization_id: UUID,
    data_source_id: UUID,
    after: str,
    through: str | None,
    fingerprint: str | None = None,
) -> Statement:
    """Take the slice (`after`, `through`] into the catalogue. One row of counts {new, changed, unchanged}.

    A file that was never seen is inserted as `new`; one whose etag is not the imported one becomes `changed`; a
    `missing` one that is back gets the state that its etag gives it. `last_seen_at` moves for all.

    Without `fingerprint` the counts compare with what was seen before (a listing). With it they say what a sync that
    reads in this way has to do: `new` was never imported, `changed` was imported with another etag or fingerprint,
    `unchanged` agrees in both.
    """
    return Statement(
        f"""
        with slice as materialized (
            select i.path, i.size, i.etag, i.modified_at, case
                when f.path is null then 'new'
                when %(fingerprint)s::text is null then case
                    when f.state = 'missing' and f.imported_fingerprint is null then 'new'
                    when f.etag is distinct from i.etag or f.size is distinct from i.size then 'changed'
                    when i.etag is null and f.modified_at is distinct from i.modified_at then 'changed'
                    else 'unchanged' end
                when f.imported_fingerprint is null then 'new'
                when f.imported_fingerprint = %(fingerprint)s and f.imported_etag = i.etag then 'unchanged'
                else 'changed'
            end as verdict
            from inventory i
            left join file f on f.data_source_id = %(data_source_id)s and f.path = i.path
            where i.path > %(after)s and (%(through)s::text is null or i.path <= %(through)s)
        ), written as (
            insert into file as f (data_source_id, organization_id, path, size, etag, modified_at)
            select %(data_source_id)s, %(organization_id)s, path, size, etag, modified_at from slice order by path
            on conflict (data_source_id, path) do update set
                size = excluded.size, etag = excluded.etag, modified_at = excluded.modified_at,
                state = {_STATE_SEEN}, last_seen_at = excluded.last_seen_at
        )
        select count(*) filter (where verdict = 'new') as new,
               count(*) filter (where verdict = 'changed') as changed,
               count(*) filter (where verdict = 'unchanged') as unchanged
        from slice
        """,
        {
            "organization_id": organization_id,
            "data_source_id": data_source_id,
            "after": after,
            "through": through,
            "fingerprint": fingerprint,
        },
    )


def mark_missing(*, data_source_id: UUID, prefix: str, after: str, through: str | None) -> Statement:
    """Mark the files of the slice that start with `prefix` and are not in the inventory. One row {missing}.

    `missing` counts those that were not marked before. Only for an inventory that holds all there is under `prefix`.
    """
    return Statement(
        """
        with gone as (
            select f.path from file f
            where f.data_source_id = %(data_source_id)s and f.state <> 'missing'
              and f.last_seen_at < current_setting('headwater.listed_from')::timestamptz
              and f.path > %(after)s and (%(through)s::text is null or f.path <= %(through)s)
              and f.path >= %(prefix)s and starts_with(f.path, %(prefix)s)
              and not exists (select from inventory i where i.path = f.path)
            order by f.path for no key update
        ), marked as (
            update file f set state = 'missing' from gone
            where f.data_source_id = %(data_source_id)s and f.path = gone.path
            returning f.path
        )
        select count(*) as missing from marked
        """,
        {"data_source_id": data_source_id, "prefix": prefix, "after": after, "through": through},
    )


def total() -> Statement:
    """What the inventory holds: one row {file_count, total_bytes}."""
    # A store can claim any sizes: their sum stays a bigint.
    return Statement(
        """
        select count(*) as file_count, least(coalesce(sum(size), 0), 9223372036854775807)::bigint as total_bytes
        from inventory
        """
    )


def first(limit: int) -> Statement:
    """The first files of the inventory in path order: rows {path, size, etag, modified_at}."""
    return Statement(
        "select path, size, etag, modified_at from inventory order by path limit %(limit)s", {"limit": limit}
    )
