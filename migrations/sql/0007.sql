-- Lists that read no more of a full database than they show.

-- Each list has an index for each of its filters that ends in the list's order.
create index ix_job_filter on job (organization_id, status, kind, created_at, id);
create index ix_job_project on job (project_id, created_at, id);

drop index ix_audit_entry_organization_id_number;
create index ix_audit_entry_page on audit_entry (organization_id, created_at, number);
create index ix_audit_entry_act on audit_entry (organization_id, act, created_at, number);
create index ix_audit_entry_actor on audit_entry (organization_id, actor_id, created_at, number);
create index ix_audit_entry_subject on audit_entry (organization_id, subject_id, created_at, number);

create index ix_webhook_delivery_job on webhook_delivery (job_id) where job_id is not null;
create index ix_webhook_delivery_undelivered on webhook_delivery (webhook_id, created_at, id)
where status <> 'succeeded';

create index ix_data_source_name on data_source (organization_id, name collate "C", id) where deleted_at is null;
create index ix_data_source_updated_at on data_source (organization_id, updated_at, id) where deleted_at is null;
create index ix_data_source_tags on data_source using gin (tags) where deleted_at is null;
create index ix_data_source_totals_item_count on data_source_totals (organization_id, item_count, data_source_id);
create index ix_data_source_totals_error_count on data_source_totals (organization_id, error_count, data_source_id);
create index ix_data_source_totals_last_sync_at on data_source_totals (organization_id, last_sync_at, data_source_id);

-- A row's source says whose it is. Taken for independent of one another, the two together look so rare to the planner
-- that it reads all there is of a source and sorts it, for a page of 25.
create statistics st_job (dependencies) on organization_id, project_id, data_source_id from job;
create statistics st_event (dependencies) on organization_id, data_source_id, job_id from event;
create statistics st_load (dependencies) on organization_id, data_source_id, job_id from load;
create statistics st_file (dependencies) on organization_id, data_source_id from file;
create statistics st_audit_entry (dependencies) on organization_id, actor_id, subject_id from audit_entry;
create statistics st_webhook_delivery (dependencies) on organization_id, webhook_id, job_id from webhook_delivery;
