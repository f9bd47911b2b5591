"""JSON documents: arrays are cut as they stream by."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(values=st.lists(_VALUES, max_size=8), most=st.integers(1, 40), indent=st.sampled_from([None, 0, 2]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_an_array_gives_its_elements(parse, values, most, indent):
    """Elements of any shape, with brackets, quotes and commas in their strings, in pieces of any size."""
    parsed = parse("a.json", json.dumps(values, indent=indent, ensure_ascii=False).encode(), most=most)
    assert parsed.values == values
    assert parsed.broken is None
    assert parsed.refused == []


def test_lines_are_those_where_elements_begin(parse):
    """The first line is 1, whatever stands before an element."""
    body = b'\n[\n  {"a": 1},\n\n  {"a":\n 2}, 3\n]\n'
    assert [line for line, _ in parse("a.json", body).records] == [3, 5, 6]


@pytest.mark.parametrize("body", [b'{"a": [1, 2]}', b'\n {"a": [1, 2]} \n'])
def test_one_object_is_one_record(parse, body):
    """A document that is no array is one record."""
    assert parse("a.json", body).records == [(1 + body.startswith(b"\n"), '{"a": [1, 2]}')]


def test_objects_one_after_another_are_records(parse):
    """Files named `.json` that hold JSON Lines are read as what they are."""
    parsed = parse("a.json", b'{"a": 1}\n{"a": 2}\n', most=3)
    assert parsed.values == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("element", ["nope", '{"a": nope}', '{"a": 1]', "", "1 2"])
def test_a_broken_element_costs_itself(parse, element):
    """The elements around it are read."""
    parsed = parse("a.json", f'[{{"id": 1}},{element},{{"id": 3}}]'.encode(), most=5)
    assert parsed.values == [{"id": 1}, {"id": 3}]
    assert parsed.refused == [(1, "invalid_json")]
    assert parsed.broken is None


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b'[{"a": 1}, {"a": 2}, {"a"', [{"a": 1}, {"a": 2}]),
        (b'[{"a": 1}, {"a": 2}', [{"a": 1}, {"a": 2}]),
        (b"[1, 2] trailing", [1, 2]),
        (b"[", []),
    ],
)
def test_a_cut_array_keeps_what_was_whole(parse, body, values):
    """Where an array does not end, or something follows it, the file is broken from there on."""
    parsed = parse("a.json", body, most=4)
    assert parsed.values == values
    assert parsed.broken is not None
    assert parsed.broken.code == "invalid_json"


@pytest.mark.parametrize("body", [b"", b"  \n", b"[]", b"[ \n ]"])
def test_nothing_is_no_record(parse, body):
    """An empty file and an empty array are no fault."""
    parsed = parse("a.json", body)
    assert (parsed.records, parsed.refused, parsed.broken) == ([], [], None)


def test_an_element_beyond_16_mib_is_refused_and_the_next_is_read(parse):
    """One huge element does not fill the memory, nor end the file."""
    huge = b"[" + b'"xxxxxxxxxxxxxxx",' * (1 << 20) + b"0]"
    parsed = parse("a.json", b'[\n{"id": 1},\n' + huge + b',\n{"id": 3}]')
    assert parsed.values == [{"id": 1}, {"id": 3}]
    assert parsed.refused == [(3, "not_storable")]
