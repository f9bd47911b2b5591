"""Webhooks over HTTP: what may be written, what is shown once, what becomes of deliveries."""

from pathlib import Path
from typing import Any

import httpx2
import making
import pytest

from headwater import ids
from headwater.db import Connection
from headwater.webhooks import signing

URL = "https://hooks.example.com/headwater?token=1"


@pytest.fixture(autouse=True)
def _room(connection: Connection) -> None:
    """Every test begins without a webhook: there may be twenty."""
    connection.execute("update webhook set deleted_at = now() where deleted_at is null")


@pytest.fixture
def made(client: httpx2.Client) -> dict[str, Any]:
    """A webhook, with its secret."""
    return make(client)


def make(client: httpx2.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("webhooks", json={"url": URL} | body)
    assert answer.status_code == 201, answer.text
    webhook: dict[str, Any] = answer.json()
    return webhook


def secrets(connection: Connection, master_key_file: Path, organization: Any, webhook_id: str) -> dict[str, str]:
    """What a deliverer finds when it opens them."""
    return making.opened(
        connection, master_key_file,
        organization_id=organization.organization_id, subject_id=ids.decode("hook", webhook_id),
        target=signing.PURPOSE,
    )  # fmt: skip


def refused(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 400, answer.text
    return [error["pointer"] for error in answer.json()["errors"]]


def test_a_webhook_is_made_and_its_secret_is_shown_once(
    client: httpx2.Client, connection: Connection, organization: Any, master_key_file: Path
) -> None:
    """What it is shown with is what deliverers open; no reading shows it again."""
    answer = client.post("webhooks", json={"url": URL})
    webhook = answer.json()
    secret = webhook.pop("secret")
    assert secrets(connection, master_key_file, organization, webhook["id"]) == {"secret.1": secret}
    read = client.get(f"webhooks/{webhook['id']}")
    assert answer.headers["Location"] == f"/api/v1/webhooks/{webhook['id']}"
    assert answer.headers["ETag"] == read.headers["ETag"]
    assert read.json() == webhook
    assert client.get("webhooks").json()["data"] == [webhook]
    assert webhook | {"id": "", "created_at": "", "updated_at": ""} == {
        "id": "", "url": URL, "description": "", "event_types": None, "project_ids": None, "enabled": True,
        "disabled_reason": None, "failing_since": None, "previous_secret_until": None,
        "created_at": "", "updated_at": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "", "hooks.example.com", "ftp://hooks.example.com/", "https://", "https:///path", "https://a b.example.com/",
        "https://ada:sesame@hooks.example.com/", "https://@hooks.example.com/", "https://hooks.example.com/#part",
        "https://hooks.example.com:0/", "https://hooks.example.com:99999/", "https://hooks.example.com:port/",
        "https://[::1", "https://hooks.example.com\\@127.0.0.1/", "https://hööks.example.com/",
        "https://hooks.example.com/" + "x" * 2048, "javascript:alert(1)",
    ],
)  # fmt: skip
def test_what_is_no_url_is_refused(client: httpx2.Client, url: str) -> None:
    """By its field, without repeating what it holds."""
    answer = client.post("webhooks", json={"url": url})
    assert refused(answer) == ["/url"]
    assert "sesame" not in answer.text


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/url"),
        ({"url": URL, "event_types": []}, "/event_types"),
        ({"url": URL, "event_types": ["job.started"]}, "/event_types/0"),
        ({"url": URL, "project_ids": []}, "/project_ids"),
        ({"url": URL, "project_ids": ["proj_x"]}, "/project_ids/0"),
        ({"url": URL, "project_ids": [ids.encode("proj", ids.new())]}, "/project_ids/0"),
        ({"url": URL, "secret": "whsec_x"}, "/secret"),
        ({"url": URL, "disabled_reason": None}, "/disabled_reason"),
    ],
)
def test_what_else_is_refused(client: httpx2.Client, body: dict[str, Any], pointer: str) -> None:
    """Named, field by field; a secret is not for callers to choose."""
    assert refused(client.post("webhooks", json=body)) == [pointer]


def test_a_webhook_is_changed_with_its_etag(
    client: httpx2.Client, project: dict[str, Any], made: dict[str, Any]
) -> None:
    """What is sent changes, null takes a limit away, nothing sent changes nothing."""
    path = f"webhooks/{made['id']}"
    before = client.get(path).headers["ETag"]
    limits = {"event_types": ["job.failed"], "project_ids": [project["id"]], "description": "to the pager"}
    changed = client.patch(path, json=limits, headers={"If-Match": before})
    assert changed.status_code == 200
    assert {name: changed.json()[name] for name in limits} == limits
    assert client.patch(path, json={"enabled": False}, headers={"If-Match": before}).status_code == 412
    none = {"event_types": None, "project_ids": None, "description": None}
    freed = client.patch(path, json=none)
    assert {name: freed.json()[name] for name in none} == none | {"description": ""}
    assert client.patch(path, json={}).headers["ETag"] == freed.headers["ETag"]
    assert client.patch(path, json={"url": URL}).headers["ETag"] == freed.headers["ETag"]
    assert refused(client.patch(path, json={"url": None})) == ["/url"]


