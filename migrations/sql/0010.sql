-- Submits of one organization that come together cost one counting, one insert and one answer; lists of data sources
-- read no more of them than they show.

-- What a search compares: to lower each name for each search took most of its time.
alter table data_source
    add name_lowered text generated always as (lower(name)) stored,
    add description_lowered text generated always as (lower(description)) stored;
create index ix_data_source_type on data_source (organization_id, type, created_at, id) where deleted_at is null;
create index ix_data_source_env on data_source (organization_id, env, created_at, id) where deleted_at is null;
-- By `id`, though it is asked for `deleted_at`: a plan for any moment takes those before it for a third of the table.
create index ix_data_source_deleted on data_source (id) where deleted_at is not null;
-- ix_data_source_totals_last_sync_at, read backwards, has those without a value first.
create index ix_data_source_totals_newest_sync on data_source_totals
    (organization_id, last_sync_at desc nulls last, data_source_id desc);
-- With the organization alone, a plan for any page looked through all secrets of the organization.
drop index ix_sealed_credential_organization_id;
create index ix_sealed_credential_organization_id_subject_id on sealed_credential (organization_id, subject_id);

-- One job to be made, as `jobs_submit` found it: `refusal` says why it is not.
create type job_order as (
    place bigint, id uuid, actor_id uuid, key_id uuid, project_id uuid, data_source_id uuid, kind text, queue text,
    rung boolean, params jsonb, draft jsonb, sealed jsonb, priority smallint, max_attempts smallint,
    deadline_seconds integer, retry_of uuid, request_id text, address text, config_version integer,
    access_revision integer, refusal text
);

-- Submits: idempotency, the sources' states, the jobs, their events and their audit entries; an answer for each, in order.
-- `outcome`: created | joined (a live sync with the same parameters) | replayed | mismatch | not_found | inactive
-- | unsupported | sync_in_progress | quota_exceeded | deadline_too_long. Nothing is written unless it is `created` or `joined`.
-- Each is answered as if it came behind those before it. What is locked or unique is taken in the order of ids, so that
-- two sets never wait for one another. A key may stand in a set once (`cardinality_violation`). A job with `rung` false is
-- left to the dispatcher.
create function jobs_submit(organization uuid, requests jsonb) returns setof jsonb language plpgsql as $$
declare
    keyed constant boolean := jsonb_path_exists(requests, '$[*].idempotency_key ? (@ != null)');
    claimed bigint[];
    replays jsonb := '{}';
    owner organization;
    orders job_order[];
    quota bigint;
    lives bigint;
    over bigint[] := '{}';
    fresh job[];
    made job[] := '{}';
    met jsonb := '{}';
    wanted uuid[];
    answers jsonb[];
