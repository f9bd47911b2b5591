"""Flower as a process of the stack."""

import base64
import hashlib
import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attacking
import httpx2
import pytest
import redis

from headwater import ids
from headwater_cli import ports

OPERATOR = ("operator", "open sesame")
_TABLE = "/tasks/datatable?draw=1&start=0&length=100&order[0][column]=0&columns[0][data]=name"


@dataclass(frozen=True)
class _Flower:
    process: subprocess.Popen[bytes]
    client: httpx2.Client


@contextmanager
def _serving(valkey: str) -> Iterator[_Flower]:
    port = ports.free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HEADWATER_REDIS_URL": valkey,
        "HEADWATER_FLOWER_PORT": str(port),
        "HEADWATER_FLOWER_USER": "operator",
        "HEADWATER_FLOWER_PASSWORD": "open sesame",
    }
    process = subprocess.Popen((sys.executable, "-m", "headwater_worker.flower"), env=environment)
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:
        _wait_until_healthy(client)
        yield _Flower(process, client)
    process.kill()
    process.wait()


@pytest.fixture
def flower(valkey: str) -> Iterator[_Flower]:
    with _serving(valkey) as flower:
        yield flower


def _wait_until_healthy(client: httpx2.Client) -> None:
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        try:
            if client.get("/healthcheck").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise TimeoutError


def test_flower_asks_for_the_password_and_changes_nothing(flower: _Flower) -> None:
    """Operators look; nobody shuts a worker down from a browser."""
    stranger = flower.client.get("/workers").status_code
    page = flower.client.get("/workers", auth=OPERATOR).status_code
    shutdown = flower.client.post("/api/worker/shutdown/bulk@host", auth=OPERATOR).status_code
    assert (stranger, page, shutdown) == (401, 200, 403)


def test_the_password_stands_in_no_argument(flower: _Flower) -> None:
    """`ps` shows arguments to everybody on the machine."""
    shown = subprocess.run(
        ("ps", "-o", "args=", "-p", str(flower.process.pid)), capture_output=True, text=True, check=True
    ).stdout
    assert "headwater_worker.flower" in shown
    assert "sesame" not in shown


def test_it_leaves_no_core(flower: _Flower) -> None:
    """It knows the password of Redis, as every process of ours."""
    lines = Path(f"/proc/{flower.process.pid}/limits").read_text().splitlines()
    assert [line.split()[4:6] for line in lines if line.startswith("Max core file size")] == [["0", "0"]]


def test_flower_stops_at_sigterm(flower: _Flower) -> None:
    """Its threads must not wait for each other's connections: with the worker's small pool they did, for ever."""
    flower.client.get("/api/workers?refresh=1", auth=OPERATOR)
    flower.process.terminate()
    assert flower.process.wait(timeout=8) == 0


def test_it_shows_what_runs_by_kind_and_job(engine: Any, flower: _Flower) -> None:
    """The task is named by the kind and has the job's id, as the API and the log write it."""
    engine.scheduler()
    engine.worker()
    job_id = engine.submit(engine.source(files=100_000, records=0, pause_seconds=0.2), kind="file_listing")
    engine.running(job_id)
    public_id = ids.encode("job", job_id)
    engine.until(lambda: _task(flower, public_id).get("state") == "STARTED")
    task = _task(flower, public_id)
    assert (task["name"], task["args"]) == ("headwater.file_listing", f"['{public_id}']")
    page = flower.client.get(f"/task/{public_id}", auth=OPERATOR)
    assert page.status_code == 200
    assert {"headwater.file_listing", public_id} <= set(re.findall(r"[\w.]+", page.text))


def test_a_worker_that_stops_has_told_everything(engine: Any) -> None:
    """Events wait for each other for a moment; what waits when the worker stops is told before it goes."""
    engine.scheduler()
    worker = engine.worker()
    with redis.Redis.from_url(engine.redis_url) as client, client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.psubscribe("*celeryev*")
        heard.get_message(timeout=5)  # that it listens
        jobs = [engine.submit(engine.source()) for _ in range(5)]
        for job_id in jobs:
            engine.ended(job_id)
        worker.stop()
        told = _told(heard)
    of_each = ["task-received", "task-started", "task-succeeded"]
    # By name: a worker of the test before may just be saying its last.
    assert [told.get(ids.encode("job", job_id)) for job_id in jobs] == [of_each] * len(jobs)


