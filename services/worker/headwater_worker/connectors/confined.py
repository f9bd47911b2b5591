"""Opening what is below a folder, without ever leaving it.

Each part of a path is opened relative to the open folder before it, and never through a link. Where a link stands, its
target is walked in the same way. So whatever somebody renames or links anew in the meantime, nothing outside is opened:
there is no moment between a check and its use.
"""

import errno
import os
import posixpath
import stat
from collections import deque
from contextlib import ExitStack
from typing import Final

_MOST_LINKS: Final = 40  # as the kernel
_DEEPEST: Final = 200
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO that takes a file's place between two calls must not block the worker.
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


class LeadsOut(Exception):
    """A link leads out of the root."""


class NotAFile(Exception):
    """A device, a socket, a FIFO: nothing that is opened."""


class Root:
    """An open folder that nothing leaves. Used by many threads at once; `close` when done."""

    def __init__(self, path: str) -> None:
        # The operator named it: its own links are theirs.
        self.path = posixpath.normpath(path)
        self._real = os.path.realpath(path)
        self._descriptor = os.open(self._real, _FOLDER)

    def open(self, path: str) -> int:
        """The descriptor of the folder or regular file at `path`, relative to the root.

        Raises `LeadsOut`, `NotAFile`, `OSError`.
        """
        waiting = deque(path.split("/"))
        links = 0
        with _Folders(self._descriptor) as folders:
            while waiting:
                part = waiting.popleft()
                if part in ("", "."):
                    continue
                if part == "..":
                    folders.up()
                    continue
                kind = os.stat(part, dir_fd=folders.innermost, follow_symlinks=False).st_mode
                if stat.S_ISLNK(kind):
                    links += 1
                    if links > _MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    target = os.readlink(part, dir_fd=folders.innermost)
                    if target.startswith("/"):
                        target = self._below(target)
                        folders.top()
                    waiting.extendleft(reversed(target.split("/")))
                elif stat.S_ISDIR(kind):
                    folders.enter(part)
                elif not stat.S_ISREG(kind):
                    raise NotAFile
                elif any(rest not in ("", ".") for rest in waiting):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                else:
                    return _open_file(part, folders.innermost)
            # Not a duplicate: two readers of one folder must not share how far they are.
            return open_folder(".", folders.innermost)

    def close(self) -> None:
        """Let go of the folder; harmless a second time."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _below(self, path: str) -> str:
        """An absolute path as one relative to the root. Raises `LeadsOut`."""
        for root in (self._real, self.path):
            if path == root or path.startswith(root.rstrip("/") + "/"):
                return path[len(root) :]
        raise LeadsOut


def open_folder(name: str, parent: int) -> int:
    """The descriptor of the folder `name` in the open folder `parent`; a link is refused with `OSError`."""
    return os.open(name, _FOLDER, dir_fd=parent)


def _open_file(name: str, parent: int) -> int:
    descriptor = os.open(name, _FILE, dir_fd=parent)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAFile
    return descriptor


class _Folders:
    """The open folders from the root to where a walk is."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._below: list[int] = []

    def __enter__(self) -> "_Folders":
        return self

    def __exit__(self, *_: object) -> None:
        self.top()

    @property
    def innermost(self) -> int:
        """Where the walk is."""
        return self._below[-1] if self._below else self._root

    def enter(self, name: str) -> None:
        """Go down into a folder."""
        if len(self._below) >= _DEEPEST:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        self._below.append(open_folder(name, self.innermost))

    def up(self) -> None:
        """Go back to the folder that the walk came from. Raises `LeadsOut` at the root."""
        if not self._below:
            raise LeadsOut
        os.close(self._below.pop())

    def top(self) -> None:
        """Go back to the root."""
        with ExitStack() as closing:
            for descriptor in self._below:
                closing.callback(os.close, descriptor)
        self._below.clear()
