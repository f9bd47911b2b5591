"""The names of what is measured, as Prometheus shows them, with what each means."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

from headwater.connectors import registry
from headwater.connectors.spec import Capability
from headwater.jobs.kinds import KINDS

# Upper bounds in seconds, written as OpenMetrics wants them. A tally holds the counts below each, so whoever changes a
# bound empties the tallies of histograms in a migration.
BOUNDS: Final = (
    "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "60.0", "300.0", "900.0", "3600.0", "14400.0",
    "86400.0", "+Inf",
)  # fmt: skip

_STATUSES: Final = ("succeeded", "partially_succeeded", "failed", "cancelled")
_OUTCOMES: Final = (*_STATUSES, "retried", "released", "lost")
_REASONS: Final = ("too_large", "malformed", "foreign_task", "foreign_command")


@dataclass(frozen=True)
class Family:
    """Series of one name. `help` says what it counts or measures, and in what unit."""

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


MEASURED_AT: Final = Family(
    "headwater_measured_timestamp_seconds", "gauge", "When all of this was last measured, in Unix time; 0 is never."
)

FAMILIES: Final = (
    Family("headwater_jobs_queued", "gauge", "Jobs that wait, also for a later attempt.", ("queue",)),
    Family(
        "headwater_jobs_oldest_queued_seconds", "gauge",
        "For how long the first of the queued jobs has been due; those of suspended organizations are not.", ("queue",),
    ),
    Family("headwater_jobs_running", "gauge", "Jobs that run, also while they are cancelled.", ("kind",)),
    Family(
        "headwater_job_heartbeat_age_seconds", "gauge",
        "The longest time since a running job's lease was extended; 0 when none runs.", ("queue",),
    ),
    Family("headwater_workers", "gauge", "Worker processes seen in the last 20 seconds.", ("queue",)),
    Family("headwater_worker_slots", "gauge", "How many jobs these can run at once.", ("queue",)),
    Family("headwater_redis_up", "gauge", "1 if the scheduler reaches Redis, else 0."),
    Family(
        "headwater_audit_unsealed_seconds", "gauge",
        "For how long the oldest audit entry has waited to be sealed; 0 when none does.",
    ),
    Family(
        "headwater_webhook_oldest_due_seconds", "gauge",
        "For how long the first of the deliveries that wait has been due; 0 when none is.",
    ),
    Family("headwater_jobs_finished_total", "counter", "Jobs that ended, by how.", ("kind", "status")),
    Family("headwater_job_attempts_total", "counter", "Attempts that ended, by how.", ("kind", "outcome")),
    Family(
        "headwater_job_lease_losses_total", "counter",
        "Attempts whose worker was not heard of until the lease ran out.", ("kind",),
    ),
    Family(
        "headwater_messages_refused_total", "counter",
        "Messages in Redis that were neither rings nor questions, by why workers did not read them.", ("reason",),
    ),
    Family(
        "headwater_job_start_seconds", "histogram",
        "From the submit to the start of the first attempt; seen when the job ends.", ("kind",),
    ),
    Family(
        "headwater_job_run_seconds", "histogram",
        "From the start of the first attempt to the end of the job, pauses between attempts included.", ("kind",),
    ),
    Family("headwater_items_synced_total", "counter", "Records that syncs landed, added when a sync ends.", ("type",)),
    Family("headwater_item_errors_total", "counter", "Records and files that syncs refused, likewise.", ("type",)),
    Family(
        "headwater_source_items_synced_total", "counter",
        "The same of one data source, where HEADWATER_METRICS_PER_SOURCE is on.", ("type", "data_source"),
    ),
    Family(
        "headwater_source_item_errors_total", "counter",
        "The same of one data source, where HEADWATER_METRICS_PER_SOURCE is on.", ("type", "data_source"),
    ),
)  # fmt: skip


def expected(labels: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    """The values of these labels that are shown from the start: a rate sees no step from nothing to one."""
    known = {
        "kind": tuple(KINDS),
        "status": _STATUSES,
        "outcome": _OUTCOMES,
        "type": registry.types_with(Capability.SYNC),
        "data_source": (),
        "reason": _REASONS,
    }
    return product(*(known[label] for label in labels))
