"""A listing that is taken into the catalogue while it goes on."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from headwater.catalogue import inventory
from headwater.errors import CancelRequested
from headwater_worker.connectors.base import FileEntry
from headwater_worker.context import JobContext
from headwater_worker.sync import cataloguing
from headwater_worker.sync.cataloguing import Cataloguing

from .conftest import Bench


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "SLICE", 2)
    monkeypatch.setattr(cataloguing, "_COPIED_AT_ONCE", 2)


def _catalogue(context: JobContext, pages: Iterator[Sequence[FileEntry]]) -> None:
    made = Cataloguing(context, prefix="", complete=True, in_order=True, marks=True)
    made.take(pages)
    made.sight()


def _pages(*paths: str) -> Iterator[Sequence[FileEntry]]:
    for at in range(0, len(paths), 2):
        yield [FileEntry(path, 1, "e", None) for path in paths[at : at + 2]]


def _counts(bench: Bench) -> tuple[int, int, int, int]:
    counters = bench.counters()
    return tuple(counters[name] for name in ("new", "changed", "unchanged", "missing"))  # type: ignore[return-value]


def test_a_listing_in_order_is_in_the_catalogue_before_it_ends(bench: Bench) -> None:
    """Slice by slice: what is listed is there, what is not is missing, what comes later is as it was."""
    source_id = bench.source()
    _catalogue(bench.claim(source_id, "file_listing"), _pages("a", "b", "c", "d", "e", "f"))
    seen: list[dict[str, str]] = []

    def pages() -> Iterator[Sequence[FileEntry]]:
        for page in _pages("a", "c", "e", "g"):
            seen.append(bench.files(source_id))
            yield page

    _catalogue(bench.claim(source_id, "file_listing"), pages())
    assert seen[1] == {"a": "new", "b": "missing", "c": "new", "d": "new", "e": "new", "f": "new"}
    assert bench.files(source_id) == seen[1] | {"d": "missing", "f": "missing", "g": "new"}
    assert _counts(bench) == (1, 0, 3, 3)


def test_a_promise_of_order_that_is_broken_costs_time_and_no_file(bench: Bench) -> None:
    """All is compared once more: states and counts are those of the whole listing."""
    source_id = bench.source()
    _catalogue(bench.claim(source_id, "file_listing"), _pages("a", "b", "c", "d", "x"))
    _catalogue(bench.claim(source_id, "file_listing"), _pages("a", "d", "e", "f", "c", "b", "g"))
    assert bench.files(source_id) == dict.fromkeys("abcdefg", "new") | {"x": "missing"}
    assert _counts(bench) == (3, 0, 4, 1)


def test_a_cancel_ends_a_listing_between_slices(bench: Bench) -> None:
    """What was compared stays; that the source was seen is not said."""
    source_id = bench.source()
    context = bench.claim(source_id, "file_listing")

    def interrupt() -> None:
        if bench.files(source_id):
            raise CancelRequested

    with pytest.raises(CancelRequested):
        _catalogue(replace(context, interrupt=interrupt), _pages("a", "b", "c", "d"))
    assert bench.files(source_id) == {"a": "new", "b": "new"}
    query = "select isfinite(seen_at) as said from sighting where data_source_id = %s"
    said = bench.connection.execute(query, (source_id,)).fetchone()
    assert said == {"said": False}
