"""RFC 7396."""

from typing import Any

import pytest

from headwater_api.data_sources.merge_patch import merged


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_standard(target: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    """Appendix A, those between objects."""
    assert merged(target, patch) == expected


def test_a_member_that_is_whole_is_replaced_with_its_nulls() -> None:
    """Nothing merges into it, and a null inside is a value."""
    patch = {"schema": {"const": None}}
    assert merged({"schema": {"type": "object"}}, patch, whole=frozenset({"schema"})) == patch
