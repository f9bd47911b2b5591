"""Files of the worker's own machine, below the roots that its operator allows."""

import errno
import hashlib
import os
import posixpath
import stat
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from typing import ClassVar, Final, TypeAlias, cast
from urllib.parse import quote

from headwater.connectors.local_files import LocalFilesConfig
from headwater.errors import ConnectorError, Permanent, Transient
from headwater_worker.connectors import confined, sample
from headwater_worker.connectors.base import CheckWarning, FileConnector, FileEntry, OpenFile, Opening, Skipped, Step
from headwater_worker.connectors.confined import LeadsOut, NotAFile, Root

_Inside: TypeAlias = "tuple[os._ScandirIterator[str], int, str]"
"""A folder that a walk is in: what is left of it, its descriptor, its path with a slash behind it."""

PAGE_FILES: Final = 1000

_DEEPEST: Final = 100
_PROBED_PAGES: Final = 10
# What a file system makes for itself, in the root's own hands.
_SYSTEMS_OWN: Final = frozenset({"lost+found"})
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})


class LocalFilesConnector(FileConnector):
    """A folder with everything below it, or one file. Paths are relative to the config's `path`."""

    type: ClassVar[str] = "local_files"

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._config = cast(LocalFilesConfig, opening.config)
        self._root: Root | None = None
        self._lock = threading.Lock()
        self._sample: FileEntry | None = None

    def steps(self) -> Sequence[Step]:
        return (
            Step("config", self._check_config),
            *(Step(name, None) for name in ("resolve", "egress", "connect", "tls", "authenticate")),
            Step("target", self._check_target),
            Step("list", self._check_list),
            Step("read", self._check_read),
        )

    def list_files(self, prefix: str = "") -> Iterator[Sequence[FileEntry]]:
        target = self._open_target()
        try:
            status = os.fstat(target)
            if stat.S_ISREG(status.st_mode):
                entry = _entry(posixpath.basename(self._config.path), status)
                if entry.path.startswith(prefix):
                    yield [entry]
                return
            walk = _Walk(self, target, prefix)
            with closing(walk.entries()) as entries:
                while page := list(islice(entries, PAGE_FILES)):
                    yield page
        except OSError as error:
            raise _translated(error) from error
        finally:
            os.close(target)

    def open_file(self, path: str) -> OpenFile:
        if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
            raise _gone()
        try:
            descriptor = self.open_within(path)
        except (LeadsOut, NotAFile) as error:
            raise _gone() from error
        except (OSError, UnicodeEncodeError) as error:
            raise _gone() if isinstance(error, UnicodeEncodeError) else _translated(error) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise _gone()
        return OpenFile(_entry(path, status), None, _Body(descriptor, status.st_size))

    def open_within(self, path: str) -> int:
        """The descriptor of what is at `path`, which came from a listing. Raises `LeadsOut`, `NotAFile`, `OSError`."""
        target = self._open_target()
        is_file = stat.S_ISREG(os.fstat(target).st_mode)
        os.close(target)
        if is_file:
            if path != posixpath.basename(self._config.path):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return self._found_root().open(self._below())
        return self._found_root().open(f"{self._below()}/{path}")

    def uri(self, path: str) -> str:
        base = self._config.path.rstrip("/")
        if posixpath.basename(base) == path:
            base = posixpath.dirname(base).rstrip("/")
        return f"file://{quote(f'{base}/{path}')}"

    def close(self) -> None:
        with self._lock:
            if self._root is not None:
                self._root.close()
                self._root = None

    # The root and the target.

    def _allowed_root(self) -> str:
        """The operator's root that the path is in. Raises `Permanent` (`blocked_target`)."""
        path = self._config.path
        allowed = [posixpath.normpath(root) for root in self.opening.local_files_roots if root.startswith("/")]
        around = [root for root in allowed if path == root or path.startswith(root.rstrip("/") + "/")]
        if not around:
            raise _blocked("The operator does not let sources read this folder.")
        return max(around, key=len)

    def _below(self) -> str:
        return self._config.path[len(self._allowed_root()) :]

    def _found_root(self) -> Root:
        with self._lock:
            if self._root is None:
                try:
                    self._root = Root(self._allowed_root())
                except OSError as error:
                    raise _no_target(error) from error
            return self._root

    def _open_target(self) -> int:
        root = self._found_root()
        try:
            return root.open(self._below())
        except LeadsOut as error:
            raise _blocked("The path leads out of what the operator lets sources read, by a link.") from error
        except NotAFile as error:
            raise Permanent(
                "The path is neither a folder nor a file.",
                code="path_not_found",
                hint="Sockets, FIFOs and devices are not read. Correct `path`.",
            ) from error
        except OSError as error:
            raise _no_target(error) from error

    # The ladder.

    def _check_config(self) -> None:
        self._allowed_root()

    def _check_target(self) -> None:
        os.close(self._open_target())

    def _check_list(self) -> CheckWarning | None:
        pages = islice(self.list_files(), _PROBED_PAGES)
        self._sample = next((entry for page in pages for entry in page if entry.skipped is None), None)
        if self._sample is None:
            return CheckWarning(
                "empty_scope",
                "The folder can be read, but there are no files to see.",
                "Check the path, or come back when files have arrived. Hidden files are not seen.",
            )
        return None

    def _check_read(self) -> CheckWarning | Skipped | None:
        found = self._sample
        if found is None:
            return Skipped()
        return sample.check(lambda: self.open_file(found.path), self._config.format)


