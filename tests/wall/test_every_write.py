"""What every writing operation owes: one audit entry, once per key, and `If-Match` exactly where the contract says."""

import re
from typing import Any

import pytest
from calling import SAMPLES, Call

from headwater import ids
from headwater.audit.acts import Act

_SOURCE = "/projects/{project_id}/data-sources/{data_source_id}"

WRITES = [operation for operation in SAMPLES if not operation.startswith("GET")]
POSTS = [operation for operation in WRITES if operation.startswith("POST") and not operation.endswith("/tables")]
# Its answer holds a secret, which is shown once.
SECRET = {
    "POST /api-keys", "POST /api-keys/{key_id}/rotate", "POST /webhooks", "POST /webhooks/{webhook_id}/rotate",
}  # fmt: skip
# Changes of what two people may edit at once; everywhere else the header may be left out.
NEEDS_IF_MATCH = re.compile(r"(PUT|PATCH|DELETE) /projects/\{project_id\}(/data-sources/\{data_source_id\})?$")

ACTS: dict[str, list[Act]] = {
    "PATCH /organization": [Act.ORGANIZATION_UPDATE],
    "POST /members": [Act.MEMBER_CREATE],
    "PATCH /members/{member_id}": [Act.MEMBER_UPDATE],
    "DELETE /members/{member_id}": [Act.MEMBER_DELETE],
    "POST /api-keys": [Act.API_KEY_CREATE],
    "DELETE /api-keys/{key_id}": [Act.API_KEY_REVOKE],
    "POST /api-keys/{key_id}/rotate": [Act.API_KEY_ROTATE],
    "POST /projects": [Act.PROJECT_CREATE],
    "PATCH /projects/{project_id}": [Act.PROJECT_UPDATE],
    "DELETE /projects/{project_id}": [Act.PROJECT_DELETE],
    "POST /projects/{project_id}/data-sources": [Act.DATA_SOURCE_CREATE],
    "POST /projects/{project_id}/data-sources/test": [Act.JOB_SUBMIT],
    f"PATCH {_SOURCE}": [Act.DATA_SOURCE_UPDATE],
    f"PUT {_SOURCE}": [Act.DATA_SOURCE_UPDATE],
    f"DELETE {_SOURCE}": [Act.DATA_SOURCE_DELETE],
    f"PUT {_SOURCE}/credentials": [Act.CREDENTIALS_UPDATE],
    f"DELETE {_SOURCE}/credentials": [Act.CREDENTIALS_DELETE],
    f"POST {_SOURCE}/test": [Act.JOB_SUBMIT],
    f"POST {_SOURCE}/files": [Act.JOB_SUBMIT],
    f"POST {_SOURCE}/tables": [],  # refused: an S3 source has no tables
    f"POST {_SOURCE}/sync": [Act.JOB_SUBMIT],
    f"POST {_SOURCE}/uploads": [Act.UPLOAD_STORE],
    f"PUT {_SOURCE}/uploads/{{name}}": [Act.UPLOAD_STORE],
    f"DELETE {_SOURCE}/uploads/{{name}}": [Act.UPLOAD_DELETE],
    "POST /webhooks": [Act.WEBHOOK_CREATE],
    "PATCH /webhooks/{webhook_id}": [Act.WEBHOOK_UPDATE],
    "DELETE /webhooks/{webhook_id}": [Act.WEBHOOK_DELETE],
    "POST /webhooks/{webhook_id}/rotate": [Act.WEBHOOK_ROTATE],
    "POST /webhooks/{webhook_id}/test": [Act.WEBHOOK_TEST],
    "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": [Act.WEBHOOK_REDELIVER],
    "POST /jobs/{job_id}/cancel": [Act.JOB_CANCEL],
    "POST /jobs/{job_id}/retry": [Act.JOB_SUBMIT],
    "POST /jobs:batch": [Act.JOB_SUBMIT],
    "POST /jobs:cancel": [Act.JOB_CANCEL],
}


def audited(stage: Any, after: int) -> list[Any]:
    """The organization's entries behind a number."""
    rows = stage.ours.connection.execute(
        "select * from audit_entry where organization_id = %s and number > %s and act <> 'access.deny' order by number",
        (stage.ours.organization.organization_id, after),
    ).fetchall()
    return list(rows)


def newest(stage: Any) -> int:
    row = stage.ours.connection.execute("select max(number) as number from audit_entry").fetchone()
    return int(row["number"])


