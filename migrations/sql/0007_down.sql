drop statistics st_job, st_event, st_load, st_file, st_audit_entry, st_webhook_delivery;
drop index ix_job_filter, ix_job_project, ix_webhook_delivery_job, ix_webhook_delivery_undelivered;
drop index ix_data_source_name, ix_data_source_updated_at, ix_data_source_tags;
drop index
    ix_data_source_totals_item_count, ix_data_source_totals_error_count, ix_data_source_totals_last_sync_at;
drop index ix_audit_entry_page, ix_audit_entry_act, ix_audit_entry_actor, ix_audit_entry_subject;
create index ix_audit_entry_organization_id_number on audit_entry (organization_id, number);
