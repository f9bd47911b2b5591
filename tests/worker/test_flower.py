"""Flower as a process of the stack."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from headwater import ids
from headwater_cli import ports


@dataclass(frozen=True)
class _Flower:
    process: subprocess.Popen[bytes]
    client: httpx2.Client


@pytest.fixture
def flower(valkey: str) -> Iterator[_Flower]:
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
    operator = ("operator", "open sesame")
    stranger = flower.client.get("/workers").status_code
    page = flower.client.get("/workers", auth=operator).status_code
    shutdown = flower.client.post("/api/worker/shutdown/bulk@host", auth=operator).status_code
    assert (stranger, page, shutdown) == (401, 200, 403)


def test_the_password_stands_in_no_argument(flower: _Flower) -> None:
    """`ps` shows arguments to everybody on the machine."""
    shown = subprocess.run(
        ("ps", "-o", "args=", "-p", str(flower.process.pid)), capture_output=True, text=True, check=True
    ).stdout
    assert "headwater_worker.flower" in shown
    assert "sesame" not in shown


def test_flower_stops_at_sigterm(flower: _Flower) -> None:
    """Its threads must not wait for each other's connections: with the worker's small pool they did, for ever."""
    flower.client.get("/api/workers?refresh=1", auth=("operator", "open sesame"))
    flower.process.terminate()
    assert flower.process.wait(timeout=8) == 0


def test_it_shows_what_runs_by_kind_and_job(engine: Any, flower: _Flower) -> None:
    """The task is named by the kind and has the job's id, as the API and the log write it."""
    engine.scheduler()
    engine.worker()
    job_id = engine.submit(engine.source(files=100_000, records=0, pause_seconds=0.2), kind="file_listing")
    engine.running(job_id)
    public_id, operator = ids.encode("job", job_id), ("operator", "open sesame")
    engine.until(lambda: _task(flower, public_id).get("state") == "STARTED")
    task = _task(flower, public_id)
    assert (task["name"], task["args"]) == ("headwater.file_listing", f"['{public_id}']")
    page = flower.client.get(f"/task/{public_id}", auth=operator)
    assert page.status_code == 200
    assert {"headwater.file_listing", public_id} <= set(re.findall(r"[\w.]+", page.text))


def _task(flower: _Flower, task_id: str) -> dict[str, Any]:
    """What Flower knows of a task; empty while it has not heard of it."""
    tasks: dict[str, dict[str, Any]] = flower.client.get("/api/tasks", auth=("operator", "open sesame")).json()
    return tasks.get(task_id, {})
