"""Uploads in a directory, for one machine or a volume that API, workers and scheduler share."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final
from uuid import UUID

from headwater.errors import ObjectMissing, StorageError
from headwater.uploads.storage import ObjectReader, ObjectWriter, Storage

_INCOMING: Final = "incoming"
_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600


class Folder(Storage):
    """Objects as files with mode 0600 in folders with mode 0700, named by their keys and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, key: UUID) -> ObjectWriter:
        try:
            return _Writer(self._incoming(key), self._place(key))
        except OSError as error:
            raise StorageError from error

    def open(self, key: UUID) -> ObjectReader:
        try:
            return _Reader(self._place(key).open("rb"))
        except FileNotFoundError as error:
            raise ObjectMissing from error
        except OSError as error:
            raise StorageError from error

    def delete(self, key: UUID) -> None:
        try:
            for path in (self._incoming(key), self._place(key)):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError from error

    def _incoming(self, key: UUID) -> Path:
        return self._path / _INCOMING / key.hex

    def _place(self, key: UUID) -> Path:
        # The end of a UUID is random, its beginning a time.
        return self._path / key.hex[-2:] / key.hex


class _Writer:
    def __init__(self, incoming: Path, place: Path) -> None:
        for folder in (incoming.parent, place.parent):
            folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        self._incoming = incoming
        self._place = place
        self._descriptor: int | None = os.open(
            incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE_FILE
        )

    def write(self, data: bytes, /) -> None:
        assert self._descriptor is not None
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise StorageError from error

    def keep(self) -> None:
        assert self._descriptor is not None
        try:
            os.fsync(self._descriptor)
            self._close()
            self._incoming.rename(self._place)
            # The names too: without these a crash could lose the file that was just promised.
            _sync(self._place.parent)
            _sync(self._place.parent.parent)
        except OSError as error:
            raise StorageError from error

    def drop(self) -> None:
        self._close()
        with suppress(OSError):  # pruning deletes it by its key
            self._incoming.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise StorageError from error

    def close(self) -> None:
        self._file.close()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