begin
    perform set_config('headwater.organization', organization::text, true);

    if keyed then
        with asked as (
            select q.place, q.request ->> 'idempotency_key' as key, q.request ->> 'route' as route,
                   (q.request ->> 'actor_id')::uuid as actor_id, decode(q.request ->> 'fingerprint', 'hex') as fingerprint
            from jsonb_array_elements(requests) with ordinality as q (request, place)
        ), taken as (
            insert into idempotency_record as r (organization_id, actor_id, route, key, fingerprint)
            select organization, a.actor_id, a.route, a.key, a.fingerprint from asked a
            where a.key is not null
            order by a.actor_id, a.route, a.key
            on conflict (organization_id, actor_id, route, key) do update
                set fingerprint = excluded.fingerprint, status = null, body = null, subject_id = null, created_at = now()
                where r.created_at < now() - interval '24 hours'
            returning r.actor_id, r.route, r.key
        )
        select coalesce(array_agg(a.place), '{}') into claimed
        from asked a join taken t on t.actor_id = a.actor_id and t.route = a.route and t.key = a.key;
        select coalesce(jsonb_object_agg(q.place, case
            when r.fingerprint <> decode(q.request ->> 'fingerprint', 'hex') then jsonb_build_object('outcome', 'mismatch')
            else jsonb_build_object('outcome', 'replayed', 'status', r.status, 'job', r.body)
        end), '{}') into replays
        from jsonb_array_elements(requests) with ordinality as q (request, place)
        join idempotency_record r on r.organization_id = organization
            and r.actor_id = (q.request ->> 'actor_id')::uuid
            and r.route = q.request ->> 'route' and r.key = q.request ->> 'idempotency_key'
        where q.place <> all(claimed);
    end if;

    select o.* into owner from organization o where o.id = organization;

    -- KEY SHARE: a deletion of a source (FOR UPDATE) comes before or after its job, never between.
    with asked as (
        select q.place, r.*
        from jsonb_array_elements(requests) with ordinality as q (request, place)
        cross join jsonb_to_record(q.request) as r (
            id uuid, actor_id uuid, key_id uuid, project_id uuid, data_source_id uuid, kind text, queue text,
            rung boolean, params jsonb, draft jsonb, sealed jsonb, priority smallint, max_attempts smallint,
            deadline_seconds integer, default_deadline_seconds integer, retry_of uuid, request_id text, address text,
            types jsonb
        )
        where not replays ? q.place::text
    ), home as (
        select p.id from project p
        where p.id = any(array(select a.project_id from asked a where a.data_source_id is null))
          and p.organization_id = organization and p.deleted_at is null
        order by p.id for key share
    ), source as (
        select s.id, s.project_id, s.type, s.is_active, s.version, s.access_revision from data_source s
        where s.id = any(array(select a.data_source_id from asked a))
          and s.organization_id = organization and s.deleted_at is null
        order by s.id for key share
    )
    select array_agg(row(
        a.place, a.id, a.actor_id, a.key_id, a.project_id, a.data_source_id, a.kind, a.queue,
        -- The former API rings for each.
        coalesce(a.rung, true), a.params, a.draft, a.sealed, a.priority, a.max_attempts,
        -- The former API sends no default, but always a deadline.
        coalesce(a.deadline_seconds, least(a.default_deadline_seconds, owner.deadline_limit_seconds)),
        a.retry_of, a.request_id, a.address, s.version, s.access_revision,
        case
            when s.id is null and (a.data_source_id is not null or h.id is null) then 'not_found'
            when not a.types ? s.type then 'unsupported'
            when not s.is_active then 'inactive'
            when a.deadline_seconds > owner.deadline_limit_seconds then 'deadline_too_long'
        end
    )::job_order order by a.place) into orders
    from asked a
    left join home h on h.id = a.project_id and a.data_source_id is null
    left join source s on s.id = a.data_source_id and s.project_id = a.project_id;

    -- Counted without a lock: those that are submitted at the same moment may all get in. A sync that will find a live
    -- one takes no place.
    quota := coalesce(owner.live_job_limit, (requests -> 0 ->> 'live_job_limit')::bigint);
    select count(*) into lives from (
        (select from job j where j.organization_id = organization and j.status in ('running', 'cancelling') limit quota)
        union all
        (select from job j
         where j.queue = any(array(select jsonb_array_elements_text(requests -> 0 -> 'queues')))
           and j.organization_id = organization and j.status = 'queued' limit quota)
    ) live;
    if lives + coalesce(cardinality(orders), 0) > quota then
        over := array(
            select p.place from (
                select c.place, dense_rank() over (order by c.first) as turn from (
                    select o.place, case o.kind when 'sync' then min(o.place) over (partition by o.kind, o.data_source_id)
                                    else o.place end as first
                    from unnest(orders) o
                    where o.refusal is null and not (o.kind = 'sync' and exists (
                        select from job j where j.data_source_id = o.data_source_id and j.kind = 'sync'
                          and j.status in ('queued', 'running', 'cancelling')
                    ))
                ) c
            ) p
            where lives + p.turn > quota
        );
    end if;

    wanted := array(select o.id from unnest(orders) o where o.refusal is null and o.place <> all(over));
    while cardinality(wanted) > 0 loop
        with made as (
            insert into job as j (
                id, organization_id, project_id, data_source_id, kind, queue, params, draft, config_version,
                access_revision, priority, rung_at, max_attempts, deadline_seconds, created_by, request_id, retry_of
            )
            select o.id, organization, o.project_id, o.data_source_id, o.kind, o.queue, o.params, o.draft,
                   o.config_version, o.access_revision, o.priority, case when o.rung then now() end, o.max_attempts,
                   o.deadline_seconds, o.actor_id, o.request_id, o.retry_of
            from unnest(orders) o where o.id = any(wanted)
            order by o.data_source_id, o.place
            on conflict (data_source_id) where kind = 'sync' and status in ('queued', 'running', 'cancelling')
            do nothing
            returning j
        )
        select coalesce(array_agg(j), '{}') into fresh from made;
        made := made || fresh;
        wanted := array(select w from unnest(wanted) w where w <> all(array(select f.id from unnest(fresh) f)));
        continue when cardinality(wanted) = 0;
        select met || coalesce(jsonb_object_agg(o.id, jsonb_build_object('job_id', j.id, 'outcome', case
            when j.status <> 'cancelling' and j.params = o.params then 'joined' else 'sync_in_progress'
        end)), '{}') into met
        from unnest(orders) o
        join job j on j.data_source_id = o.data_source_id and j.kind = 'sync'
            and j.status in ('queued', 'running', 'cancelling')
        where o.id = any(wanted);
        -- Those that met nothing: the live sync ended since the insert looked; try again.
        wanted := array(select w from unnest(wanted) w where not met ? w::text);
    end loop;

    insert into sealed_credential (subject_id, field, organization_id, ciphertext, suite, key_id)
    select m.id, s.field, organization, decode(s.ciphertext, 'hex'), s.suite, s.key_id
    from unnest(made) m
    join unnest(orders) o on o.id = m.id
    cross join jsonb_to_recordset(o.sealed) as s (field text, ciphertext text, suite text, key_id uuid);
    insert into event (organization_id, data_source_id, job_id, act, actor_id, details)
    select organization, m.data_source_id, m.id, 'job.submitted', m.created_by,
           jsonb_build_object('kind', m.kind, 'status', m.status)
    from unnest(orders) o join unnest(made) m on m.id = o.id
    order by o.place;
    insert into audit_entry (organization_id, actor_id, key_id, act, subject_id, request_id, address, details)
    select organization, o.actor_id, o.key_id, 'job.submit', m.id, o.request_id, o.address,
           jsonb_build_object('kind', m.kind, 'data_source_id', m.data_source_id)
    from unnest(orders) o join unnest(made) m on m.id = o.id
    order by o.place;

    -- What `job_view` shows of each: of a new one all but its place in the queue is known, and that is counted once for
    -- those of one priority (`materialized`: it would be counted for each).
    with born as (
        select m.*, row_number() over (partition by m.queue, m.priority order by m.created_at, m.id) - 1 as before,
               first_value(m.id) over (partition by m.queue, m.priority order by m.created_at, m.id) as first_id
        from unnest(made) m
    ), standing as materialized (
        select g.queue, g.priority, (
            select count(*) from (
                (select from job q
                 where q.queue = g.queue and q.organization_id = organization and q.status = 'queued'
                   and q.priority > g.priority limit 1000)
                union all
                (select from job q
                 where q.queue = g.queue and q.organization_id = organization and q.status = 'queued'
                   and q.priority = g.priority and (q.created_at, q.id) < (g.created_at, g.first_id) limit 1000)
            ) ahead
        ) as ahead
        from (select distinct b.queue, b.priority, b.created_at, b.first_id from born b) g
    ), state as (
        select (
            select count(*) from job r where r.organization_id = organization and r.status in ('running', 'cancelling')
        ) as running, array(
            select distinct w.queue from worker w where w.seen_at > now() - interval '20 seconds'
        ) as heard
    ), view as (
        select b.id, jsonb_build_object(
            'id', b.id, 'organization_id', b.organization_id, 'project_id', b.project_id,
            'data_source_id', b.data_source_id, 'kind', b.kind, 'queue', b.queue, 'status', b.status,
            'config_version', b.config_version, 'priority', b.priority, 'run_at', b.run_at, 'attempt', b.attempt,
            'max_attempts', b.max_attempts, 'deadline_at', b.deadline_at, 'retry_of', b.retry_of,
            'is_draft', b.draft is not null, 'cancel_requested_by', b.cancel_requested_by,
            'cancel_requested_at', b.cancel_requested_at, 'cancel_reason', b.cancel_reason, 'result', b.result,
            'error', b.error, 'created_at', b.created_at, 'started_at', b.started_at, 'finished_at', b.finished_at,
            'created_by', b.created_by, 'created_by_name', a.name, 'created_by_email', a.email
        ) || jsonb_build_object(
            'heartbeat_at', null, 'phase', null, 'current', null, 'total', null, 'unit', null, 'percent', null,
            'eta_seconds', null, 'counters', null, 'warnings', null, 'error_summary', null,
            'queue_position', 1 + least(1000, s.ahead + b.before),
            'waiting', jsonb_build_object(
                'suspended', owner.suspended_at is not null, 'delayed', b.run_at > now(),
                'worker_seen', b.queue = any(state.heard), 'running_limit', owner.running_limit,
                'running', state.running, 'running_of_source', (
                    select count(*) from job r
                    where r.data_source_id = b.data_source_id and r.status in ('running', 'cancelling')
                )
            )
        ) as job
        from born b
        join standing s on s.queue = b.queue and s.priority = b.priority
        left join member a on a.id = b.created_by
        cross join state
    )
    select array_agg(coalesce(
        replays -> q.place::text,
        case
            when v.id is not null then jsonb_build_object('outcome', 'created', 'job', v.job)
            when met #>> array[o.id::text, 'outcome'] = 'joined' then jsonb_build_object('outcome', 'joined', 'job', (
                select to_jsonb(j) from job_view j where j.id = (met #>> array[o.id::text, 'job_id'])::uuid
            ))
            when met ? o.id::text then met -> o.id::text
            else jsonb_strip_nulls(jsonb_build_object(
                'outcome', coalesce(o.refusal, 'quota_exceeded'), 'limit', case
                    when o.refusal = 'deadline_too_long' then owner.deadline_limit_seconds
                    when o.refusal is null then quota
                end
            ))
        end
    ) order by q.place) into answers
    from jsonb_array_elements(requests) with ordinality as q (request, place)
    left join unnest(orders) o on o.place = q.place
    left join view v on v.id = o.id;

    if keyed then
        with acted as (
            select q.request, a.answer,
                   case a.answer ->> 'outcome' when 'created' then 202 when 'joined' then 200 end as status
            from jsonb_array_elements(requests) with ordinality as q (request, place)
            join unnest(answers) with ordinality as a (answer, place) on a.place = q.place
            where q.place = any(claimed)
        ), kept as (
            update idempotency_record r
            set status = a.status, body = a.answer -> 'job', subject_id = (a.answer #>> '{job,id}')::uuid
            from acted a
            where a.status is not null
              and r.organization_id = organization and r.actor_id = (a.request ->> 'actor_id')::uuid
              and r.route = a.request ->> 'route' and r.key = a.request ->> 'idempotency_key'
        )
        delete from idempotency_record r using acted a
        where a.status is null
          and r.organization_id = organization and r.actor_id = (a.request ->> 'actor_id')::uuid
          and r.route = a.request ->> 'route' and r.key = a.request ->> 'idempotency_key';
    end if;
    return query select unnest(answers);
end
$$;

-- What the former API calls.
create or replace function job_submit(request jsonb) returns jsonb language sql as $$
    select jobs_submit((request ->> 'organization_id')::uuid, jsonb_build_array(request))
$$;
