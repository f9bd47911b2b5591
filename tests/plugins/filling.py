"""A database as months of use leave it, by set statements: rows as the product writes them, every job ended.

Everything follows from numbers: job 17 is of source 17, file 17 too.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Final, LiteralString
from uuid import UUID

import psycopg

from headwater import db
from headwater.db import Connection


@dataclass(frozen=True)
class Sizes:
    """How much of everything, in numbers that ten divides.

    The first organization has seven of ten sources, `organizations` smaller ones share the rest. Source 0 has the
    jobs and files of many. `files` were imported: each has a reject, and nine others were only listed.
    """

    organizations: int
    sources: int
    jobs: int
    files: int
    items_per_file: int = 100


@dataclass(frozen=True)
class Owner:
    """The first organization, as it was made: a member and a project of its."""

    organization_id: UUID
    member_id: UUID
    project_id: UUID


def fill(url: str, sizes: Sizes, owner: Owner) -> None:
    """Fill an empty database; `url` is the superuser's."""
    parameters = asdict(sizes) | asdict(owner)
    _run(url, _GROUND, parameters)
    with _connect(url) as connection:
        indexes = _drop_indexes(connection)
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda part: _run(url, part, parameters), (_ITEMS, _JOBS, _AUDIT_LOG)))
            list(threads.map(lambda index: _run(url, (index,), {}), indexes))
        connection.execute("drop schema filling cascade")
        connection.execute("vacuum analyze")


def _drop_indexes(connection: Connection) -> list[LiteralString]:
    """All but those of constraints: made again at the end, they take a third of the time. Returns how to make them."""
    found = connection.execute(
        """
        select indexname, indexdef from pg_indexes
        where schemaname = 'public' and indexname not in (select conname from pg_constraint)
        """
    ).fetchall()
    for row in found:
        connection.execute(f"drop index {row['indexname']}")
    return [row["indexdef"] for row in found]


def _connect(url: str) -> Connection:
    connection = db.connect(url, application="bench")
    # No foreign key is looked up and no trigger fires: what they hold, and do, is written here.
    connection.execute("set session_replication_role = replica")
    connection.execute("set synchronous_commit = off")
    connection.execute("set maintenance_work_mem = '512MB'")
    return connection


def _run(url: str, statements: tuple[LiteralString, ...], parameters: dict[str, object]) -> None:
    with _connect(url) as connection:
        for statement in statements:
            psycopg.ClientCursor(connection).execute(statement, parameters)


