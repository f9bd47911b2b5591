"""Judging a block at once gives what judging its records one by one gives."""

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import JobError
from headwater_worker.sync import storable
from headwater_worker.sync.formats.base import Block, Refusal
from headwater_worker.sync.formats.table import Table
from headwater_worker.sync.judging import Judge
from headwater_worker.sync.validation import Schema

_TREE = {
    "type": "object",
    "properties": {"n": {"type": "integer", "maximum": 90}, "child": {"$ref": "#"}, "at": {"format": "date"}},
}
_SCHEMAS = {
    "plain": _TREE,
    "named": _TREE | {"$id": "https://example.com/tree"},
    "draft 4": _TREE | {"$schema": "http://json-schema.org/draft-04/schema#"},
    "definitions": {"$ref": "#/$defs/tree", "$defs": {"tree": {"required": ["n"]}}},
    "everything": True,
    "nothing": False,
}
# From none bad, over one in sixteen and a whole slice, to all.
_BAD = {"none": set(), "some": {0, 17, 47, 99}, "a slice": set(range(16, 32)), "all": set(range(100))}


def _entries(bad, lines=True):
    values = [{"n": "many"} if number in bad else {"n": number % 90, "child": {"n": 1}} for number in range(100)]
    return [(number + 1 if lines else None, orjson.dumps(value), value) for number, value in enumerate(values)]


@pytest.mark.parametrize("bad", _BAD.values(), ids=_BAD)
@pytest.mark.parametrize("schema", [None, *_SCHEMAS.values()], ids=["none", *_SCHEMAS])
def test_together_as_one_by_one(schema, bad):
    """Rows, lines and refusals, and the numbers of the block behind it."""
    compiled = None if schema is None else Schema(schema)
    together, alone = (Judge(compiled, load_id=7, first=1_000) for _ in range(2))
    for entries in (_entries(bad), _entries(bad, lines=False)):
        # What is suspect is looked at one by one.
        assert together.judge(Block(entries)) == alone.judge(Block(entries, suspect=True))


@pytest.mark.parametrize("schema", _SCHEMAS.values(), ids=_SCHEMAS)
def test_many_as_each(schema):
    """Also of values that are no objects, and of a part of sixteen."""
    compiled = Schema(schema)
    values = [None, 1, "x", [], {}, {"n": 1}, {"n": 91}, {"child": {"n": "x"}}, {"n": 2**70}, {"at": "2026-02-30"}] * 5
    assert compiled.which(values) == [compiled.is_valid(value) for value in values]


def test_what_is_no_record_takes_a_number():
    """A line that could not be read stands among records, and is refused under its number."""
    entries = [*_entries(set()), Refusal(101, "not_json", "No."), *_entries(set())]
    judged = Judge(None, load_id=7).judge(Block(entries))
    assert (judged.parsed, [number for number, _ in judged.refusals]) == (201, [101])


_NAMES = ["a", "a/b", "c~d#", "e%2Ff \u00e9", ""]
_CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([2**63, 2.0, 2.5, "", "x", "2026-02-30"])
)
_PARTS = st.sampled_from(
    [
        True,
        False,
        {},
        {"type": "integer", "minimum": 0},
        {"type": ["string", "null"], "maxLength": 0},
        {"type": "number", "maximum": 2, "exclusiveMaximum": True},
        {"exclusiveMaximum": 2},
        {"enum": [1, "x", None]},
        {"const": False},
        {"format": "date"},
        {"$ref": "#"},
        {"$ref": "#/$defs/one"},
        {"$ref": "#/properties/a", "type": "string"},
        {"anyOf": [{"$ref": "#/$defs/one"}, {"type": "null"}]},
        {"not": {"type": "string"}},
        {"if": {"type": "string"}, "then": {"minLength": 1}},
    ]
)
_DRAFTS = [None, *(f"http://json-schema.org/draft-0{number}/schema#" for number in (4, 6, 7))]
_DRAFTS += [f"https://json-schema.org/draft/{name}/schema" for name in ("2019-09", "2020-12")]
_DEFS = {"one": {"minimum": 1}, "few": {"maxProperties": 1}}
_WHOLE = st.one_of(
    st.builds(dict),
    st.builds(dict, type=st.sampled_from(["object", ["null", "object"], "string"])),
    st.builds(dict, required=st.lists(st.sampled_from(_NAMES), min_size=1, max_size=2, unique=True)),
    st.builds(dict, additionalProperties=st.one_of(st.booleans(), _PARTS)),
    st.builds(dict, minProperties=st.integers(1, 3)),
    st.sampled_from([{"$ref": "#/$defs/few"}, {"propertyNames": {"maxLength": 2}}, {"allOf": [False]}, {"title": "t"}]),
)
_OBJECTS = st.builds(
    lambda properties, whole: {"properties": properties, "$defs": _DEFS, **whole},
    st.dictionaries(st.sampled_from(_NAMES), _PARTS, max_size=4),
    _WHOLE,
)