def with_headers(call: Call, **headers: str) -> Call:
    """The call with these headers in place of its own."""
    return Call(call.method, call.path, call.named, call.options | {"headers": headers})


def test_every_writing_operation_has_its_acts() -> None:
    """And every act of a request is somebody's; the rest are operators', workers' and refusals."""
    elsewhere = {
        Act.ORGANIZATION_CREATE, Act.ORGANIZATION_SUSPEND, Act.ORGANIZATION_RESUME, Act.ORGANIZATION_DELETE,
        Act.CREDENTIALS_UNSEAL, Act.ACCESS_DENY, Act.WEBHOOK_UNSEAL, Act.WEBHOOK_DISABLE,
        Act.KEY_CREATE, Act.KEY_RESEAL, Act.KEY_REWRAP, Act.KEY_VERIFY, Act.KEY_DELETE,
    }  # fmt: skip
    assert set(WRITES) == ACTS.keys()
    assert {act for acts in ACTS.values() for act in acts} == set(Act) - elsewhere


@pytest.mark.parametrize("operation", ACTS)
def test_a_write_leaves_its_entry_with_who_and_where_from(stage: Any, operation: str) -> None:
    """Exactly one, with actor, key, request and address; and none of what was refused."""
    call = SAMPLES[operation](stage.ours)
    before = newest(stage)
    headers = call.options.get("headers", {}) | {"X-Request-Id": "the-request"}
    answer = with_headers(call, **headers).by(stage.clients["admin"])
    entries = audited(stage, before)
    assert [entry["act"] for entry in entries] == ACTS[operation], answer.text
    for entry in entries:
        assert entry["actor_id"] == stage.ours.organization.member_id
        assert (entry["request_id"], entry["address"]) == ("the-request", "127.0.0.1")
        assert entry["key_id"] is not None
    refused = SAMPLES[operation](stage.theirs)
    refused.by(stage.clients["viewer"])
    if "_id}" in operation:
        refused.by(stage.clients["admin"])
        assert audited(stage, before) == entries


@pytest.mark.parametrize("operation", POSTS)
def test_a_post_acts_once_per_key(stage: Any, operation: str) -> None:
    """The same again is answered alike and leaves no second entry; another request under the key is 422."""
    call, another = SAMPLES[operation](stage.ours), _another(stage, operation)
    before, headers = newest(stage), {"Idempotency-Key": ids.new().hex}
    first, second = (with_headers(call, **headers).by(stage.clients["admin"]) for _ in range(2))
    assert first.status_code in (200, 201, 202), first.text
    if operation in SECRET:
        assert (second.status_code, second.json()["code"]) == (409, "already_created")
    else:
        assert (second.status_code, second.headers["Idempotency-Replayed"]) == (first.status_code, "true")
        assert second.json() == first.json()
    assert len(audited(stage, before)) == 1
    mismatch = Call(call.method, call.path, call.named, another | {"headers": headers}).by(stage.clients["admin"])
    assert (mismatch.status_code, mismatch.json()["code"]) == (422, "idempotency_key_reused"), mismatch.text
    assert len(audited(stage, before)) == 1


def _another(stage: Any, operation: str) -> dict[str, Any]:
    """The options of another good request of the same operation."""
    options = SAMPLES[operation](stage.ours).options
    if "content" in options:
        return options | {"content": b"other bytes"}
    if operation.endswith("/rotate"):
        return {"json": {"overlap_seconds": 5}}
    if operation.endswith("/cancel"):
        return {"json": {"reason": "another"}}
    if operation.startswith("POST /jobs:"):
        return options  # it names another source, or job
    if {"name", "email", "url"} & options.get("json", {}).keys():
        return options  # its name is another one each time
    return {"json": {"priority": 1} | options.get("json", {})}


@pytest.mark.parametrize("operation", [each for each in WRITES if not each.startswith("POST")])
def test_if_match_is_needed_exactly_where_the_contract_says(stage: Any, operation: str) -> None:
    """Missing is 428 there and good elsewhere; a stale one is 412 wherever it is sent."""
    stale = with_headers(SAMPLES[operation](stage.ours), **{"If-Match": '"r999"'}).by(stage.clients["admin"])
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_revision")
    missing = with_headers(SAMPLES[operation](stage.ours)).by(stage.clients["admin"])
    if NEEDS_IF_MATCH.match(operation):
        assert (missing.status_code, missing.json()["code"]) == (428, "precondition_required")
    else:
        assert missing.status_code in (200, 201, 204), missing.text