_GROUND: Final[tuple[LiteralString, ...]] = (
    "create schema filling",
    # Version 7, as the product makes them: the moment comes first.
    """
    create function filling.id(moment timestamptz, kind text, number bigint) returns uuid language sql immutable
    return (
        lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '7'
        || substr(md5(kind || number), 1, 3) || 'a' || substr(md5(kind || number), 4, 15)
    )::uuid
    """,
    """
    create table filling.tenant as
    select n as number, filling.id(now(), 'organization', n) as id, filling.id(now(), 'project', n) as project_id,
           filling.id(now(), 'member', n) as member_id
    from generate_series(1, %(organizations)s) n
    union all select 0, %(organization_id)s, %(project_id)s, %(member_id)s
    """,
    "insert into organization (id, name) select id, 'Tenant ' || number from filling.tenant where number > 0",
    """
    insert into member (id, organization_id, email, name, role)
    select member_id, id, 'ada@' || number || '.example.com', 'Ada', 'admin' from filling.tenant where number > 0
    """,
    """
    insert into project (id, organization_id, name, created_by)
    select project_id, id, 'Main', member_id from filling.tenant where number > 0
    """,
    """
    insert into project (id, organization_id, name, created_by)
    select filling.id(now(), 'folder', n), %(organization_id)s, 'Folder ' || n, %(member_id)s
    from generate_series(1, 19) n
    """,
    """
    create table filling.source as
    select s as number, filling.id(m.moment, 'source', s) as id, m.moment, t.id as organization_id, t.member_id,
           case when t.number = 0 and mod(s, 20) > 0
               then filling.id(now(), 'folder', mod(s, 20)) else t.project_id end as project_id,
           (array['s3', 'gcs', 'api', 'azure_blob'])[1 + mod(s, 4)] as type
    from generate_series(0, %(sources)s - 1) s
    cross join lateral (select now() - interval '81 days' + s * interval '1 second' as moment) m
    join filling.tenant t on t.number = case
        when mod(s, 10) < 7 or %(organizations)s = 0 then 0 else 1 + mod(s, greatest(1, %(organizations)s)) end
    """,
    """
    insert into data_source
        (id, organization_id, project_id, name, type, tags, env, created_by, updated_by, created_at, updated_at)
    select id, organization_id, project_id, 'source-' || md5(number::text), type, array['team-' || mod(number, 50)],
           (array['production', 'staging'])[1 + mod(number, 2)], member_id, member_id, moment,
           moment + mod(number, 977) * interval '1 hour'
    from filling.source
    """,
    """
    insert into data_source_version (data_source_id, version, organization_id, config, validation, reading)
    select id, 1, organization_id, jsonb_build_object(
        'type', type, 'bucket', 'customer-bucket-' || number, 'region', 'eu-central-1', 'prefix', 'exports/daily/'
    ), '{"mode": "lenient"}', '{"format": "jsonl"}' from filling.source
    """,
    """
    insert into data_source_totals
        (data_source_id, organization_id, snapshot, item_count, error_count, last_sync_at, status,
         status_access_revision, last_test_success, last_test_job_id, last_test_at)
    select id, organization_id, 1, mod(number * 37, 4999), mod(number, 97),
           now() - mod(number * 31, 9973) * interval '1 minute', case when mod(number, 50) = 0 then 'failing'
           else 'ready' end, 1, true, id, moment
    from filling.source
    """,
    """
    insert into sealed_credential (subject_id, field, organization_id, ciphertext, suite, key_id)
    select s.id, f.field, s.organization_id, decode(repeat(md5(s.number || f.field), 70), 'hex'), 'filled',
           (select id from organization_key limit 1)
    from filling.source s cross join (values ('access_key_id'), ('secret_access_key')) f (field)
    """,
    """
    insert into webhook (id, organization_id, url, created_at)
    values (filling.id(now(), 'hook', 0), %(organization_id)s, 'https://hooks.example.com/', now())
    """,
    """
    create unlogged table filling.job as
    select n, filling.id(m.moment, 'job', n) as id, m.moment, s.organization_id, s.project_id, s.id as source_id,
           s.member_id, (array['connection_test', 'connection_test', 'connection_test', 'sync', 'file_listing'])[
               1 + mod(n / 3, 5)] as kind,
           case when mod(n, 1000) = 7 then 'cancelled' when mod(n, 50) = 1 then 'failed'
               when mod(n, 90) = 2 then 'partially_succeeded' else 'succeeded' end as status
    from generate_series(1, %(jobs)s) n
    cross join lateral (
        -- The first ten are so old that they are pruned.
        select case when n <= 10 then now() - interval '91 days'
            else now() - interval '80 days' + n * (interval '79 days' / %(jobs)s) end as moment
    ) m
    join filling.source s on s.number = case when mod(n, 21) = 0 then 0 else mod(n, %(sources)s) end
    order by n
    """,
    "analyze filling.job",
)