def test_forged_events_leave_it_as_it_was(flower: _Flower, valkey: str) -> None:
    """Whatever was said, what a worker says next is shown, and no page has HTML of theirs."""
    heard: list[str] = []
    with redis.Redis.from_url(valkey) as client:
        for forged in (None, *attacking.events(ids.encode("job", ids.new())).values()):
            if forged is not None:
                attacking.publish(client, forged)
            heard.append(ids.encode("job", ids.new()))
            _until_heard(flower, client, heard[-1])
    assert set(_asked(flower, "/api/tasks").json()) == set(heard)
    for path in ("/workers", "/workers?json=1", "/tasks", _TABLE, "/api/workers", f"/task/{heard[-1]}", "/broker"):
        page = _asked(flower, path)
        assert page.status_code == 200, path
        assert "<img src=x" not in page.text, path
        assert "alert(" not in page.text, path


def test_what_an_event_says_in_words_is_text(flower: _Flower, valkey: str) -> None:
    """What went wrong may be told in any words; a page shows them, and its tables get nothing but text."""
    job_id = ids.encode("job", ids.new())
    failed = attacking.event(job_id, type="task-failed", exception=attacking.HTML, traceback=attacking.HTML)
    with redis.Redis.from_url(valkey) as client:
        _until_heard(flower, client, job_id)
        attacking.publish(client, attacking.envelope(failed))
    _until(lambda: _task(flower, job_id).get("state") == "FAILURE")
    page = _asked(flower, f"/task/{job_id}").text
    assert html.escape(attacking.HTML) in page
    assert attacking.HTML not in page
    (row,) = (row for row in _asked(flower, _TABLE).json()["data"] if row["uuid"] == job_id)
    assert {type(value) for value in row.values()} <= {str, int, float, bool, type(None), list}
    assert [value for value in row.values() if isinstance(value, list) and value] == []


@pytest.mark.parametrize(
    "path", ["/workers", "/tasks", "/broker", "/no/such/page", "/static/js/flower.js", "/api/workers"]
)
def test_a_page_runs_no_script_but_its_own(flower: _Flower, path: str) -> None:
    """The browser is told so, for the day on which something gets past the gate."""
    page = _asked(flower, path)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    (scripts,) = (part.split()[1:] for part in policy.split(";") if part.split()[0] == "script-src")
    assert scripts[0] == "'self'"
    if not path.startswith(("/static", "/api")):
        inline = re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", page.text, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inline]
        assert {f"'sha256-{found}'" for found in hashes} <= set(scripts[1:])
        assert not re.search(r"<[^>]+\son\w+=", page.text)


def test_workers_refuse_nothing_that_it_asks(engine: Any, valkey: str) -> None:
    """Or the alert for what somebody else writes would tell of Flower. What is refused is counted in turn."""
    engine.scheduler()
    worker = engine.worker()
    with _serving(valkey) as flower, redis.Redis.from_url(valkey) as client:
        assert _asked(flower, "/api/workers?refresh=1").status_code == 200
        engine.until(lambda: _asked(flower, "/workers?json=1").json()["data"])
        attacking.push(client, "interactive", b"not a ring")
        engine.until(lambda: "messages.refused" in worker.log.read_text())
    counted = engine.connection.execute(
        "select labels ->> 'reason' as reason, value from tally where name = 'headwater_messages_refused_total'"
    )
    assert [(row["reason"], int(row["value"])) for row in counted] == [("malformed", 1)]


def _told(heard: Any) -> dict[str, list[str]]:
    """The types of the events of each job, in order, of all that was heard."""
    told: dict[str, list[str]] = {}
    while message := heard.get_message(timeout=1):
        events = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
        for event in events if isinstance(events, list) else [events]:
            if "uuid" in event:
                told.setdefault(event["uuid"], []).append(event["type"])
    return told


def _until_heard(flower: _Flower, client: redis.Redis, job_id: str) -> None:
    """Say that a worker has received the job until Flower shows it: it may be connecting anew."""

    def heard() -> bool:
        attacking.publish(client, attacking.envelope([attacking.event(job_id)]))
        return bool(_task(flower, job_id))

    _until(heard)


def _until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.05)


def _asked(flower: _Flower, path: str) -> httpx2.Response:
    return flower.client.get(path, auth=OPERATOR)


def _task(flower: _Flower, task_id: str) -> dict[str, Any]:
    """What Flower knows of a task; empty while it has not heard of it."""
    tasks: dict[str, dict[str, Any]] = flower.client.get("/api/tasks", auth=OPERATOR).json()
    return tasks.get(task_id, {})
