"""The audit log over HTTP: every change, every refusal, and who may read it."""

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2
import making
import pytest

from headwater import clock, ids
from headwater.db import Connection


def entries(client: httpx2.Client, **filters: Any) -> list[dict[str, Any]]:
    """The newest entries."""
    answer = client.get("audit-log", params={"page_size": 200} | filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def newest(client: httpx2.Client, act: str) -> dict[str, Any]:
    return entries(client, act=act)[0]


Denied = Callable[[int], list[dict[str, Any]]]


@pytest.fixture
def denied(client: httpx2.Client) -> Denied:
    """The entries of so many refusals since the test began."""
    began = clock.rfc3339(clock.now())

    def denied(count: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 5
        while True:
            found = entries(client, act="access.deny", after=began)
            if sum(entry["details"]["count"] for entry in found) >= count:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    return denied


def test_a_change_is_told_with_who_what_and_where_from(client: httpx2.Client) -> None:
    """Actor, key, subject, request id, address, the names of the fields; no value."""
    project = client.post("projects", json={"name": ids.new().hex, "description": "the value"}).json()
    etag = client.get(f"projects/{project['id']}").headers["ETag"]
    change = client.patch(
        f"projects/{project['id']}",
        json={"description": "another"},
        headers={"If-Match": etag, "X-Request-Id": "req-7"},
    )
    assert change.status_code == 200
    me, told = client.get("me").json(), newest(client, "project.update")
    assert (told["actor"], told["key_id"]) == (me["member"], me["key_id"])
    assert (told["subject_id"], told["request_id"], told["address"]) == (project["id"], "req-7", "127.0.0.1")
    assert (told["fields"], told["details"]) == (["description"], None)
    assert "another" not in json.dumps(told)


def test_every_kind_of_subject_is_named_by_its_id(client: httpx2.Client, project: dict[str, Any]) -> None:
    """The id that the API shows elsewhere, whatever was done."""
    body = {"name": "s", "type": "s3", "config": {"bucket": "bucket", "region": "eu-central-1"}}
    source = client.post(f"projects/{project['id']}/data-sources", json=body).json()
    path = f"projects/{project['id']}/data-sources/{source['id']}"
    client.put(f"{path}/credentials", json={"access_key_id": "id", "secret_access_key": "secret"})
    job = client.post(f"{path}/test").json()
    client.post(f"jobs/{job['id']}/cancel")
    key = client.post("api-keys", json={"name": "k", "role": "viewer"}).json()
    successor = client.post(f"api-keys/{key['id']}/rotate").json()
    member = client.post("members", json={"email": f"{ids.new().hex}@example.com", "role": "viewer"}).json()
    subjects = {
        "project.create": project, "data_source.create": source, "credentials.update": source, "job.submit": job,
        "job.cancel": job, "api_key.create": key, "api_key.rotate": successor, "member.create": member,
    }  # fmt: skip
    assert {act: newest(client, act)["subject_id"] for act in subjects} == {
        act: subject["id"] for act, subject in subjects.items()
    }
    assert newest(client, "job.submit")["details"] == {"kind": "connection_test", "data_source_id": source["id"]}
    assert newest(client, "api_key.rotate")["details"] == {"rotated_from": key["id"]}


def test_filters_narrow_and_cursors_lead_on(client: httpx2.Client, project: dict[str, Any]) -> None:
    """By actor, act, subject and time; a walk in small pages meets each entry once, the newest first."""
    began = newest(client, "project.create")["created_at"]
    for _ in range(5):
        client.post("projects", json={"name": ids.new().hex})
    me = client.get("me").json()["member"]["id"]
    mine = entries(client, actor=me, act=["project.create", "project.update"], after=began)
    assert [entry["act"] for entry in mine] == ["project.create"] * 5
    assert entries(client, subject=project["id"])[-1]["act"] == "project.create"
    assert entries(client, before="2020-01-01T00:00:00Z") == []
    assert entries(client, actor=ids.encode("user", ids.new())) == []
    walked, query = [], {"page_size": 2, "act": "project.create", "after": began}
    while True:
        page = client.get("audit-log", params=query).json()
        walked += [entry["id"] for entry in page["data"]]
        if not page["has_more"]:
            break
        query |= {"cursor": page["next_cursor"]}
    assert walked == [entry["id"] for entry in mine]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"act": "project.explode"}, "act"),
        ({"actor": "proj_00000000000000000000000000"}, "actor"),
        ({"subject": "nothing"}, "subject"),
        ({"after": "yesterday"}, "after"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_filter_is_named(client: httpx2.Client, query: dict[str, str], pointer: str) -> None:
    """400, and never an empty list that looks like an answer."""
    answer = client.get("audit-log", params=query)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, pointer)


