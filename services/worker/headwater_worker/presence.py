"""Saying that a worker process is alive, for the scheduler and for operators; which child of it is dead; what its gate
refused.
"""

import os
import socket
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import psycopg

from headwater import __version__, db, log
from headwater.jobs import dispatching, statements
from headwater.measuring import tallies
from headwater.settings import DatabaseSettings
from headwater_worker import gate

INTERVAL_SECONDS: Final = 5.0

_log = log.get(__name__)


@dataclass(frozen=True)
class Identity:
    """This worker process: `interactive@host`, the queue it serves, how many jobs it runs at once."""

    queue: str
    slots: int

    @property
    def name(self) -> str:
        """Unique while it lives; the process id tells two workers of one queue on a machine apart."""
        return f"{self.queue}@{socket.gethostname()}:{os.getpid()}"


_identity: Identity | None = None


def introduce(identity: Identity) -> None:
    """Set who this process is, before anything is said."""
    global _identity
    _identity = identity


def seen() -> None:
    """Say that we are here. A database that is away is only logged: it is said again in a few seconds."""
    if _identity is not None:
        _say(
            dispatching.worker_seen(
                name=_identity.name, queue=_identity.queue, slots=_identity.slots, version=__version__
            )
        )


def refused() -> None:
    """Say what the gate has refused since it was last said: however much it is, one line and one statement."""
    counts = gate.REFUSALS.take()
    if not counts:
        return
    _log.warning("messages.refused", **counts, hint="Somebody else writes to this Redis.")
    if not _say(tallies.refused(counts)):
        gate.REFUSALS.add(counts)


def gone() -> None:
    """Say goodbye."""
    refused()
    if _identity is not None:
        _say(dispatching.worker_gone(_identity.name))


def child(pid: int) -> str:
    """The name under which the child process `pid` of this machine holds leases."""
    return f"{socket.gethostname()}:{pid}"


def child_died(job_id: UUID, pid: int) -> None:
    """Say that a child died with this job, so that the reaper takes it back now."""
    _say(statements.end_lease(job_id=job_id, worker=child(pid)))


def _say(statement: db.Statement) -> bool:
    try:
        # A connection of the moment: children are forked from this process at any time and must inherit none.
        with db.connect(
            DatabaseSettings().database_url, application="headwater-presence", statement_timeout_seconds=3
        ) as connection:
            db.run(connection, statement)
    except psycopg.Error as error:
        _log.warning("presence.not_said", error=type(error).__name__)
        return False
    return True
