"""Files of every format with the records and rejects that they hold, known by how they were made."""

import bz2
import gzip
import io
import json
import random
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": "string"},
        "amount": {"type": ["number", "null"]},
        "note": {"type": "string"},
    },
    "required": ["id", "name"],
}
_BROKEN_EVERY = 290
_USUAL = 2_700
# Beyond what is fetched whole: such a file is read from the source piece by piece.
_LARGE = 3_100
_LARGE_NOTE_BYTES = 3_000


@dataclass(frozen=True)
class Row:
    """One record as a file holds it: its text and value, or the code and pointer of its reject."""

    text: bytes
    value: Any = None
    code: str | None = None
    pointer: str | None = None


@dataclass(frozen=True)
class File:
    """One file. `first_line`: where its first record stands, if its format has lines.

    `fault`: the code of the reject that is about the file as a whole. `some`: damage costs records at the end, and how
    many is the reader's business.
    """

    path: str
    body: bytes
    rows: Sequence[Row] = ()
    first_line: int | None = None
    fault: str | None = None
    some: bool = False
    plain: bool = False


Made = tuple[bytes, list[Row], int | None]
"""A body, its records, and where the first one stands."""


@cache
def files() -> tuple[File, ...]:
    """The corpus: some 65,000 records in 29 files, each name legal wherever files have no folders."""
    made: list[tuple[str, Made]] = [
        ("with space.csv", _csv(1)),
        ("semi;colon,comma.csv", _csv(2, delimiter=";")),
        ("UPPER.CSV", _csv(3, newline="\r\n")),
        ("t a b.tsv", _csv(4, delimiter="\t")),
        ("caf\u00e9.csv", _csv(5, encoding="cp1252")),
        ("cafe\u0301.csv", _csv(6, encoding="utf-16")),
        ("late.csv", _csv(7, count=_LARGE, encoding="cp1252", padding=_LARGE_NOTE_BYTES, accents_from=2_000)),
        ("pl+us&amp;.json", _json(8)),
        ("<a>.json", _json(9, bom=True)),
        ("[set]*?.json", _json(10)),
        ("100%25.jsonl", _jsonl(11)),
        ("\u65e5\u672c.jsonl", _jsonl(12, newline=b"\r\n")),
        ("\U0001f600.ndjson", _jsonl(13, last_newline=False)),
        ("\uff5e#hash.jsonl", _jsonl(14, count=_LARGE, padding=_LARGE_NOTE_BYTES)),
        ("quo\"te'.parquet", _parquet(15)),
        ("a|b`c$(d).parquet", _parquet(16)),
        ("=1+1.csv.gz", _packed(_csv(17), gzip.compress)),
        ("two.dots..jsonl.gz", _packed(_jsonl(18), _in_two_members)),
        ("-dash.json.gz", _packed(_json(19), gzip.compress)),
        ("b" * 240 + ".jsonl.bz2", _packed(_jsonl(20), bz2.compress)),
        ("z.csv.zst", _packed(_csv(21), _zstd)),
        ("~archive.zip", _packed(_jsonl(24), _zip)),
    ]
    return (
        *(File(path, *parts) for path, parts in made),
        _cut("cut.jsonl.gz", _jsonl(22)),
        _damaged("damaged.jsonl.gz", _jsonl(23, count=2 * _LARGE, padding=_LARGE_NOTE_BYTES)),
        File("empty.jsonl", b""),
        File("empty.csv", b""),
        File("notes.txt", b"notes\n", plain=True),
        File("picture.PNG", bytes(range(256)), plain=True),
        File("no extension", b"{}\n", plain=True),
    )