_JOBS: Final[tuple[LiteralString, ...]] = (
    """
    insert into job
        (id, organization_id, project_id, data_source_id, kind, queue, config_version, access_revision, status, run_at,
         attempt, max_attempts, deadline_seconds, deadline_at, created_by, request_id, result, error, created_at,
         started_at, finished_at, tallied)
    select id, organization_id, project_id, source_id, kind, case kind when 'sync' then 'bulk' else 'interactive' end,
           1, 1, status, moment, 1, 3, 25, moment + interval '26 seconds', member_id, md5(n::text),
           case kind
               when 'sync' then '{"item_count": 1000, "error_count": 10, "duration_ms": 1234}'
               else jsonb_build_object('success', true, 'message', 'All checks passed.', 'latency_ms', 123, 'checks', (
                   select jsonb_agg(jsonb_build_object('name', c, 'status', 'passed', 'code', null, 'hint', null,
                       'message', 'The ' || c || ' of the source is as it should be.', 'duration_ms', mod(n, 90)))
                   from unnest(array['config', 'resolve', 'egress', 'connect', 'authenticate', 'target', 'list']) c
               ))
           end,
           case when status = 'failed' then '{"code": "timeout", "message": "It did not answer.", "retryable": true}'
               ::jsonb end,
           moment, moment + interval '1 second', moment + interval '3 seconds', true
    from filling.job order by n
    """,
    """
    insert into job_attempt
        (job_id, attempt, organization_id, token, worker, started_at, ended_at, outcome, tallied)
    select id, 1, organization_id, filling.id(moment, 'token', n), 'interactive@worker-1:4711',
           moment + interval '1 second', moment + interval '3 seconds', status, true
    from filling.job order by n
    """,
    """
    insert into job_progress (job_id, organization_id, phase, current, total, unit, percent, counters, updated_at)
    select id, organization_id, 'done', 1000, 1000, 'records', 100, case kind when 'sync' then
        '{"listed": 9, "matched": 9, "new": 1, "changed": 0, "unchanged": 8, "missing": 0, "skipped": 0, "parsed": 1000,
          "valid": 990, "rejected": 10, "landed": 990, "bytes_read": 123456, "skipped_by": {}}'::jsonb
        else '{}' end, moment + interval '3 seconds'
    from filling.job order by n
    """,
    """
    insert into event (id, organization_id, data_source_id, job_id, act, actor_id, details, created_at)
    select filling.id(moment, e.act, n), organization_id, source_id, id,
           case e.act when 'ended' then 'job.' || status else 'job.' || e.act end,
           case e.act when 'submitted' then member_id end,
           jsonb_build_object('kind', kind, 'status', case e.act when 'ended' then status else e.act end, 'attempt', 1),
           moment + e.after
    from filling.job cross join (
        values ('submitted', interval '0'), ('started', interval '1 second'), ('ended', interval '3 seconds')
    ) e (act, after)
    order by n
    """,
    """
    insert into webhook_delivery
        (organization_id, webhook_id, type, job_id, data, status, attempt, tries, next_at, status_code, created_at,
         ended_at)
    select organization_id, (select id from webhook), 'job.succeeded', id, jsonb_build_object(
               'id', id, 'kind', kind, 'status', status, 'project_id', project_id, 'data_source_id', source_id,
               'finished_at', moment, 'error_code', null
           ), 'succeeded', 1, 1, moment, 200, moment, moment
    from filling.job where organization_id = %(organization_id)s and moment > now() - interval '29 days' order by n
    """,
    """
    insert into webhook_attempt (delivery_id, attempt, organization_id, started_at, duration_ms, status_code)
    select id, 1, organization_id, created_at, 80, 200 from webhook_delivery
    """,
    """
    insert into job_summary
        (id, organization_id, project_id, data_source_id, kind, status, created_at, finished_at)
    select filling.id(moment, 'pruned', n), organization_id, project_id, source_id, kind, status,
           moment - interval '90 days', moment - interval '90 days'
    from filling.job where mod(n, 5) = 0 order by n
    """,
    """
    insert into idempotency_record (organization_id, actor_id, route, key, fingerprint, status, subject_id, created_at)
    select organization_id, member_id, 'POST /data-sources/test', md5(n::text), sha256(n::text::bytea), 202, id, now()
    from filling.job where mod(n, 80) = 0
    """,
)

