"""ZIP archives: members by name, each on its own, nothing written anywhere."""

import bz2
import contextlib
import gzip
import io
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater_worker.sync.formats.base import Options, Source
from headwater_worker.sync.formats.choice import format_of

METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]


def _zip(members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return buffer.getvalue()


def _patched(body, method):
    """An archive of one stored member, with the method of its member changed in both headers."""
    directory = body.index(b"PK\1\2")
    packed = struct.pack("<H", method)
    return body[:8] + packed + body[10 : directory + 10] + packed + body[directory + 12 :]


def _parquet(**columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("method", METHODS)
def test_members_are_read_by_name(parse, method):
    """In the order of their names, each in its own format, compressed once more or not; the others are counted."""
    body = _zip(
        [
            ("z/last.jsonl", b'{"n": 6}\n'),
            ("b.csv", b"n\n3\n"),
            ("a.jsonl", b'{"n": 1}\n{"n": 2}\n'),
            ("c.json.gz", gzip.compress(b'[{"n": 4}]')),
            ("d.parquet", _parquet(n=[5])),
            ("readme.txt", b"not data"),
            ("folder/", b""),
            ("__MACOSX/._a.jsonl", b"resource fork"),
        ],
        method,
    )
    for most in (50, 1 << 20):
        parsed = parse("a.zip", body, most=most, schema={"properties": {"n": {"type": "integer"}}})
        assert [value["n"] for value in parsed.values] == [1, 2, 3, 4, 5, 6]
        assert parsed.members == ["a.jsonl", "a.jsonl", "b.csv", "c.json.gz", "d.parquet", "z/last.jsonl"]
        assert parsed.details["members"] == {"read": 5, "refused": 0, "passed_over": 1}
        assert (parsed.broken, parsed.faults) == (None, [])


@given(
    bodies=st.dictionaries(
        st.text("abc/é", min_size=1).map(lambda name: f"x{name}.jsonl"),
        st.lists(st.integers(-(2**63), 2**63 - 1)),
        max_size=5,
    ),
    method=st.sampled_from(METHODS),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_what_is_packed_is_read(parse, bodies, method):
    """Any names, any records, every method."""
    body = _zip([(name, "".join(f"{n}\n" for n in numbers)) for name, numbers in bodies.items()], method)
    parsed = parse("a.zip", body)
    assert parsed.values == [n for name in sorted(bodies) for n in bodies[name]]
    assert parsed.broken is None


def test_a_zstd_member_is_read(parse):
    """Method 93, which newer tools write."""
    plain = b'{"n": 1}\n'
    packed = pa.Codec("zstd").compress(plain, asbytes=True)
    body = bytearray(_patched(_zip([("a.jsonl", packed)], zipfile.ZIP_STORED), 93))
    directory = body.index(b"PK\1\2")
    body[directory + 16 : directory + 20] = struct.pack("<I", zlib.crc32(plain))
    body[directory + 24 : directory + 28] = struct.pack("<I", len(plain))
    parsed = parse("a.zip", bytes(body))
    assert (parsed.values, parsed.faults) == ([{"n": 1}], [])


def test_the_user_may_say_what_the_members_are(parse):
    """`csv` for every file is for every member, too, and `csv.zip` and `zip` are formats."""
    body = _zip([("one.dat", b"n\n1\n"), ("two.txt", b"n\n2\n")])
    for path, named in (("a.zip", "csv"), ("a.bin", "csv.zip")):
        assert parse(path, body, named=named).values == [{"n": "1"}, {"n": "2"}]
    assert parse("a.bin", _zip([("a.csv", b"n\n1\n")]), named="zip").values == [{"n": "1"}]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("../up.csv", "unsafe_member_name"),
        ("a/../../up.csv", "unsafe_member_name"),
        ("/etc/rooted.csv", "unsafe_member_name"),
        ("C:\\drive.csv", "unsafe_member_name"),
        ("a\\..\\up.csv", "unsafe_member_name"),
        ("\\\\host\\share.csv", "unsafe_member_name"),
        ("inner.zip", "nested_archive"),
        ("inner.tar.gz", "nested_archive"),
        ("INNER.7Z", "nested_archive"),
    ],
)
def test_names_that_are_refused(parse, name, code):
    """Each costs itself; the others are read. Two dots within a name are no harm."""
    parsed = parse("a.zip", _zip([(name, b"n\n1\n"), ("good..name.csv", b"n\n2\n")]))
    assert parsed.values == [{"n": "2"}]
    assert parsed.faults == [(name, code)]


def test_encrypted_members_are_refused(parse):
    """There is no password to try."""
    body = bytearray(_zip([("a.csv", b"n\n1\n")]))
    directory = body.index(b"PK\1\2")
    body[6] |= 1
    body[directory + 8] |= 1
    parsed = parse("a.zip", bytes(body))
    assert (parsed.records, parsed.faults) == ([], [("a.csv", "encrypted_member")])


@pytest.mark.parametrize("method", [9, 14, 98])
def test_unknown_methods_are_refused(parse, method):
    """Deflate64, LZMA (whose window the member itself would choose) and PPMd."""
    parsed = parse("a.zip", _patched(_zip([("a.csv", b"n\n1\n")], zipfile.ZIP_STORED), method))
    assert (parsed.records, parsed.faults) == ([], [("a.csv", "unsupported_compression")])


def test_an_absurd_ratio_is_refused(parse):
    """More than 500 times the size: for a member, and for the archive as a whole if its members share their bytes."""
    bomb = _zip([("a.csv", bytes(70 << 20)), ("b.csv", b"n\n1\n")])
    noise = _zip([("noise.bin", bytes(range(256)) * 4000)], zipfile.ZIP_STORED)
    with io.BytesIO(noise) as buffer:
        with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.csv", bytes(70 << 20))
            archive.writestr("b.csv", b"n\n1\n")
        wide = buffer.getvalue()
    assert parse("a.zip", bomb).broken.code == "absurd_ratio"
    parsed = parse("a.zip", wide)
    assert (parsed.values, parsed.faults, parsed.broken) == ([{"n": "1"}], [("a.csv", "absurd_ratio")], None)


def test_a_damaged_member_costs_itself(parse):
    """What is whole of it is read, and the members behind it are."""
    lines = b"".join(b"%d\n" % (n * n) for n in range(50_000))
    body = bytearray(_zip([("a.jsonl", lines), ("b.jsonl", b"7\n")], zipfile.ZIP_STORED))
    body[200_000:200_003] = b"xyz"
    parsed = parse("a.zip", bytes(body))
    assert parsed.values[-1] == 7
    assert len(parsed.values) >= 49_998
    assert parsed.faults == [("a.jsonl", "unreadable_file")]


def test_a_member_longer_than_it_says_is_cut(parse):
    """The directory's size is what the ratio was judged by."""
    body = bytearray(_zip([("a.jsonl", b"1\n" * 100_000)]))
    directory = body.index(b"PK\1\2")
    body[directory + 24 : directory + 28] = struct.pack("<I", 10)
    parsed = parse("a.zip", bytes(body))
    assert (parsed.records, parsed.faults) == ([], [("a.jsonl", "unreadable_file")])


@pytest.mark.parametrize("body", [b"", b"no archive", _zip([("a.csv", b"n\n1\n")])[:-10]])
def test_what_is_no_archive_is_broken(parse, body):
    """Nothing, something else, and an archive without its end."""
    assert parse("a.zip", body).broken.code == "unreadable_file"


def test_an_archive_without_records_says_so(parse):
    """It is neither an empty success nor an item; an empty archive is as an empty file."""
    broken = parse("a.zip", _zip([("a.txt", b"x")])).broken
    assert broken.code == "no_records_in_archive"
    assert "`plain`" in broken.message
    assert parse("a.zip", _zip([])).broken is None


def test_too_many_members_are_refused(parse):
    """By their number, and before that by the size of the directory that Python would keep."""
    assert parse("a.zip", _zip([(f"{n}.csv", b"") for n in range(10_001)])).broken.code == "too_many_members"
    long = [(f"{n:01000}.csv", b"") for n in range(4_200)]
    assert parse("a.zip", _zip(long)).broken.code == "too_many_members"


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_damage_is_never_a_crash(parse, data):
    """Any few bytes, flipped or cut off."""
    members = [("a.csv", b"n\n1\n"), ("b.jsonl.bz2", bz2.compress(b"1\n")), ("c.json", b"[1, 2]")]
    body = bytearray(_zip(members, data.draw(st.sampled_from(METHODS))))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    body = body[: data.draw(st.integers(len(body) - 60, len(body)))]
    parsed = parse("a.zip", bytes(body))
    assert parsed.broken is None or parsed.broken.code


def _spools(folder):
    """Files without a name, or with one, that this process holds open in `folder`."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            targets.append(str(descriptor.readlink()))
    return [target for target in targets if target.startswith(str(folder))]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_the_copy_on_disk_is_gone_whatever_happens(parse, tmp_path, monkeypatch):
    """It never has a name, and is closed after a whole archive, a broken one, and one that is given up half-way."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    body = _zip([("a.csv", b"n\n1\n")])
    parse("a.zip", body)
    parse("a.zip", b"no archive")
    assert _spools(tmp_path) == []
    blocks = format_of("a.zip").blocks(Source(io.BytesIO(body)), Options())
    assert any(block.entries for block in blocks)
    assert len(_spools(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []
    del blocks
    assert _spools(tmp_path) == []
