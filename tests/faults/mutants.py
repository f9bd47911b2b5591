"""Seeded mistakes in the job engine, each with the test that has to notice it.

Each is tried in a copy of the tree, whose tests run in an environment of their own that finds the copy's code first.
A mutant that survives is a promise which nobody would miss.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_STATEMENTS: Final = "shared/headwater/jobs/statements.py"
_DISPATCHING: Final = "shared/headwater/jobs/dispatching.py"
_LIFECYCLE: Final = "shared/headwater/jobs/lifecycle.py"
_LOADS: Final = "shared/headwater/catalogue/loads.py"
_RUNNER: Final = "services/worker/headwater_worker/runner.py"
_HEARTBEAT: Final = "services/worker/headwater_worker/heartbeat.py"
_SCHEDULER: Final = "services/worker/headwater_worker/scheduler.py"
_SHOWING: Final = "services/worker/headwater_worker/sync/showing.py"
_SUBMITTING: Final = "services/api/headwater_api/jobs/submitting.py"
_STREAMING: Final = "services/api/headwater_api/jobs/streaming.py"
_DOORBELL: Final = "shared/headwater/jobs/doorbell.py"

_MODEL: Final = "tests/shared/jobs/test_model.py"
_LIFECYCLE_TESTS: Final = "tests/shared/jobs/test_lifecycle.py"
_ENGINE: Final = "tests/worker/test_engine.py"
_FAULTS: Final = "tests/faults/"
_DIES: Final = _FAULTS + "test_workers.py::test_a_child_that_dies_in_a_sync"

# Packages of the tree, which the copy's come before.
_SOURCES: Final = ("shared", "services/api", "services/worker", "services/cli")


@dataclass(frozen=True)
class Mutant:
    """A mistake: `old` becomes `new` in `file`, and `test` (a pytest node) has to fail. `old` occurs there once."""

    name: str
    file: str
    old: str
    new: str
    test: str


MUTANTS: Final = (
    Mutant("reap tolerates one crash more", _STATEMENTS, "or j.crashes >= 1", "or j.crashes >= 2", _MODEL),
    Mutant(
        "reap gives one attempt more",
        _STATEMENTS,
        "or j.attempt - j.interruptions >= j.max_attempts",
        "or j.attempt - j.interruptions > j.max_attempts",
        _MODEL,
    ),
    Mutant("record gives one attempt more", _LIFECYCLE, "claim.attempts_left > 0", "claim.attempts_left >= 0", _MODEL),
    Mutant(
        "reap ignores the deadline",
        _STATEMENTS,
        "when j.deadline_at < now() or j.crashes",
        "when j.crashes",
        _MODEL,
    ),
    Mutant(
        "reap ignores a cancel",
        _STATEMENTS,
        "when j.cancel_requested_at is not null then 'cancelled'\n                when j",
        "when j",
        _MODEL,
    ),
    Mutant("reap counts no crash", _STATEMENTS, "crashes = j.crashes + 1", "crashes = j.crashes", _MODEL),
    Mutant(
        "reap leaves the attempt open",
        _STATEMENTS,
        "set outcome = 'lost', ended_at = now()",
        "set ended_at = now()",
        _MODEL,
    ),
    Mutant(
        "reap waits for who holds a lease",
        _STATEMENTS,
        "for update of l skip locked",
        "for update of l",
        f"{_LIFECYCLE_TESTS}::test_a_batch_that_holds_its_lease_is_not_reaped",
    ),
    Mutant(
        "reap takes leases that live",
        _STATEMENTS,
        "where l.until < clock_timestamp()",
        "where l.until > clock_timestamp()",
        _MODEL,
    ),
    Mutant(
        "record asks for no token",
        _STATEMENTS,
        "where l.job_id = locked.id and l.token = %(token)s",
        "where l.job_id = locked.id",
        _MODEL,
    ),
    Mutant(
        "a batch asks for no token",
        _STATEMENTS,
        'where job_id = %(job_id)s and token = %(token)s for key share",',
        'where job_id = %(job_id)s for key share",',
        _MODEL,
    ),
    Mutant(
        "a heartbeat asks for no token",
        _STATEMENTS,
        "where job_id = %(job_id)s and token = %(token)s\n        returning cancel",
        "where job_id = %(job_id)s\n        returning cancel",
        _MODEL,
    ),
    Mutant(
        "a report asks for no token",
        _STATEMENTS,
        "where job_id = %(job_id)s and token = %(token)s for key share\n        ), written",
        "where job_id = %(job_id)s for key share\n        ), written",
        _MODEL,
    ),
    Mutant(
        "record ignores a cancel",
        _STATEMENTS,
        "when %(status)s = 'queued' and locked.cancel_requested_at is not null then 'cancelled' else %(status)s",
        "when true then %(status)s",
        _MODEL,
    ),
    Mutant(
        "record counts no release",
        _STATEMENTS,
        "interruptions = j.interruptions + %(released)s::boolean::int",
        "interruptions = j.interruptions + (%(released)s::boolean and false)::int",
        _MODEL,
    ),
    Mutant(
        "claim ignores the time to wait",
        _STATEMENTS,
        "and j.status = 'queued' and j.run_at <= now() and o.suspended_at",
        "and j.status = 'queued' and o.suspended_at",
        _MODEL,
    ),
    Mutant(
        "a batch is no transaction",
        _LIFECYCLE,
        "with connection.transaction():\n        db.set_organization",
        "if True:\n        db.set_organization",
        _MODEL,
    ),
    Mutant(
        "nobody rings again",
        _DISPATCHING,
        "and (j.rung_at is null or j.rung_at < now() - make_interval(secs => %(rering_seconds)s))",
        "and (j.rung_at is null or %(rering_seconds)s < 0)",
        _FAULTS + "test_redis.py::test_a_ring_that_is_lost_is_made_again",
    ),
    Mutant(
        "nobody takes leases back",
        _SCHEDULER,
        "in lifecycle.reap(connection, settings=self._settings):",
        "in ():",
        f"{_DIES}[claim.committed-1-True]",
    ),
    Mutant(
        "what was not rung stays marked",
        _DOORBELL,
        "                self._unring(left)",
        "                pass",
        "tests/api/jobs/test_starting.py",
    ),
    Mutant(
        "what was landed before is read again",
        _LOADS,
        "where l.path = i.path and l.etag is not distinct from i.etag\n    )\n",
        "where l.path = i.path and l.etag is not distinct from i.etag and false\n    )\n",
        f"{_DIES}[batch.committed-4-True]",
    ),
    Mutant(
        "what was half landed stays",
        _LOADS,
        "select id from load where job_id = %(job_id)s and not loaded",
        "select id from load where job_id = %(job_id)s and not loaded and false",
        "tests/worker/sync/test_sync.py",
    ),
    Mutant(
        "counts are written beside the batch",
        _SHOWING,
        "        rows = [row for change in changes for row in change.fetchall()]\n        _count(",
        "        rows = [row for change in changes for row in change.fetchall()]\n    _count(",
        f"{_DIES}[batch.committed-8-True]",
    ),
    Mutant(
        "an outcome is recorded once or never",
        _RUNNER,
        "                time.sleep(_RECORD_PAUSE_SECONDS)",
        "                return None",
        _FAULTS + "test_postgres.py::test_a_connection_that_is_cut[record.begun-1]",
    ),
    Mutant(
        "a database that is away fails the job",
        _RUNNER,
        'origin="platform",\n    retryable=True,\n)\n_FAULT',
        'origin="platform",\n)\n_FAULT',
        _FAULTS + "test_postgres.py::test_a_commit_whose_answer_is_lost[batch.committed-5-0]",
    ),
    Mutant(
        "a stopping worker hands nothing back",
        _RUNNER,
        "        return Released()",
        "        return None",
        f"{_ENGINE}::test_a_stopping_worker_hands_its_job_back",
    ),
    Mutant(
        "a cancelled job goes on",
        _HEARTBEAT,
        "        if cancel:\n",
        "        if cancel and False:\n",
        _FAULTS + "test_cancel.py::test_after_a_cancel_the_source_is_left_alone",
    ),
    Mutant(
        "a job is cancelled before its work has ended",
        "migrations/sql/0002.sql",
        "status = case j.status when 'queued' then 'cancelled' else 'cancelling' end",
        "status = 'cancelled'",
        _FAULTS + "test_cancel.py::test_after_a_cancel_the_source_is_left_alone",
    ),
    Mutant(
        "a driver that hangs keeps its slot",
        _HEARTBEAT,
        "            self._end_process()",
        "            pass",
        f"{_ENGINE}::test_a_hung_driver_frees_its_slot_at_the_deadline[hang_opening]",
    ),
    Mutant(
        "a heartbeat that fails once is the last",
        _HEARTBEAT,
        "                self._disconnect()\n                if now - beaten",
        "                return\n                if now - beaten",
        _FAULTS + "test_workers.py::test_heartbeats_that_fail_are_made_again",
    ),
    Mutant(
        "a worker that is cut off is not stopped by itself",
        _HEARTBEAT,
        "                    self._interrupt(Draining())\n            self._watch",
        "                    pass\n            self._watch",
        _FAULTS + "test_workers.py::test_a_worker_that_is_cut_off_stops_by_itself",
    ),
    Mutant(
        "a request that is sent again acts again",
        _SUBMITTING,
        "request_of(request, order) | await _once(request, terms.idempotency_key, start)",
        "request_of(request, order)",
        _FAULTS + "test_api.py::test_a_submit_that_is_sent_again_after_each_death_of_the_api_makes_one_job",
    ),
    Mutant(
        "a stream begins anew with each look",
        _STREAMING,
        '            cursor.event = row["number"]\n',
        "",
        "tests/api/jobs/test_streaming.py",
    ),
)


def try_all(checkout: Path, names: Sequence[str], say: Callable[[str], None]) -> bool:
    """Try the mutants whose names hold one of `names` (all without any); a line for each. True if each was noticed."""
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    survivors = []
    with _copy(checkout) as copy:
        for test in sorted({mutant.test for mutant in chosen}):
            # Once more, for a machine that was busy.
            said = _failure(copy, test) and _failure(copy, test)
            if said is not None:
                raise RuntimeError(f"{test} does not pass without a mutant either:\n{said}")
        for mutant in chosen:
            began = time.monotonic()
            said = _mutated(copy, mutant)
            survivors += [mutant] if said is None else []
            fate = "SURVIVES " if said is None else "caught by"
            say(f"{mutant.name:<50} {fate} {mutant.test}   {time.monotonic() - began:.0f} s   {said or ''}")
    say(f"{len(chosen) - len(survivors)} of {len(chosen)} caught")
    return not survivors


def _mutated(copy: Path, mutant: Mutant) -> str | None:
    """What the mutant's test says of it; None if it passes."""
    file = copy / mutant.file
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        return _failure(copy, mutant.test)
    finally:
        file.write_text(text, encoding="utf-8")


