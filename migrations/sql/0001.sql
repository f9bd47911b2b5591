-- Headwater's first schema. Tables are declared again as SQLModel rows; `alembic check` holds the two together.

-- UUID version 7 (RFC 9562): Postgres has it from 18 on, Headwater runs from 15 on.
create function uuid_v7() returns uuid language sql volatile as $$
    select encode(
        set_bit(
            set_bit(
                overlay(
                    uuid_send(gen_random_uuid())
                    placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                    from 1 for 6
                ),
                52, 1
            ),
            53, 1
        ),
        'hex'
    )::uuid
$$;

create table organization (
    id uuid not null,
    name text not null,
    running_limit integer,
    created_at timestamptz default now() not null,
    suspended_at timestamptz,
    constraint pk_organization primary key (id)
);

create table member (
    id uuid not null,
    organization_id uuid not null,
    email text not null,
    name text not null,
    role text not null,
    created_at timestamptz default now() not null,
    removed_at timestamptz,
    constraint pk_member primary key (id),
    constraint ck_member_role check (role in ('admin', 'operator', 'viewer')),
    constraint fk_member_organization_id foreign key(organization_id) references organization (id) on delete cascade
);
create unique index uq_member_email on member (organization_id, lower(email)) where removed_at is null;

create table api_key (
    id uuid not null,
    organization_id uuid not null,
    member_id uuid not null,
    name text not null,
    role text not null,
    secret_hash bytea not null,
    project_ids uuid[],
    created_at timestamptz default now() not null,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    constraint pk_api_key primary key (id),
    constraint ck_api_key_role check (role in ('admin', 'operator', 'viewer')),
    constraint fk_api_key_organization_id foreign key(organization_id) references organization (id) on delete cascade,
    constraint fk_api_key_member_id foreign key(member_id) references member (id) on delete cascade
);
create index ix_api_key_organization_id on api_key (organization_id);

create table organization_key (
    id uuid not null,
    organization_id uuid not null,
    suite text not null,
    public_key bytea not null,
    created_at timestamptz default now() not null,
    retired_at timestamptz,
    constraint pk_organization_key primary key (id),
    constraint fk_organization_key_organization_id foreign key(organization_id) references organization (id) on delete cascade
);
create index ix_organization_key_organization_id on organization_key (organization_id);

create table organization_private_key (
    key_id uuid not null,
    provider text not null,
    wrapped bytea not null,
    created_at timestamptz default now() not null,
    constraint pk_organization_private_key primary key (key_id),
    constraint fk_organization_private_key_key_id foreign key(key_id) references organization_key (id) on delete cascade
);

create table sealed_credential (
    subject_id uuid not null,
    field text not null,
    organization_id uuid not null,
    ciphertext bytea not null,
    suite text not null,
    key_id uuid not null,
    created_at timestamptz default now() not null,
    rotated_at timestamptz,
    constraint pk_sealed_credential primary key (subject_id, field),
    constraint fk_sealed_credential_organization_id foreign key(organization_id) references organization (id) on delete cascade,
    constraint fk_sealed_credential_key_id foreign key(key_id) references organization_key (id)
);
create index ix_sealed_credential_organization_id on sealed_credential (organization_id);

create table audit_entry (
    id uuid not null default uuid_v7(),
    number bigint generated always as identity,
    organization_id uuid not null,
    actor_id uuid,
    act text not null,
    subject_id uuid,
    request_id text,
    address text,
    fields text[] default '{}' not null,
    details jsonb,
    created_at timestamptz default now() not null,
    constraint pk_audit_entry primary key (id)
);
create index ix_audit_entry_organization_id_id on audit_entry (organization_id, id);

create table idempotency_record (
    organization_id uuid not null,
    actor_id uuid not null,
    route text not null,
    key text not null,
    fingerprint bytea not null,
    status integer,
    body jsonb,
    headers jsonb,
    subject_id uuid,
    created_at timestamptz default now() not null,
    constraint pk_idempotency_record primary key (organization_id, actor_id, route, key),
    constraint fk_idempotency_record_organization_id foreign key(organization_id) references organization (id) on delete cascade
);
create index ix_idempotency_record_created_at on idempotency_record (created_at);

