"""Members over HTTP: invited, changed, removed; somebody stays who can let others in."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from headwater import db, ids
from headwater.access import api_keys, organizations
from headwater.vault.providers import KeyFile

DIES_WITHIN_SECONDS = 5.0


@pytest.fixture
def fresh(api: Any, database: str, pepper_file: Path, master_key_file: Path) -> Iterator[httpx2.Client]:
    """The first and only admin of an organization of its own."""
    with db.connect(database, application="tests") as connection, connection.transaction():
        created = organizations.create(
            connection, name="Fresh", email="first@example.com",
            pepper=api_keys.read_pepper(pepper_file), provider=KeyFile(master_key_file),
        )  # fmt: skip
    with api.client(created.api_key) as client:
        yield client


Invite = Callable[..., dict[str, Any]]


@pytest.fixture
def invite(fresh: httpx2.Client) -> Invite:
    """Invites a member with a role."""

    def invite(role: str = "viewer", **body: Any) -> dict[str, Any]:
        body = {"email": f"{ids.new().hex}@example.com", "role": role} | body
        answer = fresh.post("members", json=body)
        assert answer.status_code == 201, answer.text
        member: dict[str, Any] = answer.json()
        return member

    return invite


def me(client: httpx2.Client) -> str:
    """The path of the client's own member."""
    return "members/" + str(client.get("me").json()["member"]["id"])


def key_of(client: httpx2.Client, member: dict[str, Any], role: str) -> str:
    """A new key of the member."""
    answer = client.post("api-keys", json={"name": "k", "role": role, "member_id": member["id"]})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.1)
    return true()


def test_a_person_is_invited_and_can_be_given_a_key(fresh: httpx2.Client, api: Any) -> None:
    """201 with Location and ETag; named by the address if by nothing else; the key has the member's rights."""
    answer = fresh.post("members", json={"email": " Grace@example.com ", "role": "operator"})
    member = answer.json()
    assert (answer.status_code, answer.headers["ETag"]) == (201, '"r1"')
    assert {name: member[name] for name in ("kind", "email", "name", "role")} == {
        "kind": "person", "email": "Grace@example.com", "name": "Grace", "role": "operator",
    }  # fmt: skip
    assert fresh.get(str(answer.url.join(answer.headers["Location"]))).json() == member
    with api.client(key_of(fresh, member, "operator")) as grace:
        assert grace.get("me").json()["member"]["id"] == member["id"]


def test_a_service_account_has_no_address(fresh: httpx2.Client, api: Any) -> None:
    """What it makes shows it by its name."""
    service = fresh.post("members", json={"kind": "service", "name": "nightly", "role": "admin"}).json()
    assert (service["kind"], service["email"]) == ("service", None)
    with api.client(key_of(fresh, service, "admin")) as client:
        project = client.post("projects", json={"name": "by a service"}).json()
    assert project["created_by"] == {"id": service["id"], "name": "nightly", "email": None}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "viewer"}, ""),
        ({"email": "nobody", "role": "viewer"}, "/email"),
        ({"email": "a b@example.com", "role": "viewer"}, "/email"),
        ({"kind": "service", "role": "viewer"}, ""),
        ({"kind": "service", "name": "n", "email": "a@b", "role": "viewer"}, ""),
        ({"email": "a@b", "role": "owner"}, "/role"),
        ({"email": "a@b", "role": "viewer", "subject": "x"}, "/subject"),
    ],
)
def test_a_bad_invitation_is_refused(fresh: httpx2.Client, body: dict[str, Any], pointer: str) -> None:
    """400 with the place."""
    answer = fresh.post("members", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, pointer), answer.text


def test_an_address_is_a_member_once(fresh: httpx2.Client, invite: Invite) -> None:
    """409 whatever its case; whoever was removed can be invited again."""
    member = invite(email="twice@example.com")
    again = fresh.post("members", json={"email": "TWICE@example.com", "role": "viewer"})
    assert (again.status_code, again.json()["code"]) == (409, "email_taken")
    assert fresh.delete(f"members/{member['id']}").status_code == 204
    assert invite(email="twice@example.com")["id"] != member["id"]


def test_a_repeated_invitation_is_one(fresh: httpx2.Client) -> None:
    """The same Idempotency-Key gives the same member."""
    headers, body = {"Idempotency-Key": ids.new().hex}, {"email": "once@example.com", "role": "viewer"}
    first, second = (fresh.post("members", json=body, headers=headers) for _ in range(2))
    assert (second.json(), second.headers["Idempotency-Replayed"]) == (first.json(), "true")