def _failure(copy: Path, test: str) -> str | None:
    """What went wrong in the test; None if it passes. Raises `RuntimeError` if it was not run."""
    argv = [
        copy / ".venv/bin/python", "-m", "pytest", test, "-q", "-x", "-n", "0", "-m", "long or not long",
        "--hypothesis-profile", "brief", "--no-header", "--tb", "line",
    ]  # fmt: skip
    done = subprocess.run(argv, cwd=copy, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{test} could not be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    wrong = [line for line in done.stdout.splitlines() if re.search(r"Error\b|Exception\b|: ", line)]
    return (wrong[:1] or ["it fails"])[0].strip()[:160] if done.returncode else None


def _environment() -> dict[str, str]:
    # Python compares a file's time in whole seconds with the time in its bytecode: two mutants of a second are alike.
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def _copy(checkout: Path) -> Iterator[Path]:
    """A copy of what git knows of the tree, with an environment that shares the checkout's packages."""
    with tempfile.TemporaryDirectory(prefix="headwater-mutants-") as folder:
        copy = Path(folder)
        copy.chmod(0o755)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=checkout, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (checkout / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(checkout / name, copy / name)
        venv.create(copy / ".venv", symlinks=True)
        packages = next((copy / ".venv/lib").glob("python*/site-packages"))
        lines = [*(str(copy / source) for source in _SOURCES)]
        lines.append(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})")
        (packages / "copy.pth").write_text("\n".join(lines) + "\n")
        yield copy


if __name__ == "__main__":
    sys.exit(0 if try_all(Path.cwd(), sys.argv[1:], print) else 1)
