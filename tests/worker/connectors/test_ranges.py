"""A store listed in ranges: what comes out is what one listing gives, whatever the bounds were taken from."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from headwater_worker.connectors import ranges
from headwater_worker.connectors.base import FileEntry

KEYS = [f"{number:03}" for number in range(100)]
ODD = sorted(["a", "b", "\udcff", "\ue000", "\U0001f600", "é"], key=lambda key: key.encode("utf-8", "surrogateescape"))


class Keys:
    """A store of keys with pages of seven; `deaf`: it begins at its beginning whatever it is asked."""

    def __init__(self, keys: Sequence[str], *, deaf: bool = False) -> None:
        self._keys = keys
        self._deaf = deaf

    def behind(self, after: str) -> Iterator[Sequence[FileEntry]]:
        begin = after.encode("utf-8", "surrogateescape")
        found = [key for key in self._keys if self._deaf or key.encode("utf-8", "surrogateescape") > begin]
        for at in range(0, len(found), 7):
            yield [FileEntry(key, 1, "e", None) for key in found[at : at + 7]]


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize(
    ("keys", "bounds"),
    [
        (KEYS, KEYS[9::10]),
        (KEYS, [key + "-gone" for key in KEYS[9::10]]),
        (KEYS, ["!", *KEYS[::3], "zzz"]),
        (KEYS, KEYS[-1:]),
        (KEYS[:40] + KEYS[90:], KEYS[9::10]),
        ([], KEYS[9::10]),
        (ODD, ["a", "b", "é", "\ue000"]),
    ],
)
def test_ranges_put_together_are_the_listing(keys: list[str], bounds: list[str], *, deaf: bool) -> None:
    """No gap, no double, in order; also of a store that knows no place to begin at."""
    pages = ranges.in_order(bounds, Keys(keys, deaf=deaf).behind)
    assert [entry.path for page in pages for entry in page] == keys


def test_a_listing_that_is_let_go_asks_for_no_more() -> None:
    """What is on its way ends with its page."""
    asked = threading.Semaphore(0)
    going_on = threading.Event()

    def behind(after: str) -> Iterator[Sequence[FileEntry]]:
        for page in Keys(KEYS).behind(after):
            yield page
            if after:
                asked.release()
                going_on.wait(30)

    pages = ranges.in_order(["049"], behind)
    next(pages)
    asked.acquire()
    pages.close()  # type: ignore[attr-defined]
    going_on.set()
    assert not asked.acquire(timeout=0.2)
