"""Records from a bucket into Postgres: whole syncs of real workers beside COPY of ready rows, and beside peers.

The bucket is a responder of the bench's own, in a process of its own, and is read through egress as any other. A sync
is timed by the job's own row, from its claim to its end: listing, reading, checking, landing, showing.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from bench import ground
from bench.items import peers, records
from bench.items.syncing import Bucket, Syncing
from bench.measuring import Figure, Report, at_least, at_most, interleaved, median

_RECORDS: Final = 2_000_000
_OF_PEERS: Final = 50_000
_MOST_MIB: Final = 300
# Sizes of each series, the largest last.
_LARGE_MB: Final = (256, 1_024, 10_240)
_SMALL_FILES: Final = (10_000, 30_000, 100_000)
_GZIP_MB: Final = (128, 512, 2_048)


def run(report: Report, *, quick: bool) -> None:
    """Speed by format, then memory by size."""
    share = 100 if quick else 1
    with ground.engine() as (engine, _), Bucket() as bucket, tempfile.TemporaryDirectory() as folder:
        engine.scheduler()
        syncing = Syncing(engine, bucket)
        _speed(report, syncing, _RECORDS // share, rounds=1 if quick else 3)
        _beside_peers(report, syncing, Path(folder), _OF_PEERS // share, rounds=1 if quick else 3)
        _memory(report, syncing, share, most=1 if quick else None)


def _speed(report: Report, syncing: Syncing, count: int, *, rounds: int) -> None:
    with syncing.worker():
        for name, mode in (("jsonl", "lenient"), ("jsonl", "strict"), ("csv", "lenient"), ("parquet", "lenient")):
            # A strict sync with bad records fails: it is timed with good ones alone.
            made = f"{name}-{count}-{100 if mode == 'lenient' else 0}"
            ready = records.ready(made)
            ways: dict[str, Callable[[], float]] = {
                "sync": partial(syncing.rate, made, count, mode=mode),
                "copy": partial(peers.copy_rate, syncing.database, ready, count),
            }
            rates = {way: median(values) for way, values in interleaved(ways, rounds=rounds).items()}
            report.add(
                Figure(
                    f"{name}, {mode}",
                    "records/s",
                    ours=rates["sync"],
                    baseline=rates["copy"],
                    beside="COPY of ready rows",
                    goal=at_least(0.8),
                )
            )


def _beside_peers(report: Report, syncing: Syncing, folder: Path, count: int, *, rounds: int) -> None:
    with syncing.worker():
        for name, beside, peer, goal in (
            ("jsonl", "json + jsonschema + executemany", peers.executemany_rate, 10),
            ("csv", "dlt", peers.dlt_rate, 5),
            ("parquet", "dlt", peers.dlt_rate, 5),
        ):
            ours, theirs = f"{name}-{count * 10}-100", f"{name}-{count}-100"
            path = folder / f"records.{name}"
            path.write_bytes(records.body(theirs))
            ways: dict[str, Callable[[], float]] = {
                "sync": partial(syncing.rate, ours, count * 10, mode="lenient"),
                "peer": partial(peer, syncing.database, path, count),
            }
            rates = {way: median(values) for way, values in interleaved(ways, rounds=rounds).items()}
            report.add(
                Figure(
                    f"{name}, lenient",
                    "records/s",
                    ours=rates["sync"],
                    baseline=rates["peer"],
                    beside=beside,
                    goal=at_least(goal),
                )
            )


def _memory(report: Report, syncing: Syncing, share: int, *, most: int | None) -> None:
    for work, unit, kind, sizes in (
        ("one JSONL file", "MB", "large", _LARGE_MB),
        ("small files", "files", "small", _SMALL_FILES),
        ("one gzip", "MB", "gzip", _GZIP_MB),
    ):
        for size in sizes[:most]:
            peaks = syncing.peaks(f"{kind}-{max(1, size // share)}")
            for process, mebibytes in peaks.items():
                line = f"{process} [MiB at its peak, by {unit} of {work}]"
                report.series.setdefault(line, []).append({"x": size, "y": mebibytes})
            largest = max(peaks, key=lambda process: peaks[process])
            report.add(
                Figure(
                    f"{work}, {size:,} {unit}: {largest}",
                    "MiB at most",
                    ours=peaks[largest],
                    baseline=_MOST_MIB,
                    beside=f"{_MOST_MIB} MiB",
                    goal=at_most(1),
                )
            )
