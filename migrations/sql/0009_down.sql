-- As before: each file says when it was last seen.

drop trigger file_stays_with_its_source on file;
drop trigger file_goes_with_its_source on data_source;
drop trigger file_has_a_source on file;
drop function file_stays_with_its_source(), file_goes_with_its_source(), file_has_a_source();
update file f set last_seen_at = greatest(f.first_seen_at, s.seen_at)
from file g left join sighting s on s.data_source_id = g.data_source_id
where f.data_source_id = g.data_source_id and f.path = g.path and f.last_seen_at is null;
alter table file alter last_seen_at set not null;
alter table file add constraint fk_file_data_source_id
    foreign key (data_source_id) references data_source (id) on delete cascade;
drop table sighting;
