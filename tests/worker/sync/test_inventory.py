"""What of a listing is a file: seen of a page at once as of each entry by itself."""

import pytest

from headwater_worker.connectors.base import FileEntry
from headwater_worker.sync.inventory import all_files, not_a_file

PLAIN = ["a", "b/c.json", "d e", "ü/\U0001f600", "\ue000", "x" * 650]
ODD = {
    "empty_path": [""],
    "directory": ["b/"],
    "unstorable_path": ["a\0b", "\0", "\udcff"],
    "path_too_long": ["x" * 2601, "ü" * 1301],
}


@pytest.mark.parametrize("paths", [[], PLAIN, *([path] for path in PLAIN)])
def test_a_page_of_plain_files_is_seen_at_once(paths: list[str]) -> None:
    """Nothing is held against any of them."""
    page = [FileEntry(path, 0, None, None) for path in paths]
    assert all_files(page)
    assert [not_a_file(entry) for entry in page] == [None] * len(page)


@pytest.mark.parametrize("path", [path for paths in ODD.values() for path in paths])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_odd_entry_calls_for_a_closer_look(path: str, at: int) -> None:
    """Wherever in the page it stands."""
    page = [FileEntry(name, 0, None, None) for name in ("a", "b")]
    page.insert(at, FileEntry(path, 0, None, None))
    assert not_a_file(page[at]) is not None
    assert not all_files(page)


def test_an_entry_that_cannot_be_brought_in_calls_for_a_closer_look() -> None:
    """Its path is like any other."""
    assert not all_files([FileEntry("a", 0, None, None), FileEntry("b", 0, None, None, "not_a_file")])
