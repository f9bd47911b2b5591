"""CSV: dialects, encodings, ragged rows, conversions."""

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater_worker.sync.formats import csv_text
from headwater_worker.sync.formats.base import Options

_CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=6)


@given(
    rows=st.lists(st.lists(_CELL, min_size=3, max_size=3).filter(any), max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    most=st.integers(1, 50),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
def test_what_is_written_is_read(parse, rows, delimiter, most):
    """Quotes, delimiters and line ends inside cells survive, in pieces of any size."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["a", "b", "c"], *rows])
    parsed = parse("a.csv", text.getvalue().encode(), most=most, delimiter=delimiter)
    assert parsed.values == [dict(zip("abc", row, strict=True)) for row in rows]
    assert parsed.refused == []


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(parse, delimiter):
    """Decimal commas and stray other delimiters do not mislead."""
    rows = ["id", "name", "price"], ["1", "a|b", "1,5"], ["2", '"c;d"', "2,5"]
    body = "".join(delimiter.join(row) + "\n" for row in rows) if delimiter != "," else 'id,name,price\n1,a|b,"1,5"\n'
    parsed = parse("a.csv", body.encode())
    assert parsed.details["csv"]["delimiter"] == delimiter
    assert list(parsed.values[0]) == ["id", "name", "price"]


def test_a_single_column_needs_no_delimiter(parse):
    """Where no delimiter cuts evenly it is a comma."""
    parsed = parse("a.csv", b"name\nAda Lovelace\nBob\n")
    assert parsed.values == [{"name": "Ada Lovelace"}, {"name": "Bob"}]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        ("name\nZürich\n".encode(), "utf-8"),
        ("name\nZürich\n".encode("utf-8-sig"), "utf-8"),
        ("name\nZürich\n".encode("cp1252"), "cp1252"),
        ("name\nZürich\n".encode("utf-16"), "utf-16-le"),
    ],
)
def test_the_encoding_is_found_and_noted(parse, body, encoding):
    """A mark decides, then strict UTF-8, then Windows-1252."""
    for most in (1, 1000):
        parsed = parse("a.csv", body, most=most)
        assert parsed.values == [{"name": "Zürich"}]
        assert parsed.details["csv"]["encoding"] == encoding


def test_the_encoding_is_decided_by_the_first_byte_that_tells(parse):
    """A megabyte of ASCII before the first umlaut decides nothing."""
    body = b"name\n" + b"plain\n" * 200_000 + "Zürich\n".encode("cp1252")
    assert parse("a.csv", body).values[-1] == {"name": "Zürich"}


def test_bytes_outside_the_encoding_are_refused(parse):
    """In a file that is UTF-8 a byte that is not costs its record."""
    parsed = parse("a.csv", "name\nZürich\n".encode() + b"\xff\nBern\n")
    assert parsed.values == [{"name": "Zürich"}, {"name": "Bern"}]
    assert parsed.refused == [(3, "invalid_encoding")]


def test_records_begin_where_their_first_line_is(parse):
    """Line ends within quotes and blank lines count as lines, not as records."""
    parsed = parse("a.csv", b'a,b\n1,"x\ny"\n\n2,z\n')
    assert [line for line, _ in parsed.records] == [2, 5]


def test_ragged_rows_are_refused(parse):
    """Too few and too many cells are both a fault of the record."""
    parsed = parse("a.csv", b"a,b\n1\n2,3\n4,5,6\n")
    assert parsed.values == [{"a": "2", "b": "3"}]
    assert parsed.refused == [(2, "invalid_csv"), (4, "invalid_csv")]


def test_an_unclosed_quote_is_one_refusal(parse):
    """What stands before it is read; nobody guesses what comes after."""
    parsed = parse("a.csv", b'a,b\n1,2\n3,"4\n5,6\n')
    assert parsed.values == [{"a": "1", "b": "2"}]
    assert parsed.refused == [(3, "invalid_csv")]


def test_column_names_are_made_unique(parse):
    """Empty and doubled names in a header lose no cell."""
    assert parse("a.csv", b"a,,a\n1,2,3\n").values == [{"a": "1", "column_2": "2", "a_2": "3"}]


def test_a_file_without_a_header_gets_names(parse):
    """`header: false` takes the first row as a record."""
    assert parse("a.csv", b"1,2\n3,4\n", header=False).values == [
        {"column_1": "1", "column_2": "2"},
        {"column_1": "3", "column_2": "4"},
    ]


def test_cells_take_the_types_of_the_schema(parse):
    """What cannot be converted stays text, for validation to refuse; empty is null where null is allowed."""
    schema = {
        "properties": {
            "i": {"type": "integer"},
            "n": {"type": ["number", "null"]},
            "b": {"$ref": "#/$defs/flag"},
            "s": {"type": ["string", "null"]},
        },
        "$defs": {"flag": {"type": "boolean"}},
    }
    body = b"i,n,b,s,other\n1,1.5,true,7,8\n x,,FALSE,,9\n12345678901234567890123,nan,yes,a,\n"
    assert parse("a.csv", body, schema=schema).values == [
        {"i": 1, "n": 1.5, "b": True, "s": "7", "other": "8"},
        {"i": " x", "n": None, "b": False, "s": None, "other": "9"},
        {"i": 12345678901234567890123, "n": "nan", "b": "yes", "s": "a", "other": ""},
    ]


_TYPED = {"properties": {"n": {"type": "number"}, "i": {"type": ["integer", "null"]}, "b": {"type": "boolean"}}}
_COLUMNS = {
    "n": st.sampled_from(["1", "2.5", "3.50", "1e3", "18446744073709551616", "", "x"]),
    "i": st.sampled_from(["1", "-2", "+3", "", "\udcff", "12345678901234567890123"]),
    "b": st.sampled_from(["true", "0", "FALSE", "x"]),
    'a"\\': st.sampled_from(["", "a", "é", '"', "\\", "\0", "\n", "\x1f", "\udce9", "😀"]),
}


@given(rows=st.lists(st.tuples(*_COLUMNS.values()), min_size=1, max_size=4))
@settings(max_examples=500, deadline=None)
def test_rows_by_column_as_one_by_one(rows):
    """Records, their values and lines, refusals, and whether they are suspect."""
    table = csv_text._Table(",", Options(schema=_TYPED))
    table.of_rows([[*_COLUMNS]], [1])
    lines = [*range(2, len(rows) + 2)]
    together, alone = table.of_columns([*zip(*rows, strict=True)], lines), table._one_by_one(rows, lines)
    assert [*map(repr, together.entries)] == [*map(repr, alone.entries)]
    assert together.suspect == alone.suspect


@given(
    rows=st.lists(
        st.lists(_CELL.filter(lambda cell: "\0" not in cell), min_size=2, max_size=2).filter(any), max_size=4
    ),
    encoding=st.sampled_from(["utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]),
    most=st.integers(1, 30),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
def test_every_byte_order_mark_is_read(parse, rows, encoding, most):
    """In pieces that cut characters anywhere."""
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    mark = "" if encoding == "utf-8-sig" else "\ufeff"
    parsed = parse("a.csv", (mark + text.getvalue()).encode(encoding), most=most, delimiter=",")
    assert parsed.values == [dict(zip("ab", row, strict=True)) for row in rows]
    assert parsed.details["csv"]["encoding"] == encoding.removesuffix("-sig")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_text_without_a_mark_is_refused_until_somebody_says_so(parse, encoding):
    """It is named, with the way out: the option, or the reading before this one."""
    body = "name\nZürich\n".encode(encoding)
    broken = parse("a.csv", body).broken
    assert broken.code == "unsupported_encoding"
    assert encoding in broken.message
    assert "reading.csv.encoding" in broken.message
    assert parse("a.csv", body, encoding=encoding).values == [{"name": "Zürich"}]
    assert parse("a.csv", body, found={"encoding": encoding}).values == [{"name": "Zürich"}]


def test_what_was_found_is_noted_apart_from_what_was_said(parse):
    """Only the first is kept for the next reading; ASCII and a single column decide nothing."""
    assert parse("a.csv", b"a;b\n1;2\n", encoding="utf-8").details == {
        "csv": {"delimiter": ";", "encoding": "utf-8", "header": True},
        "found": {"delimiter": ";"},
    }
    assert parse("a.csv", b"a\n1\n", header=False).details == {
        "csv": {"delimiter": None, "encoding": "ascii", "header": False},
        "found": {"delimiter": None, "encoding": "ascii"},
    }


def test_the_delimiter_of_the_reading_before_is_kept(parse):
    """Where this version alone would look otherwise, or like nothing; what the user says wins."""
    body = b"a;b,c,d\n1;2,3,4\n"
    assert list(parse("a.csv", body).values[0]) == ["a;b", "c", "d"]
    parsed = parse("a.csv", body, found={"delimiter": ";"})
    assert list(parsed.values[0]) == ["a", "b,c,d"]
    assert parsed.details["found"]["delimiter"] == ";"
    assert list(parse("a.csv", body, found={"delimiter": ";"}, delimiter=",").values[0]) == ["a;b", "c", "d"]
    assert parse("a.csv", b"a\n", found={"delimiter": ";"}).details["found"]["delimiter"] == ";"


def test_a_delimiter_that_cuts_nothing_any_more_is_not_kept(parse):
    """A file that was written anew with another one is no single column."""
    assert parse("a.csv", b"a,b\n1,2\n", found={"delimiter": ";"}).values == [{"a": "1", "b": "2"}]


def test_the_encoding_of_the_reading_before_is_kept(parse):
    """What was UTF-8 is not guessed to be Windows-1252; a mark, and whole UTF-8 characters, prove more than a guess."""
    latin = "name\nZürich\n".encode("cp1252")
    assert parse("a.csv", latin, found={"encoding": "utf-8"}).refused == [(2, "invalid_encoding")]
    assert parse("a.csv", latin, found={"encoding": "ascii"}).values == [{"name": "Zürich"}]
    for body in ("name\nZürich\n".encode(), "name\nZürich\n".encode("utf-16")):
        assert parse("a.csv", body, found={"encoding": "cp1252"}).values == [{"name": "Zürich"}]