def test_switched_on_it_begins_anew(client: httpx2.Client, connection: Connection, made: dict[str, Any]) -> None:
    """Why it was off, and since when it had been failing, are over."""
    connection.execute(
        "update webhook set enabled = false, disabled_reason = 'failing', failing_since = now() where id = %s",
        (ids.decode("hook", made["id"]),),
    )
    path = f"webhooks/{made['id']}"
    off = client.get(path).json()
    assert (off["enabled"], off["disabled_reason"], off["failing_since"] is None) == (False, "failing", False)
    described = client.patch(path, json={"description": "x"}).json()
    assert described["disabled_reason"] == "failing"
    on = client.patch(path, json={"enabled": True}).json()
    assert (on["enabled"], on["disabled_reason"], on["failing_since"]) == (True, None, None)


def test_a_secret_gives_way_to_its_successor(
    client: httpx2.Client, connection: Connection, organization: Any, master_key_file: Path, made: dict[str, Any]
) -> None:
    """Both are there until the overlap is over; a third one ends the first at once, no overlap ends all but its own."""
    path = f"webhooks/{made['id']}"

    def sealed() -> dict[str, str]:
        return secrets(connection, master_key_file, organization, made["id"])

    second = client.post(f"{path}/rotate", json={"overlap_seconds": 3600}).json()
    assert sealed() == {"secret.1": made["secret"], "secret.2": second["secret"]}
    row = connection.execute(
        "select extract(epoch from previous_secret_until - now())::float as seconds from webhook where id = %s",
        (ids.decode("hook", made["id"]),),
    ).fetchone()
    assert row is not None
    assert 3500 < row["seconds"] <= 3600
    third = client.post(f"{path}/rotate").json()
    assert sealed() == {"secret.2": second["secret"], "secret.3": third["secret"]}
    last = client.post(f"{path}/rotate", json={"overlap_seconds": 0}).json()
    assert sealed() == {"secret.4": last["secret"]}
    assert last["previous_secret_until"] is None
    assert refused(client.post(f"{path}/rotate", json={"overlap_seconds": 31 * 86_400})) == ["/overlap_seconds"]


def test_a_deleted_webhook_is_gone_with_its_secrets(
    client: httpx2.Client, connection: Connection, organization: Any, master_key_file: Path, made: dict[str, Any]
) -> None:
    """Neither it nor its deliveries are there any more; its row tells nobody of jobs."""
    path = f"webhooks/{made['id']}"
    delivery = client.post(f"{path}/test").json()["id"]
    assert client.delete(path).status_code == 204
    for method, each in (
        ("GET", path), ("PATCH", path), ("DELETE", path), ("POST", f"{path}/rotate"), ("POST", f"{path}/test"),
        ("GET", f"{path}/deliveries"), ("GET", f"{path}/deliveries/{delivery}"),
        ("POST", f"{path}/deliveries/{delivery}/redeliver"),
    ):  # fmt: skip
        assert client.request(method, each).status_code == 404, (method, each)
    assert client.get("webhooks").json()["data"] == []
    assert secrets(connection, master_key_file, organization, made["id"]) == {}


def test_there_may_be_so_many_and_no_more(client: httpx2.Client, connection: Connection, organization: Any) -> None:
    """The deployment's number, or one of the organization's own; a deleted one makes room."""
    limit = "update organization set webhook_limit = %s where id = %s"
    connection.execute(limit, (2, organization.organization_id))
    try:
        first, _ = make(client), make(client)
        answer = client.post("webhooks", json={"url": URL})
        assert (answer.status_code, answer.json()["quota"]) == (429, {"name": "webhooks", "limit": 2})
        assert client.get("organization").json()["quotas"]["webhooks"] == {"used": 2, "limit": 2}
        client.delete(f"webhooks/{first['id']}")
        make(client)
    finally:
        connection.execute(limit, (None, organization.organization_id))


def test_a_test_is_a_delivery_of_its_own(client: httpx2.Client, made: dict[str, Any]) -> None:
    """It waits to be sent, with what it will say; one that is off has none."""
    path = f"webhooks/{made['id']}"
    answer = client.post(f"{path}/test")
    delivery = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/v1/{path}/deliveries/{delivery['id']}"
    assert delivery | {"id": "", "created_at": "", "next_attempt_at": ""} == {
        "id": "", "type": "webhook.test", "job_id": None, "status": "pending", "attempt": 0, "next_attempt_at": "",
        "status_code": None, "error_code": None, "created_at": "", "ended_at": None,
    }  # fmt: skip
    assert client.get(f"{path}/deliveries/{delivery['id']}").json() == delivery | {
        "payload": {
            "type": "webhook.test", "timestamp": delivery["created_at"], "data": {"webhook_id": made["id"]},
        },
        "attempts": [],
    }  # fmt: skip
    client.patch(path, json={"enabled": False})
    for each in (f"{path}/test", f"{path}/deliveries/{delivery['id']}/redeliver"):
        off = client.post(each)
        assert (off.status_code, off.json()["code"]) == (409, "webhook_disabled")


