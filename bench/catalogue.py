"""A bucket's listing becomes the catalogue: whole jobs through API, scheduler and worker, guard and all.

Beside obstore's listing into Arrow, which writes nothing down, and beside what is usually written: boto3's paginator
and an upsert for each object, into a table that has a primary key and nothing else.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import boto3
import making
import obstore
from botocore.config import Config
from engines import Engine, Process
from obstore.store import S3Store

from bench import bucket, ground
from bench.measuring import Figure, Report, at_least, at_most, interleaved, median
from headwater import db
from headwater.connectors.s3 import SPEC

THOUSANDS: Final = 1000
GROWTH: Final = (10, 100, 1000, 10_000)
_BOTO3_THOUSANDS: Final = 50
_DELAY_MS: Final = 50
_SECRETS: Final = {"access_key_id": "id", "secret_access_key": "secret"}
_LIMIT_SECONDS: Final = 600.0
_TABLE: Final = """
    create table if not exists usual (
        data_source_id uuid, path text collate "C", size bigint, etag text, modified_at timestamptz,
        primary key (data_source_id, path)
    )
"""
_UPSERT: Final = """
    insert into usual values (%s, %s, %s, %s, %s)
    on conflict (data_source_id, path) do update set
        size = excluded.size, etag = excluded.etag, modified_at = excluded.modified_at
