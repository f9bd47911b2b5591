"""Pages of what was brought in: items, rejects and files of one source, and the rejects of one job.

A page of items or rejects is of one moment: its rows carry the `snapshot` that they are live at. Put it into the cursor
together with the last row's keys and hand it back, and a walk through many pages never sees a later sync. What was
replaced is kept for `SNAPSHOT_KEPT_SECONDS`; a cursor older than that must be refused by the caller.

`data` of an item comes as JSON **text**: put it into the answer as it stands (`orjson.Fragment`). Parsed, numbers
beyond 64 bits or double precision would lose digits.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

from headwater.db import Statement

SNAPSHOT_KEPT_SECONDS: Final = 3600
"""How long a replaced load can still be read by a cursor that was made before."""

# At snapshot `n`: begun by then and not over yet. The first two are what the indexes hold.
_LIVE: Final = """
    l.valid_from is not null and l.emptied_at is null
    and l.valid_from <= coalesce(%(snapshot)s::int, t.snapshot)
    and (l.valid_to is null or l.valid_to > coalesce(%(snapshot)s::int, t.snapshot))
"""
# Over at snapshot `n` although its load is live: a later record with its key was shown by then.
_NOT_REPLACED: Final = """
    (item.replaced_by is null or coalesce(
        (select r.valid_from from load r where r.id = item.replaced_by) > coalesce(%(snapshot)s::int, t.snapshot), true
    ))
"""
_OF_SOURCE: Final = """
    from data_source_totals t
    join load l on l.data_source_id = t.data_source_id