@st.composite
def _tables(draw):
    names = draw(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=4, unique=True))
    count = draw(st.integers(1, 5))
    columns = [draw(st.lists(_CELLS, min_size=count, max_size=count)) for _ in names]
    values = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return Table(names, columns, [*range(2, count + 2)], [json.dumps(value).encode() for value in values])


@given(whole=_OBJECTS, draft=st.sampled_from(_DRAFTS), entries=_tables())
@settings(max_examples=1_000, deadline=None)
def test_by_column_as_one_by_one(whole, draft, entries):
    """Whatever a schema says beside its properties, of whatever draft, and whatever columns are called."""
    schema = whole if draft is None else {"$schema": draft, **whole}
    try:
        compiled = Schema(schema)
    except JobError:
        return  # not of that draft, or refers to nothing
    together, alone = (Judge(compiled, load_id=7) for _ in range(2))
    assert together.judge(Block(entries)) == alone.judge(Block([*entries], suspect=True))


@pytest.mark.parametrize("bad", _BAD.values(), ids=_BAD)
def test_some_of_a_column_are_refused(bad):
    """None, some, many in a row, and all."""
    values = [-1 if number in bad else number for number in range(100)]
    raws = [orjson.dumps({"n": value}) for value in values]
    schema = Schema({"properties": {"n": {"minimum": 0}}, "required": ["n"]})
    judged = Judge(schema, load_id=7).judge(Block(Table(["n"], [values], [None] * 100, raws)))
    assert [number for number, _ in judged.refusals] == [number + 1 for number in sorted(bad)]


@pytest.mark.parametrize(
    "part",
    [
        {"$id": "https://example.com/part"},
        {"$id": "part", "$dynamicAnchor": "one"},
        {"$dynamicRef": "#one"},
        {"$anchor": "one"},
        {"$recursiveRef": "#"},
        {"id": "part"},
    ],
    ids=lambda part: [*part][-1],
)
def test_what_depends_on_its_place_is_not_asked_by_column(part):
    """Draft by draft, what a part of a schema is called by, and what is looked for where one came from."""
    defs = {"one": {"$dynamicAnchor": "one"}} if "$dynamicRef" in part else {}
    assert Schema({"properties": {"a": part}, "$defs": defs})._columns is None
    assert Schema({"properties": {"id": {"type": "string"}}})._columns is not None


def test_by_column_whatever_a_property_is_called():
    """References reach it."""
    assert Schema({"properties": {name: {"type": "integer"} for name in _NAMES}})._columns is not None


def test_by_column_only_where_properties_are_few():
    """Each column costs something for each property."""
    assert Schema({"properties": {f"p{number}": True for number in range(101)}})._columns is None
    assert Schema({"properties": {f"p{number}": True for number in range(100)}})._columns is not None


def test_what_is_suspect_is_looked_at_record_by_record():
    """Also by column: U+0000 is refused, and its neighbour is not."""
    entries = Table(["a"], [["\0", "b"]], [1, 2], [b'{"a":"\\u0000"}', b'{"a":"b"}'])
    judged = Judge(Schema(True), load_id=7).judge(Block(entries, suspect=True))
    assert (judged.good, [(number, refusal.code) for number, refusal in judged.refusals]) == (1, [(1, storable.CODE)])
