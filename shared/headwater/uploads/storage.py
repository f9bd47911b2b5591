"""Where the bytes of uploads are: objects under keys of ours, each written once, as a stream.

Four verbs and no listing: what there is stands in the database, which knows a key before its first byte is written.
"""

from abc import ABC, abstractmethod
from typing import Final, Protocol
from uuid import UUID

COPY_BYTES: Final = 1024 * 1024


class ObjectWriter(Protocol):
    """An object that is being written; nobody sees it before `keep`."""

    def write(self, data: bytes, /) -> None:
        """Append. Raises `StorageError`."""

    def keep(self) -> None:
        """Make it last: it survives a crash from here on. Raises `StorageError`."""

    def drop(self) -> None:
        """Forget it; harmless after `keep`, and a second time."""


class ObjectReader(Protocol):
    """An object's bytes, read once from front to back."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end. Raises `StorageError`."""

    def close(self) -> None:
        """Let go of it."""


class Storage(ABC):
    """A place for objects. Used by many threads at once."""

    @abstractmethod
    def put(self, key: UUID) -> ObjectWriter:
        """Begin an object; what was half written under this key is gone. Raises `StorageError`."""

    @abstractmethod
    def open(self, key: UUID) -> ObjectReader:
        """Open an object. Raises `ObjectMissing`, `StorageError`."""

    @abstractmethod
    def delete(self, key: UUID) -> None:
        """Delete an object, finished or not; one that is not there is fine. Raises `StorageError`."""
