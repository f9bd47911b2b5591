-- The wall between tenants: a role for each service, row-level security under all of them, and what access, audit and
-- limits need to know.

-- Who a service is. Nobody logs in as one of these: `headwater admin migrate` makes logins that belong to them.

do $$
declare
    service text;
begin
    foreach service in array array['headwater_api', 'headwater_worker', 'headwater_scheduler'] loop
        if not exists (select from pg_roles where rolname = service) then
            begin
                execute format('create role %I nologin', service);
            exception
                when duplicate_object or unique_violation then
                    null; -- another database of this server was migrated at the same moment
                when insufficient_privilege then
                    raise exception 'role % is missing, and % may not create it', service, current_user
                        using hint = 'As a superuser: create role headwater_api nologin; create role headwater_worker '
                                     'nologin; create role headwater_scheduler nologin;';
            end;
        end if;
    end loop;
end
$$;

-- Access.

alter table organization
    add revision integer default 1 not null,
    add data_source_limit integer,
    add live_job_limit integer,
    add upload_bytes_limit bigint,
    add deleted_at timestamptz;

alter table member
    add kind text default 'person' not null,
    add revision integer default 1 not null,
    add issuer text,
    add subject text,
    alter email drop not null,
    add constraint ck_member_kind check (kind in ('person', 'service')),
    add constraint ck_member_email check (kind = 'service' or email is not null);
create unique index uq_member_subject on member (organization_id, issuer, subject)
    where removed_at is null and subject is not null;
create index ix_api_key_member_id on api_key (member_id);

-- Every row says whose it is, also those that hang on a job.

alter table job_lease add organization_id uuid;
alter table job_attempt add organization_id uuid;
alter table job_progress add organization_id uuid;
update job_lease l set organization_id = j.organization_id from job j where j.id = l.job_id;
update job_attempt a set organization_id = j.organization_id from job j where j.id = a.job_id;
update job_progress p set organization_id = j.organization_id from job j where j.id = p.job_id;
alter table job_lease alter organization_id set not null;
alter table job_attempt alter organization_id set not null;
alter table job_progress alter organization_id set not null;

-- The audit log. `xid` is the transaction of the act: what is older than every running one is complete, and can be
-- sealed in order (headwater.audit.chain).

alter table audit_entry
    add key_id uuid,
    add xid xid8 default pg_current_xact_id() not null;
create index ix_audit_entry_xid on audit_entry (xid);
create index ix_audit_entry_organization_id_number on audit_entry (organization_id, number);
drop index ix_audit_entry_organization_id_id;

create table audit_chain (
    organization_id uuid not null,
    seq bigint not null,
    entry_id uuid not null,
    hash bytea not null,
    sealed_at timestamptz default now() not null,
    constraint pk_audit_chain primary key (organization_id, seq),
    constraint uq_audit_chain_entry_id unique (entry_id),
    constraint fk_audit_chain_entry_id foreign key(entry_id) references audit_entry (id)
);

-- One row: entries of transactions before `xid` are sealed, as this server counts them.
create table audit_horizon (
    id boolean default true not null,
    system_identifier bigint,
    xid xid8 not null,
    constraint pk_audit_horizon primary key (id),
    constraint ck_audit_horizon_id check (id)
);
insert into audit_horizon (xid) values ('0');

create trigger audit_entry_is_never_emptied before truncate on audit_entry
    for each statement execute function refuse_change();
create trigger audit_chain_is_immutable before update or delete on audit_chain
    for each row execute function refuse_change();
create trigger audit_chain_is_never_emptied before truncate on audit_chain
    for each statement execute function refuse_change();

-- Row-level security. A transaction says for whom it acts; whoever says nothing sees nothing.

create function current_organization() returns uuid language sql stable parallel safe as $$
    select nullif(current_setting('headwater.organization', true), '')::uuid
$$;

do $$
declare
    name text;