def test_the_whole_log_is_exported(client: httpx2.Client, project: dict[str, Any]) -> None:
    """NDJSON and CSV hold what the pages hold."""
    shown = entries(client)
    lines = client.get("audit-log", headers={"Accept": "application/x-ndjson"})
    assert lines.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line) for line in lines.text.splitlines()][: len(shown)] == shown
    table = list(csv.DictReader(io.StringIO(client.get("audit-log", headers={"Accept": "text/csv"}).text)))
    assert [row["id"] for row in table][: len(shown)] == [entry["id"] for entry in shown]
    assert table[0]["actor_email"] == "ada@example.com"


def test_a_sealed_entry_shows_its_seal(client: httpx2.Client, project: dict[str, Any], scheduling: Connection) -> None:
    """Its place and hash; null until then."""
    assert newest(client, "project.create")["seal"] is None
    making.seal_all(scheduling)
    seal = newest(client, "project.create")["seal"]
    assert (seal["seq"] > 0, len(seal["hash"])) == (True, 64)


def test_nobody_reads_another_organizations_log(
    client: httpx2.Client, other_client: httpx2.Client, project: dict[str, Any]
) -> None:
    """Not by filter either."""
    me = client.get("me").json()["member"]["id"]
    assert project["id"] not in other_client.get("audit-log").text
    assert entries(other_client, subject=project["id"]) == []
    assert entries(other_client, actor=me) == []


class TestDenials:
    """Acts that were refused, counted by actor and minute; a minute is a tenth of a second here."""

    def test_refusals_are_counted(self, client_with_role: Callable[[str], httpx2.Client], denied: Denied) -> None:
        """Who, what was missing, how often, and from where."""
        viewer = client_with_role("viewer")
        for _ in range(3):
            assert viewer.post("projects", json={}).status_code == 403
        viewer.post("members", json={})
        told = denied(4)
        counts = Counter[str]()
        for entry in told:
            counts[entry["details"]["permission"]] += entry["details"]["count"]
        assert counts == {"project:create": 3, "member:write": 1}
        assert {entry["key_id"] for entry in told} == {viewer.get("me").json()["key_id"]}
        assert {(entry["address"], entry["actor"]["email"]) for entry in told} == {("127.0.0.1", "ada@example.com")}

    def test_a_role_that_is_too_high_is_a_refusal(self, client: httpx2.Client, denied: Denied) -> None:
        """The permission is there, and the reason why it did not help."""
        member = client.post("members", json={"email": f"{ids.new().hex}@example.com", "role": "viewer"}).json()
        body = {"name": "k", "role": "admin", "member_id": member["id"]}
        assert client.post("api-keys", json=body).status_code == 403
        (entry,) = denied(1)
        assert {name: entry["details"][name] for name in ("permission", "reason", "count")} == {
            "permission": "api_key:write", "reason": "forbidden", "count": 1,
        }  # fmt: skip

    def test_a_dead_key_is_a_refusal(self, api: Any, client: httpx2.Client, denied: Denied) -> None:
        """Whoever still knows its secret is told of; a typo and a guess are nobody's."""
        key = client.post("api-keys", json={"name": "k", "role": "viewer"}).json()
        client.delete(f"api-keys/{key['id']}")
        for text in ("nonsense", key["key"][:-1], key["key"]):
            with api.client(text) as dead:
                assert dead.get("me").status_code == 401
        (entry,) = denied(1)
        assert (entry["key_id"], entry["details"]["reason"]) == (key["id"], "api_key_revoked")
