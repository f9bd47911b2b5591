"""API keys that are limited to projects, expire, give way to a successor; what is said of one that is not good."""

import base64
import binascii
import time
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from headwater import clock, ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection

DIES_WITHIN_SECONDS = 5.0


def make_key(client: httpx2.Client, **body: Any) -> dict[str, Any]:
    """A new key, with its text."""
    answer = client.post("api-keys", json={"name": "k", "role": "admin"} | body)
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


def refusal(api: Any, key: str | None) -> tuple[int, str | None]:
    """Status and code of a request with this key."""
    with api.client(key) as client:
        answer = client.get("me")
        return answer.status_code, answer.json().get("code")


def test_what_is_wrong_with_a_key_is_said_to_whoever_knows_it(
    api: Any, client: httpx2.Client, connection: Connection
) -> None:
    """A typo is told without a look-up; revoked and expired only with the right secret."""
    key = make_key(client)
    text = key["key"]
    prefix, key_id, secret, _ = text.split("_")
    other = make_key(client)["key"].split("_")
    assert refusal(api, None) == (401, "unauthenticated")
    assert refusal(api, "s3cret") == (401, "api_key_malformed")
    assert refusal(api, text[:-1]) == (401, "api_key_malformed")
    typo = "b" if secret[0] == "a" else "a"
    assert refusal(api, text.replace(secret, typo + secret[1:])) == (401, "api_key_malformed")
    assert refusal(api, make_key(client)["key"]) == (200, None)
    connection.execute("update api_key set expires_at = now() where id = %s", (ids.decode("key", key["id"]),))
    assert refusal(api, text) == (401, "api_key_expired")
    client.delete(f"api-keys/{key['id']}")
    assert refusal(api, text) == (401, "api_key_revoked")
    wrong = sealed(f"{prefix}_{key_id}_{other[2]}")
    assert refusal(api, wrong) == (401, "api_key_unknown")


def sealed(body: str) -> str:
    """A key with a right checksum, as anybody can make one."""
    crc = binascii.crc32(body.encode()).to_bytes(4, "big")
    return f"{body}_{base64.b32encode(crc).decode().rstrip('=').lower()}"


def test_a_key_that_a_process_remembers_dies_within_five_seconds(api: Any, client: httpx2.Client) -> None:
    """It was used a moment ago, and is refused in time all the same."""
    key = make_key(client)
    with api.client(key["key"]) as used:
        assert used.get("me").status_code == 200
        client.delete(f"api-keys/{key['id']}")
        revoked_at = time.monotonic()
        while used.get("me").status_code == 200:
            assert time.monotonic() - revoked_at < DIES_WITHIN_SECONDS
            time.sleep(0.05)


def test_a_key_ends_when_it_expires(api: Any, client: httpx2.Client, connection: Connection) -> None:
    """To the second, though a process remembers it."""
    key = make_key(client)
    ends = "update api_key set expires_at = clock_timestamp() + interval '3 seconds' where id = %s"
    with api.client(key["key"]) as used:
        connection.execute(ends, (ids.decode("key", key["id"]),))
        assert used.get("me").status_code == 200
        time.sleep(3.1)
        assert used.get("me").json()["code"] == "api_key_expired"


def test_use_is_noted_to_the_minute(api: Any, client: httpx2.Client, connection: Connection) -> None:
    """Written beside the request, and not again within a minute."""
    key = make_key(client)
    path = f"api-keys/{key['id']}"
    assert client.get(path).json()["last_used_at"] is None
    with api.client(key["key"]) as used:
        used.get("me")
    deadline = time.monotonic() + 5
    while (first := client.get(path).json()["last_used_at"]) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    connection.execute(
        "update api_key set last_used_at = last_used_at - interval '30 seconds' where id = %s",
        (ids.decode("key", key["id"]),),
    )
    time.sleep(4.2)  # until the process asks again
    with api.client(key["key"]) as used:
        used.get("me")
    time.sleep(0.2)
    assert client.get(path).json()["last_used_at"] < first


