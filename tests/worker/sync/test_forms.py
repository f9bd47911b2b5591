"""Compressed forms, archives and CSV dialects through whole syncs: what is kept, what a reject says."""

import bz2
import gzip
import io
import zipfile

import pyarrow as pa

from .conftest import spoil


def _zip(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def _read_as(source):
    return {row["path"]: row["csv"] for row in source.catalogue()}


def test_every_compression_becomes_items(source):
    """The item's path is the file's."""
    source.shelf.files = {
        "a.jsonl.gz": gzip.compress(b'{"n": 1}\n'),
        "b.jsonl.bz2": bz2.compress(b'{"n": 2}\n'),
        "c.jsonl.zst": pa.Codec("zstd").compress(b'{"n": 3}\n', asbytes=True),
        "d.zip": _zip({"y.jsonl": b'{"n": 4}\n', "x.csv": b"n\n5\n"}),
    }
    assert source.sync().status == "succeeded"
    assert source.data() == {
        "a.jsonl.gz": ['{"n": 1}'],
        "b.jsonl.bz2": ['{"n": 2}'],
        "c.jsonl.zst": ['{"n": 3}'],
        "d.zip": ['{"n": "5"}', '{"n": 4}'],
    }


def test_a_reject_says_which_member(source):
    """Record numbers run through all members; lines are those of the member."""
    source.configure(validation={"schema": {"properties": {"n": {"type": "integer"}}}})
    source.shelf.files["a.zip"] = _zip(
        {
            "a.jsonl": b'{"n": 1}\n{"n": "x"}\n',
            "b.jsonl": b'\n{"n": 2}\nnonsense\n',
            "c.zip": b"",
            "d.jsonl": b'{"n": 3}\n',
        }
    )
    ended = source.sync()
    assert ended.status == "partially_succeeded"
    assert [(r["code"], r["record_number"], r["line"], r["message"][:12]) for r in source.rejects()] == [
        ("schema_mismatch", 2, 2, 'In "a.jsonl"'),
        ("invalid_json", 4, 3, 'In "b.jsonl"'),
        ("nested_archive", None, None, 'In "c.zip": '),
    ]
    assert [item["record_number"] for item in source.items()] == [1, 3, 5]
    assert {entry["samples"][0]["message"][:4] for entry in ended.error_summary} == {'In "'}


def test_what_only_postgres_refuses_says_which_member(source, monkeypatch):
    """Also when it is found after the next member has begun."""
    spoil(monkeypatch)
    members = {"a.jsonl": b'{"n": 1}\n{"n": "\\u0001"}\n', "b.jsonl": b'{"n": 2}\n'}
    source.shelf.files["a.zip"] = _zip(members)
    source.sync()
    assert [(r["code"], r["record_number"], r["message"][:12]) for r in source.rejects()] == [
        ("not_storable", 2, 'In "a.jsonl"')
    ]


def test_a_cut_file_of_every_compression_is_a_reject(source):
    """What came before the cut is there, and the file is asked for again only when it has changed."""
    body = "".join(f'{{"n": {n}}}\n' for n in range(300_000)).encode()
    packed = {
        "a.jsonl.gz": gzip.compress(body),
        "b.jsonl.zst": pa.Codec("zstd").compress(body, asbytes=True),
        "c.jsonl.bz2": bz2.compress(body),
    }
    source.shelf.files = {path: data[: len(data) * 2 // 3] for path, data in packed.items()}
    assert source.sync().status == "partially_succeeded"
    assert [(r["path"], r["code"]) for r in source.rejects()] == [(path, "unreadable_file") for path in packed]
    for row in source.catalogue():
        assert row["item_count"] > 100_000
    assert source.sync().counters["unchanged"] == 3


def test_how_a_csv_file_was_read_is_in_the_catalogue(source):
    """Delimiter, encoding and header; null for what is no CSV or was not read yet."""
    source.shelf.files = {"a.csv": "name;x\nZürich;1\n".encode("cp1252"), "b.jsonl": b"1\n"}
    source.sync()
    assert _read_as(source) == {"a.csv": {"delimiter": ";", "encoding": "cp1252", "header": True}, "b.jsonl": None}


def test_a_dialect_is_found_once_and_kept(source):
    """The next version is read alike, and the one after it; what the user says is not kept when it is taken back."""
    source.shelf.files["a.csv"] = b"a;b\n1;2\n"
    source.sync()
    ambiguous = b"a;b,c,d\n1;2,3,4\n"
    for body in (ambiguous, ambiguous + b"5;6,7,8\n"):
        source.shelf.files["a.csv"] = body
        source.sync()
        assert source.data()["a.csv"][0] == '{"a": "1", "b,c,d": "2,3,4"}'
    source.configure(csv={"delimiter": ";"})
    source.sync()
    assert _read_as(source)["a.csv"]["delimiter"] == ";"
    source.configure()
    source.sync()
    assert _read_as(source)["a.csv"]["delimiter"] == ","


def test_formats_may_be_named_with_their_compression(source):
    """For files whose names say nothing."""
    source.configure(format="jsonl.gz")
    source.shelf.files["part-00000"] = gzip.compress(b'{"n": 1}\n')
    assert source.sync().status == "succeeded"
    assert source.data() == {"part-00000": ['{"n": 1}']}
    source.configure(format="docx")
    assert source.sync().code == "config_invalid"