_AUDIT_LOG: Final[tuple[LiteralString, ...]] = (
    # A job is submitted by somebody, and opens the credentials of its source.
    """
    insert into audit_entry
        (id, organization_id, actor_id, act, subject_id, request_id, address, details, created_at, xid)
    select filling.id(moment, e.act, n), organization_id, case e.act when 'job.submit' then member_id end, e.act,
           case e.act when 'job.submit' then id else source_id end, md5(n::text), '192.0.2.1',
           jsonb_build_object('kind', kind, 'data_source_id', source_id, 'job_id', id), moment, '3'
    from filling.job cross join (values ('job.submit'), ('credentials.unseal')) e (act)
    order by n
    """,
    """
    insert into audit_chain (organization_id, seq, entry_id, hash)
    select organization_id, row_number() over (partition by organization_id order by number), id, sha256(uuid_send(id))
    from audit_entry
    """,
    """
    update audit_horizon set xid = pg_snapshot_xmin(pg_current_snapshot()), system_identifier = (
        select system_identifier from pg_control_system()
    )
    """,
)

_ITEMS: Final[tuple[LiteralString, ...]] = (
    """
    create unlogged table filling.file as
    select f as n, s.id as source_id, s.organization_id, s.number as source_number,
           'exports/daily/part-' || lpad(f::text, 9, '0') || '.jsonl' as path
    from generate_series(1, %(files)s * 10) f
    join filling.source s on s.number = case when mod(f, 11) = 0 then 0 else mod(f, %(sources)s) end
    order by f
    """,
    "analyze filling.file",
    """
    insert into load
        (id, organization_id, data_source_id, job_id, path, etag, fingerprint, loaded, valid_from, item_count,
         error_count, counters)
    overriding system value
    select f.n, f.organization_id, f.source_id, j.id, f.path, md5(f.n::text), 'a fingerprint', true, 1,
           %(items_per_file)s, 1,
           '{"was": "new", "parsed": 101, "valid": 100}'
           || case when mod(f.n, 10) = 1 then '{"key": ["id"]}'::jsonb else '{}' end
    from filling.file f
    join filling.job j on j.n = case
        when f.source_number = 0 then 21
        when mod(f.source_number, 21) = 0 then f.source_number + %(sources)s
        else f.source_number end
    where f.n <= %(files)s order by f.n
    """,
    "select setval('load_id_seq', %(files)s)",
    """
    insert into file
        (data_source_id, path, organization_id, size, etag, modified_at, state, imported_etag, imported_fingerprint,
         load_id, item_count, error_count)
    select source_id, path, organization_id, 12345 + n, md5(n::text), now(),
           case when n <= %(files)s then 'imported' else 'new' end,
           case when n <= %(files)s then md5(n::text) end, case when n <= %(files)s then 'a fingerprint' end,
           case when n <= %(files)s then n end, case when n <= %(files)s then %(items_per_file)s else 0 end,
           case when n <= %(files)s then 1 else 0 end
    from filling.file
    """,
    """
    insert into reject (load_id, number, line, record_number, code, pointer, message, excerpt)
    select n, 1, 1, 1, 'invalid', '/amount', 'This is not of type "number".', repeat('{"amount": "many"} ', 5)
    from filling.file where n <= %(files)s
    """,
    """
    insert into item (load_id, record_number, data)
    select l, r, jsonb_build_object('id', l * 100 + r, 'name', md5(r::text), 'amount', r * 1.25, 'currency', 'EUR',
                                    'at', '2026-01-01T00:00:00Z', 'tags', '["a", "b"]'::jsonb)
    from generate_series(1, %(files)s) l cross join generate_series(1, %(items_per_file)s) r
    """,
    """
    insert into item_key (data_source_id, key, load_id, record_number)
    select f.source_id, (f.n * 100 + r)::text, f.n, r
    from filling.file f cross join generate_series(1, %(items_per_file)s) r where f.n <= %(files)s and mod(f.n, 10) = 1
    order by 1, 2
    """,
)
