"""Reading, listing and cancelling jobs."""

from typing import Any

import httpx2
import pytest

from headwater import ids
from headwater.db import Connection
from headwater.jobs import statements
from headwater.jobs.outcome import Failed, JobFailure, Progress


class TestRead:
    """One job."""

    def test_a_job_of_another_organization_is_404(self, other_client: httpx2.Client, submitted: dict[str, Any]) -> None:
        """Like one that never was."""
        answer = other_client.get(f"jobs/{submitted['id']}")
        unknown = other_client.get(f"jobs/{ids.encode('job', ids.new())}")
        assert (answer.status_code, unknown.status_code) == (404, 404)
        assert answer.json()["code"] == unknown.json()["code"]

    def test_an_etag_that_holds_is_304(self, client: httpx2.Client, submitted: dict[str, Any], worker: Any) -> None:
        """Until the state changes."""
        path = f"jobs/{submitted['id']}"
        headers = {"If-None-Match": client.get(path).headers["ETag"]}
        assert client.get(path, headers=headers).status_code == 304
        worker.claim(submitted)
        assert client.get(path, headers=headers).status_code == 200

    def test_a_cancel_changes_the_etag(self, client: httpx2.Client, submitted: dict[str, Any], worker: Any) -> None:
        """Who waits with the running job's ETag learns that it is being cancelled."""
        worker.claim(submitted)
        before = client.get(f"jobs/{submitted['id']}").headers["ETag"]
        client.post(f"jobs/{submitted['id']}/cancel")
        assert client.get(f"jobs/{submitted['id']}").headers["ETag"] != before

    def test_a_job_that_waits_for_its_next_attempt_says_when(
        self, client: httpx2.Client, submitted: dict[str, Any], worker: Any
    ) -> None:
        """Queued again after a transient failure, with the moment of the next attempt, and nothing final in it."""
        failure = JobFailure("throttled", "The source asked to wait.", origin="source", retryable=True)
        worker.end(worker.claim(submitted), Failed(failure, retry_after_seconds=60))
        answer = client.get(f"jobs/{submitted['id']}")
        job = answer.json()
        assert (job["status"], job["attempt"], job["error"]) == ("queued", 1, None)
        assert job["next_attempt_at"] > job["created_at"]
        assert int(answer.headers["Retry-After"]) == 30

    def test_a_running_job_shows_progress_and_heartbeat(
        self, client: httpx2.Client, submitted: dict[str, Any], worker: Any
    ) -> None:
        """As the worker reported them."""
        claim = worker.claim(submitted)
        worker.report(
            claim,
            Progress("reading", current=1, total=4, unit="files", percent=25, eta_seconds=12, counters={"listed": 4}),
        )
        job = client.get(f"jobs/{submitted['id']}").json()
        assert job["progress"] == {
            "phase": "reading", "current": 1, "total": 4, "unit": "files", "percent": 25, "eta_seconds": 12
        }  # fmt: skip
        assert job["counters"] == {"listed": 4}
        assert job["heartbeat_at"].endswith("Z")
        assert job["deadline_at"].endswith("Z")

    def test_attempts_tell_how_each_ended(self, client: httpx2.Client, submitted: dict[str, Any], worker: Any) -> None:
        """The worker, the times and the outcome."""
        worker.end(worker.claim(submitted))
        attempts = client.get(f"jobs/{submitted['id']}/attempts").json()["data"]
        assert [(entry["attempt"], entry["worker"], entry["outcome"]) for entry in attempts] == [
            (1, "tests", "succeeded")
        ]
        assert attempts[0]["ended_at"].endswith("Z")


