"""Starting jobs."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import making
import pytest

from headwater import ids
from headwater.access.organizations import CreatedOrganization
from headwater.connectors import registry
from headwater.db import Connection
from headwater_api.jobs.schemas import JobRead

SECRET = "wJalrXUtnFEMI-made-up"


def _jobs_of(client: httpx2.Client, source: Any) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = client.get("jobs", params={"data_source_id": source.id}).json()["data"]
    return jobs


@pytest.mark.parametrize(
    ("verb", "kind", "queue"),
    [
        ("test", "connection_test", "interactive"),
        ("files", "file_listing", "interactive"),
        ("sync", "sync", "bulk"),
    ],
)
def test_a_start_answers_202_with_the_queued_job(
    client: httpx2.Client, source: Any, verb: str, kind: str, queue: str
) -> None:
    """The answer is the whole job, with where to find it and when to ask again."""
    answer = client.post(f"{source.path}/{verb}")
    job = answer.json()
    assert answer.status_code == 202
    assert (job["kind"], job["queue"], job["status"], job["done"]) == (kind, queue, "queued", False)
    assert answer.headers["Location"] == job["links"]["self"] == f"/api/v1/jobs/{job['id']}"
    assert answer.headers["Retry-After"] == "1"


def test_behind_a_long_queue_a_job_is_left_to_the_dispatcher_as_it_is_made(
    client: httpx2.Client, source: Any, connection: Connection
) -> None:
    """One at a time or many at once: what was found without room is not written twice. Redis is away here."""
    written_once = "select j.rung_at is null and j.xmin = e.xmin as yes from job j join event e on e.job_id = j.id"
    deadline = time.monotonic() + 10
    found: set[bool] = set()
    while not found or not all(found):
        assert time.monotonic() < deadline
        client.post(f"{source.path}/test")
        jobs = [client.post(f"{source.path}/test").json()["id"]]
        body = {"jobs": [{"data_source_id": source.id, "kind": "connection_test"}] * 2}
        jobs += [each["job"]["id"] for each in client.post("/jobs:batch", json=body).json()["data"]]
        rows = connection.execute(
            f"{written_once} where j.id = any(%s)", ([ids.decode("job", job) for job in jobs],)
        ).fetchall()
        found = {row["yes"] for row in rows}


def test_a_job_has_every_field_of_the_contract_and_no_other(client: httpx2.Client, source: Any) -> None:
    """Field by field as the API reference declares it, moments in UTC with Z."""
    job = client.post(f"{source.path}/test").json()
    assert set(job) == set(JobRead.model_fields)
    JobRead.model_validate(job)
    assert job["created_at"].endswith("Z")
    assert job["queue_position"] >= 1
    assert job["created_by"]["email"] == "ada@example.com"
    assert job["links"]["source"] == f"/api/v1/{source.path}"


@pytest.mark.parametrize("body", [None, b"", b"{}", b'{"priority": 0}', b"null"])
def test_a_body_is_optional(client: httpx2.Client, source: Any, body: bytes | None) -> None:
    """No body and an empty object start the same job."""
    headers = {"Content-Type": "application/json"} if body else {}
    assert client.post(f"{source.path}/test", content=body, headers=headers).status_code == 202


@pytest.mark.parametrize(
    ("verb", "body", "pointer"),
    [
        ("test", {"deadline_seconds": 121}, "/deadline_seconds"),
        ("test", {"deadline_seconds": 0}, "/deadline_seconds"),
        ("test", {"priority": 11}, "/priority"),
        ("test", {"prefix": "a"}, "/prefix"),
        ("files", {"limit": 1001}, "/limit"),
        ("files", {"limit": "5"}, "/limit"),
        ("sync", {"full": 1}, "/full"),
        ("sync", {"status": "succeeded"}, "/status"),
    ],
)
def test_a_bad_field_is_named(
    client: httpx2.Client, source: Any, verb: str, body: dict[str, Any], pointer: str
) -> None:
    """400, with a pointer to the field, and no job."""
    answer = client.post(f"{source.path}/{verb}", json=body)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert _jobs_of(client, source) == []


def test_fifty_identical_submits_make_one_job(client: httpx2.Client, source: Any) -> None:
    """One Idempotency-Key in fifty requests at once: one job, fifty equal answers, one of them not a replay."""
    with ThreadPoolExecutor(50) as pool:
        answers = list(
            pool.map(
                lambda _: client.post(
                    f"{source.path}/files", json={"prefix": "a"}, headers={"Idempotency-Key": "fifty"}
                ),
                range(50),
            )
        )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert len(_jobs_of(client, source)) == 1


def test_no_body_and_an_empty_object_are_one_request(client: httpx2.Client, source: Any) -> None:
    """A retry that spells the same differently gets the stored answer."""
    headers = {"Idempotency-Key": "empty"}
    first = client.post(f"{source.path}/test", headers=headers)
    again = client.post(f"{source.path}/test", json={}, headers=headers)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"


def test_a_key_with_another_request_is_refused(client: httpx2.Client, source: Any) -> None:
    """422, and only the first job exists."""
    headers = {"Idempotency-Key": "mismatch"}
    client.post(f"{source.path}/files", json={"prefix": "a"}, headers=headers)
    answer = client.post(f"{source.path}/files", json={"prefix": "b"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert len(_jobs_of(client, source)) == 1


def test_a_second_sync_joins_the_live_one(client: httpx2.Client, source: Any) -> None:
    """The same parameters, spelled out or left at their defaults, give 200 with the live job."""
    first = client.post(f"{source.path}/sync")
    second = client.post(f"{source.path}/sync", json={"full": False, "prefix": ""})
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json()["id"] == first.json()["id"]


def test_another_sync_is_refused_with_a_link(client: httpx2.Client, source: Any) -> None:
    """Other parameters while one lives: 409 that leads to it."""
    live = client.post(f"{source.path}/sync").json()
    answer = client.post(f"{source.path}/sync", json={"full": True})
    assert (answer.status_code, answer.json()["code"]) == (409, "sync_in_progress")
    assert answer.json()["links"]["job"] == live["links"]["self"]


def test_a_cancelling_sync_is_not_joined(client: httpx2.Client, source: Any, worker: Any) -> None:
    """Nobody gets a job that is about to be cancelled for an answer."""
    job = client.post(f"{source.path}/sync").json()
    worker.claim(job)
    client.post(f"jobs/{job['id']}/cancel")
    answer = client.post(f"{source.path}/sync")
    assert (answer.status_code, answer.json()["code"]) == (409, "sync_in_progress")


def test_one_sync_of_many_at_once_wins(client: httpx2.Client, source: Any) -> None:
    """Twenty at once without a key: one is created, the others join it."""
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: client.post(f"{source.path}/sync"), range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_an_inactive_source_starts_nothing(client: httpx2.Client, make_source: Any) -> None:
    """409, with the way out."""
    answer = client.post(f"{make_source(is_active=False).path}/test")
    assert (answer.status_code, answer.json()["code"]) == (409, "data_source_inactive")


def test_what_a_type_cannot_do_is_refused(client: httpx2.Client, source: Any) -> None:
    """A bucket has no tables."""
    answer = client.post(f"{source.path}/tables")
    assert (answer.status_code, answer.json()["code"]) == (409, "capability_missing")


def test_a_submit_answers_within_300_ms_without_redis(client: httpx2.Client, source: Any) -> None:
    """Redis is away in this whole module; no request notices. The median, because the machine is shared."""
    client.post(f"{source.path}/test")
    took = []
    for _ in range(9):
        began = time.perf_counter()
        assert client.post(f"{source.path}/test").status_code == 202
        took.append(time.perf_counter() - began)
    assert sorted(took)[4] < 0.3


def test_a_job_that_could_not_be_rung_for_is_left_to_the_dispatcher(
    client: httpx2.Client, source: Any, connection: Connection
) -> None:
    """With Redis away, `rung_at` is cleared soon after, so that the dispatcher need not wait for it."""
    job_id = ids.decode("job", client.post(f"{source.path}/test").json()["id"])
    deadline = time.monotonic() + 10
    while True:
        row = connection.execute("select rung_at from job where id = %s", (job_id,)).fetchone()
        if row == {"rung_at": None}:
            break
        assert time.monotonic() < deadline, "the ring that failed was not taken back"
        time.sleep(0.05)


class TestPrecedence:
    """The contract's order: 401, 404, 403, 413 and 415, 400, then 409 and 422."""

    BAD = {"priority": 99}

    def test_401_before_all(self, api: Any, source: Any) -> None:
        """Without a key nothing is said of source or body."""
        with api.client(None) as nobody:
            answer = nobody.post(f"{source.path}/sync", json=self.BAD)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")

    def test_404_before_403(self, client_with_role: Any, source: Any) -> None:
        """Who may not sync still learns that this source is not there."""
        unknown = ids.encode("dsrc", ids.new())
        answer = client_with_role("viewer").post(f"projects/{source.project_id}/data-sources/{unknown}/sync")
        assert answer.status_code == 404

    @pytest.mark.parametrize("malformed", ["dsrc_1", "job_01h455vb4pex5vsknk084sn02q", "%00", "x" * 300])
    def test_404_for_a_malformed_id(self, client: httpx2.Client, source: Any, malformed: str) -> None:
        """Like an unknown one, whatever the body."""
        answer = client.post(f"projects/{source.project_id}/data-sources/{malformed}/sync", json=self.BAD)
        assert answer.status_code == 404

    def test_404_for_another_organization(self, other_client: httpx2.Client, source: Any) -> None:
        """Other people's sources do not exist, even for a bad body."""
        assert other_client.post(f"{source.path}/sync", json=self.BAD).status_code == 404

    def test_404_in_another_project(self, client: httpx2.Client, source: Any) -> None:
        """A source is only where it is."""
        project = client.post("projects", json={"name": ids.new().hex}).json()["id"]
        assert client.post(f"projects/{project}/data-sources/{source.id}/sync").status_code == 404

    def test_403_before_415(self, client_with_role: Any, source: Any) -> None:
        """Nobody learns about a body who may not act."""
        answer = client_with_role("viewer").post(
            f"{source.path}/sync", content=b"<a/>", headers={"Content-Type": "text/xml"}
        )
        assert answer.status_code == 403

    def test_415_before_400(self, client: httpx2.Client, source: Any) -> None:
        """What is not JSON is not looked into."""
        answer = client.post(f"{source.path}/sync", content=b"{", headers={"Content-Type": "text/plain"})
        assert answer.status_code == 415

    def test_413_before_400(self, client: httpx2.Client, source: Any) -> None:
        """More than 1 MiB is not parsed."""
        body = b'{"prefix": "' + b"a" * 1024 * 1024 + b'"}'
        answer = client.post(f"{source.path}/sync", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413

    def test_400_before_409(self, client: httpx2.Client, make_source: Any) -> None:
        """A bad body of a start that would be refused anyway."""
        answer = client.post(f"{make_source(is_active=False).path}/sync", json=self.BAD)
        assert answer.status_code == 400

    def test_400_before_422(self, client: httpx2.Client, source: Any) -> None:
        """A bad body under a used key."""
        headers = {"Idempotency-Key": "precedence"}
        client.post(f"{source.path}/test", headers=headers)
        assert client.post(f"{source.path}/test", json=self.BAD, headers=headers).status_code == 400

    def test_an_operator_may_start(self, client_with_role: Any, source: Any) -> None:
        """Operators run things."""
        assert client_with_role("operator").post(f"{source.path}/sync").status_code == 202


class TestUnsaved:
    """The test of a config that is not saved."""

    BODY = {
        "type": "s3",
        "config": {"bucket": "bucket", "region": "eu-central-1"},
        "credentials": {"access_key_id": "AKIAMADEUP", "secret_access_key": SECRET},
    }

    @staticmethod
    def _path(project: dict[str, Any]) -> str:
        return f"projects/{project['id']}/data-sources/test"

    def test_it_is_a_job_without_a_source(self, client: httpx2.Client, project: dict[str, Any]) -> None:
        """202, and nothing of the secret in the answer."""
        answer = client.post(self._path(project), json=self.BODY)
        job = answer.json()
        assert answer.status_code == 202
        assert (job["kind"], job["data_source_id"], job["links"]["source"]) == ("connection_test", None, None)
        assert SECRET not in answer.text

    def test_its_secrets_are_sealed_to_the_job(
        self,
        client: httpx2.Client,
        project: dict[str, Any],
        connection: Connection,
        organization: CreatedOrganization,
        master_key_file: Any,
    ) -> None:
        """The worker's side of the vault opens them for this job and this target, and the row holds no plain text."""
        job_id = ids.decode("job", client.post(self._path(project), json=self.BODY).json()["id"])
        row = connection.execute("select draft, draft::text as text from job where id = %s", (job_id,)).fetchone()
        assert row is not None
        assert SECRET not in row["text"]
        spec = registry.get_spec("s3")
        opened = making.opened(
            connection,
            master_key_file,
            organization_id=organization.organization_id,
            subject_id=job_id,
            target=spec.target_fingerprint(spec.config.model_validate(row["draft"]["config"])),
        )
        assert opened == self.BODY["credentials"]

    def test_its_secrets_are_gone_when_it_ended(
        self, client: httpx2.Client, project: dict[str, Any], connection: Connection, worker: Any
    ) -> None:
        """The end of the job destroys them."""
        job = client.post(self._path(project), json=self.BODY).json()
        worker.end(worker.claim(job))
        left = connection.execute(
            "select count(*) as left from sealed_credential where subject_id = %s", (worker.id_of(job),)
        ).fetchone()
        assert left == {"left": 0}

    @pytest.mark.parametrize(
        ("change", "pointer"),
        [
            ({"type": "nonsense"}, "/type"),
            ({"config": {"bucket": "bucket"}}, "/config/region"),
            ({"config": BODY["config"] | {"extra": 1}}, "/config/extra"),
            ({"config": BODY["config"] | {"type": "gcs"}}, "/config/type"),
            ({"credentials": {"password": "x"}}, "/credentials/password"),
            ({"credentials": {"access_key_id": "********"}}, "/credentials/access_key_id"),
            ({"draft": {}}, "/draft"),
        ],
    )
    def test_a_bad_field_is_named(
        self, client: httpx2.Client, project: dict[str, Any], change: dict[str, Any], pointer: str
    ) -> None:
        """400 with its pointer, and never an echo of a secret."""
        answer = client.post(self._path(project), json=self.BODY | change)
        assert answer.status_code == 400, answer.text
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
        assert SECRET not in answer.text

    def test_an_unknown_project_comes_before_a_bad_body(self, client: httpx2.Client) -> None:
        """404 before 400."""
        path = f"projects/{ids.encode('proj', ids.new())}/data-sources/test"
        assert client.post(path, json={"type": "nonsense", "config": {}}).status_code == 404

    def test_it_cannot_be_retried(self, client: httpx2.Client, project: dict[str, Any], worker: Any) -> None:
        """Its secrets are gone, so 409."""
        job = client.post(self._path(project), json=self.BODY).json()
        worker.end(worker.claim(job))
        answer = client.post(f"jobs/{job['id']}/retry")
        assert (answer.status_code, answer.json()["code"]) == (409, "unsaved_test")


class TestRetry:
    """Doing the work again."""

    def test_a_retry_is_a_new_job_that_names_the_old_one(
        self, client: httpx2.Client, source: Any, worker: Any, connection: Connection
    ) -> None:
        """The same kind and the same parameters."""
        job = client.post(f"{source.path}/files", json={"prefix": "a/", "limit": 5, "priority": 3}).json()
        worker.end(worker.claim(job))
        answer = client.post(f"jobs/{job['id']}/retry")
        again = answer.json()
        assert answer.status_code == 202
        assert again["id"] != job["id"]
        assert (again["kind"], again["retry_of"]) == ("file_listing", job["id"])
        row = connection.execute("select params, priority from job where id = %s", (worker.id_of(again),)).fetchone()
        assert row == {"params": {"prefix": "a/", "limit": 5}, "priority": 3}

    def test_a_live_job_is_not_retried(self, client: httpx2.Client, submitted: dict[str, Any]) -> None:
        """409 that leads to it."""
        answer = client.post(f"jobs/{submitted['id']}/retry")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_ended")

    def test_a_retry_after_its_source_was_deleted_is_refused(
        self, client: httpx2.Client, source: Any, submitted: dict[str, Any], worker: Any, connection: Connection
    ) -> None:
        """The job is still there, so it is 409 and not 404."""
        worker.end(worker.claim(submitted))
        connection.execute("update data_source set deleted_at = now() where id = %s", (ids.decode("dsrc", source.id),))
        answer = client.post(f"jobs/{submitted['id']}/retry")
        assert (answer.status_code, answer.json()["code"]) == (409, "source_deleted")

    def test_a_deadline_beyond_the_kind_is_refused(
        self, client: httpx2.Client, submitted: dict[str, Any], worker: Any
    ) -> None:
        """The bound is that of the job's kind."""
        worker.end(worker.claim(submitted))
        answer = client.post(f"jobs/{submitted['id']}/retry", json={"deadline_seconds": 121})
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["pointer"] == "/deadline_seconds"
