"""The home of a local stack: who holds it, and what is written there."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headwater_cli import files, home, leftovers, processes
from headwater_cli.errors import Failure
from headwater_cli.home import Home
from headwater_cli.processes import Command, Identity


@pytest.fixture
def place(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.make()
    return made


def test_a_second_launcher_is_refused_with_the_pid_of_the_first(place: Home) -> None:
    """It says who holds the home, and changes nothing."""
    with (
        home.locked(place),
        pytest.raises(Failure, match=rf"already \(pid {os.getpid()}\)"),
        home.locked(place),
    ):
        pass


def test_a_home_is_free_again_after_its_launcher_was_killed(place: Home) -> None:
    """The lock goes with the process, and what the file still says is not believed."""
    code = (
        "import pathlib, sys, time; from headwater_cli import home\n"
        "with home.locked(home.Home(pathlib.Path(sys.argv[1]))): print('held', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen((sys.executable, "-c", code, str(place.path)), stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        found = home.launcher(place)
        holder.kill()
    assert found is not None
    assert found.pid == holder.pid
    assert home.launcher(place) is None
    with home.locked(place):
        pass


def test_what_a_killed_launcher_left_running_is_ended(place: Home) -> None:
    """By pid and start time, at the next start or by `down`."""
    left = processes.spawn(Command(("sleep", "600"), processes.base_environment(), place.logs / "api.log"))
    identity = processes.identify(left.pid)
    assert identity is not None
    home.record_processes(place, {"api": identity})
    assert leftovers.down(place)
    assert left.wait(timeout=10) == -signal.SIGTERM
    assert not place.processes_file.exists()


def test_a_process_that_only_has_the_pid_of_ours_is_left_alone(place: Home) -> None:
    """Pids are given out again; start times are not."""
    neighbour = processes.spawn(Command(("sleep", "600"), processes.base_environment(), place.logs / "x.log"))
    home.record_processes(place, {"api": Identity(neighbour.pid, "another boot/1")})
    leftovers.down(place)
    with pytest.raises(subprocess.TimeoutExpired):
        neighbour.wait(timeout=0.3)
    neighbour.kill()
    assert neighbour.wait() == -signal.SIGKILL


def test_a_stack_file_counts_only_while_its_launcher_lives(place: Home) -> None:
    """A killed launcher cannot remove it; nobody must be sent to ports that are somebody else's by now."""
    files.write_json(place.stack_file, {"api_url": "http://127.0.0.1:1/api/v1"})
    alone = home.read_stack(place)
    with home.locked(place):
        held = home.read_stack(place)
    assert alone is None
    assert held == {"api_url": "http://127.0.0.1:1/api/v1"}


def test_a_file_with_secrets_is_private_and_replaced_whole(tmp_path: Path) -> None:
    """Nobody else can read it at any moment, and no draft is left."""
    target = tmp_path / "stack.json"
    files.write_json(target, {"n": 1})
    files.write_json(target, {"n": 2})
    assert json.loads(target.read_text()) == {"n": 2}
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["stack.json"]
