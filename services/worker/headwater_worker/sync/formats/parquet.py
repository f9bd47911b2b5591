"""Parquet: row groups in batches. The footer stands at the end, so the file goes to disk first."""

import base64
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater_worker.sync import storable
from headwater_worker.sync.formats import table
from headwater_worker.sync.formats.base import READ_BYTES, Block, Options, Record, Refusal, Source, Unreadable
from headwater_worker.sync.formats.spooling import spool, spooled

_BATCH_ROWS: Final = 2_000
_BATCH_BYTES: Final = 1024 * 1024
# Between the texts of a column, which hold it next to never.
_BETWEEN: Final = "\x1e\x1f"
# How memory of Arrow's is read as Python's numbers.
_NUMBERS: Final = {
    pa.int8(): "b", pa.int16(): "h", pa.int32(): "i", pa.int64(): "q",
    pa.uint8(): "B", pa.uint16(): "H", pa.uint32(): "I", pa.uint64(): "Q",
    pa.float32(): "f", pa.float64(): "d",
}  # fmt: skip


def blocks(source: Source, options: Options) -> Iterator[Block]:
    """The records of `source`. While it goes to disk, empty blocks; the copy is deleted whatever happens."""
    with spool() as copy:
        yield from spooled(source, copy)
        copy.seek(0)
        try:
            # Buffered: without it a whole column of a row group is read at once.
            with pq.ParquetFile(copy, buffer_size=READ_BYTES) as file:
                for batch in file.iter_batches(batch_size=_batch_rows(file.metadata), use_threads=False):
                    yield _block(batch, parsed=options.schema is not None)
        except MemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise Unreadable("The file is not valid Parquet, or damaged.") from error


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """How many rows are taken at once: fewer where the file says that they are large."""
    groups = [metadata.row_group(number) for number in range(min(metadata.num_row_groups, 100))]
    rows, size = sum(group.num_rows for group in groups), sum(group.total_byte_size for group in groups)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // size)) if rows > 0 and size > 0 else _BATCH_ROWS


def _block(batch: pa.RecordBatch, *, parsed: bool) -> Block:
    """Rows as JSON texts; as values too, if somebody is going to validate them."""
    names = batch.schema.names
    columns = [cells for column in batch.columns if (cells := _plain_cells(column)) is not None]
    # Of two columns of one name the last one counts, in the place of the first.
    if len(columns) < len(names) or not names or len({*names}) < len(names):
        return _odd_block(batch, parsed=parsed)
    strings = {name for name, kind in zip(names, batch.schema.types, strict=True) if pa.types.is_string(kind)}
    texts = [
        table.texts(cells) if name in strings else table.scalars(cells)
        for name, cells in zip(names, columns, strict=True)
    ]
    raws = table.writer(names, strings)(texts)
    return Block(table.Table(names, columns, [None] * len(raws), raws), suspect=storable.may_hold_nul(raws))


def _odd_block(batch: pa.RecordBatch, *, parsed: bool) -> Block:
    entries: list[Record | Refusal] = []
    for row in _rows(batch):
        try:
            raw = orjson.dumps(row, default=_default)
        except TypeError as error:
            if isinstance(error.__cause__, MemoryError):
                raise error.__cause__ from None
            entries.append(Refusal(None, "not_storable", "The record holds a value that JSON has no form for."))
        else:
            entries.append((None, raw, orjson.loads(raw) if parsed or b"\\u0000" in raw else None))
    return Block(entries, suspect=storable.may_hold_nul(entry[1] for entry in entries if isinstance(entry, tuple)))


def _plain_cells(column: pa.Array) -> Sequence[Any] | None:
    """A column whose values are in JSON what they are in Python, all at once; None for any other."""
    kind, length = column.type, len(column)
    if column.null_count or not length:
        return None
    if kind in _NUMBERS:
        if pa.types.is_floating(kind) and not pc.all(pc.is_finite(column)).as_py():
            return None
        width, begin = kind.bit_width // 8, column.offset
        memory = memoryview(column.buffers()[1]).cast("B")[begin * width : (begin + length) * width]
        numbers: list[Any] = memory.cast(_NUMBERS[kind]).tolist()  # type: ignore[call-overload]
        return numbers
    if pa.types.is_boolean(kind):
        return [value == 1 for value in _plain_cells(column.cast(pa.uint8())) or ()]
    if pa.types.is_string(kind):
        return _texts(column)
    return None


def _texts(column: pa.StringArray) -> list[str] | None:
    """By one text that holds them all: to cut that is far quicker than to make each."""
    whole = pa.ListArray.from_arrays(pa.array([0, len(column)], pa.int32()), column)
    try:
        texts: list[str] = pc.binary_join(whole, _BETWEEN)[0].as_py().split(_BETWEEN)
    except UnicodeDecodeError:
        return None
    return texts if len(texts) == len(column) else None


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
