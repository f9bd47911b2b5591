"""CSV that is split at once, and CSV that is not, in one file: what Python's parser makes of it either way."""

import csv
import gzip
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater_worker.sync.formats import csv_lines, csv_text

_CELL = st.sampled_from(
    ["", "1", "ab", "\0", "é", "\x0b", "\u2028", 'a"b', '"x"', '"x,y"', '"x""y"', '"x\ny"', '"x\r\ny"']
)
_END = st.sampled_from(["\n", "\n", "\r\n", "\r"])
_ROW = st.lists(_CELL, min_size=1, max_size=3)
_PLAIN_ROWS = ["1,2\n"] * 40


def _by_python(text):
    """Lines with rows, of which the first names columns a and b; lines of rows that are ragged."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    good, ragged, line = [], [], 1
    for row in reader:
        if row and line > 1:
            good += [(line, row)] if len(row) == 2 else []
            ragged += [] if len(row) == 2 else [line]
        line = reader.line_num + 1
    return good, ragged


@given(
    rows=st.lists(st.tuples(st.integers(0, 5), _ROW, _END), max_size=12), most=st.integers(1, 120), cut=st.booleans()
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_plain_and_other_rows_take_turns(parse, rows, most, cut):
    """Quotes behind plain pieces, ends of lines cut anywhere, blank and ragged rows: each record and its line."""
    body = "".join("1,2" + end + "3,4\n" * plain + ",".join(row) + end for plain, row, end in rows)
    text = "a,b\n" + "".join(_PLAIN_ROWS) + (body.rstrip("\r\n") if cut else body)
    parsed = parse("a.csv", text.encode(), most=most, delimiter=",", encoding="utf-8")
    good, ragged = _by_python(text)
    assert [line for line, _ in parsed.records] == [line for line, _ in good]
    assert [[*value.values()] for value in parsed.values] == [row for _, row in good]
    assert parsed.refused == [(line, csv_text.CODE) for line in ragged]


@given(cells=st.lists(st.sampled_from(["1", "", " ", "b"]), max_size=30), most=st.integers(1, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
def test_a_blank_line_is_no_record_of_a_single_column(parse, cells, most):
    """It counts as a line alone."""
    parsed = parse("a.csv", ("name\n" + "".join(f"{cell}\n" for cell in ["x"] * 30 + cells)).encode(), most=most)
    kept = [(line, {"name": cell}) for line, cell in enumerate(["x"] * 30 + cells, start=2) if cell]
    assert [(line, value) for (line, _), value in zip(parsed.records, parsed.values, strict=True)] == kept


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("cell", ["5", '"5"'])
def test_a_line_that_is_too_long_is_cut_alike(parse, monkeypatch, end, cell):
    """In pieces that are shorter than it or longer, behind plain lines."""
    monkeypatch.setattr(csv_lines, "_LONGEST", 100)
    text = "a,b" + end + ("1,2" + end) * 40 + cell + ",9" * 70 + end + "3,4" + end
    outcomes = []
    for most in (7, 64, 99, 100, 101, 1000):
        parsed = parse("a.csv", text.encode(), most=most, delimiter=",")
        outcomes.append((parsed.records, parsed.refused))
    assert outcomes[0][1] == [(42, csv_text.CODE), (43, csv_text.CODE)]
    assert [line for line, _ in outcomes[0][0]] == [*range(2, 42), 44]
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_a_file_that_breaks_off_keeps_its_whole_lines(parse):
    """The last one, which a bare carriage return may or may not have ended, is not among them."""
    packed = gzip.compress(b"a,b\n" + b"1,2\n" * 40 + b"3,4\r5,6\r", mtime=0)
    parsed = parse("a.csv.gz", packed[:-8])
    assert parsed.broken is not None
    assert [line for line, _ in parsed.records] == [*range(2, 43)]
    assert parsed.broken.line == 43


@pytest.mark.parametrize(
    "text", ["1,2\n3\n", "1\n2,3\n", "1,2\n\n", "1\n2,3,4\n", "1,2\r3,4\n", "1,2", "1,2\n3,4", "1,2,3\n", "\n"]
)
def test_odd_lines_are_not_split_at_once(text):
    """Even where as many cells come out of it as of even rows."""
    assert csv_lines.columns(text, ",", 2) == ()
    assert csv_lines.columns("1,2\r\n3,4\n", ",", 2) == [["1", "3"], ["2", "4"]]
