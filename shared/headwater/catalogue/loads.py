"""The SQL of a sync: which files to read, loads as they land, and the flip that shows them.

A load is `pending` until a flip gives it its `valid_from`; only loads that have landed whole (`loaded`) are shown. All
of it runs on the connection that holds the temporary tables `inventory` (`catalogue.inventory`) and `passed_over`:
what was listed, split into what the sync wants and what it does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from headwater.catalogue.inventory import LISTED_FROM, SEEN_AT, SIGHTED
from headwater.catalogue.item_keys import DELETE_GOING
from headwater.catalogue.reading import prefix_end
from headwater.db import Statement, json

# Known, in scope, and not listed any more; in a statement that begins with `SIGHTED`.
_GONE: Final = f"""
    f.data_source_id = %(data_source_id)s
    and f.path >= %(prefix)s::text and (%(prefix_end)s::text is null or f.path < %(prefix_end)s::text)
    and starts_with(f.path, %(prefix)s::text)
    and not exists (select from inventory i where i.path = f.path)
    and not exists (select from passed_over p where p.path = f.path)
    and {SEEN_AT} < {LISTED_FROM}
"""

# Without an etag nobody can say that a file is unchanged.
_TO_READ: Final = """
    from inventory i
    left join file f on f.data_source_id = %(data_source_id)s and f.path = i.path
    where (
        %(full)s or i.etag is null or f.imported_etag is distinct from i.etag
        or f.imported_fingerprint is distinct from %(fingerprint)s
    ) and not exists (
        select from landed_before l where l.path = i.path and l.etag is not distinct from i.etag
    )