create table project (
    id uuid not null,
    organization_id uuid not null,
    name text not null,
    description text not null default '',
    revision integer default 1 not null,
    created_by uuid,
    updated_by uuid,
    created_at timestamptz default now() not null,
    updated_at timestamptz default now() not null,
    deleted_at timestamptz,
    constraint pk_project primary key (id),
    constraint fk_project_organization_id foreign key(organization_id) references organization (id) on delete cascade,
    constraint fk_project_created_by foreign key(created_by) references member (id),
    constraint fk_project_updated_by foreign key(updated_by) references member (id)
);
create index ix_project_page on project (organization_id, created_at, id) where deleted_at is null;
create unique index uq_project_name on project (organization_id, name) where deleted_at is null;

create table data_source (
    id uuid not null,
    organization_id uuid not null,
    project_id uuid not null,
    name text not null,
    description text not null default '',
    env text not null default 'production',
    tags text[] default '{}' not null,
    owner_id uuid,
    type text not null,
    is_active boolean default true not null,
    version integer default 1 not null,
    revision integer default 1 not null,
    access_revision integer default 1 not null,
    created_by uuid,
    updated_by uuid,
    created_at timestamptz default now() not null,
    updated_at timestamptz default now() not null,
    deleted_at timestamptz,
    constraint pk_data_source primary key (id),
    constraint fk_data_source_organization_id foreign key(organization_id) references organization (id) on delete cascade,
    constraint fk_data_source_project_id foreign key(project_id) references project (id) on delete cascade,
    constraint fk_data_source_owner_id foreign key(owner_id) references member (id),
    constraint fk_data_source_created_by foreign key(created_by) references member (id),
    constraint fk_data_source_updated_by foreign key(updated_by) references member (id)
);
create index ix_data_source_page on data_source (organization_id, created_at, id) where deleted_at is null;
create index ix_data_source_project on data_source (project_id, created_at, id) where deleted_at is null;
create unique index uq_data_source_name on data_source (project_id, env, name) where deleted_at is null;

create table data_source_version (
    data_source_id uuid not null,
    version integer not null,
    organization_id uuid not null,
    config jsonb not null,
    validation jsonb not null,
    reading jsonb not null,
    created_by uuid,
    created_at timestamptz default now() not null,
    constraint pk_data_source_version primary key (data_source_id, version),
    constraint fk_data_source_version_data_source_id foreign key(data_source_id) references data_source (id) on delete cascade,
    constraint fk_data_source_version_organization_id foreign key(organization_id) references organization (id) on delete cascade
);

create table data_source_totals (
    data_source_id uuid not null,
    organization_id uuid not null,
    snapshot integer default 0 not null,
    item_count bigint default 0 not null,
    error_count bigint default 0 not null,
    last_sync_at timestamptz,
    status text,
    status_reason text,
    status_access_revision integer,
    last_test_success boolean,
    last_test_job_id uuid,
    last_test_at timestamptz,
    constraint pk_data_source_totals primary key (data_source_id),
    constraint ck_data_source_totals_status check (status in ('ready', 'failing')),
    constraint fk_data_source_totals_data_source_id foreign key(data_source_id) references data_source (id) on delete cascade,
    constraint fk_data_source_totals_organization_id foreign key(organization_id) references organization (id) on delete cascade
);

create table event (
    id uuid not null default uuid_v7(),
    number bigint generated always as identity,
    organization_id uuid not null,
    data_source_id uuid,
    job_id uuid,
    act text not null,
    actor_id uuid,
    details jsonb default '{}' not null,
    created_at timestamptz default now() not null,
    constraint pk_event primary key (id),
    constraint fk_event_organization_id foreign key(organization_id) references organization (id) on delete cascade,
    constraint fk_event_data_source_id foreign key(data_source_id) references data_source (id) on delete cascade
);
create index ix_event_data_source_id_number on event (data_source_id, number);
create index ix_event_job_id_number on event (job_id, number) where job_id is not null;

create table upload (
    id uuid not null,
    organization_id uuid not null,
    data_source_id uuid,
    name text collate "C" not null,
    state text not null,
    size bigint default 0 not null,
    total bigint,
    sha256 text,
    content_type text not null,
    etag text,
    keys uuid[] not null,
    segments jsonb default '[]' not null,
    writer uuid,
    created_by uuid,
    created_at timestamptz default now() not null,
    updated_at timestamptz default now() not null,
    constraint pk_upload primary key (id),
    constraint ck_upload_state check (state in ('receiving', 'partial', 'stored', 'dropped')),
    constraint fk_upload_data_source_id foreign key(data_source_id) references data_source (id) on delete set null
);
create unique index uq_upload_stored on upload (data_source_id, name) where state = 'stored';
create unique index uq_upload_partial on upload (data_source_id, name) where state = 'partial';
create index ix_upload_held on upload (organization_id) where state <> 'dropped';
create index ix_upload_leaving on upload (updated_at) where state <> 'stored';

