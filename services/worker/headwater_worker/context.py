"""What a handler is given: the claim, the way to write effects, how to say where it is and hear that it must stop."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from headwater.db import Connection
from headwater.jobs import lifecycle
from headwater.jobs.lifecycle import Claim
from headwater.settings import EgressSettings, JobSettings
from headwater.uploads.reading import Uploads
from headwater.vault.providers import KeyProvider
from headwater_worker.progress import Reporter


@dataclass(frozen=True)
class JobContext:
    """One attempt at a job.

    `connection` is in autocommit and this attempt's own; temporary tables on it live until the attempt ends.
    `uploads` is None where the operator configured no place for them.
    """

    claim: Claim
    connection: Connection
    progress: Reporter
    vault: KeyProvider
    egress: EgressSettings
    settings: JobSettings
    interrupt: Callable[[], None]
    uploads: Uploads | None = None

    def checkpoint(self) -> None:
        """Call between steps, at least every second of work.

        Raises `CancelRequested`, `DeadlineExceeded`, `LeaseLost` or `Draining`, when the handler must stop at once.
        """
        self.interrupt()

    def fenced(self) -> AbstractContextManager[Connection]:
        """One short transaction of effects, written only while the job is ours. Raises `LeaseLost`."""
        return lifecycle.fenced(self.connection, self.claim)
