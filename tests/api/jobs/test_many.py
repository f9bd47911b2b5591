"""Many jobs with one request."""

from collections import Counter
from typing import Any

import httpx2
import pytest

from headwater import ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection

from .conftest import MakeSource, Source, Worker


def batch(client: httpx2.Client, *jobs: dict[str, Any], **headers: str) -> httpx2.Response:
    """`POST /jobs:batch`."""
    return client.post("/jobs:batch", json={"jobs": list(jobs)}, headers=headers)


def outcomes(answer: httpx2.Response) -> list[dict[str, Any]]:
    """The outcomes of an accepted batch."""
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def live(client: httpx2.Client, source: Source) -> list[str]:
    """The ids of the source's jobs that have not ended."""
    query = {"data_source_id": source.id, "status": "queued,running,cancelling"}
    return [job["id"] for job in client.get("jobs", params=query).json()["data"]]


class TestBatch:
    """`POST /jobs:batch`."""

    def test_each_entry_is_what_its_own_route_would_have_started(
        self, client: httpx2.Client, make_source: MakeSource
    ) -> None:
        """Params, deadline and priority as there; answered whole and in order."""
        first, second = make_source(), make_source()
        found = outcomes(
            batch(
                client,
                {"kind": "sync", "data_source_id": first.id, "prefix": "2026/", "full": True},
                {"kind": "connection_test", "data_source_id": second.id, "priority": 3, "deadline_seconds": 7},
                {"kind": "file_listing", "data_source_id": first.id, "limit": 10},
            )
        )
        assert [(entry["index"], entry["status"], entry["error"]) for entry in found] == [
            (0, 202, None), (1, 202, None), (2, 202, None),
        ]  # fmt: skip
        jobs = [entry["job"] for entry in found]
        assert [job["kind"] for job in jobs] == ["sync", "connection_test", "file_listing"]
        assert [job["data_source_id"] for job in jobs] == [first.id, second.id, first.id]
        # The same sync by its own route is the one that lives: the params are equal.
        again = client.post(f"{first.path}/sync", json={"prefix": "2026/", "full": True})
        assert (again.status_code, again.json()["id"]) == (200, jobs[0]["id"])
        assert client.get(f"jobs/{jobs[1]['id']}").json()["links"] == jobs[1]["links"]

    def test_a_refused_entry_does_not_stop_the_others(
        self, client: httpx2.Client, make_source: MakeSource, other_client: httpx2.Client
    ) -> None:
        """Each says why, as its own route would have."""
        source, off, syncing = make_source(), make_source(is_active=False), make_source()
        client.post(f"{syncing.path}/sync")
        found = outcomes(
            batch(
                client,
                {"kind": "sync", "data_source_id": off.id},
                {"kind": "connection_test", "data_source_id": ids.encode("dsrc", ids.new())},
                {"kind": "table_discovery", "data_source_id": source.id},
                {"kind": "sync", "data_source_id": syncing.id, "full": True},
                {"kind": "sync", "data_source_id": syncing.id},
                {"kind": "connection_test", "data_source_id": source.id},
            )
        )
        assert [(entry["status"], (entry["error"] or {}).get("code")) for entry in found] == [
            (409, "data_source_inactive"), (404, "not_found"), (409, "capability_missing"),
            (409, "sync_in_progress"), (200, None), (202, None),
        ]  # fmt: skip
        assert len(live(client, source)) == 1
        foreign = outcomes(batch(other_client, {"kind": "connection_test", "data_source_id": source.id}))
        assert [(entry["status"], entry["job"]) for entry in foreign] == [(404, None)]

    def test_under_one_key_all_start_once(self, client: httpx2.Client, source: Source) -> None:
        """The replay is the first answer; another batch under the key is refused."""
        entry = {"kind": "connection_test", "data_source_id": source.id}
        key = {"Idempotency-Key": ids.new().hex}
        first = batch(client, entry, entry, **key)
        second = batch(client, entry, entry, **key)
        assert first.json() == second.json()
        assert second.headers["Idempotency-Replayed"] == "true"
        assert len(live(client, source)) == 2
        assert batch(client, entry, **key).status_code == 422

    def test_the_quota_holds_within_a_batch(
        self, client: httpx2.Client, source: Source, organization: CreatedOrganization, connection: Connection
    ) -> None:
        """What is beyond it is refused, entry by entry."""
        row = connection.execute(
            "select count(*) as n from job where organization_id = %s and finished_at is null",
            (organization.organization_id,),
        ).fetchone()
        assert row is not None
        limit = "update organization set live_job_limit = %s where id = %s"
        connection.execute(limit, (row["n"] + 2, organization.organization_id))
        try:
            entry = {"kind": "connection_test", "data_source_id": source.id}
            found = outcomes(batch(client, *[entry] * 4))
        finally:
            connection.execute(limit, (None, organization.organization_id))
        assert [entry["status"] for entry in found] == [202, 202, 429, 429]
        assert found[3]["error"]["code"] == "quota_exceeded"

    def test_who_may_not_run_jobs_may_not_run_many(self, client_with_role: Any, source: Source) -> None:
        """403 for the whole."""
        entry = {"kind": "connection_test", "data_source_id": source.id}
        assert batch(client_with_role("viewer"), entry).status_code == 403
        assert batch(client_with_role("operator"), entry).status_code == 200

    def test_a_limited_key_reaches_its_projects_alone(
        self, api: Any, client: httpx2.Client, make_source: MakeSource
    ) -> None:
        """A source of another project is not there for it."""
        other = client.post("projects", json={"name": ids.new().hex}).json()
        key = client.post("api-keys", json={"name": "k", "role": "operator", "project_ids": [other["id"]]}).json()
        with api.client(key["key"]) as limited:
            found = outcomes(batch(limited, {"kind": "connection_test", "data_source_id": make_source().id}))
        assert [entry["status"] for entry in found] == [404]

    @pytest.mark.parametrize(
        ("jobs", "pointer"),
        [
            ([], "/jobs"),
            ([{"kind": "backup", "data_source_id": "x"}], "/jobs/0"),
            ([{"kind": "sync"}], "/jobs/0/data_source_id"),
            ([{"kind": "sync", "data_source_id": "x"}], "/jobs/0/data_source_id"),
            ([{"kind": "sync", "data_source_id": ids.encode("dsrc", ids.new()), "limit": 3}], "/jobs/0/limit"),
            ([{"kind": "sync", "data_source_id": ids.encode("dsrc", ids.new())}] * 201, "/jobs"),
        ],
    )
    def test_a_batch_that_is_not_one_starts_nothing(
        self, client: httpx2.Client, jobs: list[dict[str, Any]], pointer: str
    ) -> None:
        """400 that names the field: nobody asked for half of it."""
        answer = batch(client, *jobs)
        assert answer.status_code == 400
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