"""


def run(report: Report, *, quick: bool) -> None:
    """First listings, second ones, ones behind a slow network; then how all that grows."""
    with ground.engine() as (engine, _), bucket.served() as url:
        engine.api()
        engine.scheduler()
        bench = _Bench(engine, url)
        near = 10 if quick else THOUSANDS
        rounds = 1 if quick else 3
        _compare(report, bench, thousands=near, usual=1 if quick else _BOTO3_THOUSANDS, rounds=rounds)
        _compare_far(report, bench, thousands=near, usual=1 if quick else 20, rounds=rounds)
        _grow(report, bench, [1, 10] if quick else GROWTH)


def _compare(report: Report, bench: "_Bench", *, thousands: int, usual: int, rounds: int) -> None:
    own: dict[str, list[float]] = {"first": [], "again": [], "later": []}

    def ours() -> float:
        # Each goes on from what the one before has left.
        source_id = bench.source(thousands)
        own["first"].append(bench.listed(source_id, new=thousands * 1000))
        own["again"].append(bench.listed(source_id, unchanged=thousands * 1000))
        with bucket.told(bench.url, "later", 1):
            new = thousands * 5
            own["later"].append(bench.listed(source_id, changed=2 * new, new=new, missing=new))
        return sum(times[-1] for times in own.values())

    with bench.worker():
        ways = {"obstore": partial(bench.obstore, thousands), "ours": ours, "boto3": partial(bench.boto3, usual)}
        seconds = interleaved(ways, rounds=rounds) | own
    rates = {name: 1000 * (usual if name == "boto3" else thousands) / median(took) for name, took in seconds.items()}
    whole = f"{thousands * 1000:,} objects"
    for name, work, goal in (
        ("first", f"first listing of {whole}", 0.4),
        ("again", "the same again, nothing changed", 0.45),
        ("later", "1 % changed, 0.5 % new, 0.5 % gone", 0.4),
    ):
        beside = "obstore's listing alone"
        report.add(Figure(work, "objects/s", rates[name], rates["obstore"], beside, at_least(goal)))
    for name, goal in (("first", 10), ("again", 10)):
        beside = "boto3 and upserts"
        report.add(Figure(f"{name} listing", "objects/s", rates[name], rates["boto3"], beside, at_least(goal)))


def _compare_far(report: Report, bench: "_Bench", *, thousands: int, usual: int, rounds: int) -> None:
    source = bench.source(thousands)
    with bench.worker():
        bench.listed(source, new=thousands * 1000)
        with bucket.told(bench.url, "delay", _DELAY_MS):
            seconds = interleaved(
                {
                    "boto3": partial(bench.boto3_listing, usual),
                    "ours": lambda: bench.listed(source, unchanged=thousands * 1000),
                },
                rounds=rounds,
            )
    ours, baseline = thousands * 1000 / median(seconds["ours"]), usual * 1000 / median(seconds["boto3"])
    work = f"{_DELAY_MS} ms per request, second listing"
    report.add(Figure(work, "objects/s", ours, baseline, "boto3's listing alone", at_least(15)))


def _grow(report: Report, bench: "_Bench", sizes: "tuple[int, ...] | list[int]") -> None:
    peaks = "the worker's child at its peak [MiB]"
    lines: dict[str, list[dict[str, float]]] = {
        "first listing [objects/s]": [], "second, nothing changed [objects/s]": [], peaks: [],
    }  # fmt: skip
    for thousands in sizes:
        source = bench.source(thousands)
        with bench.worker() as worker:
            first = bench.listed(source, new=thousands * 1000)
            again = bench.listed(source, unchanged=thousands * 1000)
            peak = max(_peak_mib(pid) for pid in worker.children())
        for name, value in zip(lines, (thousands * 1000 / first, thousands * 1000 / again, peak), strict=True):
            lines[name].append({"x": thousands * 1000, "y": value})
    report.series.update(lines)
    small, large = lines[peaks][0]["y"], lines[peaks][-1]["y"]
    size = f"{sizes[-1] * 1000:,}"
    report.add(Figure(f"peak memory, {size} objects", "MiB", large, 300, "the limit", at_most(1)))
    report.add(Figure(f"peak memory, {size} objects", "MiB", large, small, f"{sizes[0] * 1000:,} objects"))


@dataclass(frozen=True)
class _Bench:
    engine: Engine
    url: str

    def source(self, thousands: int) -> UUID:
        """A data source on a bucket with so many thousand objects that nobody has listed yet."""
        engine, organization_id = self.engine, self.engine.organization.organization_id
        config = {"type": "s3", "bucket": f"bucket-{thousands}", "region": "us-east-1", "endpoint_url": self.url}
        source_id = making.make_source(engine.connection, organization_id, engine.project_id, config, type_="s3")
        making.put_credentials(engine.connection, organization_id, source_id, SPEC, config=config, secrets=_SECRETS)
        return source_id

    @contextmanager
    def worker(self) -> Iterator[Process]:
        """A worker with one child, straight at the stores."""
        straight = {"database": self.engine.database, "redis": self.engine.redis_url}
        worker = self.engine.worker(slots=1, **straight)
        try:
            yield worker
        finally:
            worker.stop()

    def listed(self, source_id: UUID, **expected: int) -> float:
        """Seconds from the submit to the end of a listing whose counters must be these."""
        job_id = self.engine.post(source_id, "file_listing")
        row = self.engine.ended(job_id, _LIMIT_SECONDS)
        progress = self.engine.one("select counters from job_progress where job_id = %s", job_id)
        assert progress is not None
        found = {name: count for name, count in progress["counters"].items() if count and name in _COUNTERS}
        if row["status"] != "succeeded" or expected.items() - found.items():
            raise AssertionError(f"{row['status']}, {row['error']}, {found}; expected {expected}")
        return float((row["finished_at"] - row["created_at"]).total_seconds())

    def obstore(self, thousands: int) -> float:
        """Seconds of obstore's listing into Arrow."""
        store = S3Store(
            f"bucket-{thousands}", endpoint=self.url, region="us-east-1", virtual_hosted_style_request=False,
            client_options={"allow_http": True}, **_SECRETS,
        )  # fmt: skip
        began = time.perf_counter()
        count = sum(batch.num_rows for batch in obstore.list(store, return_arrow=True, chunk_size=1000))
        assert count == thousands * 1000
        return time.perf_counter() - began

    def boto3(self, thousands: int) -> float:
        """Seconds of the paginator and an upsert for each object, a page at a time."""
        began = time.perf_counter()
        with db.connect(self.engine.database, application="bench", autocommit=True) as connection:
            connection.execute(_TABLE)
            source_id = self.engine.project_id
            with connection.cursor() as cursor:
                for page in self._pages(thousands):
                    cursor.executemany(
                        _UPSERT,
                        [(source_id, o["Key"], o["Size"], o["ETag"].strip('"'), o["LastModified"]) for o in page],
                    )
        return time.perf_counter() - began

    def boto3_listing(self, thousands: int) -> float:
        """Seconds of the paginator alone."""
        began = time.perf_counter()
        assert sum(map(len, self._pages(thousands))) == thousands * 1000
        return time.perf_counter() - began

    def _pages(self, thousands: int) -> Iterator[list[Any]]:
        client = boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=_SECRETS["access_key_id"],
            aws_secret_access_key=_SECRETS["secret_access_key"], config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=f"bucket-{thousands}"):
            yield page["Contents"]


_COUNTERS: Final = frozenset({"new", "changed", "unchanged", "missing"})


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
