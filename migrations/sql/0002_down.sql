-- Back to one role for all services. The roles stay: other databases of this server may use them. What is lost: the
-- chain of the audit log, who signed in from where, limits.

drop function job_marks, job_views, job_cancel, api_key_read, api_key_used, member_sign_in;
alter table readable_item detach partition item;
alter table readable_reject detach partition reject;
drop table readable_item, readable_reject;
alter view job_view reset (security_invoker);

do $$
declare
    found record;
begin
    for found in select c.relname, p.polname from pg_policy p join pg_class c on c.oid = p.polrelid loop
        execute format('drop policy %I on %I', found.polname, found.relname);
    end loop;
    for found in
        select c.relname from pg_class c
        where c.relrowsecurity and c.relnamespace = current_schema()::regnamespace
    loop
        execute format('alter table %I disable row level security, no force row level security', found.relname);
    end loop;
end
$$;
drop function current_organization;
revoke all on all tables in schema public from headwater_api, headwater_worker, headwater_scheduler;
revoke all on all sequences in schema public from headwater_api, headwater_worker, headwater_scheduler;

drop table audit_horizon, audit_chain;
drop trigger audit_entry_is_never_emptied on audit_entry;
drop index ix_audit_entry_organization_id_number;
alter table audit_entry drop xid, drop key_id;
create index ix_audit_entry_organization_id_id on audit_entry (organization_id, id);

alter table job_progress drop organization_id;
alter table job_attempt drop organization_id;
alter table job_lease drop organization_id;

drop index ix_api_key_member_id;
update member set email = id || '@service.invalid' where email is null;
alter table member
    drop kind, drop revision, drop issuer, drop subject,
    alter email set not null;
alter table organization
    drop revision, drop data_source_limit, drop live_job_limit, drop upload_bytes_limit, drop deleted_at;

-- One submit: idempotency, the source's state, the job, its event and its audit entry.
-- `outcome`: created | joined (a live sync with the same parameters) | replayed | mismatch | not_found | inactive
-- | unsupported | sync_in_progress. Nothing is written unless it is `created` or `joined`.
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
