"""JSON Lines: raw lines are kept as they came, and each broken one costs itself."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(
    values=st.lists(_VALUES, max_size=8), most=st.integers(1, 64), gap=st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"])
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
def test_what_is_written_is_read(parse, values, most, gap):
    """Any JSON values survive, however the bytes are cut into pieces and the lines ended."""
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    parsed = parse("a.jsonl", gap.join(texts).encode(), most=most)
    assert [text.rstrip("\r") for _, text in parsed.records] == texts
    assert parsed.values == values
    assert parsed.refused == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"a": NaN}', "invalid_json"),
        ('{"a": Infinity}', "invalid_json"),
        ('{"a": 1', "invalid_json"),
        ("[" * 2000 + "]" * 2000, "not_storable"),
    ],
)
def test_a_broken_line_costs_itself(parse, line, code):
    """The lines around it are read, and it is refused with its line number."""
    parsed = parse("a.jsonl", f'{{"id": 1}}\n{line}\n{{"id": 3}}\n'.encode())
    assert parsed.records == [(1, '{"id": 1}'), (3, '{"id": 3}')]
    assert parsed.refused == [(2, code)]


def test_bytes_that_are_no_utf8_are_refused(parse):
    """JSON is UTF-8; nothing is guessed."""
    assert parse("a.jsonl", b'{"a": "\xfc"}\n').refused == [(1, "invalid_json")]


def test_numbers_beyond_double_precision_are_kept_as_written(parse):
    """The text goes into the database, not what Python makes of it."""
    big = '{"a": 123456789012345678901234567890, "b": 1e400, "c": 0.1234567890123456789}'
    assert parse("a.jsonl", big.encode()).records == [(1, big)]


def test_byte_order_marks_are_read_over(parse):
    """UTF-8 with its mark, and UTF-16 as some editors write it."""
    text = '{"a": "ü"}\n'
    for body in (text.encode("utf-8-sig"), text.encode("utf-16")):
        assert parse("a.jsonl", body).records == [(1, '{"a": "ü"}')]


def test_a_line_beyond_16_mib_is_refused_and_the_next_is_read(parse):
    """A line without end does not fill the memory."""
    body = b'{"a": "' + b"x" * (17 << 20) + b'"}\n{"id": 2}\n'
    parsed = parse("a.jsonl", body)
    assert parsed.refused == [(1, "not_storable")] or len(parsed.records) == 2
    assert parsed.records[-1] == (2, '{"id": 2}')


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("mark", ["\ufeff", ""])
@given(value=_VALUES, encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_json_of_every_width_is_read(parse, name, mark, value, encoding):
    """UTF-16 and UTF-32, with a mark or without: its first characters are ASCII, so their zeros tell."""
    record = {"key": value}
    body = f"{mark}{json.dumps(record, ensure_ascii=False)}\n".encode(encoding)
    for most in (1, 1000):
        parsed = parse(name, body, most=most)
        assert (parsed.values, parsed.refused, parsed.broken) == ([record], [], None)


def test_wide_text_that_is_cut_in_a_character_costs_its_record(parse):
    """The lines before it are read."""
    body = '\ufeff{"a": 1}\n{"a": "ü"}\n'.encode("utf-16-le")
    parsed = parse("a.jsonl", body[:-7])
    assert parsed.values == [{"a": 1}]
    assert parsed.refused == [(2, "invalid_json")]
