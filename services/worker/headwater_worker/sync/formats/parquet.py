"""Parquet: row groups in batches. The footer stands at the end, so the file goes to disk first."""

import base64
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from headwater_worker.sync.formats.base import READ_BYTES, Block, Options, Record, Refusal, Source, Unreadable
from headwater_worker.sync.formats.spooling import spooled

_BATCH_ROWS: Final = 2_000


def blocks(source: Source, options: Options) -> Iterator[Block]:
    """The records of `source`. While it goes to disk, empty blocks; the copy is deleted whatever happens."""
    with tempfile.TemporaryFile(prefix="headwater-") as spool:
        yield from spooled(source, spool)
        spool.seek(0)
        try:
            # Buffered: without it a whole column of a row group is read at once.
            with pq.ParquetFile(spool, buffer_size=READ_BYTES) as file:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                    yield _block(batch, parsed=options.schema is not None)
        except (pa.ArrowException, OSError) as error:
            raise Unreadable("The file is not valid Parquet, or damaged.") from error


def _block(batch: pa.RecordBatch, *, parsed: bool) -> Block:
    """Rows as JSON texts; as values too, if somebody is going to validate them."""
    entries: list[Record | Refusal] = []
    for row in _rows(batch):
        try:
            raw = orjson.dumps(row, default=_default)
        except TypeError:
            entries.append(Refusal(None, "not_storable", "The record holds a value that JSON has no form for."))
        else:
            entries.append((None, raw, orjson.loads(raw) if parsed or b"\\u0000" in raw else None))
    return Block(entries, suspect=any(type(entry) is tuple and b"\\u0000" in entry[1] for entry in entries))


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = [_cells(batch.column(number)) for number in range(batch.num_columns)]
    names = batch.schema.names
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))


def _cells(column: pa.Array) -> list[Any]:
    if (pa.types.is_timestamp(column.type) or pa.types.is_time64(column.type)) and column.type.unit == "ns":
        # Python's moments end at microseconds.
        tz = {"tz": column.type.tz} if pa.types.is_timestamp(column.type) and column.type.tz else {}
        finest = pa.timestamp("us", **tz) if pa.types.is_timestamp(column.type) else pa.time64("us")
        column = column.cast(finest, safe=False)
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        # Moments beyond the year 9999 and the like: as Arrow writes them.
        return list(column.cast(pa.string()).to_pylist())


def _default(value: Any) -> Any:
    """JSON for what Parquet knows beyond JSON: exact decimals, bytes as text or base64, durations in seconds."""
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f")) if value.is_finite() else None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError
