"""Parquet, and which format a name means."""

import gzip
import io
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_worker.sync.formats import parquet
from headwater_worker.sync.formats.choice import format_of, is_format


def _parquet(**columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


_TEXT = st.text(st.sampled_from([*'ab,"\\\n\0\x1e\x1f', "é", "😀"]), max_size=4)
_KINDS = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.string(): _TEXT,
}


@st.composite
def _batches(draw):
    """Batches, also slices of larger ones, whose names may come twice, and cells seldom be missing."""
    names = draw(st.lists(_TEXT, min_size=1, max_size=4))
    rows, begin = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    columns = []
    for _ in names:
        kind = draw(st.sampled_from([*_KINDS]))
        cells = draw(st.lists(_KINDS[kind], min_size=begin + rows, max_size=begin + rows))
        if draw(st.integers(0, 9)) == 9:
            cells[-1] = None
        columns.append(pa.array(cells, kind))
    return pa.RecordBatch.from_arrays(columns, names).slice(begin)


@given(batch=_batches())
@settings(max_examples=500, deadline=None)
def test_parquet_by_column_as_row_by_row(batch):
    """Records, their values, and whether they are suspect."""
    together, alone = parquet._block(batch, parsed=True), parquet._odd_block(batch, parsed=True)
    assert [*map(repr, together.entries)] == [*map(repr, alone.entries)]
    assert together.suspect == alone.suspect


def test_parquet_values_become_json(parse):
    """Exact decimals, moments, bytes and nested values."""
    body = _parquet(
        d=pa.array([Decimal("12345678901234567890.10")]),
        t=pa.array([datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)], pa.timestamp("ns", tz="UTC")),
        day=[date(2024, 1, 2)],
        b=[b"\xff\x00"],
        s=[{"x": [1, None]}],
        n=[float("nan")],
    )
    assert parse("a.parquet", body).records == [
        (
            None,
            '{"d":12345678901234567890.10,"t":"2024-01-02T03:04:05.678901+00:00","day":"2024-01-02",'
            '"b":"/wA=","s":{"x":[1,null]},"n":null}',
        )
    ]


def test_parquet_in_gzip_is_read(parse):
    """A compressed Parquet file is decompressed on its way to disk."""
    assert parse("a.parquet.gz", gzip.compress(_parquet(a=[1, 2]))).records == [(None, '{"a":1}'), (None, '{"a":2}')]


def test_broken_parquet_is_broken(parse):
    """A file that is none, and one whose middle is damaged."""
    good = _parquet(a=list(range(10_000)))
    for body in (b"no Parquet at all", good[: len(good) // 2], b""):
        assert parse("a.parquet", body).broken is not None


def test_arrow_is_loaded_with_the_first_parquet_file_only():
    """The parent of the worker's processes imports the sync engine and must not have Arrow."""
    script = "import sys; import headwater_worker.handlers.sync; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("path", "named", "name", "compression"),
    [
        ("a/b.CSV", None, "csv", None),
        ("b.tsv.gz", None, "csv", "gz"),
        ("b.csv.ZST", None, "csv", "zst"),
        ("b.json.zstd", None, "json", "zst"),
        ("b.jsonl.bz2", None, "jsonl", "bz2"),
        ("b.parquet.bz2", None, "parquet", "bz2"),
        ("b.zip", None, "zip", None),
        ("b.csv.zip", None, "zip", None),
        ("b.ndjson", None, "jsonl", None),
        ("b.txt.gz", None, "plain", None),
        ("b.txt.zst", None, "plain", None),
        ("csv", None, "plain", None),
        ("zip", None, "plain", None),
        ("dir.csv/b", None, "plain", None),
        ("b.log.gz", "jsonl", "jsonl", "gz"),
        ("b.log", "jsonl.gz", "jsonl", "gz"),
        ("b.log", "csv.zstd", "csv", "zst"),
        ("b.dat", "zip", "zip", None),
        ("b.zip", "csv", "zip", None),
        ("b.csv", "plain", "plain", None),
    ],
)
def test_names_say_the_format(path, named, name, compression):
    """By extension, in any case, with that of a compression looked through; what the user says wins."""
    found = format_of(path, named)
    assert (found.name, found.compression) == (name, compression)


@pytest.mark.parametrize(
    ("named", "known"),
    [
        *(
            (name, True)
            for name in ("csv", "tsv", "ndjson", "jsonl.zst", "csv.zstd", "json.bz2", "csv.zip", "zip", "plain")
        ),
        *((name, False) for name in ("", "docx", "zip.gz", "plain.gz", "csv.gz.gz", "csv.", ".gz", "CSV")),
    ],
)
def test_what_users_may_call_a_format(named, known):
    """The names that extensions have, each with one compression or none."""
    assert is_format(named) is known
