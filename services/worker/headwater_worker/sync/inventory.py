"""What a source lists, copied as it comes into the temporary table that is compared with the catalogue in SQL.

The statements around it (the table, the comparison) stand in `headwater.catalogue.inventory`.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from headwater.db import Connection
from headwater_worker.connectors.base import FileEntry

_COPY: Final = "copy inventory (path, size, etag, modified_at) from stdin (format binary)"
_TYPES: Final = ("text", "int8", "text", "timestamptz")
# A B-tree entry ends at 2704 bytes; the largest key of any object store is 1024.
_LONGEST_PATH_BYTES: Final = 2_600
_LONGEST_PLAIN_PATH: Final = _LONGEST_PATH_BYTES // 4  # characters, of four bytes at most
_ROW: Final = itemgetter(slice(len(_TYPES)))


def copy_entries(connection: Connection, entries: Sequence[FileEntry]) -> None:
    """Copy `entries` into the temporary table `inventory` of `connection`.

    One short COPY: no transaction stays open while the source takes its time. Paths must be unique and storable
    (`unstorable_path`).
    """
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_TYPES)
        for row in map(_ROW, entries):
            copy.write_row(row)


def all_files(page: Sequence[FileEntry]) -> bool:
    """Whether `not_a_file` is None for each entry, without asking for each. False where that takes a closer look."""
    if not page:
        return True
    paths, *_, skipped = zip(*page, strict=True)
    together = "\0".join(paths)
    try:
        together.encode()
    except UnicodeEncodeError:
        return False
    return (
        all(paths)
        and together.count("\0") == len(paths) - 1
        and "/\0" not in together
        and not together.endswith("/")
        and max(map(len, paths)) <= _LONGEST_PLAIN_PATH
        and not any(skipped)
    )


def not_a_file(entry: FileEntry) -> str | None:
    """Why `entry` is nothing to bring in, as a word for `skipped_by`; None if it is."""
    if entry.skipped is not None:
        return entry.skipped
    if entry.path.endswith("/") and entry.size == 0:
        return "directory"
    return unstorable_path(entry.path)


def unstorable_path(path: str) -> str | None:
    """Why Postgres cannot keep `path`, as a word for `skipped_by`; None if it can."""
    if not path:
        return "empty_path"
    if "\0" in path:
        return "unstorable_path"
    if path.isascii():
        return "path_too_long" if len(path) > _LONGEST_PATH_BYTES else None
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "unstorable_path"
    return "path_too_long" if len(encoded) > _LONGEST_PATH_BYTES else None
