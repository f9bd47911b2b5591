"""The demo's server as a process of the local stack: started, killed, started again."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater_cli import ports
from headwater_cli.demo import bucket, selections

from .conftest import Connect

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    """Where the process keeps its keys."""
    return tmp_path / "demo.json"


@pytest.fixture
def spawn(state_file: Path) -> Iterator[Start]:
    """Starts the process, always on the same ports, and does not wait for it."""
    listening = {name: str(ports.free_port()) for name in ("bucket", "api", "gcs", "azure")}
    started = []

    def run() -> "subprocess.Popen[str]":
        argv = [sys.executable, "-W", "error", "-m", "headwater_cli.demo"]
        argv += [part for name, port in listening.items() for part in (f"--{name}-port", port)]
        argv += ["--state", str(state_file), "--files", str(state_file.with_name("files"))]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def start(spawn: Start) -> Start:
    """Starts the process and waits until it says that it is ready."""

    def run() -> "subprocess.Popen[str]":
        process = spawn()
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    return run


def _listing(state_file: Path, connect: Connect) -> list[Any]:
    state = json.loads(state_file.read_text())
    client = connect(state["endpoint_url"], state["access_key_id"], state["secret_access_key"])
    return [
        (entry["Key"], entry["ETag"], entry["LastModified"])
        for entry in client.list_objects_v2(Bucket=state["bucket"])["Contents"]
    ]


def test_killed_server_comes_back_the_same(start: Start, state_file: Path, connect: Connect) -> None:
    """After kill -9 the same keys open the same objects at the same address."""
    process = start()
    keys, before = state_file.read_text(), _listing(state_file, connect)
    process.kill()
    process.wait()
    start()

    assert state_file.read_text() == keys
    assert _listing(state_file, connect) == before


def test_keys_are_for_the_owner_alone(start: Start, state_file: Path) -> None:
    """The state file holds secrets: mode 0600."""
    start()

    assert stat.S_IMODE(state_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_cleanly(start: Start, signal_number: signal.Signals) -> None:
    """Exit code 0 and nothing on stderr, with warnings as errors."""
    process = start()
    os.kill(process.pid, signal_number)
    _, complaints = process.communicate(timeout=20)

    assert (process.returncode, complaints) == (0, "")


def test_signal_while_starting_ends_it_cleanly(spawn: Start, state_file: Path) -> None:
    """Told to stop before it is ready, it still ends with exit code 0, whichever thread gets the signal."""
    process = spawn()
    while not state_file.exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.terminate()
    _, complaints = process.communicate(timeout=20)

    assert (process.returncode, complaints) == (0, "")


def test_taken_port_is_said_in_one_sentence(start: Start, spawn: Start) -> None:
    """Exit code 1 and no traceback; the one that has the port goes on."""
    first = start()
    second = spawn()
    _, complaints = second.communicate(timeout=20)

    assert second.returncode == 1
    assert complaints.startswith("The demo's bucket cannot listen on port")
    assert complaints.count("\n") == 1
    assert first.poll() is None


def test_keys_of_an_earlier_version_stay(start: Start, state_file: Path) -> None:
    """What its state file lacks is added; what a data source was given stays valid."""
    state_file.write_text(json.dumps({"access_key_id": "AKIA" + "A" * 16, "secret_access_key": "b" * 40}))
    start()
    state = json.loads(state_file.read_text())

    assert (state["access_key_id"], state["secret_access_key"]) == ("AKIA" + "A" * 16, "b" * 40)
    assert state["api_token"]


def test_files_of_the_folder_are_the_same_after_a_restart(start: Start, state_file: Path) -> None:
    """Nothing is written again that is there: a second sync finds everything unchanged."""
    process = start()
    folder = state_file.with_name("files")
    before = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.rglob("*.*")}
    process.kill()
    process.wait()
    start()

    assert {file.relative_to(folder).as_posix() for file in before} == set(selections.FOLDER)
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in before} == before


def test_second_user_of_the_state_has_no_rights(start: Start, state_file: Path, connect: Connect) -> None:
    """The restricted key is known and may do nothing."""
    start()
    state = json.loads(state_file.read_text())
    client = connect(state["endpoint_url"], state["restricted_access_key_id"], state["restricted_secret_access_key"])

    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.list_objects_v2(Bucket=bucket.BUCKET)
