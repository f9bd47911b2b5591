"""Deliveries come into being with the event of a job's end, in its transaction, whoever ends it."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import making
import pytest

from headwater import db, ids
from headwater.db import Connection
from headwater.jobs import lifecycle, statements
from headwater.jobs.outcome import Cancelled, Failed, JobFailure, Outcome, Progress, Released, Succeeded
from headwater.settings import JobSettings
from headwater.webhooks import messages, pruning, signing

SETTINGS = JobSettings()
FAILURE = Failed(JobFailure("invalid_credentials", "No.", None))


@pytest.fixture
def project_id(connection: Connection, organization: Any) -> UUID:
    connection.execute("delete from webhook")
    return making.make_project(connection, organization.organization_id)


@pytest.fixture
def submit(connection: Connection, organization: Any, project_id: UUID) -> Callable[[], UUID]:
    """Submits a job on a source of its own; its id."""

    def make() -> UUID:
        source_id = making.make_source(connection, organization.organization_id, project_id)
        return UUID(making.submit(connection, organization, project_id, source_id)["job"]["id"])

    return make


def end(working: Connection, job_id: UUID, outcome: Outcome) -> None:
    """Claim and record, as a worker does."""
    claim = lifecycle.claim(working, job_id, worker="tests", settings=SETTINGS)
    assert claim is not None
    assert lifecycle.record(working, claim, outcome, Progress("tests"), settings=SETTINGS) is not None


def deliveries(connection: Connection, webhook_id: UUID) -> list[dict[str, Any]]:
    return connection.execute(
        "select * from webhook_delivery where webhook_id = %s order by created_at, id", (webhook_id,)
    ).fetchall()


@pytest.mark.parametrize(
    ("outcome", "type_"),
    [
        (Succeeded({"success": True, "message": ""}), "job.succeeded"),
        (Succeeded({"success": True, "message": ""}, partially=True), "job.partially_succeeded"),
        (FAILURE, "job.failed"),
        (Cancelled(), "job.cancelled"),
    ],
)
def test_every_end_that_a_worker_records_is_told(
    connection: Connection,
    working: Connection,
    organization: Any,
    submit: Callable[[], UUID],
    outcome: Outcome,
    type_: str,
) -> None:
    """With what the job is from then on, and no more."""
    webhook_id = making.make_webhook(connection, organization.organization_id)
    job_id = submit()
    end(working, job_id, outcome)
    (delivery,) = deliveries(connection, webhook_id)
    job = connection.execute("select * from job where id = %s", (job_id,)).fetchone()
    assert job is not None
    message = messages.message(delivery)
    assert (delivery["type"], delivery["job_id"], delivery["status"], delivery["attempt"]) == (
        type_, job_id, "pending", 0,
    )  # fmt: skip
    data = message["data"]
    project, source = ids.encode("proj", job["project_id"]), ids.encode("dsrc", job["data_source_id"])
    assert data == {
        "id": ids.encode("job", job_id),
        "kind": "connection_test",
        "status": type_.removeprefix("job."),
        "project_id": project,
        "data_source_id": source,
        "finished_at": job["finished_at"].isoformat().replace("+00:00", "Z"),
        "error": {"code": "invalid_credentials"} if type_ == "job.failed" else None,
        "links": {
            "self": f"/api/v1/jobs/{ids.encode('job', job_id)}",
            "source": f"/api/v1/projects/{project}/data-sources/{source}",
        },
    }


def test_an_end_by_the_scheduler_is_told(
    connection: Connection, working: Connection, scheduling: Connection, organization: Any, submit: Callable[[], UUID]
) -> None:
    """A job whose worker died for the second time; the first time it has not ended."""
    webhook_id = making.make_webhook(connection, organization.organization_id)
    job_id = submit()
    for expected in ([], ["job.failed"]):
        connection.execute("update job set run_at = now() where id = %s and status = 'queued'", (job_id,))
        assert lifecycle.claim(working, job_id, worker="tests", settings=SETTINGS) is not None
        connection.execute("update job_lease set until = now() - interval '1 second' where job_id = %s", (job_id,))
        assert lifecycle.reap(scheduling, settings=SETTINGS) != []
        assert [row["type"] for row in deliveries(connection, webhook_id)] == expected


def test_a_cancelled_job_is_told_by_the_api(
    connection: Connection, database: str, organization: Any, submit: Callable[[], UUID]
) -> None:
    """With the API's own rights."""
    webhook_id = making.make_webhook(connection, organization.organization_id)
    job_id = submit()
    cancel = statements.cancel(
        organization_id=organization.organization_id, job_id=job_id, actor_id=organization.member_id, key_id=None,
        reason=None, request_id="test", address=None,
    )  # fmt: skip
    with db.connect(making.as_service(database, "api"), application="tests") as api:
        db.run(api, cancel)
    assert [row["type"] for row in deliveries(connection, webhook_id)] == ["job.cancelled"]


