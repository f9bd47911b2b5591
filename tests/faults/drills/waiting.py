"""Thousands of clients that wait for jobs on one API process, with `GET /jobs/{id}?wait=30`."""

import asyncio
import resource
import time
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from engines import Process

from drills import processes
from drills.figures import Figure
from drills.ground import Ground
from headwater import ids

_SPREAD: Final = 200
_ARRIVE_A_SECOND: Final = 250
_RETRY_AFTER_SECONDS: Final = 2
_TRIES: Final = 5
_RESERVE: Final = 500
_QUIET_SECONDS: Final = 2.5  # longer than a client that was refused stays away
_QUIET_SHARE: Final = 0.1
_LONGEST_SECONDS: Final = 18.0  # then the first ones' 30 s are nearly over


def waiters(ground: Ground) -> list[Figure]:
    """All on one job, then spread over 200: from the commit of the change to the last byte of each answer."""
    _allow_files(2 * ground.waiters + _RESERVE)
    api = ground.api()
    source = ground.engine.source()
    figures = []
    for count in (1, _SPREAD):
        jobs = [ground.engine.submit(source) for _ in range(count)]
        before = processes.rss(api.pid)
        woken, meanwhile = asyncio.run(_woken(ground, api, jobs))
        after = processes.rss(api.pid)
        ground.say(f"RSS of the API in MiB: {before:.0f} before, {meanwhile:.0f} while they wait, {after:.0f} after")
        figures.append(Figure(f"{ground.waiters} waiters on {count} jobs: woken", woken, goals={"max": 1}))
    return figures


async def _woken(ground: Ground, api: Process, jobs: Sequence[UUID]) -> tuple[list[float], float]:
    """Seconds from the change to each answer, and the API's memory while all wait."""
    answers = [
        asyncio.create_task(_wait(ground, jobs[number % len(jobs)], number / _ARRIVE_A_SECOND))
        for number in range(ground.waiters)
    ]
    await asyncio.sleep(ground.waiters / _ARRIVE_A_SECOND)
    await _all_wait(api, answers)
    meanwhile = processes.rss(api.pid)
    changed = ground.cancel(jobs)
    return [at - changed for at in await asyncio.gather(*answers)], meanwhile


async def _wait(ground: Ground, job_id: UUID, comes_after: float) -> float:
    """One client, which asks again where the API has too much to do: when its answer was there."""
    await asyncio.sleep(comes_after)
    answer = b""
    for _try in range(_TRIES):
        answer = await _ask(ground, job_id)
        if not answer.startswith(b"HTTP/1.1 503 "):
            break
        await asyncio.sleep(_RETRY_AFTER_SECONDS)
    at = time.monotonic()
    assert b'"status":"cancelled"' in answer, answer[:200]
    return at


async def _ask(ground: Ground, job_id: UUID) -> bytes:
    port = ground.engine.api_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET /api/v1/jobs/{ids.encode('job', job_id)}?wait=30 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Authorization: Bearer {ground.engine.organization.api_key}\r\nConnection: close\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    return answer


async def _all_wait(api: Process, answers: Sequence[asyncio.Task[float]]) -> None:
    """Until the API has taken all requests in, which shows by its having nothing to do; none is answered."""
    until = time.monotonic() + _LONGEST_SECONDS
    spent, share = processes.cpu_seconds(api.pid), 1.0
    while share > _QUIET_SHARE:
        assert time.monotonic() < until, f"the API was still busy after {_LONGEST_SECONDS} s"
        await asyncio.sleep(_QUIET_SECONDS)
        before, spent = spent, processes.cpu_seconds(api.pid)
        share = (spent - before) / _QUIET_SECONDS
    early = [answer for answer in answers if answer.done()]
    assert not early, f"{len(early)} did not wait: {early[0]}"


def _allow_files(needed: int) -> None:
    """Let this process and those that it starts open so many files. Raises `OSError` where the machine forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise OSError(f"{needed} open files are needed, and the machine allows {hard}: raise it (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