begin
    foreach name in array array[
        'member', 'api_key', 'organization_key', 'sealed_credential', 'audit_entry', 'audit_chain',
        'idempotency_record', 'project', 'data_source', 'data_source_version', 'data_source_totals', 'event',
        'upload', 'file', 'load', 'job', 'job_lease', 'job_attempt', 'job_progress'
    ] loop
        execute format('alter table %I enable row level security, force row level security', name);
        execute format(
            'create policy own_organization on %I using (organization_id = (select current_organization()))', name
        );
    end loop;
end
$$;

alter table organization enable row level security, force row level security;
create policy own_organization on organization using (id = (select current_organization()));
alter table organization_private_key enable row level security, force row level security;
create policy own_organization on organization_private_key
    using (exists (select from organization_key k where k.id = key_id));

-- The owner looks a key up (`api_key_read`), lists organizations and verifies their audit logs (`headwater admin`), those
-- of deleted ones too, before it can say for whom.
create policy owner_looks_up on organization for select to current_user using (true);
create policy owner_looks_up on member for select to current_user using (true);
create policy owner_looks_up on api_key for select to current_user using (true);
create policy owner_looks_up on audit_entry for select to current_user using (true);
create policy owner_looks_up on audit_chain for select to current_user using (true);

-- The queue is of everybody: a worker learns from a job whose it is. It locks that organization's row to hold its cap.
create policy queue on job to headwater_worker using (true);
create policy queue on job_lease to headwater_worker using (true);
create policy queue on job_attempt to headwater_worker using (true);
create policy queue on job_progress to headwater_worker using (true);
create policy only_locks on organization as restrictive for update to headwater_worker
    using (true) with check (false);

-- The scheduler serves all organizations at once; what it may touch of them stands in its grants.
create policy every_organization on organization to headwater_scheduler using (true);
create policy every_organization on job to headwater_scheduler using (true);
create policy every_organization on job_lease to headwater_scheduler using (true);
create policy every_organization on job_attempt to headwater_scheduler using (true);
create policy every_organization on event to headwater_scheduler using (true);
create policy every_organization on sealed_credential to headwater_scheduler using (true);
create policy every_organization on data_source to headwater_scheduler using (true);
create policy every_organization on load to headwater_scheduler using (true);
create policy every_organization on file to headwater_scheduler using (true);
create policy every_organization on upload to headwater_scheduler using (true);
create policy every_organization on idempotency_record to headwater_scheduler using (true);
create policy every_organization on audit_entry to headwater_scheduler using (true);
create policy every_organization on audit_chain to headwater_scheduler using (true);

-- Items and rejects come in by COPY, which Postgres refuses where row-level security holds. Whoever reads for a user
-- reads them through a parent that has them as its only partition, and has no right to the tables themselves. (A view
-- with a security barrier would do the same, but hides their order: every page would sort a whole load.)

create table readable_item (
    load_id bigint not null, record_number bigint not null, data jsonb not null, replaced_by bigint
) partition by range (load_id);
alter table readable_item attach partition item for values from (minvalue) to (maxvalue);

create table readable_reject (
    load_id bigint not null, number bigint not null, line bigint, record_number bigint, code text not null,
    pointer text, message text not null, excerpt text
) partition by range (load_id);
alter table readable_reject attach partition reject for values from (minvalue) to (maxvalue);

alter table readable_item enable row level security, force row level security;
alter table readable_reject enable row level security, force row level security;
-- A range of one: as an equality the planner might make a hash of all loads that the organization has.
create policy own_organization on readable_item using (exists (
    select from load l
    where l.id >= load_id and l.id <= load_id and l.organization_id = (select current_organization())
));
create policy own_organization on readable_reject using (exists (
    select from load l
    where l.id >= load_id and l.id <= load_id and l.organization_id = (select current_organization())
));

-- With the rights, and the rows, of whoever asks.
alter view job_view set (security_invoker = true);

-- What each service may do.

grant select on alembic_version to headwater_api, headwater_worker, headwater_scheduler;

