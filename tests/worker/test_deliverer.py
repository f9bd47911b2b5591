"""The deliverer as a real process, before a real server: told at least once, signed; who is slow harms nobody."""

import base64
import hashlib
import hmac
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import making
import pytest
import receiving
import serving
from receiving import Received, Receiver

from headwater import ids
from headwater.db import Connection
from headwater.jobs import lifecycle
from headwater.jobs.outcome import Failed, JobFailure, Progress
from headwater.settings import JobSettings
from headwater.webhooks import signing

FIRST, SECOND = "whsec_Zmlyc3Qgc2VjcmV0IG9mIDI0IGJ5dGVz", "whsec_c2Vjb25kIHNlY3JldCBvZiAyNCBieXQ="


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving.receiver() as receiver:
        yield receiver


@pytest.fixture
def webhook_id(connection: Connection, organization: Any, receiver: Receiver) -> UUID:
    """The only webhook, signed with the first secret."""
    connection.execute("delete from webhook")
    return making.make_webhook(connection, organization.organization_id, receiver.url, FIRST)


@pytest.fixture
def ask(connection: Connection, organization: Any, webhook_id: UUID) -> Callable[..., UUID]:
    """Has a test sent to the webhook, or to another; its delivery."""
    return lambda other=webhook_id: making.make_delivery(connection, organization.organization_id, other)


def verify(received: Received, secret: str) -> bool:
    """As a receiver would that knows the specification and not us."""
    signed = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode() + received.body
    digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}" in received.headers["webhook-signature"].split(" ")


def row(engine: Any, delivery_id: UUID) -> dict[str, Any]:
    found = engine.connection.execute(
        "select *, extract(epoch from next_at - now())::float as due_in from webhook_delivery where id = %s",
        (delivery_id,),
    ).fetchone()
    assert found is not None
    return dict(found)


def webhook(engine: Any, webhook_id: UUID) -> dict[str, Any]:
    found = engine.connection.execute("select * from webhook where id = %s", (webhook_id,)).fetchone()
    assert found is not None
    return dict(found)


def attempts(engine: Any, delivery_id: UUID) -> list[tuple[int | None, str | None]]:
    """(status code, error code) of each but the first, which `making` made up."""
    found = engine.connection.execute(
        "select status_code, error_code from webhook_attempt where delivery_id = %s and attempt > 1 order by attempt",
        (delivery_id,),
    ).fetchall()
    return [(each["status_code"], each["error_code"]) for each in found]


def settled(engine: Any, delivery_id: UUID, status: str = "succeeded") -> dict[str, Any]:
    """Wait until the delivery is in that status, and not under way; its row."""
    engine.until(lambda: row(engine, delivery_id)["status"] == status)
    return row(engine, delivery_id)


def tried(engine: Any, delivery_id: UUID, attempt: int = 2) -> dict[str, Any]:
    """Wait until that attempt is recorded; the delivery's row."""
    engine.until(lambda: (now := row(engine, delivery_id))["attempt"] >= attempt and now["status"] != "delivering")
    return row(engine, delivery_id)


def make_due(engine: Any) -> None:
    engine.connection.execute("update webhook_delivery set next_at = now() where status = 'pending'")


def test_a_job_that_ended_is_told_and_signed(
    engine: Any, working: Connection, webhook_id: UUID, receiver: Receiver
) -> None:
    """What comes is the thin job; the signature is good, also by an independent computation; secrets stay here."""
    job_id = engine.submit(engine.source())
    claim = lifecycle.claim(working, job_id, worker="tests", settings=JobSettings())
    assert claim is not None
    failure = Failed(JobFailure("invalid_credentials", "No.", None))
    lifecycle.record(working, claim, failure, Progress("tests"), settings=JobSettings())
    engine.deliverer()
    received = receiver.next()
    body = json.loads(received.body)
    assert (body["type"], body["data"]["id"], body["data"]["error"]) == (
        "job.failed", ids.encode("job", job_id), {"code": "invalid_credentials"},
    )  # fmt: skip
    assert verify(received, FIRST)
    assert not verify(received, SECOND)
    assert abs(int(received.headers["webhook-timestamp"]) - time.time()) < 60
    assert received.headers["content-type"] == "application/json"
    delivery_id = ids.decode("dlv", received.headers["webhook-id"])
    found = settled(engine, delivery_id)
    assert (found["job_id"], found["status_code"], found["attempt"]) == (job_id, 204, 1)
    opened = engine.connection.execute(
        "select details from audit_entry where act = 'webhook.unseal' and subject_id = %s", (webhook_id,)
    ).fetchall()
    assert [entry["details"]["delivery_id"] for entry in opened] == [str(delivery_id)]
    assert FIRST not in engine.log()


