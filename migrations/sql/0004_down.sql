-- Without webhooks. What is lost: all of them, and what was still to be delivered.

drop trigger event_goes_to_webhooks on event;
drop function event_to_webhooks;
-- Or it would see no row to delete.
alter table webhook no force row level security;
alter table sealed_credential no force row level security;
delete from sealed_credential c using webhook w where c.subject_id = w.id;
alter table sealed_credential force row level security;
drop table webhook_attempt;
drop table webhook_delivery;
drop table webhook;
revoke select (field) on sealed_credential from headwater_scheduler;
alter table organization drop webhook_limit;