def test_the_last_admin_stays(fresh: httpx2.Client, invite: Invite) -> None:
    """Neither removed nor made less, though a service account is admin too; with a second person both can go."""
    fresh.post("members", json={"kind": "service", "name": "robot", "role": "admin"})
    for answer in (fresh.delete(me(fresh)), fresh.patch(me(fresh), json={"role": "viewer"})):
        assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
    assert fresh.patch(me(fresh), json={"name": "Ada"}).json()["name"] == "Ada"
    invite("admin")
    assert fresh.patch(me(fresh), json={"role": "operator"}).status_code == 200


def test_two_admins_who_leave_at_once_do_not_both(fresh: httpx2.Client, invite: Invite, api: Any) -> None:
    """One goes, the other one is the last by then."""
    other = invite("admin")
    with api.client(key_of(fresh, other, "admin")) as second:
        # Both are known by now: who leaves second is heard, though it is nobody's key any more.
        paths = [(fresh, f"members/{other['id']}"), (second, me(fresh))]
        assert second.get("me").status_code == 200
        answers: list[int] = []
        barrier = threading.Barrier(2)

        def leave(client: httpx2.Client, path: str) -> None:
            barrier.wait()
            answers.append(client.delete(path).status_code)

        threads = [threading.Thread(target=leave, args=each) for each in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [204, 409]


def test_a_lower_role_takes_rights_from_keys_too(fresh: httpx2.Client, invite: Invite, api: Any) -> None:
    """Within five seconds a key of the member has no more rights than the member."""
    member = invite("admin")
    with api.client(key_of(fresh, member, "admin")) as client:
        assert client.get("audit-log").status_code == 200
        changed = fresh.patch(f"members/{member['id']}", json={"role": "viewer"})
        assert (changed.json()["role"], changed.headers["ETag"]) == ("viewer", '"r2"')
        assert within(DIES_WITHIN_SECONDS, lambda: client.get("audit-log").status_code == 403)
        assert client.get("me").json()["role"] == "viewer"


def test_a_removed_members_keys_die_within_five_seconds(fresh: httpx2.Client, invite: Invite, api: Any) -> None:
    """Also one that a process remembers; what the member made still names it."""
    member = invite("admin")
    key = key_of(fresh, member, "admin")
    with api.client(key) as client:
        project = client.post("projects", json={"name": "of someone who left"}).json()
        assert fresh.delete(f"members/{member['id']}").status_code == 204
        assert within(DIES_WITHIN_SECONDS, lambda: client.get("me").status_code == 401)
        assert client.get("me").json()["code"] == "api_key_revoked"
    assert fresh.get(f"projects/{project['id']}").json()["created_by"]["id"] == member["id"]
    assert fresh.get(f"members/{member['id']}").status_code == 404
    assert member["id"] not in fresh.get("members").text


def test_if_match_is_honoured_where_it_is_sent(fresh: httpx2.Client, invite: Invite) -> None:
    """Stale is 412 and changes nothing; fresh and none are good."""
    path = f"members/{invite()['id']}"
    stale, current = {"If-Match": '"r7"'}, {"If-Match": '"r1"'}
    assert fresh.patch(path, json={"name": "x"}, headers=stale).status_code == 412
    assert fresh.delete(path, headers=stale).status_code == 412
    assert fresh.patch(path, json={"name": "x"}, headers=current).status_code == 200
    assert fresh.delete(path, headers=current).status_code == 412
    assert fresh.delete(path).status_code == 204


def test_the_organization_is_renamed(fresh: httpx2.Client) -> None:
    """Its ETag moves, an older one is stale, nothing else can be set."""
    before = fresh.get("organization").headers["ETag"]
    renamed = fresh.patch("organization", json={"name": "Fresher"}, headers={"If-Match": before})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "Fresher")
    assert fresh.patch("organization", json={"name": "x"}, headers={"If-Match": before}).status_code == 412
    refused = fresh.patch("organization", json={"suspended_at": None, "data_source_limit": 5})
    assert {error["pointer"] for error in refused.json()["errors"]} == {"/suspended_at", "/data_source_limit"}


def test_the_organization_says_what_it_has_and_may_have(fresh: httpx2.Client) -> None:
    """Counts of now, the deployment's limits; without a limit it is null."""
    project = fresh.post("projects", json={"name": "counted"}).json()
    body = {"name": "s", "type": "file_upload", "config": {}}
    assert fresh.post(f"projects/{project['id']}/data-sources", json=body).status_code == 201
    assert fresh.get("organization").json()["quotas"] == {
        "data_sources": {"used": 1, "limit": 10_000},
        "live_jobs": {"used": 0, "limit": 10_000},
        "upload_bytes": {"used": 0, "limit": None},
        "webhooks": {"used": 0, "limit": 20},
    }
