"""The supervisor, on tiny real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headwater_cli import processes
from headwater_cli.errors import Failure
from headwater_cli.processes import Command
from headwater_cli.supervisor import Patience, Report, Running, Service, Supervisor, Turn

_STAYS = "print('ready', flush=True); import time; time.sleep(600)"
_DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + _STAYS


class _Terminal:
    """Collects what a supervisor reports."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def __call__(self, report: Report) -> None:
        self.reports.append(report)

    def of(self, service: str) -> list[Turn]:
        return [report.turn for report in self.reports if report.service == service]


@pytest.fixture
def terminal() -> _Terminal:
    return _Terminal()


@pytest.fixture
def supervisor(terminal: _Terminal) -> Iterator[Supervisor]:
    kept = Supervisor(report=terminal, patience=Patience(deaths=5, seconds=30, pause_seconds=0.05))
    yield kept
    kept.stop()


def _service(folder: Path, name: str, code: str = _STAYS, *, grace_seconds: float = 10) -> Service:
    command = Command(
        (sys.executable, "-c", code),
        processes.base_environment(),
        folder / f"{name}.log",
        grace_seconds=grace_seconds,
    )
    return Service(name, lambda: command, _says_ready)


def _says_ready(running: Running) -> bool:
    return b"ready" in running.logged()


def _until(supervisor: Supervisor, done: Callable[[], bool], *, seconds: float = 10) -> float:
    """Let the supervisor look around until `done()`. Returns how long that took."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < seconds
        supervisor.look()
        time.sleep(0.01)
    return time.monotonic() - began


def test_a_killed_service_runs_again_within_two_seconds(
    supervisor: Supervisor, terminal: _Terminal, tmp_path: Path
) -> None:
    """Both its death and its return are said."""
    supervisor.start(_service(tmp_path, "api"))
    first = supervisor.running["api"].process.pid
    os.kill(first, signal.SIGKILL)
    took = _until(supervisor, lambda: Turn.READY_AGAIN in terminal.of("api"))
    assert supervisor.running["api"].process.pid != first
    assert took < 2
    assert terminal.of("api") == [Turn.READY, Turn.DIED, Turn.READY_AGAIN]
    assert terminal.reports[1].detail == "killed by SIGKILL"


def test_a_crash_loop_is_given_up_at_the_fifth_death(
    supervisor: Supervisor, terminal: _Terminal, tmp_path: Path
) -> None:
    """It is said once and loudly, and no sixth process is started."""
    service = _service(tmp_path, "api", "print('ready', flush=True); raise SystemExit(3)")
    supervisor.start(_service(tmp_path, "scheduler"))
    supervisor.start(_first_stays(service, tmp_path))
    os.kill(supervisor.running["api"].process.pid, signal.SIGKILL)
    _until(supervisor, lambda: Turn.GIVEN_UP in terminal.of("api"))
    started = (tmp_path / "api.log").read_text().count("ready")
    supervisor.look()
    assert terminal.of("api").count(Turn.DIED) == 4
    assert "5th time within 30 s" in terminal.reports[-1].detail
    assert started == 5
    assert list(supervisor.running) == ["scheduler"]


def _first_stays(service: Service, folder: Path) -> Service:
    """`service`, whose first process stays: it becomes ready before the loop begins."""
    dying = service.prepare()
    commands = iter([Command((sys.executable, "-c", _STAYS), dying.environment, dying.log)])
    return Service(service.name, lambda: next(commands, dying), _says_ready)


def test_a_service_that_never_comes_up_fails_with_the_end_of_its_log(supervisor: Supervisor, tmp_path: Path) -> None:
    """The reason is on the screen, not only in a file."""
    with pytest.raises(Failure) as raised:
        supervisor.start(_service(tmp_path, "api", "raise SystemExit('no such table: job')"))
    assert raised.value.message == "api: ended while starting (exit code 1)."
    assert "no such table: job" in raised.value.hint


def test_services_stop_in_reverse_order(supervisor: Supervisor, terminal: _Terminal, tmp_path: Path) -> None:
    """Nobody loses its database under its feet."""
    names = ["postgres", "valkey", "api", "worker_bulk"]
    for name in names:
        supervisor.start(_service(tmp_path, name))
    pids = [running.process.pid for running in supervisor.running.values()]
    supervisor.stop()
    assert [report.service for report in terminal.reports if report.turn is Turn.STOPPED] == names[::-1]
    assert [pid for pid in pids if processes.identify(pid) is not None] == []


def test_a_service_that_does_not_heed_the_signal_is_killed_after_its_grace(
    supervisor: Supervisor, terminal: _Terminal, tmp_path: Path
) -> None:
    """And the line says so."""
    supervisor.start(_service(tmp_path, "api", _DEAF, grace_seconds=0.2))
    supervisor.stop()
    assert terminal.reports[-1].detail == "killed, it did not stop within 0 s"


def test_a_second_ctrl_c_cuts_the_grace_short(terminal: _Terminal, tmp_path: Path) -> None:
    """Whoever is in a hurry does not wait for a job to end."""
    supervisor = Supervisor(report=terminal, hurry=lambda: True)
    supervisor.start(_service(tmp_path, "api", _DEAF, grace_seconds=60))
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 5


def test_the_children_of_a_dead_service_go_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    """A worker's processes must not go on writing beside those of the next worker."""
    code = (
        "import os, time\n"
        "pid = os.fork()\n"
        "if pid == 0: os.setpgid(0, 0); time.sleep(600)\n"
        "print(pid, 'ready', flush=True); time.sleep(600)\n"
    )
    supervisor.start(_service(tmp_path, "worker_bulk", code))
    child = int((tmp_path / "worker_bulk.log").read_text().split()[0])
    os.kill(supervisor.running["worker_bulk"].process.pid, signal.SIGKILL)
    _until(supervisor, lambda: processes.identify(child) is None)
    assert processes.identify(child) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to a process that asks for them")
