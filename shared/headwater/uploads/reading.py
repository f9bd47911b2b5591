"""What was uploaded to one source, for whoever reads it: pages of files, and their bytes."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from headwater import db, ids
from headwater.db import Connection, Statement
from headwater.errors import ObjectMissing
from headwater.uploads.storage import COPY_BYTES, ObjectReader, Storage

_PAGE: Final = 1000


@dataclass(frozen=True)
class StoredFile:
    """One uploaded file. `keys` are those of its segments, in order."""

    name: str
    size: int
    etag: str
    content_type: str
    updated_at: datetime
    keys: Sequence[UUID]


@dataclass(frozen=True)
class Uploads:
    """All uploads: where their bytes are, and a way to the rows.

    `connect` gives a connection in autocommit that acts for an organization.
    """

    storage: Storage
    connect: Callable[[UUID], Connection]

    def of(self, organization_id: UUID, data_source_id: UUID) -> "SourceUploads":
        """Those of one source."""
        return SourceUploads(self.storage, lambda: self.connect(organization_id), data_source_id)


class SourceUploads:
    """The uploads of one source, read-only. May be used by several threads at once; `close` when done."""

    def __init__(self, storage: Storage, connect: Callable[[], Connection], data_source_id: UUID) -> None:
        self._storage = storage
        self._connect = connect
        self._data_source_id = data_source_id
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """Names the source."""
        return f"upload://{ids.encode('dsrc', self._data_source_id)}"

    def files(self, prefix: str = "") -> Iterator[Sequence[StoredFile]]:
        """Pages of the files whose name starts with `prefix`, in the order of their names."""
        after = ""
        while page := self._ask(_page(self._data_source_id, prefix=prefix, after=after)):
            yield page
            after = page[-1].name

    def open(self, name: str) -> tuple[StoredFile, ObjectReader]:
        """A file as it is now, and its bytes. Raises `ObjectMissing`, `StorageError`."""
        found = self._ask(_one(self._data_source_id, name))
        if not found:
            raise ObjectMissing
        return found[0], Segments(self._storage, found[0].keys)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _ask(self, statement: Statement) -> list[StoredFile]:
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = self._connect()
            rows = db.run(self._connection, statement).fetchall()
        return [_stored(row) for row in rows]


class Segments:
    """Objects one after another, as one stream. The first is opened at once, the others when it comes to them."""

    def __init__(self, storage: Storage, keys: Sequence[UUID]) -> None:
        self._storage = storage
        self._left = list(keys)
        self._open: ObjectReader | None = None
        self._advance()

    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes, fewer only before the end; empty at it. Raises `ObjectMissing`, `StorageError`."""
        if size < 0:
            return b"".join(iter(lambda: self.read(COPY_BYTES), b""))
        pieces = []
        # Not one segment's rest alone: in how many parts a file was sent would show in how damaged ones are read.
        while size and self._open is not None:
            if piece := self._open.read(size):
                pieces.append(piece)
                size -= len(piece)
            else:
                self._advance()
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of what is open."""
        self._left.clear()
        self._advance()

    def _advance(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = self._storage.open(self._left.pop(0)) if self._left else None


def _stored(row: dict[str, Any]) -> StoredFile:
    keys = [UUID(segment["key"]) for segment in row.pop("segments")]
    return StoredFile(**row, keys=keys)


def _page(data_source_id: UUID, *, prefix: str, after: str) -> Statement:
    return Statement(
        """
        select u.name, u.size, u.etag, u.content_type, u.updated_at, u.segments
        from upload u join data_source s on s.id = u.data_source_id
        where u.data_source_id = %(data_source_id)s and u.state = 'stored' and s.deleted_at is null
          and u.name > %(after)s and starts_with(u.name, %(prefix)s)
        order by u.name limit %(limit)s
        """,
        {"data_source_id": data_source_id, "prefix": prefix, "after": after, "limit": _PAGE},
    )


def _one(data_source_id: UUID, name: str) -> Statement:
    return Statement(
        """
        select u.name, u.size, u.etag, u.content_type, u.updated_at, u.segments
        from upload u join data_source s on s.id = u.data_source_id
        where u.data_source_id = %(data_source_id)s and u.name = %(name)s and u.state = 'stored'
          and s.deleted_at is null
        """,
        {"data_source_id": data_source_id, "name": name},
    )
