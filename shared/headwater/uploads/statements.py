"""How an upload gets from one state to the next.

    receiving ──store──▶ stored ──replaced, deleted──▶ dropped ──bytes deleted──▶ no row
    partial ──(more parts)──▶ partial ──store──▶ stored
    receiving, partial ──given up──▶ dropped

A key stands in its row, committed, before its first byte is written, and the row outlives the bytes: whatever dies in
between, somebody still knows what to delete.
"""

from typing import Any
from uuid import UUID

from headwater.db import Statement, json

KEPT_AFTER_DROP_SECONDS = 3600
"""Bytes of a replaced file stay for those who read them."""


def source(*, organization_id: UUID, project_id: UUID, data_source_id: UUID, without: str | None = None) -> Statement:
    """The live source that an upload is for: type, config, and the bytes that its organization holds and may hold.

    `may_hold` is null where the organization has no limit of its own.

    `without`: the source's own file of this name is not counted, for it will be replaced.
    """
    return Statement(
        """
        select s.type, v.config, o.upload_bytes_limit as may_hold, (
            select coalesce(sum(greatest(u.size, u.total)), 0)::bigint from upload u
            where u.organization_id = s.organization_id and u.state <> 'dropped'
              and (%(without)s::text is null or u.data_source_id is distinct from s.id or u.name <> %(without)s)
        ) as held_bytes
        from data_source s
        join data_source_version v on v.data_source_id = s.id and v.version = s.version
        join organization o on o.id = s.organization_id
        where s.id = %(data_source_id)s and s.project_id = %(project_id)s and s.organization_id = %(organization_id)s
          and s.deleted_at is null
        """,
        {
            "organization_id": organization_id,
            "project_id": project_id,
            "data_source_id": data_source_id,
            "without": without,
        },
    )


def begin(
    *,
    upload_id: UUID,
    organization_id: UUID,
    data_source_id: UUID,
    name: str,
    content_type: str,
    key: UUID,
    created_by: UUID,
) -> Statement:
    """A file that one request brings, its bytes under `key`."""
    return Statement(
        """
        insert into upload (id, organization_id, data_source_id, name, state, content_type, keys, created_by)
        values (%(id)s, %(organization_id)s, %(data_source_id)s, %(name)s, 'receiving', %(content_type)s,
                array[%(key)s::uuid], %(created_by)s)
        """,
        {
            "id": upload_id,
            "organization_id": organization_id,
            "data_source_id": data_source_id,
            "name": name,
            "content_type": content_type,
            "key": key,
            "created_by": created_by,
        },
    )


def begin_partial(*, total: int, **first: Any) -> Statement:
    """A file that several requests bring, from its first byte on; what was there of it is forgotten. Row: {id}."""
    return Statement(
        """
        insert into upload as u (id, organization_id, data_source_id, name, state, total, content_type, keys, writer,
                                 created_by)
        values (%(upload_id)s, %(organization_id)s, %(data_source_id)s, %(name)s, 'partial', %(total)s,
                %(content_type)s, array[%(key)s::uuid], %(key)s, %(created_by)s)
        on conflict (data_source_id, name) where state = 'partial' do update set
            size = 0, segments = '[]', total = excluded.total, content_type = excluded.content_type,
            keys = u.keys || excluded.keys, writer = excluded.writer, created_by = excluded.created_by,
            updated_at = now()
        returning id
        """,
        {**first, "total": total},
    )


def go_on(*, data_source_id: UUID, name: str, start: int, total: int, key: UUID) -> Statement:
    """The next part of a partial file, under `key`. Row: {id}; none if it does not go on from `start`.

    Whoever comes last writes: an earlier request of the same part may have been cut off without the server knowing.
    """
    return Statement(
        """
        update upload set writer = %(key)s, keys = keys || %(key)s::uuid, updated_at = now()
        where data_source_id = %(data_source_id)s and name = %(name)s and state = 'partial'
          and size = %(start)s and total = %(total)s and cardinality(keys) < 10000
        returning id
        """,
        {"data_source_id": data_source_id, "name": name, "start": start, "total": total, "key": key},
    )


