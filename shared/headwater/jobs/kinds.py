"""The kinds of jobs: on which queue each runs, for how long, how often it is tried, what its source must offer."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from headwater.connectors.spec import Capability


class Queue(StrEnum):
    """A Redis list with workers of its own."""

    INTERACTIVE = "interactive"
    """somebody is waiting: tests, listings, discoveries"""
    BULK = "bulk"
    """syncs"""


@dataclass(frozen=True)
class Kind:
    """One kind of job. `deadline_seconds` is the default and `longest_seconds` what a caller may ask for."""

    name: str
    queue: Queue
    capability: Capability
    deadline_seconds: int
    longest_seconds: int
    max_attempts: int

    @property
    def task(self) -> str:
        """The name of its Celery task, as operators read it in Flower."""
        return f"headwater.{self.name}"


CONNECTION_TEST: Final = Kind("connection_test", Queue.INTERACTIVE, Capability.TEST, 25, 120, 3)
FILE_LISTING: Final = Kind("file_listing", Queue.INTERACTIVE, Capability.FILES, 2 * 3600, 24 * 3600, 5)
TABLE_DISCOVERY: Final = Kind("table_discovery", Queue.INTERACTIVE, Capability.TABLES, 600, 7200, 5)
SYNC: Final = Kind("sync", Queue.BULK, Capability.SYNC, 24 * 3600, 7 * 24 * 3600, 5)

KINDS: Final = {kind.name: kind for kind in (CONNECTION_TEST, FILE_LISTING, TABLE_DISCOVERY, SYNC)}