def test_two_secrets_sign_while_one_gives_way_to_the_other(
    engine: Any, organization: Any, webhook_id: UUID, receiver: Receiver, ask: Any
) -> None:
    """Until the time of the former one is over, pruned or not."""
    making.put_secret(engine.connection, SECOND, signing.binding(organization.organization_id, webhook_id, 2))
    change = "update webhook set secret_number = 2, previous_secret_until = now() + %s * interval '1 hour'"
    engine.connection.execute(change, (1,))
    engine.deliverer()
    ask()
    both = receiver.next()
    engine.connection.execute(change, (-1,))
    ask()
    one = receiver.next()
    assert [verify(each, secret) for each in (both, one) for secret in (FIRST, SECOND)] == [True, True, False, True]


def test_what_a_server_refuses_is_sent_again(engine: Any, webhook_id: UUID, receiver: Receiver, ask: Any) -> None:
    """Later, with the same id and body; `Retry-After` is heeded; a success ends that the webhook is failing."""
    receiver.answers += [(500, {}), (429, {"Retry-After": "100"}), (307, {"Location": receiver.url})]
    delivery_id = ask()
    engine.deliverer()
    delays = []
    for attempt in (2, 3, 4):
        found = tried(engine, delivery_id, attempt)
        assert found["status"] == "pending"
        delays.append(found["due_in"])
        assert webhook(engine, webhook_id)["failing_since"] is not None
        make_due(engine)
    settled(engine, delivery_id)
    assert [low - 5 < delay <= low for delay, low in zip(delays, (5, 100, 120), strict=True)] == [True] * 3
    assert attempts(engine, delivery_id) == [(500, "refused"), (429, "refused"), (307, "redirected"), (204, None)]
    requests = [receiver.next(1) for _ in range(4)]
    assert receiver.received.empty()
    assert len({(each.headers["webhook-id"], each.body) for each in requests}) == 1
    assert webhook(engine, webhook_id)["failing_since"] is None


def test_a_delivery_that_never_arrives_has_failed(engine: Any, webhook_id: UUID, receiver: Receiver, ask: Any) -> None:
    """After the last try; one webhook that fails for a day is not switched off, one that fails for days is."""
    receiver.answers += [(500, {})] * 2
    last_try = "update webhook_delivery set tries = 8 where id = %s"
    first_id = ask()
    engine.connection.execute(last_try, (first_id,))
    engine.deliverer()
    found = settled(engine, first_id, "failed")
    assert (found["error_code"], webhook(engine, webhook_id)["enabled"]) == ("refused", True)
    engine.connection.execute("update webhook set failing_since = now() - interval '6 days'")
    with engine.connection.transaction():
        second_id = ask()
        engine.connection.execute(last_try, (second_id,))
    settled(engine, second_id, "failed")
    off = webhook(engine, webhook_id)
    assert (off["enabled"], off["disabled_reason"], off["revision"]) == (False, "failing", 2)


