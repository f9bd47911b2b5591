"""Records by column: their JSON texts are what `orjson` writes of each, their values what `dict(zip(...))` makes."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_worker.sync.formats import table

_TEXT = st.text(st.sampled_from([*"ab,:{}[]%'\"\\\n\r\t\0\x1f\x7f\x1e", "é", "\u2028", "😀"]), max_size=6)
_SCALAR = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), _TEXT)
_PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats())


@st.composite
def _columns(draw):
    """Names, each with whether its column is of strings, and the columns."""
    names = draw(st.lists(_TEXT, min_size=1, max_size=4, unique=True))
    count = draw(st.integers(1, 5))
    columns = {}
    for name in names:
        kind = draw(st.sampled_from([_TEXT, _SCALAR, _PLAIN]))
        columns[name] = kind is _TEXT, draw(st.lists(kind, min_size=count, max_size=count))
    return columns


@given(columns=_columns())
def test_written_as_row_by_row(columns):
    """Whatever has to be escaped in names and cells, and wherever quotes are written by whom."""
    strings = {name for name, (is_text, _) in columns.items() if is_text}
    texts = [table.texts(cells) if is_text else table.scalars(cells) for is_text, cells in columns.values()]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*(cells for _, cells in columns.values()), strict=True)]
    assert table.writer([*columns], strings)(texts) == [*map(orjson.dumps, rows)]


@pytest.mark.parametrize("count", [1, 100, 101, 300])
def test_however_many_columns_there_are(count):
    """Written out or not."""
    names = [f"column {number}" for number in range(count)]
    rows = [{name: f"{name} of {row}" if number % 2 else row for number, name in enumerate(names)} for row in range(3)]
    columns = [[str(row[name]) for row in rows] for name in names]
    assert table.writer(names, names[1::2])(columns) == [*map(orjson.dumps, rows)]


def test_columns_of_unequal_length_are_an_error():
    """Nothing is cut off in silence."""
    for count in (2, 101):
        names = [f"column {number}" for number in range(count)]
        with pytest.raises(ValueError, match=r"shorter|longer"):
            table.writer(names, names)([["1"], *[["1", "2"]] * (count - 1)])


def test_what_is_no_unicode_is_an_error():
    """Half of a surrogate pair, as a strange byte is read."""
    with pytest.raises(TypeError):
        table.texts(["a", "\udcff"])
    with pytest.raises(TypeError):
        table.scalars([1, "\udcff"])


def test_entries_are_records():
    """One by one, by place, and by slice."""
    records = [(1, b'{"a":1,"b":"x"}', {"a": 1, "b": "x"}), (3, b'{"a":null,"b":"y"}', {"a": None, "b": "y"})]
    entries = table.Table(["a", "b"], [[1, None], ["x", "y"]], [1, 3], [raw for _, raw, _ in records])
    assert [*entries] == [entries[0], entries[-1]] == [*entries[:]] == records
    assert (len(entries), entries.values()) == (2, [value for _, _, value in records])