create table file (
    data_source_id uuid not null,
    path text collate "C" not null,
    organization_id uuid not null,
    size bigint,
    etag text,
    modified_at timestamptz,
    state text not null default 'new',
    imported_etag text,
    imported_fingerprint text,
    load_id bigint,
    item_count bigint default 0 not null,
    error_count bigint default 0 not null,
    first_seen_at timestamptz default now() not null,
    last_seen_at timestamptz default now() not null,
    constraint pk_file primary key (data_source_id, path),
    constraint ck_file_state check (state in ('new', 'changed', 'imported', 'rejected', 'missing')),
    constraint fk_file_data_source_id foreign key(data_source_id) references data_source (id) on delete cascade
);
create index ix_file_data_source_id_state_path on file (data_source_id, state, path);

create table load (
    id bigint generated always as identity,
    organization_id uuid not null,
    data_source_id uuid not null,
    job_id uuid not null,
    path text collate "C" not null,
    etag text,
    fingerprint text not null,
    loaded boolean default false not null,
    valid_from integer,
    valid_to integer,
    item_count bigint default 0 not null,
    error_count bigint default 0 not null,
    error_summary jsonb default '[]' not null,
    counters jsonb default '{}' not null,
    replacing_count bigint default 0 not null,
    created_at timestamptz default now() not null,
    closed_at timestamptz,
    emptied_at timestamptz,
    constraint pk_load primary key (id),
    constraint fk_load_data_source_id foreign key(data_source_id) references data_source (id) on delete cascade
);
create index ix_load_job on load (job_id, id);
create index ix_load_path on load (data_source_id, path, id) where valid_from is not null and emptied_at is null;
create index ix_load_refused on load (data_source_id, path, id) where valid_from is not null and emptied_at is null and error_count > 0;
create index ix_load_job_refused on load (job_id, id) where error_count > 0;
create index ix_load_pending on load (job_id) where valid_from is null and emptied_at is null;
create index ix_load_closed on load (closed_at) where closed_at is not null and emptied_at is null;
create index ix_load_emptied on load (job_id) where emptied_at is not null;
create index ix_load_replacing on load (id) where replacing_count > 0;

create table item (
    load_id bigint not null,
    record_number bigint not null,
    data jsonb not null,
    replaced_by bigint,
    constraint pk_item primary key (load_id, record_number)
);
create index ix_item_replaced on item (replaced_by) where replaced_by is not null;

create table item_key (
    data_source_id uuid not null,
    key text collate "C" not null,
    load_id bigint not null,
    record_number bigint not null,
    constraint pk_item_key primary key (data_source_id, key, load_id)
);

create table reject (
    load_id bigint not null,
    number bigint not null,
    line bigint,
    record_number bigint,
    code text not null,
    pointer text,
    message text not null,
    excerpt text,
    constraint pk_reject primary key (load_id, number)
);

create table job (
    id uuid not null,
    organization_id uuid not null,
    project_id uuid not null,
    data_source_id uuid,
    kind text not null,
    queue text not null,
    params jsonb default '{}' not null,
    draft jsonb,
    config_version integer,
    access_revision integer,
    status text not null default 'queued',
    priority smallint default 0 not null,
    run_at timestamptz default now() not null,
    rung_at timestamptz,
    attempt smallint default 0 not null,
    max_attempts smallint not null,
    crashes smallint default 0 not null,
    interruptions smallint default 0 not null,
    deadline_seconds integer not null,
    deadline_at timestamptz,
    created_by uuid,
    request_id text,
    retry_of uuid,
    cancel_requested_by uuid,
    cancel_requested_at timestamptz,
    cancel_reason text,
    result jsonb,
    error jsonb,
    created_at timestamptz default now() not null,
    started_at timestamptz,
    finished_at timestamptz,
    constraint pk_job primary key (id),
    constraint ck_job_status check (status in ('queued', 'running', 'cancelling', 'succeeded', 'partially_succeeded', 'failed', 'cancelled')),
    constraint ck_job_source check (data_source_id is not null or draft is not null),
    constraint fk_job_organization_id foreign key(organization_id) references organization (id) on delete cascade,
    constraint fk_job_project_id foreign key(project_id) references project (id) on delete cascade,
    constraint fk_job_data_source_id foreign key(data_source_id) references data_source (id) on delete cascade,
    constraint fk_job_created_by foreign key(created_by) references member (id),
    constraint fk_job_cancel_requested_by foreign key(cancel_requested_by) references member (id)
);
create index ix_job_live on job (organization_id, queue) where status in ('running', 'cancelling');
create index ix_job_page on job (organization_id, created_at, id);
create index ix_job_queued on job (queue, organization_id, priority desc, created_at, id) where status = 'queued';
create index ix_job_source on job (data_source_id, created_at, id);
create unique index uq_job_one_live_sync on job (data_source_id) where kind = 'sync' and status in ('queued', 'running', 'cancelling');

