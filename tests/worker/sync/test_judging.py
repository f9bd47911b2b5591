"""Judging a block at once gives what judging its records one by one gives."""

import orjson
import pytest

from headwater_worker.sync.formats.base import Block, Refusal
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
_BAD = {"none": set(), "some": {0, 17, 99}, "a slice": set(range(16, 32)), "all": set(range(100))}


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
