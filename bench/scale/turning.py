"""What the scheduler does whether there is something to do or not, and a step of pruning, as its own role."""

from collections.abc import Callable
from functools import partial
from typing import Final

import psycopg

from headwater import db
from headwater.audit import chain
from headwater.catalogue import pruning as catalogue_pruning
from headwater.db import Connection, Statement
from headwater.jobs import dispatching, lifecycle
from headwater.jobs import pruning as jobs_pruning
from headwater.measuring import gauges, tallies
from headwater.settings import JobSettings
from headwater.uploads import statements as uploads
from headwater.webhooks import pruning as webhooks_pruning

_SETTINGS: Final = JobSettings()

Turn = Callable[[Connection], object]


def turns() -> dict[str, Turn]:
    """Each duty by its name; none leaves a change behind."""
    dispatch = dispatching.dispatch(
        queue="interactive", limit=200, running_limit=100, source_limit=10, rering_seconds=15
    )
    return {
        "pace": partial(_undone, statements=(dispatching.pace(),)),
        "dispatch of ten jobs": partial(_undone, statements=(dispatching.unring_all(), dispatch)),
        "reap": partial(lifecycle.reap, settings=_SETTINGS),
        "seal": chain.seal,
        "tally": partial(tallies.add, per_source=False),
        "measure": partial(gauges.measure, redis_up=True),
        "prune ten jobs": partial(_undone, statements=(jobs_pruning.delete_ended(retention_days=90),)),
        "prune loads": catalogue_pruning.prune,
        "prune forgotten loads": catalogue_pruning.prune_forgotten,
        "prune deliveries": partial(webhooks_pruning.prune, retention_days=30),
        "close deleted sources": partial(
            _undone, statements=(catalogue_pruning.close_deleted_sources(retention_days=30),)
        ),
        "give up uploads": partial(
            _undone,
            statements=(uploads.give_up(receiving_seconds=900, partial_seconds=86400, retention_days=30),),
        ),
        "prune idempotency records": _forget_keys,
    }


def _undone(connection: Connection, *, statements: tuple[Statement, ...]) -> None:
    with connection.transaction():
        for statement in statements:
            db.run(connection, statement)
        raise psycopg.Rollback


def _forget_keys(connection: Connection) -> None:
    connection.execute("delete from idempotency_record where created_at < now() - interval '24 hours'")
