"""The caller, the organization, its members and keys over HTTP."""

from datetime import timedelta
from typing import Any

import httpx2
import pytest

from headwater import clock, db, ids
from headwater.access.organizations import CreatedOrganization


def test_me_says_who_and_what_they_may_do(client: httpx2.Client, client_with_role: Any) -> None:
    """Member, organization, role and permissions."""
    me = client.get("me").json()
    assert (me["member"]["email"], me["organization"]["name"], me["role"]) == ("ada@example.com", "Acme", "admin")
    assert "credentials:write" in me["permissions"]
    viewer = client_with_role("viewer").get("me").json()
    assert viewer["role"] == "viewer"
    assert "credentials:write" not in viewer["permissions"]


def test_the_organization_and_its_members(client: httpx2.Client, organization: CreatedOrganization) -> None:
    """One's own, and nobody else's."""
    assert client.get("organization").json()["id"] == ids.encode("org", organization.organization_id)
    members = client.get("members").json()
    assert [member["email"] for member in members["data"]] == ["ada@example.com"]
    assert members["next_cursor"] is None


def test_a_key_is_shown_once_and_works(client: httpx2.Client, api: Any) -> None:
    """201 with `key`; the list and the key's own page do not show it; its role holds."""
    created = client.post("api-keys", json={"name": "nightly", "role": "operator"})
    assert created.status_code == 201
    key = created.json()["key"]
    found = client.get(str(created.url.join(created.headers["Location"])))
    assert found.json() == {name: value for name, value in created.json().items() if name != "key"}
    assert key.split("_")[2] not in client.get("api-keys").text + found.text
    with api.client(key) as operator:
        assert operator.get("me").json()["role"] == "operator"
        assert operator.get("api-keys").status_code == 403


def test_a_revoked_key_dies_within_five_seconds(client: httpx2.Client, api: Any, connection: db.Connection) -> None:
    """204; a key that no process remembers is refused at once, and it is gone from the list."""
    created = client.post("api-keys", json={"name": "short", "role": "viewer"}).json()
    assert client.delete(f"api-keys/{created['id']}").status_code == 204
    with api.client(created["key"]) as revoked:
        assert revoked.get("me").status_code == 401
    assert created["id"] not in client.get("api-keys").text
    assert client.delete(f"api-keys/{created['id']}").status_code == 404


def test_a_repeated_creation_does_not_show_the_key_again(client: httpx2.Client, connection: db.Connection) -> None:
    """409 `already_created` with a link to the key; no stored answer holds it."""
    headers, body = {"Idempotency-Key": ids.new().hex}, {"name": "once", "role": "viewer"}
    created = client.post("api-keys", json=body, headers=headers).json()
    again = client.post("api-keys", json=body, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "already_created")
    assert again.json()["links"]["created"].endswith(created["id"])
    secret = created["key"].split("_")[2]
    stored = connection.execute("select to_jsonb(r)::text as text from idempotency_record r").fetchall()
    assert not any(secret in row["text"] for row in stored)


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"role": "owner"}, "/role", "literal_error"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "in_the_past"),
        ({"expires_at": "2999-01-01T00:00:00"}, "/expires_at", "timezone_aware"),
        ({"member_id": "user_00000000000000000000000000"}, "/member_id", "unknown_member"),
        ({"organization_id": "org_x"}, "/organization_id", "extra_forbidden"),
        ({"secret_hash": "x"}, "/secret_hash", "extra_forbidden"),
    ],
)
def test_a_bad_key_is_refused(client: httpx2.Client, change: dict[str, Any], pointer: str, code: str) -> None:
    """400 with pointer and code."""
    answer = client.post("api-keys", json={"name": "n", "role": "viewer"} | change)
    assert answer.status_code == 400, answer.text
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [(pointer, code)]


def test_a_key_cannot_have_more_rights_than_its_member(
    client: httpx2.Client, organization: CreatedOrganization, connection: db.Connection
) -> None:
    """403 for an admin's key in the hands of a viewer."""
    member_id = ids.new()
    connection.execute(
        "insert into member (id, organization_id, email, name, role) values (%s, %s, %s, 'Vi', 'viewer')",
        (member_id, organization.organization_id, f"{member_id}@example.com"),
    )
    body = {"name": "n", "member_id": ids.encode("user", member_id)}
    assert client.post("api-keys", json={**body, "role": "admin"}).status_code == 403
    created = client.post("api-keys", json={**body, "role": "viewer"})
    assert created.json()["member"]["name"] == "Vi"


def test_an_expired_key_is_refused(client: httpx2.Client, api: Any, connection: db.Connection) -> None:
    """401 after its time."""
    soon = (clock.now() + timedelta(hours=1)).isoformat()
    created = client.post("api-keys", json={"name": "n", "role": "viewer", "expires_at": soon}).json()
    key_id = ids.decode("key", created["id"])
    connection.execute("update api_key set expires_at = now() - interval '1 second' where id = %s", (key_id,))
    with api.client(created["key"]) as expired:
        assert expired.get("me").status_code == 401


def test_another_organizations_key_is_not_there(client: httpx2.Client, other_client: httpx2.Client) -> None:
    """404 to look at and to revoke, and it is not listed."""
    key = client.get("me").json()["key_id"]
    assert other_client.get(f"api-keys/{key}").status_code == 404
    assert other_client.delete(f"api-keys/{key}").status_code == 404
    assert key not in other_client.get("api-keys").text
