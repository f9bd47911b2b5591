-- As before: nothing is measured. What is lost: the tallies.

drop policy every_organization on job_progress;
revoke select (status, next_at) on webhook_delivery from headwater_scheduler;
revoke select (job_id, counters) on job_progress from headwater_scheduler;
revoke select (attempt, outcome, ended_at, tallied), update (tallied) on job_attempt from headwater_scheduler;
revoke select (started_at, tallied), update (tallied) on job from headwater_scheduler;
drop index ix_job_untallied, ix_job_attempt_untallied;
alter table job drop tallied;
alter table job_attempt drop tallied;
drop table measurement, tally;
