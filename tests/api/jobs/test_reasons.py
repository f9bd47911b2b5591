"""Why a job waits, how long it may take, and what is left of it in the end."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import making
import pytest

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.jobs import dispatching, pruning
from headwater.jobs.outcome import JobFailure, Waiting

from .conftest import MakeSource, Source, Worker


@pytest.fixture
def change(connection: Connection, organization: CreatedOrganization) -> Iterator[Callable[[str, Any], None]]:
    """Sets a column of the organization, for the test's time."""
    changed = set()

    def change(column: str, value: Any) -> None:
        changed.add(column)
        connection.execute(
            f"update organization set {column} = %s where id = %s", (value, organization.organization_id)
        )

    yield change
    for column in changed:
        change(column, None)


@pytest.fixture
def workers(connection: Connection) -> Iterator[None]:
    """A worker of each queue that was just seen."""
    for queue in ("interactive", "bulk"):
        seen = dispatching.worker_seen(name=f"tests:{queue}", queue=queue, slots=2, version="0")
        db.run(connection, seen)
    yield
    connection.execute("delete from worker")


@pytest.fixture
def quiet(connection: Connection) -> None:
    """No job of an earlier test is live."""
    connection.execute("update job set status = 'cancelled', finished_at = now() where status = 'queued'")
    connection.execute(
        "update job set status = 'failed', finished_at = now() where status in ('running', 'cancelling')"
    )


def reason(client: httpx2.Client, job: dict[str, Any]) -> str | None:
    """Why the job waits now."""
    found: str | None = client.get(f"jobs/{job['id']}").json()["reason_waiting"]
    return found


@pytest.mark.usefixtures("quiet", "workers")
class TestReasonWaiting:
    """`reason_waiting`: what would have to change first."""

    def test_its_turn_will_come(self, client: httpx2.Client, source: Source, worker: Worker) -> None:
        """Nothing but others in front; null once it runs."""
        job = client.post(f"{source.path}/test").json()
        assert job["reason_waiting"] == "in_queue"
        worker.claim(job)
        assert reason(client, job) is None

    def test_no_worker_serves_its_queue(self, client: httpx2.Client, source: Source, connection: Connection) -> None:
        """None was seen for 20 seconds; workers of other queues do not count."""
        job = client.post(f"{source.path}/test").json()
        connection.execute("update worker set seen_at = now() - interval '21 seconds' where queue = 'interactive'")
        assert reason(client, job) == "no_worker"

    def test_as_many_run_as_may(
        self, client: httpx2.Client, make_source: MakeSource, worker: Worker, change: Callable[[str, Any], None]
    ) -> None:
        """Of the organization, by its own limit; of the source, by the deployment's."""
        source, other = make_source(), make_source()
        for _ in range(4):
            worker.claim(client.post(f"{source.path}/test").json())
        same, elsewhere = (client.post(f"{each.path}/test").json() for each in (source, other))
        assert (same["reason_waiting"], elsewhere["reason_waiting"]) == ("source_limit", "in_queue")
        change("running_limit", 4)
        assert (reason(client, same), reason(client, elsewhere)) == ("organization_limit", "organization_limit")

    def test_it_waits_to_be_tried_again(self, client: httpx2.Client, source: Source, connection: Connection) -> None:
        """With `next_attempt_at` beside it."""
        job = client.post(f"{source.path}/test").json()
        connection.execute(
            "update job set attempt = 1, run_at = now() + interval '1 minute' where id = %s",
            (ids.decode("job", job["id"]),),
        )
        assert reason(client, job) == "retry_delay"

    def test_the_key_provider_is_away(self, client: httpx2.Client, source: Source, worker: Worker) -> None:
        """As its last attempt found it; that attempt did not count."""
        job = client.post(f"{source.path}/test").json()
        worker.end(worker.claim(job), Waiting(JobFailure("key_unavailable", "Away.", retryable=True)))
        found = client.get(f"jobs/{job['id']}").json()
        assert (found["status"], found["reason_waiting"], found["error"]) == ("queued", "key_unavailable", None)
        (attempt,) = client.get(f"jobs/{job['id']}/attempts").json()["data"]
        assert (attempt["outcome"], attempt["error"]["code"]) == ("retried", "key_unavailable")

    def test_the_organization_is_suspended(
        self, client_with_role: Callable[[str], httpx2.Client], source: Source, change: Callable[[str, Any], None]
    ) -> None:
        """While its keys are still known to this process; the list says so as well."""
        known_since_now = client_with_role("operator")
        job = known_since_now.post(f"{source.path}/test").json()
        change("suspended_at", "2026-01-01T00:00:00Z")
        assert reason(known_since_now, job) == "organization_suspended"
        listed = known_since_now.get("jobs", params={"ids": job["id"]}).json()["data"]
        assert [each["reason_waiting"] for each in listed] == ["organization_suspended"]


