-- Webhooks: where an organization is told that a job has ended, and every delivery until it has arrived.

alter table organization add webhook_limit integer;

create table webhook (
    id uuid not null,
    organization_id uuid not null,
    url text not null,
    description text not null default '',
    event_types text[],
    project_ids uuid[],
    enabled boolean default true not null,
    disabled_reason text,
    failing_since timestamptz,
    secret_number integer default 1 not null,
    previous_secret_until timestamptz,
    revision integer default 1 not null,
    created_at timestamptz default now() not null,
    updated_at timestamptz default now() not null,
    deleted_at timestamptz,
    constraint pk_webhook primary key (id),
    constraint ck_webhook_disabled_reason check (disabled_reason in ('gone', 'failing')),
    constraint fk_webhook_organization_id foreign key(organization_id) references organization (id) on delete cascade
);
create index ix_webhook_page on webhook (organization_id, created_at, id) where deleted_at is null;
create index ix_webhook_previous_secret on webhook (previous_secret_until) where previous_secret_until is not null;
create index ix_webhook_deleted on webhook (deleted_at) where deleted_at is not null;

create table webhook_delivery (
    id uuid not null default uuid_v7(),
    organization_id uuid not null,
    webhook_id uuid not null,
    type text not null,
    job_id uuid,
    data jsonb default '{}' not null,
    status text default 'pending' not null,
    attempt integer default 0 not null,
    tries integer default 0 not null,
    next_at timestamptz default now() not null,
    token uuid,
    leased_until timestamptz,
    status_code integer,
    error_code text,
    created_at timestamptz default now() not null,
    ended_at timestamptz,
    constraint pk_webhook_delivery primary key (id),
    constraint ck_webhook_delivery_status check (status in ('pending', 'delivering', 'succeeded', 'failed')),
    constraint fk_webhook_delivery_webhook_id foreign key(webhook_id) references webhook (id) on delete cascade
);
create index ix_webhook_delivery_page on webhook_delivery (webhook_id, created_at, id);
create index ix_webhook_delivery_pending on webhook_delivery (webhook_id, next_at, id) where status = 'pending';
create index ix_webhook_delivery_leased on webhook_delivery (leased_until) where status = 'delivering';
create index ix_webhook_delivery_created_at on webhook_delivery (created_at);

create table webhook_attempt (
    delivery_id uuid not null,
    attempt integer not null,
    organization_id uuid not null,
    started_at timestamptz default now() not null,
    duration_ms integer,
    status_code integer,
    error_code text,
    constraint pk_webhook_attempt primary key (delivery_id, attempt),
    constraint fk_webhook_attempt_delivery_id foreign key(delivery_id) references webhook_delivery (id) on delete cascade
);

alter table webhook enable row level security, force row level security;
alter table webhook_delivery enable row level security, force row level security;
alter table webhook_attempt enable row level security, force row level security;
create policy own_organization on webhook using (organization_id = (select current_organization()));
create policy own_organization on webhook_delivery using (organization_id = (select current_organization()));
create policy own_organization on webhook_attempt using (organization_id = (select current_organization()));

-- As with jobs: what waits to be delivered is of everybody, and a deliverer learns from the row whose it is. Where it
-- goes, and what it is signed with, are seen by whoever acts for its organization.
create policy queue_shows on webhook_delivery for select to headwater_worker using (true);
create policy queue_moves on webhook_delivery for update to headwater_worker using (true);
create policy queue on webhook_attempt to headwater_worker using (true);

create policy every_organization on webhook to headwater_scheduler using (true);
create policy every_organization on webhook_delivery to headwater_scheduler using (true);

grant select, insert, update on webhook to headwater_api;
grant select (
    id, organization_id, webhook_id, type, job_id, data, status, attempt, tries, next_at, status_code, error_code,
    created_at, ended_at
) on webhook_delivery to headwater_api;
grant insert on webhook_delivery to headwater_api;
grant update (status, tries, next_at, ended_at) on webhook_delivery to headwater_api;
grant select on webhook_attempt to headwater_api;

grant select on webhook, webhook_delivery, webhook_attempt to headwater_worker;
grant insert on webhook_delivery, webhook_attempt to headwater_worker;
grant update (enabled, disabled_reason, failing_since, revision, updated_at) on webhook to headwater_worker;
grant update (status, attempt, tries, next_at, token, leased_until, status_code, error_code, ended_at)
on webhook_delivery to headwater_worker;
grant update (duration_ms, status_code, error_code) on webhook_attempt to headwater_worker;

grant select (
    id, organization_id, event_types, project_ids, enabled, secret_number, previous_secret_until, deleted_at
) on webhook to headwater_scheduler;
grant update (previous_secret_until) on webhook to headwater_scheduler;
grant select (id, webhook_id, created_at) on webhook_delivery to headwater_scheduler;
grant insert on webhook_delivery to headwater_scheduler;
grant select (field) on sealed_credential to headwater_scheduler;
grant delete on webhook, webhook_delivery to headwater_scheduler;

-- The outbox. A job ends in the worker's, the scheduler's, the API's and the operator's hands; each writes the event of
-- its end, and whoever does writes the deliveries in the same transaction. They keep what they will say: the job may be
-- pruned before it is heard.
create function event_to_webhooks() returns trigger language plpgsql as $$
begin
    insert into webhook_delivery (organization_id, webhook_id, type, job_id, data)
    select w.organization_id, w.id, new.act, j.id, jsonb_build_object(
        'id', j.id, 'kind', j.kind, 'status', j.status, 'project_id', j.project_id,
        'data_source_id', j.data_source_id, 'finished_at', j.finished_at, 'error_code', j.error ->> 'code'
    )
    from webhook w
    join job j on j.id = new.job_id
    where w.organization_id = new.organization_id and w.enabled and w.deleted_at is null
      and (w.event_types is null or new.act = any(w.event_types))
      and (w.project_ids is null or j.project_id = any(w.project_ids));
    return null;
end
$$;

create trigger event_goes_to_webhooks after insert on event for each row
    when (new.act in ('job.succeeded', 'job.partially_succeeded', 'job.failed', 'job.cancelled'))
    execute function event_to_webhooks();