"""


@dataclass(frozen=True)
class Differences:
    """Between inventory and catalogue, for a sync that reads files as `fingerprint` says; `full`: all of them.

    Less the files in `landed_before` (`remember_landed`).
    """

    data_source_id: UUID
    fingerprint: str
    full: bool


@dataclass(frozen=True)
class Landed:
    """A load as far as it has landed. `etag` is what was read; None if the source would not give the file."""

    id: int
    path: str
    etag: str | None
    loaded: bool
    item_count: int
    error_count: int
    error_summary: list[dict[str, Any]] = field(default_factory=list)
    counters: dict[str, Any] = field(default_factory=dict)


def create_scratch() -> Statement:
    """Empty tables `passed_over(path)` and `landed_before(path, etag)` for this connection; former ones are dropped."""
    return Statement(
        """
        drop table if exists pg_temp.passed_over, pg_temp.landed_before;
        create temporary table passed_over (path text collate "C" not null);
        create temporary table landed_before (path text collate "C" not null, etag text)
        """
    )


def disown_outdated(*, job_id: UUID, fingerprint: str) -> Statement:
    """Pending loads of a former attempt whose file was listed otherwise since: no longer `loaded`."""
    return Statement(
        """
        update load l set loaded = false
        where l.job_id = %(job_id)s and l.valid_from is null and l.emptied_at is null and l.loaded
          and not exists (
              select from inventory i
              where i.path = l.path and i.etag is not distinct from l.etag and l.fingerprint = %(fingerprint)s
          )
        """,
        {"job_id": job_id, "fingerprint": fingerprint},
    )


def unfinished(job_id: UUID) -> Statement:
    """The loads of a former attempt that cannot be used: rows {id}."""
    return Statement("select id from load where job_id = %(job_id)s and not loaded", {"job_id": job_id})


def discard_items(load_ids: Sequence[int], *, limit: int = 50_000) -> Statement:
    """Delete up to `limit` items of the loads. Repeat until no row is affected, then `discard`."""
    return Statement(
        f"""
        with going as materialized (
            select ctid, load_id, record_number from item where load_id = any(%(load_ids)s) limit %(limit)s
        ), {DELETE_GOING}
        """,
        {"load_ids": list(load_ids), "limit": limit},
    )


def discard(load_ids: Sequence[int]) -> Statement:
    """Delete the loads and their rejects; they have no items any more."""
    return Statement(
        """
        with refused as (delete from reject where load_id = any(%(load_ids)s))
        delete from load where id = any(%(load_ids)s)
        """,
        {"load_ids": list(load_ids)},
    )


def remember_landed(*, job_id: UUID, fingerprint: str) -> Statement:
    """Fill `landed_before`: what earlier attempts of the job have landed whole, and would be read alike now.

    On its own, because the planner knows nothing of the rows that the sync itself is adding to `load`.
    """
    return Statement(
        """
        insert into landed_before (path, etag)
        select path, etag from load
        where job_id = %(job_id)s and loaded and valid_to is null and fingerprint = %(fingerprint)s
        """,
        {"job_id": job_id, "fingerprint": fingerprint},
    )


def kept(job_id: UUID) -> Statement:
    """What earlier attempts of the job have landed, and which of it is shown already.

    One row {parsed, valid, rejected, landed, bytes_read, shown_new, shown_changed}.
    """
    sums = ", ".join(
        f"coalesce(sum((counters ->> '{name}')::bigint), 0)::bigint as {name}"
        for name in ("parsed", "valid", "rejected", "landed", "bytes_read")
    )
    return Statement(
        f"""
        select {sums},
               count(*) filter (where valid_from is not null and counters ->> 'was' = 'new') as shown_new,
               count(*) filter (where valid_from is not null and counters ->> 'was' = 'changed') as shown_changed
        from load where job_id = %(job_id)s and loaded and valid_to is null
        """,
        {"job_id": job_id},
    )


def kept_errors(job_id: UUID) -> Statement:
    """The error summary of what earlier attempts have landed: rows {code, count, samples}."""
    return Statement(
        """
        select e ->> 'code' as code, sum((e ->> 'count')::bigint)::bigint as count,
               (array_agg(e -> 'samples' -> 0))[1:5] as samples
        from load l, jsonb_array_elements(l.error_summary) e
        where l.job_id = %(job_id)s and l.loaded and l.valid_to is null and l.error_count > 0
        group by 1
        """,
        {"job_id": job_id},
    )


def to_read(differences: Differences, *, after: str, limit: int = 2_000) -> Statement:
    """The files to read behind `after` ("" at first), in path order.

    Rows {path, size, etag, modified_at, is_new, found}. `found`: what the reading that is live found out about the
    file (`counters.found` of its load), or null.
    """
    return Statement(
        f"""
        select i.path, i.size, i.etag, i.modified_at, f.imported_fingerprint is null as is_new,
               (select l.counters -> 'found' from load l where l.id = f.load_id) as found
        {_TO_READ} and i.path > %(after)s
        order by i.path limit %(limit)s
        """,
        vars(differences) | {"after": after, "limit": limit},
    )


def total_to_read(differences: Differences) -> Statement:
    """How much there is to read: one row {files, bytes}; `bytes` is null if a size is unknown."""
    return Statement(
        f"""
        select count(*) as files, case when count(*) = count(i.size)
            then least(coalesce(sum(i.size), 0), 9223372036854775807)::bigint end as bytes
        {_TO_READ}
        """,
        vars(differences),
    )


def reserve(count: int) -> Statement:
    """Numbers for `count` loads to come: rows {id}, ascending."""
    return Statement(
        "select nextval(pg_get_serial_sequence('load', 'id')) as id from generate_series(1, %(count)s)",
        {"count": count},
    )


def put(
    *, organization_id: UUID, data_source_id: UUID, job_id: UUID, fingerprint: str, loads: list[Landed]
) -> Statement:
    """Write loads as far as they have landed: new ones are inserted, known ones brought forward."""
    return Statement(
        """
        insert into load (
            id, organization_id, data_source_id, job_id, path, etag, fingerprint, loaded, item_count, error_count,
            error_summary, counters
        ) overriding system value
        select id, %(organization_id)s, %(data_source_id)s, %(job_id)s, path, etag, %(fingerprint)s, loaded,
               item_count, error_count, error_summary, counters
        from jsonb_to_recordset(%(loads)s) as l (
            id bigint, path text, etag text, loaded boolean, item_count bigint, error_count bigint,
            error_summary jsonb, counters jsonb
        )
        on conflict (id) do update set
            loaded = excluded.loaded, item_count = excluded.item_count, error_count = excluded.error_count,
            error_summary = excluded.error_summary, counters = excluded.counters
        """,
        {
            "organization_id": organization_id,
            "data_source_id": data_source_id,
            "job_id": job_id,
            "fingerprint": fingerprint,
            "loads": json([vars(load) for load in loads]),
        },
    )


def snapshot(data_source_id: UUID) -> Statement:
    """The snapshot that readers are at: one row {snapshot}."""
    return Statement(
        "select snapshot from data_source_totals where data_source_id = %(data_source_id)s",
        {"data_source_id": data_source_id},
    )


def totals(data_source_id: UUID) -> Statement:
    """What readers see: one row {item_count, error_count}."""
    return Statement(
        "select item_count, error_count from data_source_totals where data_source_id = %(data_source_id)s",
        {"data_source_id": data_source_id},
    )


def show(*, data_source_id: UUID, job_id: UUID, snapshot: int) -> Statement:
    """Make the job's landed loads valid from `snapshot` + 1, end those they replace, bring their files' rows along.

    Visible once `count` raises the snapshot in the same transaction. One row {loads, items, errors}: how many loads,
    and by how much the source's items and rejects grow.
    """
    return Statement(
        """
        with shown as (
            update load set valid_from = %(snapshot)s + 1
            where job_id = %(job_id)s and valid_from is null and emptied_at is null and loaded
            returning id, path, etag, fingerprint, item_count, error_count
        ), held as materialized (
            -- In path order, as a listing locks them: the two never deadlock. What is written below comes after this.
            select f.path, f.load_id from file f join shown s on s.path = f.path
            where f.data_source_id = %(data_source_id)s
            order by f.path for no key update of f
        ), replaced as (
            update load l set valid_to = %(snapshot)s + 1, closed_at = now()
            from held where l.id = held.load_id and l.valid_to is null
            returning l.item_count, l.error_count
        ), written as (
            update file f set
                load_id = s.id, item_count = s.item_count, error_count = s.error_count,
                imported_etag = s.etag, imported_fingerprint = s.fingerprint,
                state = case when s.item_count = 0 and s.error_count > 0 then 'rejected' else 'imported' end
            from shown s
            where f.data_source_id = %(data_source_id)s and f.path = s.path
        ), gain as (
            select count(*) as shown, coalesce(sum(item_count), 0) as items, coalesce(sum(error_count), 0) as errors
            from shown
        ), loss as (
            select coalesce(sum(item_count), 0) as items, coalesce(sum(error_count), 0) as errors from replaced
        )
        select gain.shown as loads, (gain.items - loss.items)::bigint as items,
               (gain.errors - loss.errors)::bigint as errors
        from gain, loss
        """,
        {"data_source_id": data_source_id, "job_id": job_id, "snapshot": snapshot},
    )


def vanished(*, data_source_id: UUID, prefix: str) -> Statement:
    """What is no longer listed under `prefix`.

    One row {known, gone, unmarked, unsaid}: imported files in scope; those of them that are gone; all that are gone
    and not marked `missing` yet; all that are gone and would be seen with their source.
    """
    return Statement(
        f"""
        with {SIGHTED}
        select (
            select count(*) from file f
            where f.data_source_id = %(data_source_id)s and f.load_id is not null
              and f.path >= %(prefix)s::text and starts_with(f.path, %(prefix)s::text)
        ) as known, count(*) filter (where f.load_id is not null) as gone,
        count(*) filter (where f.state <> 'missing') as unmarked,
        count(*) filter (where f.last_seen_at is null) as unsaid
        from file f where {_GONE}
        """,
        {"data_source_id": data_source_id, "prefix": prefix, "prefix_end": prefix_end(prefix)},
    )


def leave_vanished(*, data_source_id: UUID, prefix: str) -> Statement:
    """Say of what is no longer listed under `prefix` when it was last seen, before `inventory.sight` says it of all."""
    return Statement(
        f"""
        with {SIGHTED}, gone as (
            select f.path from file f where {_GONE} and f.last_seen_at is null
            order by f.path for no key update of f
        )
        update file f set last_seen_at = {SEEN_AT} from gone
        where f.data_source_id = %(data_source_id)s and f.path = gone.path
        """,
        {"data_source_id": data_source_id, "prefix": prefix, "prefix_end": prefix_end(prefix)},
    )


def mark_vanished(*, data_source_id: UUID, prefix: str) -> Statement:
    """Mark what is no longer listed under `prefix` as `missing`; its items stay."""
    return Statement(
        f"""
        with {SIGHTED}, gone as (
            select f.path from file f where {_GONE} and f.state <> 'missing' order by f.path for no key update of f
        )
        update file f set state = 'missing' from gone
        where f.data_source_id = %(data_source_id)s and f.path = gone.path
        """,
        {"data_source_id": data_source_id, "prefix": prefix, "prefix_end": prefix_end(prefix)},
    )


def delete_vanished(*, data_source_id: UUID, prefix: str, snapshot: int) -> Statement:
    """End the loads of what is no longer listed under `prefix` at `snapshot` + 1 and forget the files.

    One row {loads, items, errors}, as in `show`: how many loads end, and the (negative) growth.
    """
    return Statement(
        f"""
        with {SIGHTED}, gone as materialized (
            select f.path, f.load_id from file f where {_GONE} order by f.path for update of f
        ), ended as (
            -- By their ids: to join them the planner may read the loads of all sources.
            update load set valid_to = %(snapshot)s + 1, closed_at = now()
            where id = any(array(select load_id from gone)) and valid_to is null
            returning item_count, error_count
        ), forgotten as (
            delete from file f using gone where f.data_source_id = %(data_source_id)s and f.path = gone.path
        )
        select count(*) as loads, -coalesce(sum(item_count), 0)::bigint as items,
               -coalesce(sum(error_count), 0)::bigint as errors
        from ended
        """,
        {
            "data_source_id": data_source_id,
            "prefix": prefix,
            "prefix_end": prefix_end(prefix),
            "snapshot": snapshot,
        },
    )


def count(*, data_source_id: UUID, snapshot: int, flip: bool, items: int, errors: int, finished: bool) -> Statement:
    """The last statement of a flip: raise the snapshot, the counts, and at the end of a sync `last_sync_at`.

    No row: somebody else has raised the snapshot since it was read, and nothing of the transaction may stay.
    """
    return Statement(
        """
        update data_source_totals set
            snapshot = snapshot + %(flip)s::boolean::int,
            item_count = item_count + %(items)s, error_count = error_count + %(errors)s,
            last_sync_at = case when %(finished)s then now() else last_sync_at end
        where data_source_id = %(data_source_id)s and snapshot = %(snapshot)s
        returning snapshot
        """,
        {
            "data_source_id": data_source_id,
            "snapshot": snapshot,
            "flip": flip,
            "items": items,
            "errors": errors,
            "finished": finished,
        },
    )


def outcome(*, data_source_id: UUID, job_id: UUID) -> Statement:
    """What a sync leaves behind: one row {item_count, error_count, duration_ms} of the source and of the job."""
    return Statement(
        """
        select t.item_count, t.error_count,
               greatest(0, extract(epoch from clock_timestamp() - j.started_at) * 1000)::bigint as duration_ms
        from data_source_totals t, job j
        where t.data_source_id = %(data_source_id)s and j.id = %(job_id)s
        """,
        {"data_source_id": data_source_id, "job_id": job_id},
    )
