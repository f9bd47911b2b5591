"""The word from a worker's parent process to its children that it is stopping: one byte that they share."""

import mmap


class Draining:
    """False until `begin`, in every process that was forked from this one."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def begin(self) -> None:
        """Say that the worker is stopping."""
        self._shared[0] = 1

    def __bool__(self) -> bool:
        return self._shared[0] != 0