create table job_lease (
    job_id uuid not null,
    token uuid not null,
    worker text not null,
    until timestamptz not null,
    beat_at timestamptz default now() not null,
    cancel boolean default false not null,
    constraint pk_job_lease primary key (job_id),
    constraint fk_job_lease_job_id foreign key(job_id) references job (id) on delete cascade,
    constraint uq_job_lease_token unique (token)
);
create index ix_job_lease_until on job_lease (until);

create table job_attempt (
    job_id uuid not null,
    attempt smallint not null,
    token uuid not null,
    worker text not null,
    started_at timestamptz default now() not null,
    ended_at timestamptz,
    outcome text,
    error jsonb,
    constraint pk_job_attempt primary key (job_id, attempt),
    constraint fk_job_attempt_job_id foreign key(job_id) references job (id) on delete cascade
);
create index ix_job_attempt_started_at on job_attempt (started_at);
create unique index ix_job_attempt_token on job_attempt (token);

create table job_progress (
    job_id uuid not null,
    phase text not null,
    current bigint default 0 not null,
    total bigint,
    unit text,
    percent smallint,
    eta_seconds integer,
    counters jsonb default '{}' not null,
    warnings jsonb default '[]' not null,
    error_summary jsonb default '[]' not null,
    updated_at timestamptz default now() not null,
    constraint pk_job_progress primary key (job_id),
    constraint fk_job_progress_job_id foreign key(job_id) references job (id) on delete cascade
);

create table worker (
    name text not null,
    queue text not null,
    slots integer not null,
    version text not null,
    started_at timestamptz default now() not null,
    seen_at timestamptz default now() not null,
    constraint pk_worker primary key (name)
);

-- What must never change, whoever writes.

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% rows never change', tg_table_name using errcode = 'integrity_constraint_violation';
end
$$;

create trigger data_source_version_is_immutable before update on data_source_version
    for each row execute function refuse_change();
create trigger audit_entry_is_immutable before update or delete on audit_entry
    for each row execute function refuse_change();

create function guard_job_status() returns trigger language plpgsql as $$
begin
    if old.status in ('succeeded', 'partially_succeeded', 'failed', 'cancelled') then
        if (new.status, new.result, new.error, new.finished_at, new.attempt)
            is distinct from (old.status, old.result, old.error, old.finished_at, old.attempt) then
            raise exception 'job % is final', old.id using errcode = 'integrity_constraint_violation';
        end if;
    elsif new.status <> old.status and not (old.status, new.status) in (
        ('queued', 'running'), ('queued', 'cancelled'), ('queued', 'failed'),
        ('running', 'queued'), ('running', 'cancelling'), ('running', 'succeeded'),
        ('running', 'partially_succeeded'), ('running', 'failed'), ('running', 'cancelled'),
        ('cancelling', 'succeeded'), ('cancelling', 'partially_succeeded'), ('cancelling', 'failed'),
        ('cancelling', 'cancelled')
    ) then
        raise exception 'job % cannot go from % to %', old.id, old.status, new.status
            using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end
$$;

create trigger job_status_is_guarded before update on job
    for each row execute function guard_job_status();

-- The hot lane: one round trip each. They run with the caller's rights and say first for whom they act.