class TestLongestDeadline:
    """An organization's own longest deadline."""

    def test_a_longer_one_is_refused(
        self, client: httpx2.Client, source: Source, change: Callable[[str, Any], None]
    ) -> None:
        """400 with the field and the limit; up to it is fine."""
        change("deadline_limit_seconds", 60)
        answer = client.post(f"{source.path}/files", json={"deadline_seconds": 61})
        assert answer.status_code == 400
        (error,) = answer.json()["errors"]
        assert (error["pointer"], "60 seconds" in error["detail"]) == ("/deadline_seconds", True)
        assert client.post(f"{source.path}/files", json={"deadline_seconds": 60}).status_code == 202

    def test_the_usual_one_is_cut_to_it(
        self,
        client: httpx2.Client,
        make_source: MakeSource,
        worker: Worker,
        change: Callable[[str, Any], None],
    ) -> None:
        """Who asks for none gets what is allowed; a retry of an older job as well."""
        source = make_source()
        old = client.post(f"{source.path}/files").json()
        claim = worker.claim(old)
        assert claim.seconds_left > 7000
        worker.end(claim)
        change("deadline_limit_seconds", 60)
        new = client.post(f"{source.path}/files").json()
        again = client.post(f"jobs/{old['id']}/retry")
        assert again.status_code == 202, again.text
        assert all(worker.claim(job).seconds_left <= 60 for job in (new, again.json()))


class TestPruned:
    """410 for a job that was deleted in the course of time."""

    def prune(self, connection: Connection, job: dict[str, Any]) -> None:
        job_id = ids.decode("job", job["id"])
        making.end_long_ago(connection, job_id)
        for _ in range(10):
            if pruning.prune(connection, retention_days=90):
                return
            # The API is just noting that nobody heard its bell, and what is locked is left for the next turn.
            connection.execute("select from job where id = %s for update", (job_id,))
        raise AssertionError(job_id)

    def test_it_says_that_it_was_there_and_how_it_ended(
        self, client: httpx2.Client, source: Source, connection: Connection
    ) -> None:
        """On every route of the job."""
        job = client.post(f"{source.path}/files").json()
        self.prune(connection, job)
        path = f"jobs/{job['id']}"
        for method, route in (
            ("GET", path), ("GET", f"{path}/events"), ("GET", f"{path}/attempts"), ("GET", f"{path}/rejects"),
            ("POST", f"{path}/cancel"), ("POST", f"{path}/retry"),
        ):  # fmt: skip
            answer = client.request(method, route)
            assert (answer.status_code, answer.json()["code"]) == (410, "job_pruned"), route
            assert "`cancelled`" in answer.json()["detail"]
        assert client.get("jobs", params={"ids": job["id"]}).json()["data"] == []

    def test_others_never_hear_of_it(
        self,
        api: Any,
        client: httpx2.Client,
        other_client: httpx2.Client,
        source: Source,
        connection: Connection,
    ) -> None:
        """Another organization gets the same 404 as for a job that never was; so does a key of another project."""
        job = client.post(f"{source.path}/files").json()
        self.prune(connection, job)
        project = client.post("projects", json={"name": ids.new().hex}).json()
        key = client.post("api-keys", json={"name": "k", "role": "operator", "project_ids": [project["id"]]}).json()
        own = client.post("api-keys", json={"name": "k", "role": "operator", "project_ids": [source.project_id]}).json()
        with api.client(key["key"]) as limited, api.client(own["key"]) as within:
            for other in (other_client, limited):
                assert other.get(f"jobs/{job['id']}").status_code == 404
                assert other.post(f"jobs/{job['id']}/cancel").status_code == 404
            assert within.get(f"jobs/{job['id']}").status_code == 410