def add_segment(*, upload_id: UUID, key: UUID, size: int) -> Statement:
    """The bytes under `key` are kept, and belong to the file. Row: {size, total}; none if another request took over."""
    return Statement(
        """
        update upload set size = size + %(size)s, writer = null, updated_at = now(), segments = segments || %(segment)s
        where id = %(id)s and state = 'partial' and writer = %(key)s
        returning size, total
        """,
        {"id": upload_id, "key": key, "size": size, "segment": json([{"key": key.hex, "size": size}])},
    )


def partial(*, data_source_id: UUID, name: str) -> Statement:
    """The partial file of this name: {id, size, total, keys, segments}."""
    return Statement(
        """
        select id, size, total, keys, segments from upload
        where data_source_id = %(data_source_id)s and name = %(name)s and state = 'partial'
        """,
        {"data_source_id": data_source_id, "name": name},
    )


def touch(upload_id: UUID) -> Statement:
    """Say that the request is alive. Row: {id}; none if the upload was given up."""
    return Statement(
        """
        update upload set updated_at = now() where id = %(id)s and state in ('receiving', 'partial') returning id
        """,
        {"id": upload_id},
    )


def drop_named(*, data_source_id: UUID, name: str, states: list[str]) -> Statement:
    """The file of this name is there no more: a row for each that was dropped."""
    return Statement(
        """
        update upload set state = 'dropped', updated_at = now()
        where data_source_id = %(data_source_id)s and name = %(name)s and state = any(%(states)s)
        returning id
        """,
        {"data_source_id": data_source_id, "name": name, "states": states},
    )


def store(*, upload_id: UUID, size: int, sha256: str, segments: list[dict[str, Any]]) -> Statement:
    """What everybody sees from now on; drop the former one first. Row: {id}; none if it was given up meanwhile."""
    return Statement(
        """
        update upload set state = 'stored', size = %(size)s, total = null, sha256 = %(sha256)s,
            etag = left(%(sha256)s, 32), segments = %(segments)s, writer = null, updated_at = now()
        where id = %(id)s and state in ('receiving', 'partial')
        returning id
        """,
        {"id": upload_id, "size": size, "sha256": sha256, "segments": json(segments)},
    )


def forget(upload_ids: list[UUID]) -> Statement:
    """Rows whose bytes are deleted."""
    return Statement("delete from upload where id = any(%(ids)s) and state <> 'stored'", {"ids": upload_ids})


def give_up(*, receiving_seconds: int, partial_seconds: int, retention_days: int) -> Statement:
    """Drop what nobody brings to an end, what belongs to a source that was deleted that long ago, or to none."""
    return Statement(
        """
        update upload set state = 'dropped', updated_at = now() where id = any(array(
            select u.id from upload u left join data_source s on s.id = u.data_source_id
            where u.state <> 'dropped' and (
                (u.state = 'receiving' and u.updated_at < now() - make_interval(secs => %(receiving_seconds)s))
                or (u.state = 'partial' and u.updated_at < now() - make_interval(secs => %(partial_seconds)s))
                or s.id is null
                or s.deleted_at < now() - make_interval(days => %(retention_days)s)
            )
            limit 1000
        ))
        """,
        {
            "receiving_seconds": receiving_seconds,
            "partial_seconds": partial_seconds,
            "retention_days": retention_days,
        },
    )


def leaving(*, limit: int) -> Statement:
    """Dropped files that nobody can be reading any more: {id, keys}, the oldest first."""
    return Statement(
        """
        select id, keys from upload
        where state = 'dropped' and updated_at < now() - make_interval(secs => %(kept_seconds)s)
        order by updated_at limit %(limit)s
        """,
        {"kept_seconds": KEPT_AFTER_DROP_SECONDS, "limit": limit},
    )
