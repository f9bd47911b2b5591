-- When all files of a source that are not marked otherwise were last seen at once. A file whose `last_seen_at` is null
-- is seen whenever its source is (decision 0014).
create table sighting (
    data_source_id uuid not null,
    organization_id uuid not null,
    seen_at timestamptz default now() not null,
    constraint pk_sighting primary key (data_source_id),
    constraint fk_sighting_data_source_id foreign key(data_source_id) references data_source (id) on delete cascade
);
alter table sighting enable row level security, force row level security;
create policy own_organization on sighting using (organization_id = (select current_organization()));
grant select on sighting to headwater_api, headwater_worker;
grant insert, update on sighting to headwater_worker;

alter table file alter last_seen_at drop not null;

-- A foreign key asks once for each row; files come by the ten thousand, and all of one statement have one source or two.
-- With the owner's rights, as a foreign key asks: who writes files may lock no source. The owner sees the sources of the
-- organization that it acts for; whom the caller acts for is as before when a function ends. Deleting a source waits for
-- the lock, and then finds the files.
alter table file drop constraint fk_file_data_source_id;

create function file_has_a_source() returns trigger language plpgsql security definer
set search_path = pg_catalog, public, pg_temp as $$
declare
    acting_for text := current_setting('headwater.organization', true);
    owned record;
begin
    for owned in select distinct data_source_id, organization_id from added order by 1, 2 loop
        perform set_config('headwater.organization', owned.organization_id::text, true);
        perform from data_source d
        where d.id = owned.data_source_id and d.organization_id = owned.organization_id for key share;
        if not found then
            raise foreign_key_violation using message = 'a file needs a data source of its organization';
        end if;
    end loop;
    perform set_config('headwater.organization', coalesce(acting_for, ''), true);
    return null;
end
$$;

create function file_goes_with_its_source() returns trigger language plpgsql security definer
set search_path = pg_catalog, public, pg_temp as $$
declare
    acting_for text := current_setting('headwater.organization', true);
    owner uuid;
begin
    for owner in select distinct organization_id from gone loop
        perform set_config('headwater.organization', owner::text, true);
        delete from file where data_source_id in (select id from gone where organization_id = owner);
    end loop;
    perform set_config('headwater.organization', coalesce(acting_for, ''), true);
    return null;
end
$$;

revoke execute on function file_has_a_source(), file_goes_with_its_source() from public;

create trigger file_has_a_source after insert on file referencing new table as added
    for each statement execute function file_has_a_source();
create trigger file_goes_with_its_source after delete on data_source referencing old table as gone
    for each statement execute function file_goes_with_its_source();
-- A row that is there never changes whose it is.
create function file_stays_with_its_source() returns trigger language plpgsql as $$
begin
    raise foreign_key_violation using message = 'a file never changes its data source';
end
$$;
create trigger file_stays_with_its_source before update of data_source_id on file
    for each row when (old.data_source_id <> new.data_source_id) execute function file_stays_with_its_source();