def test_a_launcher_that_adopts_ends_orphans_in_sessions_of_their_own(tmp_path: Path) -> None:
    """A worker's children leave its session; a killed worker's job must not go on after the stack was stopped."""
    done = subprocess.run(
        (sys.executable, "-c", _LAUNCHER, str(tmp_path)), capture_output=True, text=True, check=True, timeout=60
    )
    alive, child = done.stdout.split()
    assert alive == "True"
    assert processes.identify(int(child)) is None


_LAUNCHER = """
import os, pathlib, signal, sys, time
from headwater_cli import processes
from headwater_cli.supervisor import Service, Supervisor
code = (
    "import os, time\\n"
    "if os.fork() == 0: os.setsid(); print(os.getpid(), 'ready', flush=True)\\n"
    "time.sleep(600)"
)
processes.adopt_orphans()
log = pathlib.Path(sys.argv[1], "worker.log")
command = processes.Command((sys.executable, "-c", code), processes.base_environment(), log)
supervisor = Supervisor(report=lambda _: None, adopts=True)
supervisor.start(Service("worker", lambda: command, lambda running: b"ready" in running.logged()))
child = int(log.read_text().split()[0])
alive = processes.identify(child) is not None
os.kill(supervisor.running["worker"].process.pid, signal.SIGKILL)
while supervisor.running["worker"].process.poll() is None:
    time.sleep(0.01)
supervisor.look()
print(alive, child)
supervisor.stop()
"""


def test_what_lives_is_written_down_at_every_change(terminal: _Terminal, tmp_path: Path) -> None:
    """The next launcher finds what this one started, should it be killed."""
    written: list[list[int]] = []
    supervisor = Supervisor(
        report=terminal, changed=lambda found: written.append([running.process.pid for running in found.values()])
    )
    supervisor.start(_service(tmp_path, "api"))
    pid = supervisor.running["api"].process.pid
    supervisor.stop()
    assert written == [[pid], []]


def test_what_is_started_beside_is_not_waited_for(supervisor: Supervisor, terminal: _Terminal, tmp_path: Path) -> None:
    """It runs, is said to be ready when it is, and is kept alive from then on."""
    supervisor.start_beside(_service(tmp_path, "azure"))
    assert terminal.of("azure") == []
    _until(supervisor, lambda: Turn.READY in terminal.of("azure"))
    supervisor.running["azure"].process.kill()
    _until(supervisor, lambda: Turn.READY_AGAIN in terminal.of("azure"))


def test_what_is_started_beside_and_never_ready_is_left_out(
    supervisor: Supervisor, terminal: _Terminal, tmp_path: Path
) -> None:
    """Its last line is the reason; it is not started again, and the others go on."""
    supervisor.start(_service(tmp_path, "api"))
    supervisor.start_beside(_service(tmp_path, "azure", "print('one'); print('no network'); raise SystemExit(1)"))
    _until(supervisor, lambda: Turn.LEFT_OUT in terminal.of("azure"))
    supervisor.look()
    assert [report.detail for report in terminal.reports if report.service == "azure"] == ["no network"]
    assert list(supervisor.running) == ["api"]