create view job_view as
select
    j.id, j.organization_id, j.project_id, j.data_source_id, j.kind, j.queue, j.status, j.config_version,
    j.priority, j.run_at, j.attempt, j.max_attempts, j.deadline_at, j.retry_of, j.draft is not null as is_draft,
    j.cancel_requested_by, j.cancel_requested_at, j.cancel_reason, j.result, j.error,
    j.created_at, j.started_at, j.finished_at,
    j.created_by, m.name as created_by_name, m.email as created_by_email,
    l.beat_at as heartbeat_at,
    p.phase, p.current, p.total, p.unit, p.percent, p.eta_seconds, p.counters, p.warnings, p.error_summary,
    -- Two ranges of ix_job_queued: compared in one row, the index would be read from its start for every job.
    case when j.status = 'queued' then (
        select 1 + least(1000, count(*)) from (
            (select 1 from job q
             where q.queue = j.queue and q.organization_id = j.organization_id and q.status = 'queued'
               and q.priority > j.priority limit 1000)
            union all
            (select 1 from job q
             where q.queue = j.queue and q.organization_id = j.organization_id and q.status = 'queued'
               and q.priority = j.priority and (q.created_at, q.id) < (j.created_at, j.id) limit 1000)
        ) ahead
    ) end as queue_position
from job j
left join member m on m.id = j.created_by
left join job_lease l on l.job_id = j.id
left join job_progress p on p.job_id = j.id;

create function job_read(organization uuid, job uuid) returns jsonb language plpgsql as $$
begin
    perform set_config('headwater.organization', organization::text, true);
    return (select to_jsonb(v) from job_view v where v.id = job and v.organization_id = organization);
end
$$;

-- One submit: idempotency, the source's state, the job, its event and its audit entry.
-- `outcome`: created | joined (a live sync with the same parameters) | replayed | mismatch | not_found | inactive
-- | unsupported | sync_in_progress. Nothing is written unless it is `created` or `joined`.
create function job_submit(request jsonb) returns jsonb language plpgsql as $$
declare
    organization constant uuid := (request ->> 'organization_id')::uuid;
    actor constant uuid := (request ->> 'actor_id')::uuid;
    project constant uuid := (request ->> 'project_id')::uuid;
    source_id constant uuid := (request ->> 'data_source_id')::uuid;
    caller_key constant text := request ->> 'idempotency_key';
    job_id uuid := (request ->> 'id')::uuid;
    outcome text := 'created';
    source data_source;
    known idempotency_record;
    live job;
    view jsonb;
begin
    perform set_config('headwater.organization', organization::text, true);

    if caller_key is not null then
        insert into idempotency_record as r (organization_id, actor_id, route, key, fingerprint)
        values (organization, actor, request ->> 'route', caller_key, decode(request ->> 'fingerprint', 'hex'))
        on conflict (organization_id, actor_id, route, key) do update
            set fingerprint = excluded.fingerprint, status = null, body = null, subject_id = null, created_at = now()
            where r.created_at < now() - interval '24 hours';
        if not found then
            select * into known from idempotency_record r
            where r.organization_id = organization and r.actor_id = actor
              and r.route = request ->> 'route' and r.key = caller_key;
            if known.fingerprint <> decode(request ->> 'fingerprint', 'hex') then
                return jsonb_build_object('outcome', 'mismatch');
            end if;
            return jsonb_build_object('outcome', 'replayed', 'status', known.status, 'job', known.body);
        end if;
    end if;

    -- KEY SHARE: a deletion of the source (FOR UPDATE) comes before or after this job, never between.
    if source_id is null then
        perform from project p
        where p.id = project and p.organization_id = organization and p.deleted_at is null
        for key share;
        if not found then
            outcome := 'not_found';
        end if;
    else
        select s.* into source from data_source s
        where s.id = source_id and s.organization_id = organization and s.project_id = project
          and s.deleted_at is null
        for key share;
        if not found then
            outcome := 'not_found';
        elsif not (request -> 'types') ? source.type then
            outcome := 'unsupported';
        elsif not source.is_active then
            outcome := 'inactive';
        end if;
    end if;

    while outcome = 'created' loop
        insert into job (
            id, organization_id, project_id, data_source_id, kind, queue, params, draft, config_version,
            access_revision, priority, rung_at, max_attempts, deadline_seconds, created_by, request_id, retry_of
        ) values (
            job_id, organization, project, source_id, request ->> 'kind', request ->> 'queue', request -> 'params',
            nullif(request -> 'draft', 'null'), source.version, source.access_revision,
            (request ->> 'priority')::smallint, now(), (request ->> 'max_attempts')::smallint,
            (request ->> 'deadline_seconds')::integer, actor, request ->> 'request_id',
            (request ->> 'retry_of')::uuid
        )
        on conflict (data_source_id) where kind = 'sync' and status in ('queued', 'running', 'cancelling')
        do nothing;
        exit when found;
        select j.* into live from job j
        where j.data_source_id = source_id and j.kind = 'sync' and j.status in ('queued', 'running', 'cancelling');
        -- Not found: the live one ended since the insert looked; try again.
        if found then
            job_id := live.id;
            outcome := case
                when live.status <> 'cancelling' and live.params = request -> 'params' then 'joined'
                else 'sync_in_progress'
            end;
        end if;
    end loop;

    if outcome in ('created', 'joined') then
        if outcome = 'created' then
            insert into sealed_credential (subject_id, field, organization_id, ciphertext, suite, key_id)
            select job_id, s.field, organization, decode(s.ciphertext, 'hex'), s.suite, s.key_id
            from jsonb_to_recordset(request -> 'sealed') as s (field text, ciphertext text, suite text, key_id uuid);
            insert into event (organization_id, data_source_id, job_id, act, actor_id, details)
            values (organization, source_id, job_id, 'job.submitted', actor,
                    jsonb_build_object('kind', request ->> 'kind', 'status', 'queued'));
            insert into audit_entry (organization_id, actor_id, act, subject_id, request_id, address, details)
            values (organization, actor, 'job.submit', job_id, request ->> 'request_id', request ->> 'address',
                    jsonb_build_object('kind', request ->> 'kind', 'data_source_id', source_id));
        end if;
        select to_jsonb(v) into view from job_view v where v.id = job_id;
        if caller_key is not null then
            update idempotency_record r
            set status = case outcome when 'created' then 202 else 200 end, body = view, subject_id = job_id
            where r.organization_id = organization and r.actor_id = actor
              and r.route = request ->> 'route' and r.key = caller_key;
        end if;
        return jsonb_build_object('outcome', outcome, 'job', view);
    end if;

    if caller_key is not null then
        delete from idempotency_record r
        where r.organization_id = organization and r.actor_id = actor
          and r.route = request ->> 'route' and r.key = caller_key;
    end if;
    return jsonb_build_object('outcome', outcome, 'job_id', live.id);