def test_a_server_that_is_gone_switches_its_webhook_off(
    engine: Any, webhook_id: UUID, receiver: Receiver, ask: Any
) -> None:
    """410 at once, with the reason in the audit log; what comes due after it fails without a request."""
    receiver.answers.append((410, {}))
    delivery_id = ask()
    engine.deliverer()
    settled(engine, delivery_id, "failed")
    later_id = ask()
    assert settled(engine, later_id, "failed")["error_code"] == "webhook_disabled"
    off = webhook(engine, webhook_id)
    assert (off["enabled"], off["disabled_reason"]) == (False, "gone")
    (entry,) = engine.connection.execute(
        "select * from audit_entry where act = 'webhook.disable' and subject_id = %s", (webhook_id,)
    ).fetchall()
    assert (entry["actor_id"], entry["details"]) == (None, {"reason": "gone", "delivery_id": str(delivery_id)})
    receiver.next(1)
    assert receiver.received.empty()


def test_a_network_that_is_not_allowed_is_not_reached(
    engine: Any, webhook_id: UUID, receiver: Receiver, ask: Any
) -> None:
    """The guard of all that workers connect to holds for webhooks too."""
    delivery_id = ask()
    engine.deliverer(HEADWATER_EGRESS_ALLOW="10.0.0.0/8")
    found = tried(engine, delivery_id)
    assert (found["status"], found["error_code"]) == ("pending", "blocked_target")
    assert receiver.received.empty()


def test_a_slow_server_holds_up_nobody_but_itself(
    engine: Any, organization: Any, webhook_id: UUID, receiver: Receiver, ask: Any
) -> None:
    """It gets its share of requests at once and no more, and is left after its time."""
    held = [threading.Event() for _ in range(8)]
    receiver.answers += held
    for _ in held:
        ask()
    settings = {
        "HEADWATER_WEBHOOK_SLOTS": "4",
        "HEADWATER_WEBHOOK_SLOTS_PER_ENDPOINT": "2",
        "HEADWATER_WEBHOOK_TIMEOUT_SECONDS": "30",
    }
    engine.deliverer(**settings)
    receiver.next(), receiver.next()
    with receiving.receiver() as quick:
        other_id = making.make_webhook(engine.connection, organization.organization_id, quick.url)
        others = [ask(other_id) for _ in range(5)]
        for delivery_id in others:
            settled(engine, delivery_id)
        under_way = "select count(*) as n from webhook_delivery where status = 'delivering'"
        assert engine.connection.execute(under_way).fetchone() == {"n": 2}
        assert receiver.received.empty()
    for each in held:
        each.set()
    engine.until(lambda: engine.connection.execute(
        "select 1 from webhook_delivery where status <> 'succeeded'").fetchone() is None)  # fmt: skip


def test_a_silent_server_is_left_after_its_time(engine: Any, webhook_id: UUID, receiver: Receiver, ask: Any) -> None:
    """And asked again, as after any failure."""
    receiver.answers.append(threading.Event())
    delivery_id = ask()
    engine.deliverer(HEADWATER_WEBHOOK_TIMEOUT_SECONDS="0.5")
    found = tried(engine, delivery_id)
    assert (found["status"], found["status_code"], found["error_code"]) == ("pending", None, "timeout")


@pytest.mark.parametrize("point", ["delivery.claimed", "delivery.answered"])
def test_a_deliverer_that_is_killed_loses_nothing(
    engine: Any, webhook_id: UUID, receiver: Receiver, ask: Any, point: str
) -> None:
    """SIGKILL before it sends, or between the answer and its record: another one sends it, with the same id."""
    delivery_id = ask()
    assert engine.deliverer(failpoints=f"{point}=die").popen.wait(30) == -signal.SIGKILL
    assert row(engine, delivery_id)["status"] == "delivering"
    engine.deliverer()
    other_id = ask()
    settled(engine, other_id)
    assert row(engine, delivery_id)["status"] == "delivering"  # while its lease lasts, it is nobody else's
    engine.connection.execute("update webhook_delivery set leased_until = now() where status = 'delivering'")
    found = settled(engine, delivery_id)
    assert attempts(engine, delivery_id) == [(None, "deliverer_lost"), (204, None)]
    sent = [receiver.next(1).headers["webhook-id"] for _ in range(3 if point == "delivery.answered" else 2)]
    assert sent.count(ids.encode("dlv", delivery_id)) == (2 if point == "delivery.answered" else 1)
    assert (found["attempt"], receiver.received.empty()) == (3, True)


