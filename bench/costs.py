"""What one of each costs: CPU of the API, of Postgres and of a worker, bytes of WAL, memory, connections.

Without goals: `docs/scale-out.md` multiplies these. The baseline is what stands beside them in the same work.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from engines import Engine, Process, Stores

from bench import ground
from bench.measuring import Figure, Report
from headwater import ids

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """CPU of each process with its children, in ms, and WAL in bytes."""

    milliseconds: Mapping[str, float]
    wal_bytes: int


def run(report: Report, *, quick: bool) -> None:
    """Requests first, without a worker; then jobs with everything; then records; then what stands still."""
    count = 20 if quick else 1_000
    with ground.engine(HEADWATER_RUNNING_PER_SOURCE="100") as (engine, stores):
        source = engine.source(files=1, records=0)
        processes = {"API": engine.api()}
        _requests(report, engine, stores, processes, source, count)
        processes |= {
            "scheduler": engine.scheduler(),
            "worker": engine.worker(slots=2),
            "bulk worker": engine.worker("bulk", slots=1),
        }
        engine.settled(600)
        _jobs(report, engine, stores, processes, source, count // 2)
        _records(report, engine, stores, processes, files=2 if quick else 50)
        _standing(report, engine, processes)


def _requests(
    report: Report, engine: Engine, stores: Stores, processes: Mapping[str, Process], source: UUID, count: int
) -> None:
    job = ids.encode("job", engine.post(source))
    requests: dict[str, Callable[[], object]] = {
        "GET a job": lambda: engine.client.get(f"jobs/{job}").raise_for_status(),
        "GET a page of jobs": lambda: engine.client.get("jobs").raise_for_status(),
        "GET a page of data sources": lambda: engine.client.get("data-sources").raise_for_status(),
        "POST a job": lambda: engine.post(source),
    }
    for name, request in requests.items():
        for _ in range(min(count, 20)):
            request()
        with _spending(engine, stores, processes) as spent:
            for _ in range(count):
                request()
        milliseconds = spent[0].milliseconds
        report.add(
            Figure(f"{name}: API", "CPU ms", milliseconds["API"] / count, milliseconds["Postgres"] / count, "Postgres")
        )
    report.add(Figure("POST a job: WAL", "kB", spent[0].wal_bytes / count / 1000, 1, "nothing"))


def _jobs(
    report: Report, engine: Engine, stores: Stores, processes: Mapping[str, Process], source: UUID, count: int
) -> None:
    with _spending(engine, stores, processes) as spent:
        for _ in range(count):
            engine.post(source)
        engine.settled(600)
    _tell(report, "a connection test, all of it", spent[0], count)


def _records(report: Report, engine: Engine, stores: Stores, processes: Mapping[str, Process], *, files: int) -> None:
    thousands = 2 * files
    source = engine.source(files=files, records=2_000)
    with _spending(engine, stores, processes) as spent:
        assert engine.ended(engine.post(source, "sync"), 600)["status"] == "succeeded"
    _tell(report, "a thousand records, synced", spent[0], thousands)
    with _spending(engine, stores, processes) as spent:
        assert engine.ended(engine.post(source, "sync"), 600)["status"] == "succeeded"
    _tell(report, "a sync that finds nothing new", spent[0], 1)


def _tell(report: Report, name: str, spent: Spent, count: int) -> None:
    postgres = spent.milliseconds["Postgres"] / count
    for process, milliseconds in spent.milliseconds.items():
        if process != "Postgres":
            report.add(Figure(f"{name}: {process}", "CPU ms", milliseconds / count, postgres, "Postgres"))
    report.add(Figure(f"{name}: WAL", "kB", spent.wal_bytes / count / 1000, 1, "nothing"))


def _standing(report: Report, engine: Engine, processes: Mapping[str, Process]) -> None:
    """Memory that is nobody else's (PSS) and connections, of each process with its children."""
    of_api = _megabytes(processes["API"])
    for name, process in processes.items():
        report.add(Figure(f"memory: {name}", "MB", _megabytes(process), of_api, "the API"))
    rows = engine.connection.execute(
        "select application_name as name, count(*) as count from pg_stat_activity"
        " where application_name like 'headwater%' group by 1 order by 1"
    ).fetchall()
    for row in rows:
        report.add(Figure(f"connections: {row['name']}", "now", row["count"], 1, "one"))


@contextmanager
def _spending(engine: Engine, stores: Stores, processes: Mapping[str, Process]) -> Iterator[list[Spent]]:
    """What the block spends is in the list when it has ended."""
    pids = {name: process.pid for name, process in processes.items()} | {"Postgres": stores.postgres.pid}
    spent: list[Spent] = []
    before, wal = {name: _cpu(pid) for name, pid in pids.items()}, _wal(engine)
    yield spent
    after = {name: _cpu(pid) - before[name] for name, pid in pids.items()}
    spent.append(Spent(after, _wal(engine) - wal))


def _wal(engine: Engine) -> int:
    row = engine.one("select pg_current_wal_insert_lsn() - '0/0' as bytes")
    assert row is not None
    return int(row["bytes"])


def _cpu(pid: int) -> float:
    """CPU of a process and all below it, also of children that have ended, in ms."""
    return sum(1000 * sum(map(int, _stat(each)[13:17])) / _TICKS for each in _family(pid))


def _megabytes(process: Process) -> float:
    rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in _family(process.pid))
    return sum(int(line.split()[1]) for text in rollups for line in text.splitlines() if line.startswith("Pss:")) / 1024


def _family(pid: int) -> list[int]:
    children: list[Any] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += (task / "children").read_text().split()
    return [pid] + [each for child in children for each in _family(int(child))]


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat (proc(5)); the name, which may hold spaces, is one."""
    head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return [*head.split(" ", 1), *tail.split()]
