"""A worker of the former version beside one of this, on this version's schema, as during a rolling deployment."""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engines import Process

from drills.figures import Figure
from drills.ground import Ground

CHECKOUT: Final = Path(__file__).parents[3]

_PACKAGES: Final = ("shared", "services/worker", "tests/plugins")
_WORKERS: Final = (("interactive", 2), ("bulk", 2))
_MIGRATIONS: Final = "migrations/versions"
_ASK: Final = """
import headwater, headwater_worker, scripted_source
print(headwater.__file__, headwater_worker.__file__, scripted_source.__file__)
"""


class NoFormerVersion(Exception):
    """There is none to run, and why."""


def two_versions(ground: Ground) -> list[Figure]:
    """Workers of both serve both queues at the same time; each takes jobs, and all jobs succeed."""
    engine = ground.engine
    with _packages_of(ground.former or former()) as environment:
        ground.scheduler()
        ours = ground.workers(_WORKERS)
        theirs = ground.workers(_WORKERS, **environment)
        quick, slow = engine.source(), [engine.source(files=4, records=50, pause_seconds=0.2) for _ in range(10)]
        jobs = [engine.submit(quick) for _ in range(60)]
        jobs += [engine.submit(source, kind) for source in slow for kind in ("file_listing", "sync")]
        ground.ended(jobs)
        taken = {"this version": _taken(ground, ours), "the former": _taken(ground, theirs)}
        for worker in theirs:
            worker.stop()
    ground.say(f"jobs taken by {taken}")
    row = engine.one("select count(*) as n from job where id = any(%s) and status <> 'succeeded'", jobs)
    assert row is not None
    idle = sum(count == 0 for count in taken.values())
    return [
        Figure("two versions: jobs that did not succeed", [row["n"]], unit="", goals={"max": 0}),
        Figure("two versions: one took no job", [idle], unit="", goals={"max": 0}),
    ]


def former(checkout: Path = CHECKOUT) -> str:
    """The revision before the newest migration was added. Raises `NoFormerVersion` where history does not say."""
    added = _git(checkout, "log", "--diff-filter=A", "--format=%H", "-1", "--", _MIGRATIONS).decode().strip()
    if not added:
        raise NoFormerVersion("this is no checkout of git, or its history has no migration")
    if not _git(checkout, "ls-tree", f"{added}^", "--", f"{_MIGRATIONS}/"):
        raise NoFormerVersion("the history does not reach behind the newest migration (git fetch --unshallow)")
    return f"{added}^"


def _git(checkout: Path, *arguments: str) -> bytes:
    """What git says; nothing where it fails or is not there."""
    try:
        done = subprocess.run(("git", "-C", str(checkout), *arguments), capture_output=True, check=False)
    except FileNotFoundError:
        return b""
    return done.stdout if done.returncode == 0 else b""


@contextmanager
def _packages_of(revision: str) -> Iterator[dict[str, str]]:
    """The environment in which this interpreter runs that revision. Raises `NoFormerVersion` if it does not."""
    packed = _git(CHECKOUT, "archive", "--format=tar", revision, "--", *_PACKAGES)
    if not packed:
        raise NoFormerVersion(f"git has no packages of {revision}")
    with tempfile.TemporaryDirectory(prefix="headwater-former-") as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        environment = {"PYTHONPATH": os.pathsep.join(f"{folder}/{package}" for package in _PACKAGES)}
        done = subprocess.run((sys.executable, "-c", _ASK), env=environment, capture_output=True, text=True, check=True)
        assert all(file.startswith(f"{folder}/") for file in done.stdout.split()), done.stdout
        yield environment


def _taken(ground: Ground, workers: list[Process]) -> int:
    children = {pid for worker in workers for pid in worker.children()}
    rows = ground.engine.connection.execute("select worker from job_attempt").fetchall()
    return sum(int(row["worker"].rpartition(":")[2]) in children for row in rows)
