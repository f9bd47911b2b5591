"""What the API answers beside the barest FastAPI endpoint, on the same server: one process, 32 connections.

Reads are of jobs that have ended and of queued ones; submits are accepted, audited and on the disk before the answer.
No worker runs meanwhile, so that the queue only grows; it is emptied before each round.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

import httpx2
from engines import Engine

from bench import ground, load
from bench.load import Load, Order
from bench.measuring import Figure, Goal, Report, at_least, at_most, interleaved, median
from headwater import ids
from headwater_cli.ports import free_port

_CONNECTIONS: Final = 32
_SOURCES: Final = 64
_ROUNDS: Final = 3
_GOALS: Final[dict[str, tuple[Goal, Goal] | None]] = {
    "an ended job": (at_least(0.35), at_most(4)),
    "a queued job": (at_least(0.35), at_most(4)),
    "a test": (at_least(0.20), at_most(8)),
    "a test, with a key": None,
}
_WORK: Final = {
    "an ended job": "GET an ended job",
    "a queued job": "GET a queued job",
    "a test": "POST a test",
    "a test, with a key": "POST a test, Idempotency-Key",
}


def run(report: Report, *, quick: bool) -> None:
    """Rates, and how long 99 of 100 answers took at most."""
    seconds, rounds = (0.2, 1) if quick else (3.0, _ROUNDS)
    with ground.engine() as (engine, stores):
        straight = {"database": stores.postgres.url, "redis": stores.valkey.url}
        sources = [engine.source() for _ in range(_SOURCES)]
        engine.api(**straight)
        ended, queued = _ended_and_queued(engine, sources, straight)
        with _hello(engine) as port:
            orders = {
                "hello": Order(port, [_request("GET", "/hello")], 200, _CONNECTIONS, seconds),
                "an ended job": _order(engine, [f"GET /jobs/{job}" for job in ended], 200, seconds),
                "a queued job": _order(engine, [f"GET /jobs/{job}" for job in queued], 200, seconds),
                "a test": _order(engine, [f"POST {_path(engine, source)}/test" for source in sources], 202, seconds),
                "a test, with a key": _order(
                    engine, [f"POST {_path(engine, source)}/test" for source in sources], 202, seconds, once=True
                ),
            }
            loads: dict[str, list[Load]] = {name: [] for name in orders}
            interleaved(
                {name: partial(_put, engine, queued, order, loads[name]) for name, order in orders.items()},
                rounds=rounds,
            )
    _tell(report, loads)


def _tell(report: Report, loads: dict[str, list[Load]]) -> None:
    hello = loads.pop("hello")
    for name, ours in loads.items():
        goals = _GOALS[name] or (None, None)
        for unit, value, goal in zip(("answers/s", "ms p99"), (_rate, _tail_ms), goals, strict=True):
            report.add(Figure(_WORK[name], unit, value(ours), value(hello), "bare FastAPI", goal))


def _rate(loads: list[Load]) -> float:
    return median(one.rate for one in loads)


def _tail_ms(loads: list[Load]) -> float:
    return median(one.p99_seconds * 1000 for one in loads)


def _put(engine: Engine, kept: list[str], order: Order, loads: list[Load]) -> float:
    """One window of load, on a queue that holds only what is `kept`."""
    engine.connection.execute(
        "delete from job where status = 'queued' and id <> all(%s)", ([ids.decode("job", job) for job in kept],)
    )
    engine.connection.execute("vacuum analyze job, event, audit_entry, idempotency_record")
    loads.append(load.put(order))
    return loads[-1].rate


def _ended_and_queued(engine: Engine, sources: list[UUID], straight: dict[str, str]) -> tuple[list[str], list[str]]:
    """The ids of a job of each source that has ended, and of one that waits."""
    worker, scheduler = engine.worker(**straight), engine.scheduler(**straight)
    ended = [engine.post(source) for source in sources]
    for job_id in ended:
        engine.ended(job_id)
    engine.settled()
    worker.stop()
    scheduler.stop()
    queued = [engine.post(source) for source in sources]
    return [ids.encode("job", job) for job in ended], [ids.encode("job", job) for job in queued]


def _path(engine: Engine, source_id: UUID) -> str:
    return f"/projects/{ids.encode('proj', engine.project_id)}/data-sources/{ids.encode('dsrc', source_id)}"


def _order(engine: Engine, calls: list[str], status: int, seconds: float, *, once: bool = False) -> Order:
    headers = {"Authorization": f"Bearer {engine.organization.api_key}"}
    if once:
        headers["Idempotency-Key"] = load.NUMBER
    requests = [_request(method, f"/api/v1{path}", headers) for method, path in (call.split(" ", 1) for call in calls)]
    return Order(engine.api_port, requests, status, _CONNECTIONS, seconds)


def _request(method: str, path: str, headers: dict[str, str] | None = None) -> str:
    body = "{}" if method == "POST" else ""
    fields = {"Host": "localhost", **(headers or {})}
    if body:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return f"{method} {path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields.items()) + f"\r\n{body}"


@contextmanager
def _hello(engine: Engine) -> Iterator[int]:
    """The port of a bare FastAPI."""
    port = free_port()
    process = subprocess.Popen(
        (sys.executable, "-m", "bench.hello"),
        cwd=Path(__file__).parents[1],
        env={
            "PATH": os.environ["PATH"],
            "HEADWATER_API_PORT": str(port),
            "HEADWATER_PEPPER_FILE": str(engine.pepper_file),
        },
    )
    try:
        for _ in range(200):
            try:
                httpx2.get(f"http://127.0.0.1:{port}/hello", trust_env=False).raise_for_status()
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()
