-- Each submit by itself, as before.

-- One submit: idempotency, the source's state, the job, its event and its audit entry.
-- `outcome`: created | joined (a live sync with the same parameters) | replayed | mismatch | not_found | inactive
-- | unsupported | sync_in_progress | quota_exceeded | deadline_too_long. Nothing is written unless it is `created` or `joined`.
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
    longest integer;
    deadline integer := (request ->> 'deadline_seconds')::integer;
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

    if outcome = 'created' then
        select o.deadline_limit_seconds into longest from organization o where o.id = organization;
        if deadline > longest then
            outcome := 'deadline_too_long';
        else
            -- The former API sends no default, but always a deadline.
            deadline := coalesce(deadline, least((request ->> 'default_deadline_seconds')::integer, longest));
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
            deadline, actor, request ->> 'request_id',
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
    return jsonb_strip_nulls(jsonb_build_object(
        'outcome', outcome, 'job_id', live.id,
        'limit', case outcome when 'deadline_too_long' then longest else quota end
    ));
end
$$;

drop function jobs_submit;
drop type job_order;

drop index ix_sealed_credential_organization_id_subject_id;
create index ix_sealed_credential_organization_id on sealed_credential (organization_id);
drop index ix_data_source_totals_newest_sync, ix_data_source_deleted, ix_data_source_env, ix_data_source_type;
alter table data_source drop name_lowered, drop description_lowered;