class _Walk:
    """One walk through a folder and all below it: a folder is open while the walk is in it, none twice."""

    def __init__(self, connector: LocalFilesConnector, folder: int, prefix: str) -> None:
        self._connector = connector
        self._folder = folder
        self._prefix = prefix

    def entries(self) -> Generator[FileEntry, None, None]:
        """Every file, and whatever else there is with the reason why it is skipped."""
        stack: list[_Inside] = [(os.scandir(self._folder), self._folder, "")]
        try:
            while stack:
                inside, folder, above = stack[-1]
                found = next(inside, None)
                if found is None:
                    self._leave(stack)
                    continue
                path = above + found.name
                if not self._overlaps(path):
                    continue
                entry = self._entry(found, folder, path, depth=len(stack))
                if isinstance(entry, int):
                    stack.append((os.scandir(entry), entry, path + "/"))
                elif entry is not None and entry.path.startswith(self._prefix):
                    yield entry
        finally:
            while stack:
                self._leave(stack)

    def _leave(self, stack: "list[_Inside]") -> None:
        inside, folder, _ = stack.pop()
        inside.close()
        if folder != self._folder:
            os.close(folder)

    def _overlaps(self, path: str) -> bool:
        return path.startswith(self._prefix) or self._prefix.startswith(path + "/")

    def _entry(self, found: "os.DirEntry[str]", folder: int, path: str, *, depth: int) -> FileEntry | int | None:
        """A file, a reason to skip it, the descriptor of a folder to go into, or None if it has just gone."""
        if not _is_text(found.name):
            return _skipped(os.fsencode(path).decode("utf-8", "replace"), "not_utf8")
        if found.name.startswith(".") or found.name in _SYSTEMS_OWN:
            return _skipped(path, "hidden")
        try:
            status = found.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(status.st_mode):
            return self._linked(path)
        if stat.S_ISDIR(status.st_mode):
            return _skipped(path, "too_deep") if depth >= _DEEPEST else _entered(found.name, folder)
        if not stat.S_ISREG(status.st_mode):
            return _skipped(path, "not_a_file")
        if not os.access(found.name, os.R_OK, dir_fd=folder, effective_ids=True):
            return _skipped(path, "unreadable")
        return _entry(path, status)

    def _linked(self, path: str) -> FileEntry | None:
        """What a link leads to, if that is a file within the root. Folders are walked under their own name alone."""
        try:
            descriptor = self._connector.open_within(path)
        except LeadsOut:
            return _skipped(path, "link_out")
        except NotAFile:
            return _skipped(path, "not_a_file")
        except OSError as error:
            return _skipped(path, "unreadable" if error.errno in _DENIED else "broken_link")
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return _entry(path, status) if stat.S_ISREG(status.st_mode) else _skipped(path, "linked_directory")


class _Body:
    """The bytes that a file had when it was opened: what is appended meanwhile is for the next sync."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        pieces: list[bytes] = []
        try:
            while wanted:
                piece = self._file.read(wanted)
                if not piece:
                    raise Transient("The file became shorter while it was read.", code="file_changed")
                pieces.append(piece)
                wanted -= len(piece)
                self._left -= len(piece)
        except OSError as error:
            raise _translated(error) from error
        return b"".join(pieces)

    def close(self) -> None:
        self._file.close()


def _entered(name: str, folder: int) -> int | None:
    try:
        return confined.open_folder(name, folder)
    except OSError as error:
        if error.errno in _GONE:
            return None
        # Passing over it in silence would make everything below it look deleted.
        raise _translated(error) from error


def _entry(path: str, status: os.stat_result) -> FileEntry:
    return FileEntry(path=path, size=status.st_size, etag=_etag(status), modified_at=_moment(status.st_mtime))


def _skipped(path: str, reason: str) -> FileEntry:
    return FileEntry(path=path, size=None, etag=None, modified_at=None, skipped=reason)


def _etag(status: os.stat_result) -> str:
    """Changes whenever the file was written or another took its place."""
    seen = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    return hashlib.sha256(seen.encode()).hexdigest()[:32]


def _moment(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _translated(error: OSError) -> ConnectorError:
    if error.errno in _GONE:
        return _gone()
    if error.errno in _DENIED:
        return _denied()
    return Transient(
        "The file system does not give what was asked for.",
        code="source_error",
        hint="Look at the worker's machine: the disk or the network file system behind the path has failed.",
    )


def _no_target(error: OSError) -> ConnectorError:
    if error.errno in _GONE:
        return Permanent(
            "There is nothing at this path.",
            code="path_not_found",
            hint="The path is looked for on the workers' machine. Check it there, or mount it into every worker.",
        )
    return _translated(error)


def _gone() -> Permanent:
    return Permanent("The file is gone.", code="file_not_found", hint="List the files again.")


def _denied() -> Permanent:
    return Permanent(
        "The worker may not read a folder or file here.",
        code="permission_denied",
        hint="Give the account that the workers run as the right to read and enter the folder and all below it.",
    )


def _blocked(message: str) -> Permanent:
    return Permanent(
        message, code="blocked_target", hint="An operator can add a folder to HEADWATER_LOCAL_FILES_ROOTS."
    )