def test_postgres_may_go_away_while_a_server_answers(
    engine: Any, webhook_id: UUID, receiver: Receiver, ask: Any
) -> None:
    """The answer is recorded when it is back; nothing is sent twice."""
    held = threading.Event()
    receiver.answers.append(held)
    delivery_id = ask()
    engine.deliverer()
    receiver.next()
    with engine.outage():
        held.set()
        # Its connection is cut, so that it cannot say anything: only its log can be looked at.
        deadline = time.monotonic() + 30
        while "deliverer.database_away" not in engine.log():
            assert time.monotonic() < deadline, engine.log_tail()
            time.sleep(0.05)
    settled(engine, delivery_id)
    assert receiver.received.empty()


def test_a_deliverer_that_is_stopped_ends_what_is_under_way(
    engine: Any, webhook_id: UUID, receiver: Receiver, ask: Any
) -> None:
    """SIGTERM: nothing new is begun, the answer that comes is recorded, exit code 0."""
    held = threading.Event()
    receiver.answers.append(held)
    delivery_id = ask()
    process: subprocess.Popen[bytes] = engine.deliverer().popen
    receiver.next()
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)  # several of its rounds: one that had begun may still claim
    later_id = ask()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    held.set()
    assert process.wait(30) == 0
    assert (row(engine, delivery_id)["status"], row(engine, later_id)["status"]) == ("succeeded", "pending")


def test_a_master_key_that_is_away_fails_nothing_for_good(
    engine: Any, webhook_id: UUID, receiver: Receiver, ask: Any, tmp_path: Path
) -> None:
    """It is tried again, and the server is not said to be failing."""
    delivery_id = ask()
    engine.deliverer(HEADWATER_MASTER_KEY_FILE=str(tmp_path / "none"))
    found = tried(engine, delivery_id)
    assert (found["status"], found["error_code"]) == ("pending", "key_unavailable")
    assert webhook(engine, webhook_id)["failing_since"] is None
    assert receiver.received.empty()


def test_what_the_api_makes_is_sent_signed_and_sent_again_by_hand(
    engine: Any, organization: Any, receiver: Receiver, database: str, pepper_file: Path
) -> None:
    """From the first request to the last: made, tested, rotated, redelivered, all with the API's own login."""
    settings = {"HEADWATER_DATABASE_URL": making.as_service(database, "api"), "HEADWATER_PEPPER_FILE": str(pepper_file)}
    engine.deliverer()
    with serving.api(**settings) as api, api.client(organization.api_key) as client:
        made = client.post("webhooks", json={"url": receiver.url}).json()
        path = f"webhooks/{made['id']}"
        delivery = client.post(f"{path}/test").json()
        received = receiver.next()
        assert (received.headers["webhook-id"], verify(received, made["secret"])) == (delivery["id"], True)
        assert json.loads(received.body)["data"] == {"webhook_id": made["id"]}
        shown = _ended(client, f"{path}/deliveries/{delivery['id']}")
        assert shown["payload"] == json.loads(received.body)
        rotated = client.post(f"{path}/rotate").json()
        assert client.post(f"{path}/deliveries/{delivery['id']}/redeliver").status_code == 202
        again = receiver.next()
        assert (again.headers["webhook-id"], again.body) == (delivery["id"], received.body)
        assert [verify(again, secret) for secret in (made["secret"], rotated["secret"])] == [True, True]
        shown = _ended(client, f"{path}/deliveries/{delivery['id']}")
        assert [(each["attempt"], each["status_code"]) for each in shown["attempts"]] == [(2, 204), (1, 204)]


def _ended(client: httpx2.Client, path: str) -> dict[str, Any]:
    """The delivery once it has arrived."""
    deadline = time.monotonic() + 30
    while (shown := client.get(path).json())["status"] != "succeeded":
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    return dict(shown)
