"""Files that were made to hurt: each ends with rejects, in bounded memory, and the files around it are brought in.

Beside each an honest file that looks a little like it. `-s` shows what each one took.
"""

import bz2
import gzip
import io
import json
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import api_stub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from api_stub import Reply

from headwater_worker.sync import messages

from .conftest import readers_now
from .test_walking import ApiSource, new_api_source

MOST_BYTES = messages.MEMORY_BYTES + 160 * 1024 * 1024
"""What a reader may take, and what it begins with."""
MEGABYTE = 1_000_000


def _zip(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return out.getvalue()


def _overlapping() -> bytes:
    """A thousand members that are one: each alone unpacks to 100 kB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.jsonl", b"1\n" * 50_000)
        first = archive.filelist[0]
        for number in range(1, 1_000):
            twin = zipfile.ZipInfo(f"{number}.jsonl")
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset", "flag_bits"):
                setattr(twin, name, getattr(first, name))
            archive.filelist.append(twin)
    return out.getvalue()


def _parquet(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def _repeated(text: str, rows: int) -> bytes:
    """One text in a dictionary, and rows that name it."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    return _parquet(pa.table({"a": column}), compression="zstd")


def _lying() -> bytes:
    """A footer that says it is two gigabytes long."""
    return _parquet(pa.table({"a": [1]}))[:-8] + struct.pack("<i", 0x7FFFFFF0) + b"PAR1"


def _zstd(body: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(body, asbytes=True))


BOMBS: dict[str, tuple[str, Callable[[], bytes], set[str]]] = {
    "gzip of one endless line": ("a.jsonl.gz", lambda: gzip.compress(bytes(100 * MEGABYTE), 1), {"not_storable"}),
    "bzip2 of next to nothing": (
        "a.jsonl.bz2", lambda: bz2.compress(bytes(45 * MEGABYTE)) * 3, {"not_storable"}
    ),
    "zstd of next to nothing": ("a.jsonl.zst", lambda: _zstd(bytes(50 * MEGABYTE)) * 3, {"not_storable"}),
    "zip of next to nothing": ("a.zip", lambda: _zip(("a.jsonl", bytes(100 * MEGABYTE))), {"absurd_ratio"}),
    "zip in a zip": ("a.zip", lambda: _zip(("a.zip", _zip(("a.jsonl", b"1")))), {"nested_archive"}),
    "zip with too many members": (
        "a.zip", lambda: _zip(*((f"{n}.jsonl", b"") for n in range(10_001))), {"too_many_members"}
    ),
    "zip of overlapping members": ("a.zip", _overlapping, {"absurd_ratio"}),
    "zip that climbs": ("a.zip", lambda: _zip(("../../etc/a.jsonl", b"1")), {"unsafe_member_name"}),
    "Parquet of one huge text": ("a.parquet", lambda: _repeated("x" * (15 * MEGABYTE), 2_000), {"file_too_complex"}),
    "Parquet with a page that swells": (
        "a.parquet",
        lambda: _parquet(pa.table({"a": [bytes(200 * MEGABYTE)]}), compression="zstd"),
        {"file_too_complex"},
    ),
    "Parquet with a lying footer": ("a.parquet", _lying, {"unreadable_file"}),
    "CSV with an endless quote": ("a.csv", lambda: b'a,b\n1,"' + b"x" * (20 * MEGABYTE), {"invalid_csv"}),
    "CSV of one endless line": ("a.csv", lambda: b"," * (15 * MEGABYTE), {"invalid_csv"}),
    "JSON without a bottom": ("a.json", lambda: b"[" * (20 * MEGABYTE), {"invalid_json"}),
    "JSON lines without a bottom": ("a.jsonl", lambda: b"[" * 100_000 + b"]" * 100_000, {"not_storable"}),
    "a number without an end": ("a.jsonl", lambda: b"1" * MEGABYTE, {"not_storable"}),
    "a text without an end": ("a.jsonl", lambda: b'"' + b"x" * (20 * MEGABYTE) + b'"', {"not_storable"}),
    "UTF-16 that is called CSV": ("a.csv", lambda: "a,b\n1,2\n".encode("utf-16-le"), {"unsupported_encoding"}),
    "a byte order mark that lies": ("a.jsonl", lambda: b'\xff\xfe{"a": 1}\n', {"invalid_json"}),
    "bytes that are no text": ("a.jsonl", lambda: b'"\xc3\x28"\n', {"invalid_json"}),
}  # fmt: skip

HONEST: dict[str, tuple[str, Callable[[], bytes], int]] = {
    "gzip of 40 MB": ("a.jsonl.gz", lambda: gzip.compress(b'{"a": "%s"}\n' % (b"x" * 989) * 40_000, 1), 40_000),
    "gzip in many streams": ("a.jsonl.gz", lambda: gzip.compress(b"1\n") * 2_000, 2_000),
    "zip of many members": ("a.zip", lambda: _zip(*((f"{n}.jsonl", b"1\n") for n in range(2_000))), 2_000),
    "Parquet of many like texts": ("a.parquet", lambda: _repeated("x" * 1_000, 20_000), 20_000),
    "CSV of 100,000 columns": ("a.csv", lambda: (b",".join(b"%d" % n for n in range(100_000)) + b"\n") * 3, 2),
    "CSV with lines in cells": ("a.csv", lambda: b"a,b\n" + b'1,"x\ny"\n' * 10_000, 10_000),
    "JSON of 500 levels": ("a.jsonl", lambda: b"[" * 500 + b"]" * 500, 1),
    "a text of 10 MB": ("a.jsonl", lambda: b'"' + b"x" * (10 * MEGABYTE) + b'"', 1),
    "a number of 1,000 digits": ("a.jsonl", lambda: b"1" * 1_000, 1),
    "the same key again and again": ("a.jsonl", lambda: b"{" + b'"a": 1, ' * 100_000 + b'"a": 1}', 1),
    "UTF-16 with its mark": ("a.csv", lambda: "a,b\n1,2\n".encode("utf-16"), 1),
}


JSON, CSV = "application/json", "text/csv"


def _around(text: bytes) -> bytes:
    """A page of one record, and something beside it."""
    return b'{"items": [{"id": 1}], "more": ' + text + b"}"


ANSWER_BOMBS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "JSON around the records without a bottom": (JSON, lambda: _around(b"[" * 10 * MEGABYTE), "invalid_answer"),
    "JSON in the records without a bottom": (JSON, lambda: b'{"items": ' + b"[" * 20 * MEGABYTE, "invalid_answer"),
    "millions of tiny arrays": (JSON, lambda: _around(b"[" + b"[]," * 7 * MEGABYTE + b"[]]"), "page_too_large"),
    "gzip of nothing but space": (
        f"{JSON}; gzip", lambda: gzip.compress(b" " * (200 * MEGABYTE), 1), "page_too_large"
    ),
    "a number without an end": (JSON, lambda: _around(b"1" * 10 * MEGABYTE), "invalid_answer"),
    "a cursor without an end": (
        JSON, lambda: b'{"items": [], "next": "' + b"x" * (10 * MEGABYTE) + b'"}', "invalid_answer"
    ),
    "a text without an end": (JSON, lambda: b'{"items": ["' + b"x" * (20 * MEGABYTE) + b'"]}', "invalid_answer"),
    "CSV with one endless cell": (CSV, lambda: b'id,b\n1,"' + b"x" * (40 * MEGABYTE), "invalid_answer"),
    "CSV of one endless line": (CSV, lambda: b"," * (15 * MEGABYTE), "invalid_answer"),
}  # fmt: skip
"""Type, body, and the code of the failed job."""