"""


def items(
    *,
    organization_id: UUID,
    data_source_id: UUID,
    limit: int,
    snapshot: int | None = None,
    after_path: str | None = None,
    after_record_number: int = 0,
    path: str | None = None,
    job_id: UUID | None = None,
    created_after: datetime | None = None,
) -> Statement:
    """A page of live items in the order of (path, record_number), behind the given keys.

    Rows: {snapshot, load_id, path, record_number, data, job_id, created_at}. The item's id is
    `ids.pack(load_id, record_number)`; `created_at` is when its load began. `path` is an exact match.
    """
    # LATERAL, because a plain join would sort whole files for every page. Of several live loads of one path the later
    # has the higher record numbers: ordered by load as well, the sort stops with the load that fills the page.
    return Statement(
        f"""
        select coalesce(%(snapshot)s::int, t.snapshot) as snapshot, l.id as load_id, l.path, i.record_number,
               i.data::text as data, l.job_id, l.created_at
        {_OF_SOURCE}
        cross join lateral (
            select record_number, data from readable_item as item
            where item.load_id = l.id and {_NOT_REPLACED}
              and item.record_number > case
                  when l.path = %(after_path)s::text then %(after_record_number)s::bigint else 0 end
            order by record_number limit %(limit)s
        ) i
        where t.data_source_id = %(data_source_id)s and t.organization_id = %(organization_id)s
          and l.path >= coalesce(%(after_path)s::text, '')
          and (%(path)s::text is null or l.path = %(path)s::text)
          and (%(job_id)s::uuid is null or l.job_id = %(job_id)s::uuid)
          and (%(created_after)s::timestamptz is null or l.created_at > %(created_after)s::timestamptz)
          and l.item_count > 0 and {_LIVE}
        order by l.path, l.id, i.record_number limit %(limit)s
        """,
        {
            "organization_id": organization_id,
            "data_source_id": data_source_id,
            "limit": limit,
            "snapshot": snapshot,
            "after_path": after_path,
            "after_record_number": after_record_number,
            "path": path,
            "job_id": job_id,
            "created_after": created_after,
        },
    )


def item(*, organization_id: UUID, data_source_id: UUID, load_id: int, record_number: int) -> Statement:
    """One item that is live now; a row as in `items`, or none. The two numbers are `ids.unpack` of its id."""
    return Statement(
        f"""
        select t.snapshot, l.id as load_id, l.path, item.record_number, item.data::text as data, l.job_id, l.created_at
        {_OF_SOURCE}
        join readable_item as item on item.load_id = l.id
        where t.data_source_id = %(data_source_id)s and t.organization_id = %(organization_id)s
          and l.id = %(load_id)s and item.record_number = %(record_number)s and {_LIVE} and {_NOT_REPLACED}
        """,
        {
            "organization_id": organization_id,
            "data_source_id": data_source_id,
            "load_id": load_id,
            "record_number": record_number,
            "snapshot": None,
        },
    )


def rejects(
    *,
    organization_id: UUID,
    data_source_id: UUID,
    limit: int,
    snapshot: int | None = None,
    after_path: str | None = None,
    after_number: int = 0,
) -> Statement:
    """A page of the rejects of a source's live loads in the order of (path, number), behind the given keys.

    Rows: {snapshot, load_id, number, path, line, record_number, code, pointer, message, excerpt, job_id, created_at}.
    The reject's id is `ids.pack(load_id, number)`.
    """
    return Statement(
        f"""
        select coalesce(%(snapshot)s::int, t.snapshot) as snapshot, l.id as load_id, r.number, l.path, r.line,
               r.record_number, r.code, r.pointer, r.message, r.excerpt, l.job_id, l.created_at
        {_OF_SOURCE}
        cross join lateral (
            select * from readable_reject as reject
            where reject.load_id = l.id
              and reject.number > case when l.path = %(after_path)s::text then %(after_number)s::bigint else 0 end
            order by number limit %(limit)s
        ) r
        where t.data_source_id = %(data_source_id)s and t.organization_id = %(organization_id)s
          and l.path >= coalesce(%(after_path)s::text, '') and l.error_count > 0 and {_LIVE}
        order by l.path, r.number limit %(limit)s
        """,
        {
            "organization_id": organization_id,
            "data_source_id": data_source_id,
            "limit": limit,
            "snapshot": snapshot,
            "after_path": after_path,
            "after_number": after_number,
        },
    )


def rejects_of_job(
    *, organization_id: UUID, job_id: UUID, limit: int, after_load_id: int = 0, after_number: int = 0
) -> Statement:
    """A page of what one job refused, shown or not, in the order of (load_id, number), behind the given keys.

    Rows as in `rejects`, without `snapshot`.
    """
    return Statement(
        """
        select l.id as load_id, r.number, l.path, r.line, r.record_number, r.code, r.pointer, r.message, r.excerpt,
               l.job_id, l.created_at
        from load l
        cross join lateral (
            select * from readable_reject as reject
            where reject.load_id = l.id
              and reject.number > case when l.id = %(after_load_id)s then %(after_number)s::bigint else 0 end
            order by number limit %(limit)s
        ) r
        where l.job_id = %(job_id)s and l.organization_id = %(organization_id)s
          and l.id >= %(after_load_id)s and l.error_count > 0
        order by l.id, r.number limit %(limit)s
        """,
        {
            "organization_id": organization_id,
            "job_id": job_id,
            "limit": limit,
            "after_load_id": after_load_id,
            "after_number": after_number,
        },
    )


def files(
    *,
    organization_id: UUID,
    data_source_id: UUID,
    limit: int,
    after_path: str | None = None,
    prefix: str = "",
    state: str | None = None,
) -> Statement:
    """A page of a source's catalogue in the order of `path`, behind `after_path`.

    Rows: {path, size, etag, modified_at, state, item_count, error_count, csv, first_seen_at, last_seen_at}. `csv`: how
    the reading that is live read it, {delimiter, encoding, header}; null for other formats.
    """
    return Statement(
        """
        select path, size, etag, modified_at, state, item_count, error_count,
               (select l.counters -> 'csv' from load l where l.id = file.load_id) as csv, first_seen_at,
               coalesce(last_seen_at, greatest(first_seen_at, (
                   select seen_at from sighting where data_source_id = %(data_source_id)s
               ))) as last_seen_at
        from file
        where data_source_id = %(data_source_id)s and organization_id = %(organization_id)s
          and (%(after_path)s::text is null or path > %(after_path)s::text)
          and path >= %(prefix)s::text and (%(prefix_end)s::text is null or path < %(prefix_end)s::text)
          and starts_with(path, %(prefix)s::text)
          and (%(state)s::text is null or state = %(state)s::text)
        order by path limit %(limit)s
        """,
        {
            "organization_id": organization_id,
            "data_source_id": data_source_id,
            "limit": limit,
            "after_path": after_path,
            "prefix": prefix,
            "prefix_end": prefix_end(prefix),
            "state": state,
        },
    )


def prefix_end(prefix: str) -> str | None:
    """The first text, in byte order, behind all that start with `prefix`; None if nothing is."""
    for at in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[at])
        if code < 0x10FFFF:
            # U+D800 to U+DFFF are no characters.
            return prefix[:at] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None
