"""Syncs of the bench's bucket by a real worker, timed by the job's row, weighed by the kernel."""

import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self
from uuid import UUID

import making
import psycopg
from engines import Engine, Process

from bench.items import records
from headwater import db
from headwater.connectors.s3 import SPEC

_LONGEST_SECONDS: Final = 1_800.0
_LOOK_SECONDS: Final = 0.1
_SECRETS: Final = {"access_key_id": "AKIA0000000000000000", "secret_access_key": "secret"}


class Bucket:
    """The responder's process."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.items.bucket"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.endpoint_url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


class Syncing:
    """Makes sources and syncs them."""

    def __init__(self, engine: Engine, bucket: Bucket) -> None:
        self.database = engine.database
        self._engine = engine
        self._bucket = bucket
        self._worker: Process | None = None

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker with one slot, fresh."""
        self._worker = self._engine.worker("bulk", slots=1)
        # What a worker's child does once in its life is no part of what is measured.
        self._sync("jsonl-10-0", mode="lenient")
        yield
        self._worker.kill()

    def rate(self, name: str, count: int, *, mode: str) -> float:
        """Records a second of one sync of a bucket."""
        return count / self._sync(name, mode=mode)

    def peaks(self, name: str) -> dict[str, float]:
        """MiB at most, for each kind of process that one sync takes."""
        with self.worker(), _Watch(self._worker) as watch:
            self._sync(name, mode="lenient")
        return watch.peaks

    def _sync(self, name: str, *, mode: str) -> float:
        """Seconds from claim to end."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute("truncate item")
            connection.execute("checkpoint")
        job_id = self._engine.submit(self._source(name, mode), "sync", types=["s3"], deadline_seconds=7200)
        row = self._engine.ended(job_id, _LONGEST_SECONDS)
        assert row["status"] in ("succeeded", "partially_succeeded"), row
        return float((row["finished_at"] - row["started_at"]).total_seconds())

    def _source(self, name: str, mode: str) -> UUID:
        engine, connection = self._engine, self._engine.connection
        config: dict[str, Any] = {
            "type": "s3", "bucket": name, "region": "us-east-1", "endpoint_url": self._bucket.endpoint_url,
        }  # fmt: skip
        organization_id = engine.organization.organization_id
        source_id = making.make_source(connection, organization_id, engine.project_id, config, "s3")
        making.put_credentials(connection, organization_id, source_id, SPEC, config=config, secrets=_SECRETS)
        connection.execute(
            """
            insert into data_source_version (data_source_id, version, organization_id, config, validation, reading)
            select data_source_id, 2, organization_id, config, %s, reading
            from data_source_version where data_source_id = %s
            """,
            (db.json({"mode": mode, "schema": records.SCHEMA}), source_id),
        )
        connection.execute("update data_source set version = 2 where id = %s", (source_id,))
        return source_id


class _Watch:
    """Looks at what the worker's children, and theirs, take, as long as the block lasts."""

    def __init__(self, worker: Process | None) -> None:
        assert worker is not None
        self._worker = worker
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.peaks: dict[str, float] = defaultdict(float)

    def __enter__(self) -> Self:
        for pid in self._worker.children():
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            for child in self._worker.children():
                self._look(child, "the worker's child")
                for reader in _below(child):
                    self._look(reader, "a reader")

    def _look(self, pid: int, kind: str) -> None:
        with suppress(FileNotFoundError, ProcessLookupError, StopIteration):
            status = Path(f"/proc/{pid}/status").read_text().splitlines()
            peak = next(line for line in status if line.startswith("VmHWM:"))
            self.peaks[kind] = max(self.peaks[kind], int(peak.split()[1]) / 1024)


def _below(pid: int) -> Iterator[int]:
    """All that it started, and what they did."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from _below(child)
