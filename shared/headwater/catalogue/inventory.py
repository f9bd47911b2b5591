"""From an inventory to the catalogue: what a listing saw, compared with the `file` rows of its source in SQL.

A listing is copied into the temporary table `inventory` of one connection and taken into the catalogue slice by slice,
in path order, each slice in a short fenced transaction (`headwater_worker.sync.cataloguing`): those of a listing that
comes in path order while it goes on, those of another one when it has ended.

Only what differs is written. A listing of a whole source says in one row, at its end, when it was (`sight`); files that
were seen again and are as they were need no word of their own: their `last_seen_at` is null, and reads as that moment.

Nothing here touches what was imported (`imported_etag`, `imported_fingerprint`, `load_id`, counts), so that no listing
ever makes a sync skip a file. Each statement locks its files in path order and is the only one in its transaction that
locks files: a listing and a sync of one source never deadlock.
"""

from typing import Final
from uuid import UUID

from headwater.catalogue.reading import prefix_end
from headwater.db import Statement

SLICE: Final = 50_000
"""Files in one slice: about a quarter of a second of writing."""

LANDMARK_DISTANCE: Final = 9_500
"""Files in one range of a listing: ten pages, unless more than one in twenty is new."""

SEEN_AT: Final = "coalesce(f.last_seen_at, greatest(f.first_seen_at, (select seen_at from sighted)))"
"""When file `f` was last seen, in a statement that begins with `SIGHTED`."""

SIGHTED: Final = """
    sighted as materialized (
        -- The newest, once no listing is just about to say so: what it saw is not missing.
        select seen_at from sighting where data_source_id = %(data_source_id)s for share
    )
"""

LISTED_FROM: Final = "(select current_setting('headwater.listed_from')::timestamptz)"
"""When the inventory of this connection was begun."""

# What a file's row says once it was seen as `i`. Without an etag, size and time stand in for it.
_STATE_SEEN: Final = """
    case
        when f.imported_fingerprint is null then 'new'
        when i.etag is distinct from f.imported_etag then 'changed'
        when i.etag is null
            and (i.size, i.modified_at) is distinct from (f.size, f.modified_at) then 'changed'
        when f.state in ('imported', 'rejected', 'changed') and i.etag is null then f.state
        when f.item_count = 0 and f.error_count > 0 then 'rejected'
        else 'imported'
    end
"""
# Without a fingerprint a listing compares with what was seen, with one a sync says what it has to do.
_VERDICT: Final = """
    case
        when i.path is null then 'gone'
        when f.path is null then 'new'
        when %(fingerprint)s::text is null then case
            when f.state = 'missing' and f.imported_fingerprint is null then 'new'
            when f.etag is distinct from i.etag or f.size is distinct from i.size then 'changed'
            when i.etag is null and f.modified_at is distinct from i.modified_at then 'changed'
            else 'unchanged' end
        when f.imported_fingerprint is null then 'new'
        when f.imported_fingerprint = %(fingerprint)s and f.imported_etag = i.etag then 'unchanged'
        else 'changed'
    end
"""
_LAST_SEEN: Final = "case when not %(whole)s then now() end"
_FILE_IN_SLICE: Final = """
    f.data_source_id = %(data_source_id)s
    and f.path > %(after)s and (%(through)s::text is null or f.path <= %(through)s)
"""
_IN_SLICE: Final = "i.path > %(after)s and (%(through)s::text is null or i.path <= %(through)s)"


def landmarks(*, data_source_id: UUID, prefix: str, distance: int = LANDMARK_DISTANCE) -> Statement:
    """Paths of the catalogue under `prefix`, in path order and `distance` files apart: rows {path}."""
    return Statement(
        """
        select path from (
            select path, row_number() over (order by path) as number from file
            where data_source_id = %(data_source_id)s
              and path >= %(prefix)s::text and (%(prefix_end)s::text is null or path < %(prefix_end)s::text)
        ) as known
        where number %% %(distance)s = 0 order by path
        """,
        {
            "data_source_id": data_source_id,
            "prefix": prefix,
            "prefix_end": prefix_end(prefix),
            "distance": distance,
        },
    )


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
    """The slice behind `after` ("" at first): one row {files, through}, `through` null if it reaches to the end."""
    return Statement(
        """
        select count(*) as files, case when count(*) = %(limit)s then max(path) end as through
        from (select path from inventory where path > %(after)s order by path limit %(limit)s) as slice
        """,
        {"after": after, "limit": limit},
    )


def in_path_order() -> Statement:
    """For the rest of the transaction: what is joined is read in path order from both indexes, by index alone.

    The planner knows nothing of a temporary table that grows, and little of files that came in this minute.
    """
    ways = ("hashjoin", "nestloop", "seqscan", "bitmapscan")
    return Statement("select " + ", ".join(f"set_config('enable_{way}', 'off', true)" for way in ways))


def is_known(*, data_source_id: UUID, after: str, through: str | None) -> Statement:
    """Whether the catalogue has any file in the slice: one row {known}."""
    return Statement(
        f"""
        select (
            -- Not `exists`, which may read a large table for it from end to end.
            select f.path from file f where {_FILE_IN_SLICE} order by f.path limit 1
        ) is not null as known
        """,
        {"data_source_id": data_source_id, "after": after, "through": through},
    )


