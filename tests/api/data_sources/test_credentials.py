"""Credentials over HTTP, opened again as the worker would."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import making
import pytest

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.connectors import registry
from headwater.errors import CannotUnseal
from headwater.vault import keys
from headwater.vault.providers import KeyFile

ANY = {"If-Match": "*"}


@pytest.fixture
def path(sources: str, source: dict[str, Any]) -> str:
    """The source's path."""
    return f"{sources}/{source['id']}"


@pytest.fixture
def opened(
    connection: db.Connection, organization: CreatedOrganization, master_key_file: Path, source: dict[str, Any]
) -> Any:
    """Opens what is stored for the source, if it pointed at a config."""

    def open_at(config: dict[str, Any]) -> dict[str, str]:
        spec = registry.get_spec("s3")
        found: dict[str, str] = making.opened(
            connection,
            master_key_file,
            organization_id=organization.organization_id,
            subject_id=ids.decode("dsrc", source["id"]),
            target=spec.target_fingerprint(spec.config.model_validate(config)),
        )
        return found

    return open_at


def test_what_is_shown_is_that_a_field_is_set(client: httpx2.Client, path: str) -> None:
    """Set or not, since when, and the ETag of the source; never a value."""
    answer = client.get(f"{path}/credentials")
    assert answer.headers["ETag"] == client.get(path).headers["ETag"]
    assert {name: field["set"] for name, field in answer.json().items()} == {
        "access_key_id": True,
        "secret_access_key": True,
        "session_token": False,
    }
    assert "horse" not in answer.text + client.get(path).text


def test_sent_is_replaced_omitted_is_kept_null_is_cleared(
    client: httpx2.Client, path: str, source: dict[str, Any], opened: Any
) -> None:
    """The worker opens the new value and the kept one."""
    answer = client.put(f"{path}/credentials", json={"access_key_id": "AKIANEW", "session_token": None})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"r2"')
    assert opened(source["config"]) == {"access_key_id": "AKIANEW", "secret_access_key": "correct horse"}
    cleared = client.put(f"{path}/credentials", json={"secret_access_key": None}).json()
    assert cleared["secret_access_key"] == {"set": False, "updated_at": None, "reference": None}
    assert opened(source["config"]) == {"access_key_id": "AKIANEW"}


def test_nothing_sent_changes_nothing(client: httpx2.Client, path: str) -> None:
    """An empty object and no body are the same."""
    for body in ({"content": b""}, {"json": {}}):
        assert client.put(f"{path}/credentials", **body).headers["ETag"] == '"r1"'


def test_a_mask_is_not_stored(client: httpx2.Client, path: str, source: dict[str, Any], opened: Any) -> None:
    """400 that names the field; the secret behind the mask stays."""
    for mask in ("********", "••••••"):
        answer = client.put(f"{path}/credentials", json={"secret_access_key": mask})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/secret_access_key")
    assert opened(source["config"])["secret_access_key"] == "correct horse"


