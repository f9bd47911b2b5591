"""The records of this table. A set of them is named `<format>-<count>-<every n-th is bad, 0 for none>`."""

import csv
import functools
import io
import json
import random
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 0},
        "name": {"type": "string", "maxLength": 100},
        "email": {"type": "string", "maxLength": 100},
        "amount": {"type": "number"},
        "active": {"type": "boolean"},
        "country": {"enum": ["DE", "FR", "JP", "US"]},
        "created_at": {"type": "string"},
    },
    "required": ["id", "email"],
}
# One row of a binary COPY into `item` up to its JSON text.
_HEAD: Final = struct.Struct(">hiqiqib")
_BLOCK_ROWS: Final = 50_000


def rows(count: int, bad_every: int) -> Iterator[dict[str, Any]]:
    """So many records; a bad one has an id below zero."""
    draw = random.Random(7)  # noqa: S311 - the same records each time
    for number in range(count):
        is_bad = bad_every and number % bad_every == bad_every - 1
        yield {
            "id": -number if is_bad else number,
            "name": f"Customer {number} {'x' * draw.randrange(30)}",
            "email": f"customer{number}@example.com",
            "amount": round(draw.random() * 10_000, 2),
            "active": number % 3 == 0,
            "country": ("DE", "FR", "JP", "US")[number % 4],
            "created_at": f"2026-01-{number % 28 + 1:02}T12:{number % 60:02}:00Z",
        }


@functools.lru_cache(maxsize=4)
def body(name: str) -> bytes:
    """The file."""
    kind, count, bad_every = name.split("-")
    made = rows(int(count), int(bad_every))
    return {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[kind](made)


def ready(name: str) -> Sequence[bytes]:
    """Blocks of a binary COPY into `item` with the good records of the set, as load 1."""
    kind, count, bad_every = name.split("-")
    blocks, block = [], bytearray()
    for number, row in enumerate(rows(int(count), int(bad_every)), start=1):
        if row["id"] >= 0:
            raw = json.dumps(row, separators=None if kind == "jsonl" else (",", ":")).encode()
            block += _HEAD.pack(3, 8, 1, 8, number, len(raw) + 1, 1) + raw
        if number % _BLOCK_ROWS == 0:
            blocks.append(bytes(block))
            block.clear()
    return [*blocks, bytes(block)]


def _jsonl(made: Iterator[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in made)


def _csv(made: Iterator[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(SCHEMA["properties"]))  # type: ignore[call-overload]
    writer.writeheader()
    writer.writerows(made)
    return text.getvalue().encode()


def _parquet(made: Iterator[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(made)), out, row_group_size=100_000)
    return out.getvalue()