def add(*, organization_id: UUID, data_source_id: UUID, after: str, through: str | None, whole: bool) -> Statement:
    """Take a slice of which no file `is_known` into the catalogue; a unique violation if one is by now."""
    return Statement(
        f"""
        insert into file (data_source_id, organization_id, path, size, etag, modified_at, last_seen_at)
        select %(data_source_id)s, %(organization_id)s, path, size, etag, modified_at, {_LAST_SEEN}
        from inventory i where {_IN_SLICE} order by path
        """,
        {
            "organization_id": organization_id,
            "data_source_id": data_source_id,
            "after": after,
            "through": through,
            "whole": whole,
        },
    )


def see(
    *,
    organization_id: UUID,
    data_source_id: UUID,
    after: str,
    through: str | None,
    whole: bool,
    fingerprint: str | None = None,
) -> Statement:
    """Take the slice (`after`, `through`] into the catalogue. One row {new, changed, back, new_again, gone} of counts.

    A file that was never seen is inserted as `new`; one whose etag is not the imported one becomes `changed`; others
    are unchanged. A `missing` one that is `back` (and `new_again`, if it was never imported) gets the state that its
    etag gives it. `gone`: known files that are not in the slice, nor `missing` yet. `last_seen_at` moves for all that
    were seen; where the `whole` source is listed, only once that is said (`sight`).

    Without `fingerprint` the counts compare with what was seen before (a listing). With it they say what a sync that
    reads in this way has to do: `new` was never imported, `changed` was imported with another etag or fingerprint.
    """
    return Statement(
        f"""
        with differing as materialized (
            select i.*, f.state = 'missing' as was_missing, {_VERDICT} as verdict
            from (select * from inventory i where {_IN_SLICE}) i
            full join (select * from file f where {_FILE_IN_SLICE}) f on f.path = i.path
            where case
                when i.path is null then f.state <> 'missing'
                else f.path is null or {_VERDICT} <> 'unchanged'
                    or (f.size, f.etag, f.modified_at, f.state, f.last_seen_at)
                        is distinct from (i.size, i.etag, i.modified_at, {_STATE_SEEN}, {_LAST_SEEN})
            end
        ), counted as (
            select count(*) filter (where verdict = 'new') as new,
                   count(*) filter (where verdict = 'changed') as changed,
                   count(*) filter (where was_missing) as back,
                   count(*) filter (where was_missing and verdict = 'new') as new_again,
                   count(*) filter (where verdict = 'gone') as gone
            from differing
        ), written as (
            -- Each row by its key, in order: no plan for a join of a few rows with a source can be wrong.
            insert into file as f (data_source_id, organization_id, path, size, etag, modified_at, last_seen_at)
            select %(data_source_id)s, %(organization_id)s, path, size, etag, modified_at, {_LAST_SEEN}
            from differing where verdict <> 'gone' order by path
            on conflict (data_source_id, path) do update set
                size = excluded.size, etag = excluded.etag, modified_at = excluded.modified_at,
                state = {_STATE_SEEN.replace("i.", "excluded.")}, last_seen_at = excluded.last_seen_at
        )
        select * from counted
        """,
        {
            "organization_id": organization_id,
            "data_source_id": data_source_id,
            "after": after,
            "through": through,
            "whole": whole,
            "fingerprint": fingerprint,
        },
    )


def mark_missing(*, data_source_id: UUID, prefix: str, after: str, through: str | None) -> Statement:
    """Mark the files of the slice that start with `prefix` and are not in the inventory. One row {missing}.

    `missing` counts those that were not marked before. Only for an inventory that holds all there is under `prefix`.
    """
    return Statement(
        f"""
        with {SIGHTED}, gone as (
            select f.path from file f
            where {_FILE_IN_SLICE} and f.state <> 'missing'
              and f.path >= %(prefix)s and starts_with(f.path, %(prefix)s)
              and not exists (select from inventory i where i.path = f.path and {_IN_SLICE})
              and {SEEN_AT} < {LISTED_FROM}
            order by f.path for no key update
        ), marked as (
            update file f set state = 'missing', last_seen_at = {SEEN_AT}
            where f.data_source_id = %(data_source_id)s and f.path = any(array(select path from gone))
            returning f.path
        )
        select count(*) as missing from marked
        """,
        {"data_source_id": data_source_id, "prefix": prefix, "after": after, "through": through},
    )


def begin_sight(*, organization_id: UUID, data_source_id: UUID) -> Statement:
    """Before a listing of a whole source: the row of `sight`, so that others can wait for it."""
    return Statement(
        """
        insert into sighting (data_source_id, organization_id, seen_at)
        values (%(data_source_id)s, %(organization_id)s, '-infinity') on conflict do nothing
        """,
        {"organization_id": organization_id, "data_source_id": data_source_id},
    )


def sight(*, organization_id: UUID, data_source_id: UUID) -> Statement:
    """Say that the whole source was seen: all its files that are not marked otherwise. `see_again` follows."""
    return Statement(
        """
        insert into sighting (data_source_id, organization_id) values (%(data_source_id)s, %(organization_id)s)
        on conflict (data_source_id) do update set seen_at = excluded.seen_at
        """,
        {"organization_id": organization_id, "data_source_id": data_source_id},
    )


def see_again(*, data_source_id: UUID) -> Statement:
    """Bring back what an older listing marked as missing before `sight` was there to tell it."""
    return Statement(
        f"""
        with held as materialized (
            select f.path from file f join inventory i on i.path = f.path
            where f.data_source_id = %(data_source_id)s and f.state = 'missing'
            order by f.path for no key update of f
        )
        update file f set state = {_STATE_SEEN}, last_seen_at = null
        from inventory i join held on held.path = i.path
        where f.data_source_id = %(data_source_id)s and f.path = i.path
        """,
        {"data_source_id": data_source_id},
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