ANSWER_REJECTS: dict[str, tuple[str, Callable[[], bytes], set[str]]] = {
    "a record that is too deep": (
        JSON, lambda: b'{"items": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", {"not_storable"}
    ),
    "a record of one endless number": (JSON, lambda: b'{"items": [' + b"1" * MEGABYTE + b"]}", {"not_storable"}),
}  # fmt: skip

HONEST_ANSWERS: dict[str, tuple[str, Callable[[], bytes], int]] = {
    "JSON of 500 levels, around and within": (
        JSON, lambda: b'{"items": [%b], "more": %b}' % ((b"[" * 500 + b"]" * 500,) * 2), 1
    ),
    "a million tiny arrays": (JSON, lambda: _around(b"[" + b"[]," * MEGABYTE + b"[]]"), 1),
    "100,000 records of next to nothing": (JSON, lambda: b'{"items": [' + b"[]," * 99_999 + b"[]]}", 100_000),
    "gzip of 40 MB": (
        f"{JSON}; gzip", lambda: gzip.compress(b'{"items": ["%b"]}' % b'","'.join([b"x" * 997] * 40_000), 1), 40_000
    ),
    "numbers of 1,000 and of 300 digits": (
        JSON, lambda: b'{"items": [%b], "more": %b}' % (b"1" * 1_000, b"1" * 300), 1
    ),
    "a text of 5 MB": (JSON, lambda: b'{"items": ["' + b"x" * (5 * MEGABYTE) + b'"]}', 1),
    "CSV with a cell of 10 MB": (CSV, lambda: b'id,b\n1,"' + b"x" * (10 * MEGABYTE) + b'"\n', 1),
}  # fmt: skip

MOST_OWN_BYTES = 64 * 1024 * 1024
"""What the job's process may take while it has an answer read and lands what is good: some of its largest records."""


