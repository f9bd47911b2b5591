"""The corpus: large and mixed enough, the same at every build, and with counts that its formats confirm."""

import bz2
import csv
import gzip
import io
import json
import zipfile
import zlib

import pyarrow as pa
import pyarrow.parquet
import pytest

from headwater_cli.demo import datasets
from headwater_cli.demo.files import DemoFile, totals

Corpus = tuple[DemoFile, ...]


def _body(file: DemoFile) -> bytes:
    if file.path.endswith(".zst"):
        with pa.CompressedInputStream(pa.BufferReader(file.body), "zstd") as stream:
            return bytes(stream.read())
    unpack = {"gz": gzip.decompress, "bz2": bz2.decompress}.get(file.path.rpartition(".")[2], bytes)
    return unpack(file.body)


def _text(file: DemoFile) -> str:
    body = _body(file)
    return body.decode("cp1252" if file.path == "odd/latin1.csv" else "utf-8-sig")


def _whole(corpus: Corpus, format_: str) -> list[DemoFile]:
    """Files of a format without anything broken."""
    return [f for f in corpus if f.format == format_ and not f.broken_file and not f.broken_lines and f.body]


def test_corpus_has_the_size_of_a_demo(corpus: Corpus) -> None:
    """At least 50 files and 100,000 records, in less than 60 MB."""
    sums = totals(corpus)

    assert sums.files >= 50
    assert sums.records >= 100_000
    assert sums.bytes < 60_000_000


def test_two_builds_give_the_same_bytes(corpus: Corpus) -> None:
    """A server started again shows the same etags, so nothing is read twice."""
    assert datasets.corpus() == corpus


def test_paths_are_unique(corpus: Corpus) -> None:
    """No file of the corpus hides another."""
    paths = [file.path for file in corpus]

    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(
    "ending",
    [
        ".csv",
        ".csv.gz",
        ".csv.bz2",
        ".json",
        ".json.gz",
        ".jsonl",
        ".jsonl.gz",
        ".jsonl.zst",
        ".zip",
        ".parquet",
        ".png",
        ".ics",
        ".xml",
        ".md",
    ],
)
def test_every_format_is_there(corpus: Corpus, ending: str) -> None:
    """At least one whole file of each kind that a sync has to know or to pass on."""
    assert any(f.path.endswith(ending) and not f.broken_file and not f.broken_lines for f in corpus)


def test_csv_counts_are_what_a_csv_reader_counts(corpus: Corpus) -> None:
    """Rows below the header, each as wide as the header."""
    for file in _whole(corpus, "csv"):
        header, *rows = csv.reader(io.StringIO(_text(file), newline=""))
        assert {len(row) for row in rows} <= {len(header)}, file.path
        assert len(rows) == file.records, file.path


def test_json_counts_are_what_a_json_reader_counts(corpus: Corpus) -> None:
    """Elements of an array; any other document is one record."""
    for file in _whole(corpus, "json"):
        document = json.loads(_body(file))
        assert (len(document) if isinstance(document, list) else 1) == file.records, file.path


def test_jsonl_counts_are_what_a_json_reader_counts(corpus: Corpus) -> None:
    """One record a line."""
    for file in _whole(corpus, "jsonl"):
        assert len([json.loads(line) for line in _body(file).splitlines()]) == file.records, file.path


def test_parquet_counts_are_what_its_footer_says(corpus: Corpus) -> None:
    """Rows by the metadata of each file."""
    for file in _whole(corpus, "parquet"):
        assert pa.parquet.read_metadata(pa.BufferReader(file.body)).num_rows == file.records, file.path


def test_broken_lines_cannot_be_read(corpus: Corpus) -> None:
    """Each line of the broken JSONL that is called broken is refused by a strict reader or by Postgres."""
    (file,) = [f for f in corpus if f.path == "broken/mixed.jsonl"]
    lines = file.body.splitlines()

    broken = tuple(number for number, line in enumerate(lines, 1) if not _storable(line))

    assert broken == file.broken_lines
    assert len(lines) - len(broken) == file.records


def _storable(line: bytes) -> bool:
    try:
        value = json.loads(line, parse_constant=_refuse, parse_float=_finite)
        text = json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return b"\\u0000" not in text and text.count(b"[") <= 500


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    return number if abs(number) != float("inf") else _refuse(text)


def test_a_file_in_latin1_is_whole_for_who_knows_it(corpus: Corpus) -> None:
    """It is no UTF-8, and every line of it is a record in Windows-1252."""
    (file,) = [f for f in corpus if f.path == "odd/latin1.csv"]

    with pytest.raises(UnicodeDecodeError):
        file.body.decode()
    assert "Zürich" in file.body.decode("cp1252")
    assert (file.records, file.broken_lines) == (len(file.body.splitlines()) - 1, ())


def test_the_archive_holds_what_it_is_counted_for(corpus: Corpus) -> None:
    """A CSV, JSON lines, and a text that is neither."""
    (file,) = [f for f in corpus if f.format == "zip"]
    with zipfile.ZipFile(io.BytesIO(file.body)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["iris.jsonl", "penguins.csv", "readme.txt"]
        lines = len(archive.read("iris.jsonl").splitlines()) + len(archive.read("penguins.csv").splitlines()) - 1
    assert file.records == lines


def test_broken_files_cannot_be_read_to_their_end(corpus: Corpus) -> None:
    """The cut gzip, the cut array and the renamed text fail in their own readers."""
    broken = {file.path: file.body for file in corpus if file.broken_file}

    with pytest.raises((EOFError, zlib.error)):
        gzip.decompress(broken.pop("broken/truncated.csv.gz"))
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken.pop("broken/cut_array.json"))
    with pytest.raises(pa.ArrowInvalid):
        pa.parquet.read_metadata(pa.BufferReader(broken.pop("broken/not_parquet.parquet")))
    assert broken == {}


def test_attribution_is_in_the_bucket(corpus: Corpus) -> None:
    """The page names the terms and authors of each data set that is served, and leads to the texts."""
    bodies = {file.path: file.body for file in corpus}
    page = bodies["README.md"].decode()

    assert "| world_cities.csv.gz | CC-BY-3.0 | GeoNames" in page
    assert b"Creative Commons" in bodies["licenses/CC-BY-3.0.txt"]
