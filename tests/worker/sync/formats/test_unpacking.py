"""Gzip, bzip2 and Zstandard: stream after stream, cut anywhere, damaged anywhere, however well they are packed."""

import bz2
import csv
import gzip
import io
import itertools
import json
import subprocess
import sys
import textwrap

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.errors import ConnectorError
from headwater_worker.sync.formats.base import Source, Unreadable
from headwater_worker.sync.formats.unpacking import unpacked

_RECORDS = st.lists(st.fixed_dictionaries({"a": st.text("aé🗼 \n,;\"'x", max_size=9), "b": st.text("01b", min_size=1)}))
_MANY = "".join(f'{{"id": {n}, "square": {n * n}}}\n' for n in range(30_000)).encode()


def _zstd(body):
    return pa.Codec("zstd").compress(body, asbytes=True)


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "zst": _zstd, "zstd": _zstd}
_SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"


def _csv(records):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["a", "b"], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def _json_lines(records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def _parquet(records):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records, pa.schema([("a", pa.string()), ("b", pa.string())])), buffer)
    return buffer.getvalue()


_WRITE = {
    "csv": _csv,
    "json": lambda records: json.dumps(records).encode(),
    "jsonl": _json_lines,
    "parquet": _parquet,
}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("name", _WRITE)
@given(records=_RECORDS, most=st.integers(1, 300), streams=st.integers(1, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10)
def test_what_is_packed_is_read(parse, name, packing, records, most, streams):
    """Every format in every compression, as one stream or several, in pieces of any size."""
    body = _WRITE[name](records)
    cuts = [len(body) * n // streams for n in range(streams + 1)]
    packed = b"".join(PACK[packing](body[begin:end]) for begin, end in itertools.pairwise(cuts))
    parsed = parse(f"a.{name}.{packing}", packed, most=most, schema={}, delimiter=",")
    assert (parsed.values, parsed.refused, parsed.broken) == (records, [], None)


@pytest.mark.parametrize("packing", ["gz", "bz2", "zst"])
@given(at=st.floats(0, 1, exclude_max=True), most=st.integers(500, 100_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
def test_a_cut_file_keeps_what_came_before(parse, packing, at, most):
    """Records before the cut are read, and the break has its line; a cut second stream costs none of the first."""
    first, second = PACK[packing](_MANY), PACK[packing](_MANY)
    body = (first + second)[: int(at * len(first + second))]
    parsed = parse(f"a.jsonl.{packing}", body, most=most)
    texts = [text for _, text in parsed.records]
    assert texts == (_MANY * 2).decode().splitlines()[: len(texts)]
    if len(body) == len(first):
        return
    assert parsed.broken is not None
    assert parsed.broken.code == "unreadable_file"
    assert len(texts) >= (30_000 if len(body) > len(first) else 0)
    if body:
        assert parsed.broken.line == len(texts) + 1


def test_a_cut_in_the_middle_of_many_blocks_keeps_most(parse):
    """Half of the packed bytes give about half of the records, in each compression but for its last block."""
    for packing, pack in PACK.items():
        body = pack(_MANY * 5)
        parsed = parse(f"a.jsonl.{packing}", body[: len(body) // 2])
        assert 30_000 < len(parsed.records) < 120_000, packing
        assert parsed.broken is not None


@pytest.mark.parametrize("packing", ["gz", "bz2", "zst"])
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
def test_damage_is_a_break_and_never_a_crash(parse, packing, at, flip):
    """Any byte, flipped anyhow, in the second of two streams: all of the first is read."""
    first, second = PACK[packing](_MANY), bytearray(PACK[packing](_MANY[:100_000]))
    second[int(at * len(second))] ^= flip
    parsed = parse(f"a.jsonl.{packing}", first + bytes(second))
    # The last piece, 64 KiB, may go with the damage.
    assert len(parsed.records) >= (30_000 if packing == "zst" else 27_000)
    assert parsed.broken is None or parsed.broken.code in ("unreadable_file", "unsupported_compression")


@pytest.mark.parametrize("packing", ["gz", "bz2", "zst"])
@pytest.mark.parametrize("what", ["nothing", "something else", "rubbish behind the end"])
def test_what_is_not_packed_is_broken(parse, packing, what):
    """An empty file, another format and rubbish behind the end."""
    good = PACK[packing](b"1\n")
    body = {"nothing": b"", "something else": b"1\n2\n", "rubbish behind the end": good + b"rubbish"}[what]
    parsed = parse(f"a.jsonl.{packing}", body)
    assert parsed.broken is not None
    assert len(parsed.records) == what.startswith("rubbish")


@pytest.mark.parametrize("packing", ["gz", "bz2"])
def test_padding_with_zeros_is_read_over(parse, packing):
    """As tapes and some tools leave it, in front of another stream, too."""
    for most in (1, 1000):
        body = PACK[packing](b"1\n") + bytes(100) + PACK[packing](b"2\n") + bytes(300_000)
        parsed = parse(f"a.jsonl.{packing}", body, most=most)
        assert (parsed.values, parsed.broken) == ([1, 2], None)


def _raw_frame(blocks):
    """A frame (RFC 8878, 3.1.1) of stored blocks, none of them the last."""
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join((len(block) << 3).to_bytes(3, "little") + block for block in blocks)


@given(size=st.integers(1, 4000), count=st.integers(1, 200), tail=st.sampled_from(["cut", "damage"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_whole_blocks_before_a_break_are_read(size, count, tail):
    """Every byte of them, although Arrow throws them away with the read that fails."""
    body = bytes(n % 251 for n in range(size)) * count
    blocks = [body[at : at + size] for at in range(0, len(body), size)]
    packed = _raw_frame(blocks) + {"cut": b"", "damage": b"\x07\xff\xff"}[tail]
    source, pieces = unpacked(Source(io.BytesIO(packed)), "zst"), []
    with pytest.raises(Unreadable):
        pieces.extend(iter(lambda: source.read(65_536), b""))
    assert b"".join(pieces) == body


def test_skippable_frames_are_skipped(parse):
    """Parallel compressors write them between frames."""
    body = _SKIPPABLE + _zstd(b"1\n") + _SKIPPABLE + _zstd(b"2\n") + _SKIPPABLE
    parsed = parse("a.jsonl.zst", body, most=3)
    assert (parsed.values, parsed.broken) == ([1, 2], None)


@pytest.mark.parametrize(
    ("header", "word"),
    [
        (b"\x28\xb5\x2f\xfd\x00\x90", "window"),  # 256 MiB
        (b"\x28\xb5\x2f\xfd\x01\x50\x07", "dictionary"),
    ],
)
def test_frames_that_ask_for_too_much_are_refused(parse, header, word):
    """A window beyond 128 MiB and a dictionary have a code of their own, and a way out."""
    broken = parse("a.jsonl.zst", _zstd(b"1\n") + header + b"\x01\0\0").broken
    assert broken.code == "unsupported_compression"
    assert word in broken.message


def test_compressed_data_that_hold_nothing_end_the_file(parse):
    """Skippable frames of any size are no way to fill the memory."""
    body = _zstd(b"1\n") + b"\x50\x2a\x4d\x18" + (40 << 20).to_bytes(4, "little") + bytes(40 << 20)
    parsed = parse("a.jsonl.zst", body)
    assert parsed.values == [1]
    assert parsed.broken.code == "unsupported_compression"


class _BreaksDown:
    """A stream whose connection is lost."""

    def __init__(self, body):
        self._body = io.BytesIO(body)

    def read(self, size=-1, /):
        data = self._body.read(size)
        if not data:
            raise ConnectorError("gone")
        return data

    def close(self):
        pass


@pytest.mark.parametrize("packing", ["gz", "bz2", "zst"])
def test_a_lost_connection_is_no_break_of_the_file(packing):
    """What the connector raises comes through as it is, after what came before it."""
    body = PACK[packing](_MANY)
    source = unpacked(Source(_BreaksDown(body[: len(body) * 2 // 3])), packing)
    pieces = []
    with pytest.raises(ConnectorError):
        pieces.extend(iter(lambda: source.read(1000), b""))
    assert sum(map(len, pieces)) > len(_MANY) // 4 or packing == "bz2"


@pytest.mark.parametrize("packing", ["gz", "bz2", "zst"])
@given(size=st.integers(1, 5000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10)
def test_a_read_gives_at_most_what_was_asked_for(packing, size):
    """However well it was packed."""
    source = unpacked(Source(io.BytesIO(PACK[packing](bytes(100_000)))), packing)
    read = 0
    while data := source.read(size):
        assert len(data) <= size
        read += len(data)
    assert read == 100_000


def test_every_read_after_a_break_is_a_break():
    """A reader that asks again learns the same."""
    source = unpacked(Source(io.BytesIO(_zstd(b"1\n")[:-1])), "zst")
    for _ in range(3):
        with pytest.raises(Unreadable):
            list(iter(lambda: source.read(10), b""))


_BOMB = textwrap.dedent(
    """
    import bz2, gzip, resource, sys, time
    import pyarrow as pa
    from headwater_worker.sync.formats import choice
    from headwater_worker.sync.formats.base import Options, Source

    (packing,) = sys.argv[1:]
    SIZE, STREAM = 10_000_000_000, 10_000_000
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "zst": lambda body: pa.Codec("zstd").compress(body, asbytes=True)}
    stream = pack[packing](bytes(STREAM))

    class Bomb:
        def __init__(self):
            self.left = SIZE // STREAM

        def read(self, size=-1, /):
            if not self.left:
                return b""
            self.left -= 1
            return stream

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    def run(seconds):
        began, bomb = time.monotonic(), Bomb()
        for _ in choice.format_of(f"a.jsonl.{packing}").blocks(Source(bomb), Options()):
            if time.monotonic() - began > seconds:
                break
        return (SIZE - bomb.left * STREAM) / 1e9, time.monotonic() - began

    run(1.0)
    before = peak()
    gigabytes, seconds = run(5.0)
    print(f"{packing}: {gigabytes:.1f} of 10 GB in {seconds:.1f} s, peak {before} MiB, then", file=sys.stderr)
    print(peak() - before)
    """
)


@pytest.mark.parametrize("packing", ["gz", "bz2", "zst"])
def test_ten_gigabytes_of_zeros_are_read_in_flat_memory(packing):
    """Five seconds of a bomb take as much memory as one second of it, and a piece is never long in coming."""
    command = [sys.executable, "-c", _BOMB, packing]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    print(done.stderr.strip(), f"{done.stdout.strip()} MiB more")
    assert int(done.stdout) < 20, done.stderr