class TestList:
    """Pages of jobs."""

    def test_a_walk_gives_every_job_once_while_others_come(self, client: httpx2.Client, source: Any) -> None:
        """Seven jobs in pages of two, newest first; those that come meanwhile are not in it."""
        expected = [client.post(f"{source.path}/test").json()["id"] for _ in range(7)][::-1]
        seen, parameters = [], {"data_source_id": source.id, "page_size": 2}
        while True:
            page = client.get("jobs", params=parameters).json()
            seen += [job["id"] for job in page["data"]]
            assert page["has_more"] == (page["next_cursor"] is not None)
            if not page["has_more"]:
                break
            parameters["cursor"] = page["next_cursor"]
            client.post(f"{source.path}/test")
        assert seen == expected

    def test_ascending_is_the_reverse(self, client: httpx2.Client, source: Any) -> None:
        """`sort=created_at`."""
        ids_ = [client.post(f"{source.path}/test").json()["id"] for _ in range(3)]
        page = client.get("jobs", params={"data_source_id": source.id, "sort": "created_at"}).json()
        assert [job["id"] for job in page["data"]] == ids_

    def test_filters_choose(self, client: httpx2.Client, source: Any, worker: Any) -> None:
        """Kind, status, project, ids and time, alone and together."""
        test = client.post(f"{source.path}/test").json()
        listing = client.post(f"{source.path}/files").json()
        worker.end(worker.claim(test))

        def chosen(**parameters: Any) -> set[str]:
            answer = client.get("jobs", params={"data_source_id": source.id} | parameters)
            assert answer.status_code == 200, answer.text
            return {job["id"] for job in answer.json()["data"]}

        both = {test["id"], listing["id"]}
        assert chosen() == both
        assert chosen(kind="file_listing") == {listing["id"]}
        assert chosen(kind=["file_listing", "connection_test"]) == both
        assert chosen(status="succeeded") == {test["id"]}
        assert chosen(status="queued,succeeded") == both
        assert chosen(project_id=source.project_id) == both
        assert chosen(project_id=ids.encode("proj", ids.new())) == set()
        assert chosen(ids=f"{test['id']},{ids.encode('job', ids.new())}") == {test["id"]}
        assert chosen(created_after=test["created_at"]) == {listing["id"]}

    def test_other_peoples_jobs_are_not_listed(self, other_client: httpx2.Client, submitted: dict[str, Any]) -> None:
        """Neither by themselves nor asked for by id."""
        assert other_client.get("jobs").json()["data"] == []
        assert other_client.get("jobs", params={"ids": submitted["id"]}).json()["data"] == []

    @pytest.mark.parametrize(
        "parameters",
        [
            {"sort": "status"}, {"kind": "nonsense"}, {"status": "done"}, {"ids": "job_1"}, {"page_size": 201},
            {"data_source_id": "x"}, {"created_after": "yesterday"}, {"created_after": "2026-01-01T00:00:00"},
            {"cursor": "nonsense"}, {"unknown": "1"},
        ],
    )  # fmt: skip
    def test_what_the_list_does_not_take_is_400(self, client: httpx2.Client, parameters: dict[str, Any]) -> None:
        """With the parameter's name."""
        answer = client.get("jobs", params=parameters)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["pointer"] == next(iter(parameters))

    def test_a_cursor_is_bound_to_its_filters(self, client: httpx2.Client, source: Any) -> None:
        """With another filter it is refused, not misread."""
        for _ in range(2):
            client.post(f"{source.path}/test")
        cursor = client.get("jobs", params={"page_size": 1, "kind": "connection_test"}).json()["next_cursor"]
        answer = client.get("jobs", params={"page_size": 1, "kind": "sync", "cursor": cursor})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


