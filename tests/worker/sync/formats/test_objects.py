"""Objects from columns: as `dict(zip(...))` makes them, however many columns there are."""

import pytest

from headwater_worker.sync.formats import objects


@pytest.mark.parametrize(
    "names",
    [
        ("a",),
        ("b", "a", "c"),
        ("a", "b", "a"),  # the last counts, in the place of the first
        ("", "class", "n0", 'a"b', "{x}", "\n"),
        tuple(f"column {number}" for number in range(100)),
        tuple(f"column {number}" for number in range(101)),
    ],
    ids=lambda names: str(len(names)),
)
def test_as_row_by_row(names):
    """Names are values, whatever they look like."""
    columns = [[f"{number}.{row}" for row in range(3)] for number in range(len(names))]
    made = objects.maker(names)(columns)
    assert [list(one.items()) for one in made] == [
        list(dict(zip(names, row, strict=True)).items()) for row in zip(*columns, strict=True)
    ]


def test_columns_of_unequal_length_are_an_error():
    """Nothing is cut off in silence."""
    with pytest.raises(ValueError, match="shorter"):
        objects.maker(("a", "b"))([["1", "2"], ["1"]])
