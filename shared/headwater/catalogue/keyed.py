"""Sources of records: walks that replace what was shown, or continue it record by record (decision 0007).

A walk lands in one load. A **full** walk replaces everything that its source shows. An **increment** is shown beside
the loads before it: records that it holds a later version of are marked with the load that replaces them
(`item.replaced_by`), which counts from the snapshot on that shows that load, and never if none does. So a flip stays
one raised number, whatever came before it, and a walk that fails leaves nothing to undo.

What a load says about itself stands in its `counters`: `walk` (`full` or `increment`), `key` (the path to the key),
`cursor` (the highest value seen by it or before it), `last` (its highest record number), `duplicates`, `carried`.
All statements but those of a flip work off a slice, and can be repeated after a crash. Nobody has
gathered statistics of rows that have just landed: each step is materialized, and each look-up pinned to a primary key
(`offset 0` keeps a subquery what it is).
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from headwater.catalogue.item_keys import DELETE_GOING, KEY_OF, NOT_REPLACED
from headwater.db import Statement

SLICE: Final = 20_000

_KEY: Final = KEY_OF.format(data="data", path="%(key)s::text[]")


def before(data_source_id: UUID) -> Statement:
    """What the live loads of a source leave to an increment: one row {fingerprint, cursor, records, rejects}.

    `fingerprint` and `cursor` are those of the newest, null if there is none. `records` and `rejects`: the numbers
    behind which an increment goes on, so that a number stands for one row of a path.
    """
    return Statement(
        """
        select (array_agg(fingerprint order by id desc))[1] as fingerprint,
               (array_agg(counters ->> 'cursor' order by id desc))[1] as cursor,
               coalesce(max((counters ->> 'last')::bigint), 0) as records,
               coalesce(sum(error_count), 0)::bigint as rejects
        from load
        where data_source_id = %(data_source_id)s
          and valid_from is not null and emptied_at is null and valid_to is null
        """,
        {"data_source_id": data_source_id},
    )


def landed(job_id: UUID) -> Statement:
    """The load that the job has landed and not shown: a row {id, counters}, or none."""
    return Statement(
        """
        select id, counters from load
        where job_id = %(job_id)s and valid_from is null and emptied_at is null and loaded
        """,
        {"job_id": job_id},
    )


def item_slice_end(*, load_id: int, after: int) -> Statement:
    """One row {through}: the last record number of the slice behind `after`, null if nothing is."""
    return Statement(
        """
        select max(record_number) as through from (
            select record_number from item
            where load_id = %(load_id)s and record_number > %(after)s order by record_number limit %(limit)s
        ) slice
        """,
        {"load_id": load_id, "after": after, "limit": SLICE},
    )


def settle(
    *, data_source_id: UUID, load_id: int, key: Sequence[str], replaces: bool, after: int, through: int
) -> Statement:
    """Note the keys of a slice of a load; of records with the same key only the last stays.

    With `replaces`, the live records of other loads with these keys are marked as replaced by this load. One row
    {duplicates}: how many records went.
    """
    return Statement(
        f"""
        with mine as materialized (
            select ctid, record_number, {_KEY} as key from item
            where load_id = %(load_id)s and record_number > %(after)s and record_number <= %(through)s
        ), ranked as materialized (
            select ctid, record_number, key,
                   row_number() over (partition by key order by record_number desc) = 1 as is_last
            from mine
        ), last as materialized (
            select key, record_number, (
                select k.record_number from item_key k
                where k.data_source_id = %(data_source_id)s and k.key = r.key and k.load_id = %(load_id)s
            ) as former
            from ranked r where is_last
        ), kept as (
            insert into item_key as k (data_source_id, key, load_id, record_number)
            select %(data_source_id)s, key, %(load_id)s, record_number from last
            on conflict (data_source_id, key, load_id) do update set record_number = excluded.record_number
        ), doomed as materialized (
            select ctid from ranked where not is_last
            union all
            select (select i.ctid from item i where i.load_id = %(load_id)s and i.record_number = last.former)
            from last where former < record_number
        ), dropped as (
            delete from item where ctid = any(array(select ctid from doomed)) returning 1
        ), held as materialized (
            select h.ctid from last cross join lateral (
                select i.ctid from item_key k
                join load l on l.id = k.load_id and l.valid_from is not null and l.valid_to is null
                join item i on i.load_id = k.load_id and i.record_number = k.record_number
                    and i.replaced_by is distinct from %(load_id)s and {NOT_REPLACED}
                where k.data_source_id = %(data_source_id)s and k.key = last.key and k.load_id <> %(load_id)s
                offset 0
            ) h
            where %(replaces)s
        ), replaced as (
            update item set replaced_by = %(load_id)s where ctid = any(array(select ctid from held)) returning 1
        ), counts as (
            select (select count(*) from dropped) as duplicates, (select count(*) from replaced) as replaced
        ), counted as (
            update load set
                item_count = item_count - c.duplicates, replacing_count = replacing_count + c.replaced,
                counters = counters || jsonb_build_object(
                    'landed', (counters ->> 'landed')::bigint - c.duplicates,
                    'duplicates', coalesce((counters ->> 'duplicates')::bigint, 0) + c.duplicates
                )
            from counts c where id = %(load_id)s
        )
        select duplicates from counts
        """,
        {
            "data_source_id": data_source_id,
            "load_id": load_id,
            "key": list(key),
            "replaces": replaces,
            "after": after,
            "through": through,
        },
    )


def key_slice_end(*, data_source_id: UUID, after: str) -> Statement:
    """One row {through}: the last key of the slice behind `after` ("" at first), null if it reaches to the end."""
    return Statement(
        """
        select (
            select key from item_key where data_source_id = %(data_source_id)s and key > %(after)s
            order by key offset %(limit)s - 1 limit 1
        ) as through
        """,
        {"data_source_id": data_source_id, "after": after, "limit": SLICE},
    )


def gone(
    *, data_source_id: UUID, load_id: int, key: Sequence[str], carry: bool, after: str, through: str | None
) -> Statement:
    """The live records whose keys, in the slice (`after`, `through`], a full walk did not meet. One row {gone}.

    With `carry` they are copied into the walk's load, behind its own records. Records that were told apart by another
    `key` are not counted and not carried.
    """
    return Statement(
        f"""
        with slice as materialized (
            select key, load_id, record_number, bool_or(load_id = %(load_id)s) over (partition by key) as is_met
            from item_key
            where data_source_id = %(data_source_id)s
              and key > %(after)s and (%(through)s::text is null or key <= %(through)s)
        ), gone as materialized (
            select s.key, h.data, row_number() over (order by s.key) as position
            from slice s cross join lateral (
                select i.data from load l
                join item i on i.load_id = l.id and i.record_number = s.record_number and {NOT_REPLACED}
                where l.id = s.load_id and l.valid_from is not null and l.valid_to is null
                  and l.counters -> 'key' = to_jsonb(%(key)s::text[])
                offset 0
            ) h
            where not s.is_met
        ), carrying as (
            select key, data, position + (select (counters ->> 'last')::bigint from load where id = %(load_id)s)
                as record_number
            from gone where %(carry)s
        ), items as (
            insert into item (load_id, record_number, data) select %(load_id)s, record_number, data from carrying
        ), keys as (
            insert into item_key (data_source_id, key, load_id, record_number)
            select %(data_source_id)s, key, %(load_id)s, record_number from carrying
        ), counted as (
            update load set
                item_count = item_count + c.count,
                counters = counters || jsonb_build_object(
                    'last', (counters ->> 'last')::bigint + c.count,
                    'carried', coalesce((counters ->> 'carried')::bigint, 0) + c.count
                )
            from (select count(*) from carrying) c where id = %(load_id)s
        )
        select count(*) as gone from gone
        """,
        {
            "data_source_id": data_source_id,
            "load_id": load_id,
            "key": list(key),
            "carry": carry,
            "after": after,
            "through": through,
        },
    )


def show(*, data_source_id: UUID, job_id: UUID, snapshot: int) -> Statement:
    """Make the job's walk valid from `snapshot` + 1. A full one ends all other loads of the source.

    Visible once `loads.count` raises the snapshot in the same transaction. One row {loads, items, errors}, as in
    `loads.show`. An increment that brought nothing is not shown at all.
    """
    return Statement(
        """
        with shown as (
            update load set valid_from = %(snapshot)s + 1
            where job_id = %(job_id)s and valid_from is null and emptied_at is null and loaded
              and (counters ->> 'walk' = 'full' or item_count > 0 or error_count > 0)
            returning id, path, etag, fingerprint, item_count, error_count, replacing_count,
                      counters ->> 'walk' = 'full' as is_full
        ), held as materialized (
            -- In path order, as a listing locks them: the two never deadlock. What is written below comes after this.
            select f.path, s.path is not null as is_walked from file f
            left join shown s on s.path = f.path
            where f.data_source_id = %(data_source_id)s
            order by f.path for no key update of f
        ), ended as (
            update load l set valid_to = %(snapshot)s + 1, closed_at = now()
            from shown s
            where s.is_full and l.data_source_id = %(data_source_id)s and l.id <> s.id
              and l.valid_from is not null and l.emptied_at is null and l.valid_to is null
        ), gain as (
            select s.is_full, s.id, s.etag, s.fingerprint,
                   s.item_count - case when s.is_full then t.item_count else s.replacing_count end as items,
                   s.error_count - case when s.is_full then t.error_count else 0 end as errors,
                   t.item_count, t.error_count
            from shown s, data_source_totals t where t.data_source_id = %(data_source_id)s
        ), written as (
            update file f set
                load_id = case when h.is_walked then g.id end,
                imported_etag = case when h.is_walked then g.etag end,
                imported_fingerprint = case when h.is_walked then g.fingerprint end,
                item_count = case when h.is_walked then g.item_count + g.items else 0 end,
                error_count = case when h.is_walked then g.error_count + g.errors else 0 end,
                state = case
                    when not h.is_walked then 'missing'
                    when g.item_count + g.items = 0 and g.error_count + g.errors > 0 then 'rejected'
                    else 'imported' end
            from held h, gain g
            where f.data_source_id = %(data_source_id)s and f.path = h.path and (h.is_walked or g.is_full)
        )
        select count(*) as loads, coalesce(sum(items), 0)::bigint as items, coalesce(sum(errors), 0)::bigint as errors
        from gain
        """,
        {"data_source_id": data_source_id, "job_id": job_id, "snapshot": snapshot},
    )


def sweepable(*, kept_seconds: int, limit: int) -> Statement:
    """Loads that were shown so long ago that nobody can see any more what they replaced, locked: rows {id}."""
    return Statement(
        """
        select l.id from load l
        left join job j on j.id = l.job_id
        where l.replacing_count > 0 and l.valid_from is not null
          and (j.id is null or j.finished_at < now() - make_interval(secs => %(kept_seconds)s))
        order by l.id limit %(limit)s for no key update of l skip locked
        """,
        {"kept_seconds": kept_seconds, "limit": limit},
    )


def sweep(load_ids: list[int], *, limit: int) -> Statement:
    """Delete up to `limit` records that these loads replaced: rows {load_id}, of the loads that held them."""
    return Statement(
        f"""
        with going as materialized (
            select ctid, load_id, record_number from item where replaced_by = any(%(load_ids)s) limit %(limit)s
        ), {DELETE_GOING} returning load_id
        """,
        {"load_ids": load_ids, "limit": limit},
    )


def mark_swept(load_ids: list[int]) -> Statement:
    """What these loads replaced is deleted."""
    return Statement("update load set replacing_count = 0 where id = any(%(load_ids)s)", {"load_ids": load_ids})


def close_hollow(load_ids: list[int]) -> Statement:
    """End those of these loads that hold nothing any more; the newest of a path stays, it knows the cursor."""
    return Statement(
        """
        update load l set valid_to = valid_from, closed_at = now(), emptied_at = now()
        where l.id = any(%(load_ids)s) and l.valid_from is not null and l.valid_to is null
          and l.error_count = 0 and l.replacing_count = 0
          and not exists (select from item i where i.load_id = l.id)
          and not exists (
              select from file f where f.data_source_id = l.data_source_id and f.path = l.path and f.load_id = l.id
          )
        """,
        {"load_ids": load_ids},
    )