class TestCancel:
    """Asking a job to stop."""

    def test_a_queued_job_is_cancelled_at_once(self, client: httpx2.Client, submitted: dict[str, Any]) -> None:
        """200 with the cancelled job, and again 200."""
        first = client.post(f"jobs/{submitted['id']}/cancel", json={"reason": "wrong bucket"})
        again = client.post(f"jobs/{submitted['id']}/cancel")
        assert (first.status_code, first.json()["status"]) == (200, "cancelled")
        assert first.json()["cancel"]["requested_by"].startswith("user_")
        assert (again.status_code, again.json()["status"]) == (200, "cancelled")

    def test_a_running_job_is_202_while_it_stops(
        self, client: httpx2.Client, submitted: dict[str, Any], worker: Any, connection: Connection
    ) -> None:
        """Each time it is asked; the worker's lease carries the flag; the reason is kept."""
        worker.claim(submitted)
        first = client.post(f"jobs/{submitted['id']}/cancel", json={"reason": "wrong bucket"})
        again = client.post(f"jobs/{submitted['id']}/cancel")
        assert (first.status_code, first.json()["status"]) == (202, "cancelling")
        assert again.status_code == 202
        row = connection.execute(
            "select l.cancel, j.cancel_reason from job_lease l join job j on j.id = l.job_id where j.id = %s",
            (worker.id_of(submitted),),
        ).fetchone()
        assert row == {"cancel": True, "cancel_reason": "wrong bucket"}

    def test_a_job_that_ended_otherwise_is_409(
        self, client: httpx2.Client, submitted: dict[str, Any], worker: Any
    ) -> None:
        """Nothing changes."""
        worker.end(worker.claim(submitted))
        answer = client.post(f"jobs/{submitted['id']}/cancel")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_ended")
        assert client.get(f"jobs/{submitted['id']}").json()["cancel"] is None

    def test_a_replayed_cancel_gets_the_first_answer(
        self, client: httpx2.Client, submitted: dict[str, Any], worker: Any
    ) -> None:
        """The stored 202, also when the job has ended since."""
        claim = worker.claim(submitted)
        headers = {"Idempotency-Key": "cancel"}
        first = client.post(f"jobs/{submitted['id']}/cancel", headers=headers)
        worker.end(claim)
        again = client.post(f"jobs/{submitted['id']}/cancel", headers=headers)
        assert (again.status_code, again.json()) == (202, first.json())
        assert again.headers["Idempotency-Replayed"] == "true"

    def test_a_cancel_tells_those_who_wait(
        self, client: httpx2.Client, submitted: dict[str, Any], connection: Connection
    ) -> None:
        """A notice with the job's id, behind the commit."""
        connection.execute(f"listen {statements.CHANNEL}")
        client.post(f"jobs/{submitted['id']}/cancel")
        (notice,) = connection.notifies(timeout=5, stop_after=1)
        assert notice.payload == str(ids.decode("job", submitted["id"]))

    def test_a_viewer_may_not(self, client_with_role: Any, submitted: dict[str, Any]) -> None:
        """403 for one's own job, 404 for none."""
        viewer = client_with_role("viewer")
        assert viewer.post(f"jobs/{submitted['id']}/cancel").status_code == 403
        assert viewer.post(f"jobs/{ids.encode('job', ids.new())}/cancel").status_code == 404

    def test_other_peoples_jobs_cannot_be_cancelled(
        self, client: httpx2.Client, other_client: httpx2.Client, submitted: dict[str, Any]
    ) -> None:
        """404, and the job lives."""
        assert other_client.post(f"jobs/{submitted['id']}/cancel").status_code == 404
        assert client.get(f"jobs/{submitted['id']}").json()["status"] == "queued"


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("2026-03-01T10:20:30.049420+00:00", "2026-03-01T10:20:30.049420Z"),
        ("2026-03-01T12:20:30.5+02:00", "2026-03-01T10:20:30.500000Z"),
        ("2026-03-01T10:20:30+00:00", "2026-03-01T10:20:30Z"),
    ],
)
def test_moments_are_spelt_as_everywhere_in_the_api(
    client: httpx2.Client, submitted: dict[str, Any], connection: Connection, moment: str, shown: str
) -> None:
    """Postgres leaves out the zeros at a fraction's end, the rest of the API does not."""
    connection.execute("update job set created_at = %s where id = %s", (moment, ids.decode("job", submitted["id"])))
    assert client.get(f"jobs/{submitted['id']}").json()["created_at"] == shown