class TestRotation:
    """A successor, and an overlap."""

    def test_both_are_good_until_the_overlap_is_over(self, api: Any, client: httpx2.Client) -> None:
        """Same name, role, member and projects; another id and text; the old one's end is shown."""
        project = client.post("projects", json={"name": ids.new().hex}).json()
        old = make_key(client, role="operator", name="ci", project_ids=[project["id"]])
        answer = client.post(f"api-keys/{old['id']}/rotate", json={"overlap_seconds": 4})
        new = answer.json()
        assert answer.status_code == 201, answer.text
        same = ("name", "role", "member", "project_ids")
        assert [new[name] for name in same] == [old[name] for name in same]
        assert (new["id"] != old["id"], new["expires_at"]) == (True, None)
        assert [refusal(api, key["key"])[0] for key in (old, new)] == [200, 200]
        assert client.get(f"api-keys/{old['id']}").json()["expires_at"] is not None
        time.sleep(4.1)
        assert refusal(api, new["key"])[0] == 200
        assert refusal(api, old["key"]) in {(401, "api_key_expired"), (200, None)}
        time.sleep(3)
        assert refusal(api, old["key"]) == (401, "api_key_expired")

    def test_without_a_body_the_overlap_is_a_day(self, client: httpx2.Client) -> None:
        """And a key that ends sooner is not made to live longer."""
        soon = clock.now() + timedelta(hours=1)
        for key, limit in (
            (make_key(client), timedelta(days=1)),
            (make_key(client, expires_at=soon.isoformat()), None),
        ):
            new = client.post(f"api-keys/{key['id']}/rotate")
            assert new.status_code == 201, new.text
            ends = datetime.fromisoformat(client.get(f"api-keys/{key['id']}").json()["expires_at"])
            assert abs(ends - (clock.now() + limit if limit else soon)) < timedelta(seconds=5)

    def test_a_repeat_does_not_make_a_second_successor(self, client: httpx2.Client) -> None:
        """409 `already_created` with the link, as for a new key."""
        old, headers = make_key(client), {"Idempotency-Key": ids.new().hex}
        first = client.post(f"api-keys/{old['id']}/rotate", headers=headers)
        again = client.post(f"api-keys/{old['id']}/rotate", headers=headers)
        assert (again.status_code, again.json()["code"]) == (409, "already_created")
        assert again.json()["links"]["created"].endswith(first.json()["id"])

    def test_a_dead_key_has_no_successor(self, client: httpx2.Client, connection: Connection) -> None:
        """Revoked is 404; an expired one needs to be told until when."""
        key = make_key(client)
        connection.execute("update api_key set expires_at = now() where id = %s", (ids.decode("key", key["id"]),))
        refused = client.post(f"api-keys/{key['id']}/rotate")
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "in_the_past")
        later = (clock.now() + timedelta(days=1)).isoformat()
        assert client.post(f"api-keys/{key['id']}/rotate", json={"expires_at": later}).status_code == 201
        client.delete(f"api-keys/{key['id']}")
        assert client.post(f"api-keys/{key['id']}/rotate").status_code == 404