grant select on
    organization, member, api_key, organization_key, project, data_source, data_source_version, data_source_totals,
    event, upload, file, load, readable_item, readable_reject, job, job_view, job_attempt, job_progress,
    audit_entry, audit_chain, idempotency_record
to headwater_api;
grant select (job_id, organization_id, beat_at) on job_lease to headwater_api;
-- Never the ciphertext.
grant select (subject_id, field, organization_id, suite, key_id, created_at, rotated_at) on sealed_credential
to headwater_api;
grant insert on
    member, api_key, sealed_credential, project, data_source, data_source_version, data_source_totals, event, upload,
    job, idempotency_record
to headwater_api;
grant update (name, revision) on organization to headwater_api;
grant update on member, api_key, project, data_source, sealed_credential, upload, idempotency_record to headwater_api;
grant update (status, finished_at, cancel_requested_by, cancel_requested_at, cancel_reason, rung_at) on job
to headwater_api;
grant update (cancel) on job_lease to headwater_api;
grant delete on sealed_credential, upload, idempotency_record to headwater_api;

grant select on
    organization, organization_key, organization_private_key, sealed_credential, data_source, data_source_version,
    data_source_totals, upload, file, load, item, item_key, reject, job, job_lease, job_attempt, job_progress, worker
to headwater_worker;
grant insert on event, file, load, item, item_key, reject, job_lease, job_attempt, job_progress, worker
to headwater_worker;
-- For the lock; a policy refuses the change itself.
grant update (running_limit) on organization to headwater_worker;
grant update on data_source_totals, file, load, item, item_key, job, job_lease, job_attempt, job_progress, worker
to headwater_worker;
grant delete on sealed_credential, file, load, item, item_key, reject, job_lease, worker to headwater_worker;
grant usage on sequence load_id_seq to headwater_worker;

grant select on
    organization, data_source, load, item, item_key, reject, upload, job_lease, worker, audit_entry, audit_chain,
    audit_horizon
to headwater_scheduler;
grant select (
    id, organization_id, data_source_id, kind, queue, status, priority, run_at, rung_at, attempt, max_attempts,
    crashes, interruptions, deadline_at, cancel_requested_at, error, created_at, finished_at
) on job to headwater_scheduler;
grant select (job_id, token, started_at) on job_attempt to headwater_scheduler;
grant select (subject_id) on sealed_credential to headwater_scheduler;
grant select (data_source_id, path, load_id) on file to headwater_scheduler;
grant select (created_at) on idempotency_record to headwater_scheduler;
grant insert on event, audit_chain to headwater_scheduler;
grant update (status, crashes, finished_at, error, run_at, rung_at) on job to headwater_scheduler;
grant update (token) on job_lease to headwater_scheduler;
grant update (outcome, ended_at) on job_attempt to headwater_scheduler;
grant update (valid_to, closed_at, emptied_at, replacing_count) on load to headwater_scheduler;
grant update (state, updated_at) on upload to headwater_scheduler;
grant update (system_identifier, xid) on audit_horizon to headwater_scheduler;
grant delete on job_lease, sealed_credential, load, item, item_key, reject, upload, idempotency_record, worker
to headwater_scheduler;

-- Number, moment and transaction of an entry are the database's to say.
grant insert (organization_id, actor_id, key_id, act, subject_id, request_id, address, fields, details)
on audit_entry to headwater_api, headwater_worker;

-- The hot lane.

-- What waiters watch of many jobs of many organizations.
create function job_marks(organizations uuid[], jobs uuid[])
returns table (id uuid, status text, attempt smallint, cancelling boolean) language plpgsql as $$
declare
    organization uuid;
begin
    for organization in select distinct o from unnest(organizations) o loop
        perform set_config('headwater.organization', organization::text, true);
        return query
            select j.id, j.status, j.attempt, j.cancel_requested_at is not null
            from unnest(organizations, jobs) as w (organization_id, job_id)
            join job j on j.id = w.job_id and j.organization_id = w.organization_id
            where w.organization_id = organization;
    end loop;
end
$$;