def test_a_reference_is_shown_where_the_operator_allows_it(
    client: httpx2.Client, path: str, source: dict[str, Any], opened: Any, organization: CreatedOrganization,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Refused by field otherwise. Sealed like a secret; replaced by one, it is shown no more."""
    body = {"access_key_id": "vault://orders#id", "secret_access_key": "env://WAREHOUSE"}
    refused = client.put(f"{path}/credentials", json=body)
    assert (refused.status_code, {(error["pointer"], error["code"]) for error in refused.json()["errors"]}) == (
        400, {("/access_key_id", "reference_refused"), ("/secret_access_key", "reference_refused")},
    )  # fmt: skip
    monkeypatch.setenv("HEADWATER_REFERENCE_VAULT_MOUNT", "secret")
    listed = {ids.encode("org", organization.organization_id): ["WAREHOUSE"]}
    monkeypatch.setenv("HEADWATER_REFERENCE_VARIABLES", json.dumps(listed))
    shown = client.put(f"{path}/credentials", json=body).json()
    assert {name: field["reference"] for name, field in shown.items()} == body | {"session_token": None}
    assert opened(source["config"]) == body
    assert client.get(path).json()["credentials"] == shown
    replaced = client.put(f"{path}/credentials", json={"access_key_id": "AKIANEW"}).json()
    assert replaced["access_key_id"]["reference"] is None
    unknown = client.put(f"{path}/credentials", json={"password": "vault://orders#id"})
    assert unknown.json()["errors"][0]["pointer"] == "/password"


def test_if_match_is_optional_and_honoured(client: httpx2.Client, path: str) -> None:
    """A stale one is 412."""
    body = {"access_key_id": "AKIANEW"}
    assert client.put(f"{path}/credentials", json=body, headers={"If-Match": '"r9"'}).status_code == 412
    assert client.put(f"{path}/credentials", json={"x": 1}, headers={"If-Match": '"r9"'}).status_code == 412
    assert client.put(f"{path}/credentials", json=body, headers={"If-Match": '"r1"'}).status_code == 200
    assert client.delete(f"{path}/credentials", headers={"If-Match": '"r1"'}).status_code == 412


def test_deleted_credentials_are_gone(client: httpx2.Client, path: str, source: dict[str, Any], opened: Any) -> None:
    """204, and again 204."""
    assert client.delete(f"{path}/credentials").status_code == 204
    assert client.delete(f"{path}/credentials").status_code == 204
    assert opened(source["config"]) == {}
    assert client.get(path).headers["ETag"] == '"r2"'


def test_a_secret_opens_for_its_target_alone(
    client: httpx2.Client, path: str, source: dict[str, Any], opened: Any
) -> None:
    """Sealed anew for the new bucket with the change that moves the source; for any other it stays shut."""
    change = {"config": {"bucket": "elsewhere"}, "credentials": {"access_key_id": "AKIANEW"}}
    moved = client.patch(path, json=change, headers=ANY).json()
    assert opened(moved["config"]) == {"access_key_id": "AKIANEW"}
    with pytest.raises(CannotUnseal):
        opened(source["config"])


def test_roles_without_the_right_are_refused(client_with_role: Any, path: str) -> None:
    """A viewer and an operator may look, and not write."""
    for role in ("viewer", "operator"):
        somebody = client_with_role(role)
        assert somebody.get(f"{path}/credentials").status_code == 200
        assert somebody.put(f"{path}/credentials", json={"access_key_id": "x"}).status_code == 403
        assert somebody.delete(f"{path}/credentials").status_code == 403


@pytest.mark.parametrize("route", ["credentials", "unsaved test"])
def test_a_key_that_goes_meanwhile_is_said_and_the_next_request_uses_the_new_one(
    client: httpx2.Client, connection: db.Connection, database: str, organization: CreatedOrganization, path: str,
    sources: str, master_key_file: Path, route: str,
) -> None:  # fmt: skip
    """The request has read the old key and waits to write: 503 `key_replaced`, nothing stored, and again it works."""
    body = {"access_key_id": "AKIANEW", "secret_access_key": "new"}
    unsaved = {"type": "s3", "config": {"bucket": "bucket", "region": "eu-central-1"}, "credentials": body}

    def send() -> httpx2.Response:
        if route == "credentials":
            return client.put(f"{path}/credentials", json=body)
        return client.post(f"{sources}/test", json=unsaved)

    ours = (organization.organization_id,)
    lock = {
        "credentials": "select from sealed_credential for update",
        "unsaved test": "lock table sealed_credential in share row exclusive mode",
    }[route]
    waiting = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    # A transaction sees the sessions that there were when it first looked: the request may open another one.
    with (
        db.connect(database, application="tests") as looking,
        ThreadPoolExecutor(1) as threads,
        connection.transaction(),
    ):
        connection.execute(lock)
        request = threads.submit(send)
        while looking.execute(waiting).fetchone() is None:
            assert not request.done(), request.result().text
        connection.execute("delete from sealed_credential where organization_id = %s", ours)
        connection.execute("delete from organization_key where organization_id = %s", ours)
        keys.store(connection, keys.make(organization.organization_id, KeyFile(master_key_file)))
    refused = request.result()
    assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (503, "key_replaced", "1")
    left = connection.execute("select from sealed_credential where organization_id = %s", ours).fetchall()
    assert (left, send().status_code // 100) == ([], 2)
