"""Forgetting jobs that ended long ago, in bounded steps; a line stays to say that each was there."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from headwater import db
from headwater.db import Connection, Statement

_JOBS: Final = 500


def prune(
    connection: Connection, *, retention_days: int, interrupt: Callable[[], None] = lambda: None, steps: int = 50
) -> int:
    """Delete ended jobs with their attempts, progress and events, each step in a transaction; how many jobs.

    `interrupt` is called between steps and may raise. Several processes may prune at once. The connection is in
    autocommit. Loads and their rejects go behind it (`catalogue.pruning.prune_forgotten`).
    """
    deleted = 0
    for _ in range(steps):
        interrupt()
        gone = db.run(connection, delete_ended(retention_days=retention_days)).rowcount
        deleted += gone
        if gone < _JOBS:
            break
    return deleted


def delete_ended(*, retention_days: int) -> Statement:
    """Delete up to 500 jobs that ended that long ago and are tallied, the oldest first, leaving a summary of each."""
    return Statement(
        """
        with old as materialized (
            select id, organization_id, project_id, data_source_id, kind, status, created_at, finished_at from job
            where finished_at < now() - make_interval(days => %(retention_days)s) and tallied
            order by finished_at limit %(limit)s for update skip locked
        ), kept as (
            insert into job_summary
                (id, organization_id, project_id, data_source_id, kind, status, created_at, finished_at)
            select id, organization_id, project_id, data_source_id, kind, status, created_at, finished_at from old
        ), told as (
            delete from event e using old where e.job_id = old.id
        )
        delete from job j using old where j.id = old.id
        """,
        {"retention_days": retention_days, "limit": _JOBS},
    )


def summary(*, organization_id: UUID, job_id: UUID) -> Statement:
    """What is left of a pruned job: one row {project_id, kind, status, finished_at}, or none."""
    return Statement(
        """
        select project_id, kind, status, finished_at from job_summary
        where id = %(job_id)s and organization_id = %(organization_id)s
        """,
        {"organization_id": organization_id, "job_id": job_id},
    )