end
$$;

-- `outcome`: accepted | already (cancelled before) | ended (otherwise) | not_found.
create function job_cancel(
    organization uuid, job uuid, actor uuid, reason text, request_id text, address text
) returns jsonb language plpgsql as $$
declare
    found_job job;
    outcome text;
begin
    perform set_config('headwater.organization', organization::text, true);
    select j.* into found_job from job j where j.id = job and j.organization_id = organization for no key update;
    outcome := case
        when found_job.id is null then 'not_found'
        when found_job.status in ('queued', 'running', 'cancelling') then 'accepted'
        when found_job.status = 'cancelled' then 'already'
        else 'ended'
    end;
    if found_job.status in ('queued', 'running') then
        update job j set
            status = case j.status when 'queued' then 'cancelled' else 'cancelling' end,
            finished_at = case j.status when 'queued' then now() end,
            cancel_requested_by = actor, cancel_requested_at = now(), cancel_reason = reason
        where j.id = job returning j.* into found_job;
        update job_lease l set cancel = true where l.job_id = job;
        delete from sealed_credential c where c.subject_id = job and found_job.status = 'cancelled';
        insert into event (organization_id, data_source_id, job_id, act, actor_id, details)
        values (organization, found_job.data_source_id, job, 'job.' || found_job.status, actor,
                jsonb_build_object('kind', found_job.kind, 'status', found_job.status));
        insert into audit_entry (organization_id, actor_id, act, subject_id, request_id, address, details)
        values (organization, actor, 'job.cancel', job, request_id, address,
                jsonb_build_object('kind', found_job.kind));
    end if;
    return jsonb_build_object(
        'outcome', outcome,
        'job', (select to_jsonb(v) from job_view v where v.id = job and v.organization_id = organization)
    );
end
$$;

-- Who is behind an API key, if it may be used at all.
create function api_key_read(key uuid) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'id', k.id, 'organization_id', k.organization_id, 'organization_name', o.name, 'member_id', k.member_id,
        'name', m.name, 'email', m.email, 'role', k.role, 'secret_hash', encode(k.secret_hash, 'hex'),
        'project_ids', k.project_ids,
        'usable', k.revoked_at is null and (k.expires_at is null or k.expires_at > now())
                  and m.removed_at is null and o.suspended_at is null
    )
    from api_key k
    join member m on m.id = k.member_id
    join organization o on o.id = k.organization_id
    where k.id = key
$$;
