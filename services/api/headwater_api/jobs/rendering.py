"""A row of `job_view`, as JSON from Postgres, in the shape of the REST contract."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, Final, Literal
from uuid import UUID

import orjson

from headwater import clock, ids
from headwater.db import Row
from headwater.jobs.outcome import WAITING_FOR_KEY
from headwater.settings import JobSettings

PREFIX: Final = "/api/v1"
FINAL: Final = frozenset({"succeeded", "partially_succeeded", "failed", "cancelled"})

Reason = Literal[
    "organization_suspended", "key_unavailable", "retry_delay", "organization_limit", "source_limit", "no_worker",
    "in_queue",
]  # fmt: skip

_SOONEST_SECONDS: Final = 1
_LATEST_SECONDS: Final = 30
# A job is asked for again after a tenth of its age, and four times in the time that it says it still needs.
_AGE_SHARE: Final = 10
_ETA_SHARE: Final = 4


def mark(row: Mapping[str, Any]) -> str:
    """What a waiter watches of a job, and its ETag: status, attempt, and whether somebody asked to cancel.

    `row` has `status`, `attempt` and either `cancelling` or `cancel_requested_at`.
    """
    cancelling = row.get("cancelling") or row.get("cancel_requested_at")
    return f"{row['status']}.{row['attempt']}{'.c' if cancelling else ''}"


def link(job_id: UUID) -> str:
    """Where a job is read."""
    return f"{PREFIX}/jobs/{ids.encode('job', job_id)}"


@dataclass(frozen=True)
class JobView:
    """One reading of a job. Rendered once, however many wait for it. `caps` are those of the deployment."""

    row: Row
    caps: JobSettings

    @property
    def id(self) -> UUID:
        return UUID(self.row["id"])

    @property
    def organization_id(self) -> UUID:
        return UUID(self.row["organization_id"])

    @property
    def final(self) -> bool:
        """Whether its status never changes again."""
        return self.row["status"] in FINAL

    @cached_property
    def mark(self) -> str:
        """See `mark`."""
        return mark(self.row)

    @property
    def etag(self) -> str:
        """Weak, because progress moves without it."""
        return f'W/"{self.mark}"'

    @cached_property
    def content(self) -> dict[str, Any]:
        """The job as the contract shows it."""
        return job(self.row, self.caps)

    @cached_property
    def body(self) -> bytes:
        """`content` as JSON."""
        return orjson.dumps(self.content)

    def headers(self) -> dict[str, str]:
        """`ETag`, and `Retry-After` while the job is not final."""
        headers = {"ETag": self.etag}
        if not self.final:
            headers["Retry-After"] = str(retry_after_seconds(self.row))
        return headers


def job(row: Row, caps: JobSettings) -> dict[str, Any]:
    """The job of the REST contract."""
    status, source_id, project_id = row["status"], row["data_source_id"], _id("proj", row["project_id"])
    self_link = f"{PREFIX}/jobs/{_id('job', row['id'])}"
    source = source_id and f"{PREFIX}/projects/{project_id}/data-sources/{_id('dsrc', source_id)}"
    waits_again = status == "queued" and row["attempt"] > 0
    return {
        "id": _id("job", row["id"]),
        "kind": row["kind"],
        "status": status,
        "done": status in FINAL,
        "project_id": project_id,
        "data_source_id": _id("dsrc", source_id),
        "config_version": row["config_version"],
        "queue": row["queue"],
        "queue_position": row["queue_position"],
        "reason_waiting": reason_waiting(row, caps),
        "created_by": _member(row),
        "created_at": _moment(row["created_at"]),
        "started_at": _moment(row["started_at"]),
        "finished_at": _moment(row["finished_at"]),
        "heartbeat_at": _moment(row["heartbeat_at"]),
        "deadline_at": _moment(row["deadline_at"]),
        "attempt": row["attempt"],
        "max_attempts": row["max_attempts"],
        "next_attempt_at": _moment(row["run_at"]) if waits_again else None,
        "retry_of": _id("job", row["retry_of"]),
        "cancel": _cancel(row),
        "progress": progress(row),
        "counters": row["counters"] or {},
        "warnings": row["warnings"] or [],
        "result": row["result"],
        "error": row["error"],
        "error_summary": row["error_summary"] or [],
        "links": {
            "self": self_link,
            "events": f"{self_link}/events",
            "source": source,
            "rejects": f"{self_link}/rejects",
        },
    }


def reason_waiting(row: Row, caps: JobSettings) -> Reason | None:
    """What keeps a queued job from running: what would have to change first. None once it runs."""
    # An answer that was stored for its Idempotency-Key by the former version has none.
    waiting = row.get("waiting")
    if waiting is None:
        return None
    if waiting["suspended"]:
        return "organization_suspended"
    if waiting["delayed"]:
        return "key_unavailable" if row["phase"] == WAITING_FOR_KEY else "retry_delay"
    if not waiting["worker_seen"]:
        return "no_worker"
    if waiting["running"] >= (waiting["running_limit"] or caps.running_per_organization):
        return "organization_limit"
    if waiting["running_of_source"] >= caps.running_per_source:
        return "source_limit"
    return "in_queue"


def progress(row: Row) -> dict[str, Any]:
    """Where the job is; before the first report all is unknown."""
    return {
        "phase": row["phase"],
        "current": row["current"] or 0,
        "total": row["total"],
        "unit": row["unit"],
        "percent": row["percent"],
        "eta_seconds": row["eta_seconds"],
    }


def retry_after_seconds(row: Row) -> int:
    """When it pays to ask again for a job that is not final: 1 to 30 seconds, longer the longer it takes."""
    if row["status"] == "queued" and row["attempt"] > 0:
        wanted = -_age_seconds(row["run_at"])
    elif row["eta_seconds"] is not None:
        wanted = row["eta_seconds"] / _ETA_SHARE
    else:
        wanted = _age_seconds(row["created_at"]) / _AGE_SHARE
    return min(_LATEST_SECONDS, max(_SOONEST_SECONDS, round(wanted)))


def _age_seconds(moment: str) -> float:
    return (clock.now() - datetime.fromisoformat(moment)).total_seconds()


@lru_cache(maxsize=10_000)
def _id(prefix: ids.Prefix, value: str | None) -> str | None:
    return None if value is None else ids.encode(prefix, UUID(value))


def _moment(value: str | None) -> str | None:
    """As everywhere in the API: six digits of a second, or none if they are all zero."""
    if value is None:
        return None
    # The API's connections live in UTC, so that Postgres writes +00:00; it leaves out the zeros at a fraction's end.
    local = value.removesuffix("+00:00")
    return f"{local:0<26}Z" if "." in local else f"{local}Z"


def _member(row: Row) -> dict[str, Any] | None:
    if row["created_by"] is None:
        return None
    return {"id": _id("user", row["created_by"]), "name": row["created_by_name"], "email": row["created_by_email"]}


def _cancel(row: Row) -> dict[str, Any] | None:
    if row["cancel_requested_at"] is None:
        return None
    return {
        "requested_by": _id("user", row["cancel_requested_by"]),
        "requested_at": _moment(row["cancel_requested_at"]),
    }