class TestProjects:
    """A key that is good for some projects only."""

    @pytest.fixture
    def inside(self, client: httpx2.Client) -> dict[str, Any]:
        """A project that the key is good for."""
        project: dict[str, Any] = client.post("projects", json={"name": ids.new().hex}).json()
        return project

    @pytest.fixture(autouse=True)
    def outside(self, client: httpx2.Client) -> dict[str, Any]:
        """One that it is not."""
        project: dict[str, Any] = client.post("projects", json={"name": ids.new().hex}).json()
        return project

    @pytest.fixture
    def limited(self, api: Any, client: httpx2.Client, inside: dict[str, Any]) -> Any:
        """A client with an admin's key for one project."""
        with api.client(make_key(client, project_ids=[inside["id"]])["key"]) as limited:
            yield limited

    def test_lists_hold_what_is_inside(
        self, client: httpx2.Client, limited: httpx2.Client, inside: dict[str, Any], outside: dict[str, Any]
    ) -> None:
        """Projects, sources and jobs; a filter does not lead out."""
        for project in (inside, outside):
            body = {"name": "s", "type": "file_upload", "config": {}}
            source = client.post(f"projects/{project['id']}/data-sources", json=body).json()
            assert client.post(f"projects/{project['id']}/data-sources/{source['id']}/test").status_code == 202
        assert [each["id"] for each in limited.get("projects").json()["data"]] == [inside["id"]]
        for path in ("data-sources", "jobs"):
            assert {each["project_id"] for each in limited.get(path).json()["data"]} == {inside["id"]}
        assert limited.get("jobs", params={"project_id": outside["id"]}).json()["data"] == []
        theirs = client.get("jobs", params={"project_id": outside["id"]}).json()["data"][0]["id"]
        assert limited.get("jobs", params={"ids": theirs}).json()["data"] == []

    def test_what_is_outside_is_not_there(
        self, client: httpx2.Client, limited: httpx2.Client, outside: dict[str, Any]
    ) -> None:
        """404 for the project, its sources and its jobs, before any 403 or 400."""
        body = {"name": "s", "type": "file_upload", "config": {}}
        source = client.post(f"projects/{outside['id']}/data-sources", json=body).json()
        path = f"projects/{outside['id']}/data-sources/{source['id']}"
        job = client.post(f"{path}/test").json()["id"]
        answers = [
            limited.get(f"projects/{outside['id']}"),
            limited.patch(f"projects/{outside['id']}", json={"x": 1}),
            limited.get(path),
            limited.post(f"{path}/sync", json={"x": 1}),
            limited.get(f"jobs/{job}"),
            limited.get(f"jobs/{job}/events"),
            limited.post(f"jobs/{job}/cancel"),
            limited.post(f"jobs/{job}/retry"),
        ]
        assert [answer.status_code for answer in answers] == [404] * len(answers)

    def test_it_does_not_touch_the_organization(self, limited: httpx2.Client, inside: dict[str, Any]) -> None:
        """An admin's key that is limited makes no projects, members or keys, and `/me` says so."""
        me = limited.get("me").json()
        assert (me["project_ids"], "api_key:write" in me["permissions"]) == ([inside["id"]], False)
        refused = [
            limited.post("projects", json={"name": "x"}),
            limited.post("api-keys", json={"name": "x", "role": "admin"}),
            limited.post("members", json={"email": "a@b", "role": "admin"}),
            limited.patch("organization", json={"name": "x"}),
            limited.get("audit-log"),
            limited.get("members"),
        ]
        assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(403, "key_limited")}
        source = {"name": "s", "type": "file_upload", "config": {}}
        assert limited.post(f"projects/{inside['id']}/data-sources", json=source).status_code == 201

    def test_a_project_of_somebody_else_is_named(
        self, client: httpx2.Client, other_client: httpx2.Client, inside: dict[str, Any]
    ) -> None:
        """400 with its place in the list, the same as for one that never was."""
        theirs = other_client.post("projects", json={"name": ids.new().hex}).json()["id"]
        nobodys = ids.encode("proj", ids.new())
        body = {"name": "k", "role": "viewer", "project_ids": [inside["id"], theirs, nobodys]}
        refused = client.post("api-keys", json=body).json()
        assert [(error["pointer"], error["code"]) for error in refused["errors"]] == [
            ("/project_ids/1", "unknown_project"),
            ("/project_ids/2", "unknown_project"),
        ]

    def test_a_cursor_of_an_unlimited_key_is_refused(self, client: httpx2.Client, limited: httpx2.Client) -> None:
        """It was made for another list."""
        cursor = client.get("projects", params={"page_size": 1}).json()["next_cursor"]
        refused = limited.get("projects", params={"page_size": 1, "cursor": cursor})
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_cursor")


def test_a_suspended_organization_is_told_so(
    api: Any, other_organization: CreatedOrganization, connection: Connection
) -> None:
    """401 with a code of its own, within five seconds; and let in again."""
    suspend = "update organization set suspended_at = {} where id = %s"
    with api.client(other_organization.api_key) as client:
        assert client.get("me").status_code == 200
        connection.execute(suspend.format("now()"), (other_organization.organization_id,))
        deadline = time.monotonic() + DIES_WITHIN_SECONDS
        while (answer := client.get("me")).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (answer.status_code, answer.json()["code"]) == (401, "organization_suspended")
        connection.execute(suspend.format("null"), (other_organization.organization_id,))
        assert client.get("me").status_code == 200
