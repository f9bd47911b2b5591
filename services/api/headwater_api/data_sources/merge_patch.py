"""JSON Merge Patch (RFC 7396)."""

from collections.abc import Mapping
from typing import Any


def merged(
    target: Mapping[str, Any], patch: Mapping[str, Any], *, whole: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """`target` with `patch` applied: null removes a member, a map merges into a map, anything else replaces.

    Members named in `whole` are values of their own and are replaced, never merged into.
    """
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping) and name not in whole:
            inner = result.get(name)
            result[name] = merged(inner if isinstance(inner, Mapping) else {}, value)
        else:
            result[name] = value
    return result
