"""Working on one thing while the next ones are fetched."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_WAIT_SECONDS: Final = 0.5


def ahead(
    items: Iterator[T], interrupt: Callable[[], None], *, room: int = 1, size: Callable[[T], int] = lambda _: 1
) -> Generator[T, None, None]:
    """The items in their order, fetched on a thread of their own until `room` is taken up by those that wait.

    `interrupt` is called while waiting. What fetching raises is raised in its turn. A fetch that hangs ends when what
    it fetches from is closed; nobody waits for it here.
    """
    waiting = _Waiting(items, room, size)
    threading.Thread(target=waiting.fill, name="ahead", daemon=True).start()
    try:
        while (item := waiting.take(interrupt)) is not None:
            yield item[0]
    finally:
        waiting.stop()


class _Waiting(Generic[T]):
    """What was fetched and not taken yet, between the two threads."""

    def __init__(self, items: Iterator[T], room: int, size: Callable[[T], int]) -> None:
        self._items = items
        self._room = room
        self._size = size
        self._queue: deque[T] = deque()
        self._taken_up = 0
        self._changed = threading.Condition()
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None

    def fill(self) -> None:
        """Fetch until the end, an error, or `stop`."""
        try:
            while self._has_room():
                item = next(self._items)
                with self._changed:
                    self._queue.append(item)
                    self._taken_up += self._size(item)
                    self._changed.notify_all()
        except StopIteration:
            pass
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def take(self, interrupt: Callable[[], None]) -> tuple[T] | None:
        """The next item; None at the end."""
        while True:
            with self._changed:
                if self._queue:
                    item = self._queue.popleft()
                    self._taken_up -= self._size(item)
                    self._changed.notify_all()
                    return (item,)
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return None
                self._changed.wait(_WAIT_SECONDS)
            interrupt()

    def stop(self) -> None:
        """Fetch no more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        with self._changed:
            while self._taken_up >= self._room and not self._stopped:
                self._changed.wait()
            return not self._stopped