class _Watch:
    """The most that any reader took, in bytes, what this process took beyond what it had, and the seconds."""

    def __enter__(self) -> Self:
        self.peak, self._stop = 0, threading.Event()
        # The kernel's own mark (proc_pid_clear_refs(5)): while a parser in C works, nobody here could look.
        Path("/proc/self/clear_refs").write_text("5")
        self._had = self._of("self", "VmRSS:")
        self._thread = threading.Thread(target=self._run)
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        self.own = self._of("self", "VmHWM:") - self._had
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            for pid in readers_now():
                with suppress(OSError, StopIteration):
                    self.peak = max(self.peak, self._of(pid, "VmHWM:"))

    def _of(self, pid: int | str, what: str) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_itself(source, name):
    """Typed rejects, bounded memory; what stands before and behind it lands."""
    path, make, codes = BOMBS[name]
    source.shelf.files = {"0.jsonl": b"1\n2\n", path: make(), "z.jsonl": b"3\n"}
    with _Watch() as watch:
        ended = source.sync()
    print(f"{name}: {watch.peak / 2**20:.0f} MiB, {watch.seconds:.1f} s")
    assert ended.status == "partially_succeeded"
    assert {reject["code"] for reject in source.rejects()} == codes
    assert (source.data()["0.jsonl"], source.data()["z.jsonl"]) == (["1", "2"], ["3"])
    assert watch.peak < MOST_BYTES


@pytest.mark.parametrize("name", HONEST)
def test_its_honest_twin_is_brought_in(source, name):
    """Whole, and without a reject."""
    path, make, count = HONEST[name]
    source.shelf.files = {path: make()}
    with _Watch() as watch:
        ended = source.sync()
    print(f"{name}: {watch.peak / 2**20:.0f} MiB, {watch.seconds:.1f} s")
    assert (ended.status, ended.counters["landed"]) == ("succeeded", count), json.dumps(ended.error_summary)
    assert watch.peak < MOST_BYTES


@pytest.fixture
def api_source(database, connection, working, organization, master_key_file) -> Iterator[ApiSource]:
    """A source of an API whose pages follow cursors."""
    with api_stub.running() as api:
        source = new_api_source(database, connection, working, organization, master_key_file, api)
        source.config = {"records_path": "items", "pagination": {"type": "cursor", "cursor_path": "next"}}
        source.configure()
        yield source


def _answering(source: ApiSource, media: str, body: bytes) -> None:
    """From now on that is what the API says; the source is set up for it."""
    plain, _, packed = media.partition("; ")
    source.config["pagination"] = {"type": "none"} if plain == CSV else {"type": "cursor", "cursor_path": "next"}
    source.configure()
    headers = {"Content-Type": plain} | ({"Content-Encoding": packed} if packed else {})
    source.api.answer = lambda _: Reply(body, headers=headers)


def _watched(source: ApiSource, name: str, media: str, body: bytes) -> tuple[Any, _Watch]:
    _answering(source, media, body)
    with _Watch() as watch:
        ended = source.sync()
    print(f"{name}: {watch.peak / 2**20:.0f} MiB, own {watch.own / 2**20:.0f} MiB, {watch.seconds:.1f} s")
    assert watch.peak < MOST_BYTES
    assert watch.own < MOST_OWN_BYTES
    return ended, watch


def _works_again(source: ApiSource) -> None:
    """The next job runs, in the same process."""
    _answering(source, JSON, b'{"items": [{"id": 7}]}')
    assert source.sync().status == "succeeded"
    assert source.values() == [{"id": 7}]


@pytest.mark.parametrize("name", ANSWER_BOMBS)
def test_an_answer_that_is_a_bomb_ends_its_job(api_source, name):
    """With a typed error, in bounded memory, here and in the reader."""
    media, make, code = ANSWER_BOMBS[name]
    ended, _ = _watched(api_source, name, media, make())
    assert (ended.status, ended.code) == ("failed", code)
    assert api_source.items() == []
    _works_again(api_source)


@pytest.mark.parametrize("name", ANSWER_REJECTS)
def test_a_record_that_is_a_bomb_costs_itself(api_source, name):
    """As in files: a typed reject."""
    media, make, codes = ANSWER_REJECTS[name]
    ended, _ = _watched(api_source, name, media, make())
    assert ended.status == "partially_succeeded"
    assert {reject["code"] for reject in api_source.rejects()} == codes
    _works_again(api_source)


@pytest.mark.parametrize("name", HONEST_ANSWERS)
def test_the_honest_twin_of_an_answer_is_brought_in(api_source, name):
    """Whole, and without a reject."""
    media, make, count = HONEST_ANSWERS[name]
    ended, _ = _watched(api_source, name, media, make())
    assert (ended.status, ended.counters["landed"]) == ("succeeded", count), json.dumps(ended.error_summary)
