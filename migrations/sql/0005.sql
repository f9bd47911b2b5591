-- What monitoring reads: gauges as a scheduler last measured them, and tallies of what has ended.

-- One row, which is also the lock of whoever measures.
create table measurement (
    id boolean default true not null,
    measured_at timestamptz,
    gauges jsonb default '[]' not null,
    constraint pk_measurement primary key (id),
    constraint ck_measurement_id check (id)
);
insert into measurement default values;

create table tally (
    name text not null,
    labels jsonb not null,
    value double precision not null,
    constraint pk_tally primary key (name, labels)
);

-- What has ended and is not tallied yet. A job enters the index at its end, not when it is submitted.
alter table job add tallied boolean default false not null;
alter table job_attempt add tallied boolean default false not null;
create index ix_job_untallied on job (finished_at) where finished_at is not null and not tallied;
create index ix_job_attempt_untallied on job_attempt (ended_at) where ended_at is not null and not tallied;

-- Sums over all organizations, which name none of them.
grant select on measurement, tally to headwater_api;
grant select on measurement to headwater_scheduler;
grant update (measured_at, gauges) on measurement to headwater_scheduler;
grant select, insert, delete on tally to headwater_scheduler;
grant update (value) on tally to headwater_scheduler;
grant select (started_at, tallied), update (tallied) on job to headwater_scheduler;
grant select (attempt, outcome, ended_at, tallied), update (tallied) on job_attempt to headwater_scheduler;
grant select (job_id, counters) on job_progress to headwater_scheduler;
grant select (status, next_at) on webhook_delivery to headwater_scheduler;
create policy every_organization on job_progress for select to headwater_scheduler using (true);