class TestCancel:
    """`POST /jobs:cancel`."""

    def test_what_matches_is_cancelled_and_nothing_else(
        self, client: httpx2.Client, make_source: MakeSource, worker: Worker, connection: Connection
    ) -> None:
        """Queued ones at once, running ones as soon as they heed it, with who asked and why."""
        source, other = make_source(), make_source()
        waiting = client.post(f"{source.path}/files").json()
        running = client.post(f"{source.path}/test").json()
        spared = client.post(f"{other.path}/files").json()
        claim = worker.claim(running)
        answer = client.post("/jobs:cancel", json={"data_source_id": source.id, "reason": "wrong bucket"})
        assert answer.status_code == 200, answer.text
        told = {entry["id"]: entry["status"] for entry in answer.json()["data"]}
        assert told == {waiting["id"]: "cancelled", running["id"]: "cancelling"}
        assert answer.json()["has_more"] is False
        assert client.get(f"jobs/{spared['id']}").json()["status"] == "queued"
        now = client.get(f"jobs/{running['id']}").json()
        assert now["cancel"]["requested_by"] == client.get("me").json()["member"]["id"]
        rows = connection.execute(
            "select cancel_reason from job where id = any(%s)", ([worker.id_of(waiting), claim.job_id],)
        ).fetchall()
        assert [row["cancel_reason"] for row in rows] == ["wrong bucket"] * 2

    def test_filters_narrow_one_another(self, client: httpx2.Client, make_source: MakeSource) -> None:
        """Kind, status and moment, all of them."""
        source = make_source()
        listing = client.post(f"{source.path}/files").json()
        test = client.post(f"{source.path}/test").json()
        early = {"data_source_id": source.id, "created_before": listing["created_at"]}
        assert client.post("/jobs:cancel", json=early).json()["data"] == []
        query = {"data_source_id": source.id, "kind": ["connection_test"], "status": ["running"]}
        assert client.post("/jobs:cancel", json=query).json()["data"] == []
        found = client.post("/jobs:cancel", json=query | {"status": ["queued"]}).json()["data"]
        assert found == [{"id": test["id"], "status": "cancelled"}]
        assert client.post("/jobs:cancel", json={"ids": [listing["id"]]}).json()["data"] == [
            {"id": listing["id"], "status": "cancelled"}
        ]

    def test_more_than_fit_are_cancelled_in_turns(
        self, client: httpx2.Client, source: Source, organization: CreatedOrganization, connection: Connection
    ) -> None:
        """200 with each request, until `has_more` is false; none twice."""
        connection.execute(
            """
            insert into job (id, organization_id, project_id, data_source_id, kind, queue, max_attempts,
                             deadline_seconds)
            select uuid_v7(), organization_id, project_id, id, 'connection_test', 'interactive', 1, 60
            from data_source, generate_series(1, 450) where id = %s and organization_id = %s
            """,
            (ids.decode("dsrc", source.id), organization.organization_id),
        )
        seen = Counter[str]()
        sizes = []
        while True:
            answer = client.post("/jobs:cancel", json={"data_source_id": source.id}).json()
            seen.update(entry["id"] for entry in answer["data"])
            sizes.append(len(answer["data"]))
            if not answer["has_more"]:
                break
        assert sizes == [200, 200, 50]
        assert set(seen.values()) == {1}

    def test_it_needs_a_filter(self, client: httpx2.Client, source: Source) -> None:
        """An empty body would cancel everything that the organization has."""
        client.post(f"{source.path}/files")
        for body in ({}, {"reason": "none"}):
            assert client.post("/jobs:cancel", json=body).status_code == 400
        assert len(live(client, source)) == 1

    def test_nothing_of_others_is_cancelled(
        self, api: Any, client: httpx2.Client, other_client: httpx2.Client, source: Source
    ) -> None:
        """Neither another organization's, nor what a limited key cannot see."""
        job = client.post(f"{source.path}/files").json()
        project = client.post("projects", json={"name": ids.new().hex}).json()
        key = client.post("api-keys", json={"name": "k", "role": "operator", "project_ids": [project["id"]]}).json()
        with api.client(key["key"]) as limited:
            for other in (other_client, limited):
                assert other.post("/jobs:cancel", json={"ids": [job["id"]]}).json()["data"] == []
        assert client.get(f"jobs/{job['id']}").json()["status"] == "queued"
