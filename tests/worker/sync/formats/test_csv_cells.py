"""A column of cells at once gives what its cells give one by one, and their JSON as `orjson` writes it."""

import itertools

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headwater_worker.sync.formats.csv_cells import Cell, conversions

_NUMBERS = [
    "0", "-0", "7", "-12", "+5", "007", " 8", "9\t", "1.5", "1.50", "-0.0", ".5", "5.", "1e5", "1E-7", "1e0005", "1e16",
    "1e999", "0.1", "123456.789", "9007199254740993", "9007199254740993.0", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615",
    "18446744073709551616", "123456789012345678901234", "0.30000000000000004", "100000000000000000000000.5",
    "2.2250738585072011e-308", "0." + "1" * 60, "9" * 400,
]  # fmt: skip
_ODD = [
    "", " ", "true", "False", "TRUE", "tRue", "null", "NaN", "Infinity", "-", "1,2", "[1]", "{}", '"1"', '"', "a", "\\",
    "é", "\0", "1\u00a0", "\u0661", "1_0", "1 2", "0x1", "\n1",
]  # fmt: skip
_TYPES = ["null", "string", "integer", "number", "boolean"]
_CHOICES = [types for count in range(1, 6) for types in itertools.combinations(_TYPES, count)]
_KINDS = [kind for types in _CHOICES for kind in conversions(["c"], {"properties": {"c": {"type": types}}}).values()]
# Mostly of one kind, as columns are.
_COLUMN = st.one_of(
    st.lists(st.sampled_from(_NUMBERS[:24]), min_size=1, max_size=5),
    st.lists(st.sampled_from(["true", "false", "0", "1", "True"]), min_size=1, max_size=5),
    st.lists(st.integers().map(str), min_size=1, max_size=5),
    st.lists(st.floats(allow_nan=False).map(str), min_size=1, max_size=5),
    st.lists(st.decimals(-1000, 1000, places=2).map(str), min_size=1, max_size=5),
    st.lists(st.sampled_from([*_NUMBERS, *_ODD]), min_size=1, max_size=5),
)


def _alone(kind, cells):
    values = [*map(kind.one, cells)]
    return [*map(repr, values)], [orjson.dumps(value).decode() for value in values]


def _together(kind, cells):
    values, texts = kind.each(cells)
    return [*map(repr, values)], [*texts]


@given(kind=st.sampled_from(_KINDS), cells=_COLUMN)
@example(kind=Cell(False, False, True, True, False), cells=["1,2"])
@example(kind=Cell(False, False, True, True, False), cells=["1e0005"])
@example(kind=Cell(False, False, True, True, False), cells=["18446744073709551616", "1.5"])
@example(kind=Cell(False, False, True, False, True), cells=["1", "true"])
@settings(max_examples=1_000, deadline=None)
def test_together_as_one_by_one(kind, cells):
    """Their values, of the same types, and their texts."""
    try:
        alone = _alone(kind, cells)
    except TypeError:  # an integer beyond 64 bits, which `orjson` does not write
        with pytest.raises(TypeError):
            kind.each(cells)
    else:
        assert _together(kind, cells) == alone


@pytest.mark.parametrize("cell", [*_NUMBERS, *_ODD])
def test_each_alone(cell):
    """By every kind."""
    for kind in _KINDS:
        try:
            alone = _alone(kind, [cell])
        except TypeError:
            continue
        assert _together(kind, [cell]) == alone