def test_the_end_of_a_job_is_listed_and_found_by_it(
    client: httpx2.Client, project: dict[str, Any], made: dict[str, Any]
) -> None:
    """Cancelled by a request, told in its transaction; filters by status and job."""
    path = f"webhooks/{made['id']}/deliveries"
    config = {"bucket": "bucket", "region": "eu-central-1"}
    sources = f"projects/{project['id']}/data-sources"
    source = client.post(sources, json={"name": "s", "type": "s3", "config": config}).json()
    job = client.post(f"{sources}/{source['id']}/test").json()
    client.post(f"webhooks/{made['id']}/test")
    assert client.post(f"jobs/{job['id']}/cancel").status_code == 200

    def found(**query: Any) -> list[str]:
        return [each["type"] for each in client.get(path, params=query).json()["data"]]

    assert found() == ["job.cancelled", "webhook.test"]
    assert found(job_id=job["id"]) == ["job.cancelled"]
    assert found(status=["pending", "failed"]) == ["job.cancelled", "webhook.test"]
    assert found(status="succeeded") == []
    first = client.get(path, params={"page_size": 1}).json()
    second = client.get(path, params={"page_size": 1, "cursor": first["next_cursor"]}).json()
    assert [page["data"][0]["type"] for page in (first, second)] == ["job.cancelled", "webhook.test"]
    assert (first["has_more"], second["has_more"]) == (True, False)
    shown = client.get(f"{path}/{first['data'][0]['id']}").json()["payload"]["data"]
    ended = client.get(f"jobs/{job['id']}").json()
    assert shown["links"] == {name: ended["links"][name] for name in ("self", "source")}
    assert {name: shown[name] for name in shown if name != "links"} == {
        name: ended[name] for name in ("id", "kind", "status", "project_id", "data_source_id", "finished_at", "error")
    }


@pytest.mark.parametrize("status", ["pending", "failed", "succeeded"])
def test_a_delivery_is_sent_again_by_hand(
    client: httpx2.Client, connection: Connection, made: dict[str, Any], status: str
) -> None:
    """Whatever became of it: it is due now, with all its tries before it, and keeps what was tried."""
    path = f"webhooks/{made['id']}"
    delivery = client.post(f"{path}/test").json()["id"]
    delivery_id = ids.decode("dlv", delivery)
    connection.execute(
        """
        update webhook_delivery set status = %s, attempt = 9, tries = 9, next_at = now() + interval '1 hour',
            error_code = 'refused', status_code = 500, ended_at = now()
        where id = %s
        """,
        (status, delivery_id),
    )
    again = client.post(f"{path}/deliveries/{delivery}/redeliver")
    assert again.status_code == 202
    assert (again.json()["status"], again.json()["attempt"], again.json()["ended_at"]) == ("pending", 9, None)
    row = connection.execute(
        "select tries, next_at <= now() as due from webhook_delivery where id = %s", (delivery_id,)
    ).fetchone()
    assert row == {"tries": 0, "due": True}


def test_what_is_being_sent_is_not_sent_twice_by_hand(
    client: httpx2.Client, connection: Connection, made: dict[str, Any]
) -> None:
    """In a moment one knows what came of it."""
    path = f"webhooks/{made['id']}"
    delivery = client.post(f"{path}/test").json()["id"]
    connection.execute(
        "update webhook_delivery set status = 'delivering' where id = %s", (ids.decode("dlv", delivery),)
    )
    answer = client.post(f"{path}/deliveries/{delivery}/redeliver")
    assert (answer.status_code, answer.json()["code"]) == (409, "delivery_in_progress")


def test_a_delivery_is_not_found_below_another_webhook(client: httpx2.Client, made: dict[str, Any]) -> None:
    """Though both are ours."""
    delivery = client.post(f"webhooks/{made['id']}/test").json()["id"]
    path = f"webhooks/{make(client)['id']}/deliveries/{delivery}"
    assert (client.get(path).status_code, client.post(f"{path}/redeliver").status_code) == (404, 404)


@pytest.mark.parametrize("act", ["rotate", "test"])
def test_acts_once_per_key(client: httpx2.Client, connection: Connection, made: dict[str, Any], act: str) -> None:
    """A secret is not shown twice; a test is not sent twice."""
    headers = {"Idempotency-Key": ids.new().hex}
    first, second = (client.post(f"webhooks/{made['id']}/{act}", headers=headers) for _ in range(2))
    row = connection.execute(
        """
        select secret_number, (select count(*) from webhook_delivery d where d.webhook_id = w.id) as deliveries
        from webhook w where id = %s
        """,
        (ids.decode("hook", made["id"]),),
    ).fetchone()
    if act == "rotate":
        assert (second.status_code, second.json()["code"]) == (409, "already_created")
        assert row == {"secret_number": 2, "deliveries": 0}
    else:
        assert second.json() == first.json()
        assert row == {"secret_number": 1, "deliveries": 1}
