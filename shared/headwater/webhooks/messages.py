"""What a webhook is told: thin, so that whoever needs more asks the API for the job."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from headwater import clock, ids

JOB_EVENTS: Final = ("job.succeeded", "job.partially_succeeded", "job.failed", "job.cancelled")
"""What a webhook may be told of."""

TEST_EVENT: Final = "webhook.test"

_API: Final = "/api/v1"


def message(row: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a delivery, as JSON has it: {type, timestamp, data}. `row` is one of `webhook_delivery`."""
    data = {"webhook_id": ids.encode("hook", row["webhook_id"])} if row["type"] == TEST_EVENT else _job(row["data"])
    return {"type": row["type"], "timestamp": clock.rfc3339(row["created_at"]), "data": data}


def _job(data: Mapping[str, Any]) -> dict[str, Any]:
    """The job as `GET /jobs/{id}` shows it, without what is large or may be secret."""
    job_id, project_id = ids.encode("job", UUID(data["id"])), ids.encode("proj", UUID(data["project_id"]))
    source_id = data["data_source_id"] and ids.encode("dsrc", UUID(data["data_source_id"]))
    return {
        "id": job_id,
        "kind": data["kind"],
        "status": data["status"],
        "project_id": project_id,
        "data_source_id": source_id,
        "finished_at": clock.rfc3339(datetime.fromisoformat(data["finished_at"])),
        "error": data["error_code"] and {"code": data["error_code"]},
        "links": {
            "self": f"{_API}/jobs/{job_id}",
            "source": source_id and f"{_API}/projects/{project_id}/data-sources/{source_id}",
        },
    }