def canonical(value: Any) -> bytes:
    """One text for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()


def _value(seed: int, number: int, *, padding: int = 0, accents: bool = True) -> dict[str, Any]:
    note = 'plain, and "quoted"; a\ttab' if number % 7 else ("caf\u00e9 \u00fc\u00df" if accents else "cafe")
    if padding:
        note += random.Random(seed * 100_000 + number).randbytes(padding // 2).hex()
    return {"id": seed * 100_000 + number, "name": f"n{number}", "amount": number / 4, "note": note}


def _is_broken(seed: int, number: int) -> int | None:
    """None, or which kind of broken the record is."""
    return (seed + number) // _BROKEN_EVERY if (seed + number) % _BROKEN_EVERY == 0 else None


def _csv(
    seed: int,
    *,
    count: int = _USUAL,
    delimiter: str = ",",
    newline: str = "\n",
    encoding: str = "utf-8",
    padding: int = 0,
    accents_from: int = 0,
) -> Made:
    rows = []
    for number in range(1, count + 1):
        value = _value(seed, number, padding=padding, accents=number >= accents_from)
        kind = _is_broken(seed, number)
        cells = [str(value["id"]), value["name"], str(value["amount"]), '"' + value["note"].replace('"', '""') + '"']
        if kind is None:
            row = Row(b"", value)
        elif kind % 2:
            row, cells = Row(b"", None, "invalid_csv"), cells[:-1]
        else:
            row, cells[0] = Row(b"", None, "schema_mismatch", "/id"), "x"
        rows.append(Row((delimiter.join(cells) + newline).encode(), row.value, row.code, row.pointer))
    head = delimiter.join(("id", "name", "amount", "note")) + newline
    text = head.encode() + b"".join(row.text for row in rows)
    return text.decode().encode(encoding), rows, 2


_BROKEN_JSON: tuple[Callable[[dict[str, Any]], Row], ...] = (
    lambda v: Row(b'{"id": %d, "name" "n"}' % v["id"], code="invalid_json"),
    lambda v: Row(b'{"id": %d, "name": NaN}' % v["id"], code="invalid_json"),
    lambda v: Row(b'{"id": %d, "name": "a\\u0000b"}' % v["id"], code="not_storable"),
    lambda v: Row(b'{"id": %d, "name": "\\ud800"}' % v["id"], code="not_storable"),
    lambda v: Row(b'{"id": %d, "name": "\xff"}' % v["id"], code="invalid_json"),
    lambda v: Row(b'{"id": "%d", "name": "n"}' % v["id"], code="schema_mismatch", pointer="/id"),
    lambda v: Row(b'{"id": %d}' % v["id"], code="schema_mismatch", pointer=""),
    lambda v: Row(b'"%d"' % v["id"], code="schema_mismatch", pointer=""),
)


def _json_rows(seed: int, count: int, padding: int = 0) -> list[Row]:
    rows = []
    for number in range(1, count + 1):
        value = _value(seed, number, padding=padding)
        kind = _is_broken(seed, number)
        if kind is not None:
            rows.append(_BROKEN_JSON[(seed + kind) % len(_BROKEN_JSON)](value))
            continue
        if number % 11 == 0:
            value |= {"amount": None, "big": 10**30 + number, "deep": [{"a": [1, [2]]}]}
        rows.append(Row(json.dumps(value, ensure_ascii=number % 2 == 0).encode(), value))
    return rows


def _jsonl(
    seed: int, *, count: int = _USUAL, newline: bytes = b"\n", last_newline: bool = True, padding: int = 0
) -> Made:
    rows = _json_rows(seed, count, padding)
    return newline.join(row.text for row in rows) + (newline if last_newline else b""), rows, 1


def _json(seed: int, *, count: int = _USUAL, bom: bool = False) -> Made:
    rows = _json_rows(seed, count)
    body = b"[\n" + b",\n".join(row.text for row in rows) + b"\n]\n"
    return (b"\xef\xbb\xbf" if bom else b"") + body, rows, 2


def _parquet(seed: int) -> Made:
    rows = []
    for number in range(1, _USUAL + 1):
        value: dict[str, Any] = _value(seed, number)
        broken = _is_broken(seed, number) is not None
        rows.append(Row(b"", {**value, "id": None}, "schema_mismatch", "/id") if broken else Row(b"", value))
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row.value for row in rows]), out, row_group_size=1_000)
    return out.getvalue(), rows, None


def _packed(made: Made, pack: Callable[[bytes], bytes]) -> Made:
    body, rows, first_line = made
    return pack(body), rows, first_line


def _in_two_members(body: bytes) -> bytes:
    return gzip.compress(body[:100_001]) + gzip.compress(body[100_001:])


def _zstd(body: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(body)
    packed: bytes = out.getvalue().to_pybytes()
    return packed


def _zip(body: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/one.jsonl", body)
    return out.getvalue()


def _cut(path: str, made: Made) -> File:
    """It breaks off: the records are there whose ends came through."""
    body, rows, first_line = made
    half = gzip.compress(body)[:-20_000]
    whole = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(half).count(b"\n")
    return File(path, half, rows[:whole], first_line, fault="unreadable_file")


def _damaged(path: str, made: Made) -> File:
    """A block in the middle makes no sense: how much is lost before it depends on how it is read."""
    body, rows, first_line = made
    packed = bytearray(gzip.compress(body, 1))
    middle = len(packed) * 2 // 3
    packed[middle : middle + 4_000] = b"\xff" * 4_000
    return File(path, bytes(packed), rows, first_line, fault="unreadable_file", some=True)
