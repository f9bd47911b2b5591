"""Failpoints: free when unset, each action as often as it was ordered, in all processes together."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from headwater import failpoints

REACH = "from headwater import failpoints; failpoints.reach('claim.committed'); print('alive', flush=True)"


def start(orders: str, folder: Path) -> subprocess.Popen[str]:
    """A process with these orders that reaches `claim.committed`, then says that it lives."""
    environment = {**os.environ, "HEADWATER_FAILPOINTS": orders, "HEADWATER_FAILPOINTS_DIR": str(folder)}
    return subprocess.Popen([sys.executable, "-c", REACH], env=environment, stdout=subprocess.PIPE, text=True)


def run(orders: str, folder: Path) -> tuple[int, str]:
    """Its exit code, and what it said."""
    process = start(orders, folder)
    said, _ = process.communicate(timeout=20)
    return process.returncode, said


def test_nothing_is_armed_by_itself() -> None:
    """Without the variable no point does anything."""
    assert failpoints.read({}) == {}


@pytest.mark.parametrize("orders", ["claim.commited=die", "claim.committed=explode", "claim.committed"])
def test_an_order_that_cannot_be_followed_is_refused(orders: str, tmp_path: Path) -> None:
    """A test that arms a misspelt point would pass for nothing."""
    with pytest.raises(ValueError, match="there is no"):
        failpoints.read({"HEADWATER_FAILPOINTS": orders, "HEADWATER_FAILPOINTS_DIR": str(tmp_path)})


def test_a_death_happens_so_often_and_no_more(tmp_path: Path) -> None:
    """Twice over all processes; each leaves a mark with its pid, made before it happened."""
    outcomes = [run("claim.committed=die:2", tmp_path) for _ in range(3)]
    assert outcomes == [(-signal.SIGKILL, ""), (-signal.SIGKILL, ""), (0, "alive\n")]
    marks = sorted(tmp_path.iterdir())
    assert [mark.name for mark in marks] == ["claim.committed.1", "claim.committed.2"]
    assert all(mark.read_text().isdigit() for mark in marks)


def test_a_death_that_waits_for_its_turn(tmp_path: Path) -> None:
    """The first process passes, the second dies, the third passes again; all but the last have left a mark."""
    outcomes = [run("claim.committed=die@2", tmp_path) for _ in range(3)]
    assert outcomes == [(0, "alive\n"), (-signal.SIGKILL, ""), (0, "alive\n")]
    assert sorted(mark.name for mark in tmp_path.iterdir()) == ["claim.committed.1", "claim.committed.2"]


def test_a_frozen_process_goes_on_when_it_is_told_to(tmp_path: Path) -> None:
    """SIGSTOP, then SIGCONT."""
    process = start("claim.committed=freeze", tmp_path)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=20)
    assert said == "alive\n"


def test_a_break_is_postgres_going_away(tmp_path: Path) -> None:
    """The error that the code meets then; other points are not touched."""
    armed = failpoints.read({"HEADWATER_FAILPOINTS": "claim.begun=raise", "HEADWATER_FAILPOINTS_DIR": str(tmp_path)})
    with pytest.raises(psycopg.OperationalError):
        armed["claim.begun"].reach("claim.begun")
    armed["claim.begun"].reach("claim.begun")


def test_a_sleep_takes_its_seconds_and_the_others_go_on(tmp_path: Path) -> None:
    """Of two orders each has its own point."""
    assert run("record.begun=die claim.committed=sleep,0.01", tmp_path) == (0, "alive\n")
    assert [mark.name for mark in tmp_path.iterdir()] == ["claim.committed.1"]
