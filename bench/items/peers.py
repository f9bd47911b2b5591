"""What the syncs are measured beside, each over the same records and into the same Postgres."""

import csv
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import dlt
import jsonschema
import psycopg
import pyarrow.parquet as pq

from bench.items import records

_BEGIN: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_END: Final = b"\xff\xff"
_BATCH: Final = 1_000


def copy_rate(database: str, blocks: Sequence[bytes], count: int) -> float:
    """Rows a second of one binary COPY into `item`, everything made ready before."""
    with psycopg.connect(database) as connection:
        _clear(connection)
        began = time.perf_counter()
        with (
            connection.cursor() as cursor,
            cursor.copy("copy item (load_id, record_number, data) from stdin (format binary)") as copy,
        ):
            copy.write(_BEGIN)
            for block in blocks:
                copy.write(block)
            copy.write(_END)
        connection.commit()
        return count / (time.perf_counter() - began)


def executemany_rate(database: str, path: Path, count: int) -> float:
    """What is written first in Python: `json`, `jsonschema`, `executemany`."""
    validator = jsonschema.Draft202012Validator(records.SCHEMA)
    with psycopg.connect(database) as connection:
        _clear(connection)
        began = time.perf_counter()
        good: list[tuple[int, int, str]] = []
        with path.open() as lines, connection.cursor() as cursor:
            for number, line in enumerate(lines, start=1):
                if validator.is_valid(json.loads(line)):
                    good.append((1, number, line))
                if len(good) == _BATCH or number == count:
                    cursor.executemany("insert into item (load_id, record_number, data) values (%s, %s, %s)", good)
                    good = []
        connection.commit()
        return count / (time.perf_counter() - began)


def dlt_rate(database: str, path: Path, count: int) -> float:
    """dlt from a local file into a table of its own, by batches of rows, as its own readers of files give them."""
    os.environ.update(RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="CRITICAL")
    logging.getLogger("dlt").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline(
            "bench",
            destination=dlt.destinations.postgres(database.replace("postgresql://", "postgres://")),
            dataset_name="dlt_bench",
            pipelines_dir=folder,
        )
        rows = _csv_rows(path) if path.suffix == ".csv" else _parquet_rows(path)
        began = time.perf_counter()
        pipeline.run(rows, table_name="records", write_disposition="replace")
        return count / (time.perf_counter() - began)


def _csv_rows(path: Path) -> Iterator[list[dict[str, Any]]]:
    with path.open(newline="") as text:
        batch: list[dict[str, Any]] = []
        for row in csv.DictReader(text):
            batch.append(row)
            if len(batch) == 10_000:
                yield batch
                batch = []
        yield batch


def _parquet_rows(path: Path) -> Iterator[list[dict[str, Any]]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=10_000):
            yield batch.to_pylist()


def _clear(connection: psycopg.Connection[Any]) -> None:
    connection.execute("truncate item")
    connection.commit()
    connection.autocommit = True
    connection.execute("checkpoint")
    connection.autocommit = False