def test_what_is_rolled_back_is_not_told(
    connection: Connection, working: Connection, organization: Any, submit: Callable[[], UUID]
) -> None:
    """The job goes on and so does the webhook's silence; the end that is committed then is told once."""
    webhook_id = making.make_webhook(connection, organization.organization_id)
    claim = lifecycle.claim(working, submit(), worker="tests", settings=SETTINGS)
    assert claim is not None
    with working.transaction(force_rollback=True):
        lifecycle.record(working, claim, FAILURE, Progress("tests"), settings=SETTINGS)
        assert len(working.execute("select from webhook_delivery").fetchall()) == 1
    assert deliveries(connection, webhook_id) == []
    lifecycle.record(working, claim, Cancelled(), Progress("tests"), settings=SETTINGS)
    assert [row["type"] for row in deliveries(connection, webhook_id)] == ["job.cancelled"]


def test_a_job_that_goes_back_to_the_queue_is_not_told(
    connection: Connection, working: Connection, organization: Any, submit: Callable[[], UUID]
) -> None:
    """Only its end is."""
    webhook_id = making.make_webhook(connection, organization.organization_id)
    end(working, submit(), Released())
    assert deliveries(connection, webhook_id) == []


def test_a_webhook_is_told_of_what_it_asked_for(
    connection: Connection, working: Connection, organization: Any, project_id: UUID, submit: Callable[[], UUID]
) -> None:
    """By type and by project; one that is off or deleted is told nothing."""
    elsewhere = making.make_project(connection, organization.organization_id)

    def make(**limits: Any) -> UUID:
        return making.make_webhook(connection, organization.organization_id, **limits)

    expected = {
        make(): 2,
        make(event_types=["job.failed"]): 1,
        make(event_types=["job.cancelled", "job.succeeded"]): 0,
        make(project_ids=[elsewhere, project_id]): 2,
        make(project_ids=[elsewhere]): 0,
        (off := make()): 0,
        (deleted := make()): 0,
    }
    connection.execute("update webhook set enabled = false where id = %s", (off,))
    connection.execute("update webhook set deleted_at = now() where id = %s", (deleted,))
    for outcome in (FAILURE, Succeeded({"success": True, "message": ""}, partially=True)):
        end(working, submit(), outcome)
    assert {webhook_id: len(deliveries(connection, webhook_id)) for webhook_id in expected} == expected


def test_the_end_of_a_job_does_not_wait_for_a_webhook_that_is_being_changed(
    connection: Connection, working: Connection, database: str, organization: Any, submit: Callable[[], UUID]
) -> None:
    """Nor does it fail where the webhook is being deleted at that moment."""
    webhook_id = making.make_webhook(connection, organization.organization_id)
    with db.connect(database, application="tests") as other, other.transaction():
        other.execute("update webhook set deleted_at = now(), enabled = false where id = %s", (webhook_id,))
        working.execute("set lock_timeout = '2s'")
        end(working, submit(), Cancelled())
    assert len(deliveries(connection, webhook_id)) == 1


def test_old_deliveries_ended_secrets_and_deleted_webhooks_are_pruned(
    connection: Connection, scheduling: Connection, organization: Any, project_id: UUID
) -> None:
    """By the scheduler's rights; what is younger, and what still signs, stays."""
    organization_id = organization.organization_id
    webhook_id, deleted_id = (making.make_webhook(connection, organization_id) for _ in range(2))
    old_id, young_id, last_id = (
        making.make_delivery(connection, organization_id, each) for each in (webhook_id, webhook_id, deleted_id)
    )
    connection.execute(
        "update webhook_delivery set created_at = now() - interval '31 days' where id = any(%s)", ([old_id, last_id],)
    )
    connection.execute("update webhook set deleted_at = now() - interval '2 days' where id = %s", (deleted_id,))
    making.put_secret(connection, "whsec_dGVzdHM=", signing.binding(organization_id, webhook_id, 2))
    connection.execute(
        "update webhook set secret_number = 2, previous_secret_until = now() + interval '1 hour' where id = %s",
        (webhook_id,),
    )

    def kept() -> tuple[set[UUID], set[UUID], list[str]]:
        return (
            {row["id"] for row in connection.execute("select id from webhook")},
            {row["id"] for row in connection.execute("select id from webhook_delivery")},
            [
                row["field"]
                for row in connection.execute(
                    "select field from sealed_credential where subject_id = %s order by 1", (webhook_id,)
                )
            ],
        )

    assert pruning.prune(scheduling, retention_days=30) == 2
    assert kept() == ({webhook_id}, {young_id}, ["secret.1", "secret.2"])
    connection.execute("update webhook set previous_secret_until = now() - interval '1 second'")
    assert pruning.prune(scheduling, retention_days=30) == 0
    assert kept() == ({webhook_id}, {young_id}, ["secret.2"])