-- The same jobs whole, each with the number of its newest event.
create function job_views(organizations uuid[], jobs uuid[])
returns table (id uuid, job jsonb, last_event bigint) language plpgsql as $$
declare
    wanted record;
begin
    for wanted in select w.organization_id, w.job_id from unnest(organizations, jobs) as w (organization_id, job_id)
    loop
        id := wanted.job_id;
        job := job_read(wanted.organization_id, wanted.job_id);
        last_event := (select max(e.number) from event e where e.job_id = wanted.job_id);
        return next;
    end loop;
end
$$;

-- One submit: idempotency, the source's state, the job, its event and its audit entry.
-- `outcome`: created | joined (a live sync with the same parameters) | replayed | mismatch | not_found | inactive
-- | unsupported | sync_in_progress | quota_exceeded. Nothing is written unless it is `created` or `joined`.
create or replace function job_submit(request jsonb) returns jsonb language plpgsql as $$
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
    quota bigint;
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

    -- Counted without a lock: those that are submitted at the same moment may all get in.
    if outcome = 'created' and not (
        request ->> 'kind' = 'sync' and exists (
            select from job j where j.data_source_id = source_id and j.kind = 'sync'
              and j.status in ('queued', 'running', 'cancelling')
        )
    ) then
        select coalesce(o.live_job_limit, (request ->> 'live_job_limit')::bigint) into quota
        from organization o where o.id = organization;
        if (
            select count(*) from (
                (select from job j where j.organization_id = organization and j.status in ('running', 'cancelling')
                 limit quota)
                union all
                (select from job j
                 where j.queue = any(array(select jsonb_array_elements_text(request -> 'queues')))
                   and j.organization_id = organization and j.status = 'queued' limit quota)
            ) live
        ) >= quota then
            outcome := 'quota_exceeded';
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
            insert into audit_entry (organization_id, actor_id, key_id, act, subject_id, request_id, address, details)
            values (organization, actor, (request ->> 'key_id')::uuid, 'job.submit', job_id,
                    request ->> 'request_id', request ->> 'address',
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
    return jsonb_strip_nulls(jsonb_build_object('outcome', outcome, 'job_id', live.id, 'limit', quota));
end
$$;

-- `outcome`: accepted | already (cancelled before) | ended (otherwise) | not_found.
drop function job_cancel;
create function job_cancel(
    organization uuid, job uuid, actor uuid, key uuid, reason text, request_id text, address text
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
        insert into audit_entry (organization_id, actor_id, key_id, act, subject_id, request_id, address, details)
        values (organization, actor, key, 'job.cancel', job, request_id, address,
                jsonb_build_object('kind', found_job.kind));
    end if;
    return jsonb_build_object(
        'outcome', outcome,
        'job', (select to_jsonb(v) from job_view v where v.id = job and v.organization_id = organization)
    );
end
$$;

-- Who is behind an API key. Only whoever knows its secret learns anything; `state`: usable | revoked | expired |
-- suspended. The one function with its definer's rights: until it answers nobody can say for whom to look.
drop function api_key_read;
create function api_key_read(key uuid, hash bytea) returns jsonb
language sql stable security definer set search_path = pg_catalog, public, pg_temp as $$
    select jsonb_build_object(
        'organization_id', k.organization_id, 'organization_name', o.name, 'member_id', k.member_id,
        'name', m.name, 'email', m.email,
        -- A member's keys never have more rights than the member.
        'role', (array['viewer', 'operator', 'admin'])[least(
            array_position(array['viewer', 'operator', 'admin'], k.role),
            array_position(array['viewer', 'operator', 'admin'], m.role)
        )],
        'project_ids', k.project_ids,
        'state', case
            when k.revoked_at is not null or m.removed_at is not null then 'revoked'
            when k.expires_at <= now() then 'expired'
            when o.suspended_at is not null then 'suspended'
            else 'usable'
        end,
        'expires_in_seconds', extract(epoch from k.expires_at - now()),
        'unused_seconds', extract(epoch from now() - k.last_used_at)
    )
    from api_key k
    join member m on m.id = k.member_id
    join organization o on o.id = k.organization_id
    where k.id = key and k.secret_hash = hash
$$;
revoke all on function api_key_read from public;
grant execute on function api_key_read to headwater_api;

create function api_key_used(organization uuid, key uuid) returns void language plpgsql as $$
begin
    perform set_config('headwater.organization', organization::text, true);
    update api_key k set last_used_at = now() where k.id = key and k.organization_id = organization;
end
$$;

-- Who is behind a token of the identity provider. `email` only if the provider has verified it; `role` null: ours
-- counts, and strangers are not let in. `state`: usable | suspended | removed | unknown.
create function member_sign_in(
    organization uuid, issuer text, subject text, email text, name text, role text, request_id text, address text
) returns jsonb language plpgsql as $$
declare
    tenant organization;
    found_member member;
    act text;
    fields text[] := '{}';
begin
    perform set_config('headwater.organization', organization::text, true);
    select o.* into tenant from organization o where o.id = organization and o.deleted_at is null;
    if not found then
        return jsonb_build_object('state', 'unknown');
    end if;

    select m.* into found_member from member m
    where m.organization_id = organization and m.removed_at is null
      and m.issuer = member_sign_in.issuer and m.subject = member_sign_in.subject;
    if tenant.suspended_at is not null then
        return jsonb_build_object('state', 'suspended', 'member_id', found_member.id);
    elsif found_member.id is null then
        -- A newcomer's first requests often come together: one of them makes the member, the others find it.
        perform pg_advisory_xact_lock(hashtextextended(
            concat_ws(' ', organization, member_sign_in.issuer, member_sign_in.subject), 0
        ));
        select m.* into found_member from member m
        where m.organization_id = organization and m.removed_at is null
          and m.issuer = member_sign_in.issuer and m.subject = member_sign_in.subject;
    end if;
    if not found and email is not null then
        -- An invitation: the first who proves to have this address takes it.
        update member m set
            issuer = member_sign_in.issuer, subject = member_sign_in.subject, revision = m.revision + 1
        where m.organization_id = organization and m.removed_at is null and m.kind = 'person'
          and m.subject is null and lower(m.email) = lower(member_sign_in.email)
        returning m.* into found_member;
        if found then
            act := 'member.update';
            fields := array['subject'];
        end if;
    end if;
    if found_member.id is null then
        select m.* into found_member from member m
        where m.organization_id = organization and m.issuer = member_sign_in.issuer
          and m.subject = member_sign_in.subject
        order by m.removed_at desc limit 1;
        if found then
            return jsonb_build_object('state', 'removed', 'member_id', found_member.id);
        elsif role is null or email is null then
            return jsonb_build_object('state', 'unknown');
        end if;
        insert into member (id, organization_id, kind, email, name, role, issuer, subject)
        values (uuid_v7(), organization, 'person', email, member_sign_in.name, member_sign_in.role,
                member_sign_in.issuer, member_sign_in.subject)
        on conflict do nothing returning * into found_member;
        if not found then
            -- Somebody else is a member with this address.
            return jsonb_build_object('state', 'unknown');
        end if;
        act := 'member.create';
        fields := array['email', 'name', 'role', 'subject'];
    elsif role is not null and found_member.role <> role then
        update member m set role = member_sign_in.role, revision = m.revision + 1
        where m.id = found_member.id and m.organization_id = organization
        returning m.* into found_member;
        act := 'member.update';
        fields := fields || array['role'];
    end if;
    if act is not null then
        insert into audit_entry (organization_id, actor_id, act, subject_id, request_id, address, fields, details)
        values (organization, found_member.id, act, found_member.id, member_sign_in.request_id,
                member_sign_in.address, fields, jsonb_build_object('by', 'identity_provider'));
    end if;
    return jsonb_build_object(
        'state', 'usable', 'organization_name', tenant.name, 'member_id', found_member.id,
        'name', found_member.name, 'email', found_member.email, 'role', found_member.role
    );
end
$$;
