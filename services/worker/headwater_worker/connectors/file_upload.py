"""Files that were uploaded to the source."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import ClassVar, TypeVar
from urllib.parse import quote

from headwater.errors import ObjectMissing, Permanent, StorageError, Transient
from headwater.uploads.reading import StoredFile
from headwater.uploads.storage import ObjectReader
from headwater_worker.connectors import sample
from headwater_worker.connectors.base import CheckWarning, FileConnector, FileEntry, OpenFile, Opening, Skipped, Step

T = TypeVar("T")


class FileUploadConnector(FileConnector):
    """The files of one source by their names."""

    type: ClassVar[str] = "file_upload"

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._sample: FileEntry | None = None

    def steps(self) -> Sequence[Step]:
        return (
            Step("config", None),
            *(Step(name, None) for name in ("resolve", "egress", "connect", "tls", "authenticate")),
            Step("target", lambda: None),
            Step("list", self._check_list),
            Step("read", self._check_read),
        )

    def list_files(self, prefix: str = "") -> Iterator[Sequence[FileEntry]]:
        uploads = self.opening.uploads
        if uploads is None:
            return
        for page in uploads.files(prefix):
            yield [_entry(file) for file in page]

    def open_file(self, path: str) -> OpenFile:
        uploads = self.opening.uploads
        if uploads is None:
            raise _gone()
        file, reader = _ask(lambda: uploads.open(path))
        return OpenFile(_entry(file), file.content_type, _Body(reader))

    def uri(self, path: str) -> str:
        base = "upload://unsaved" if self.opening.uploads is None else self.opening.uploads.uri
        return f"{base}/{quote(path)}"

    def _check_list(self) -> CheckWarning | None:
        self._sample = next(islice(chain.from_iterable(self.list_files()), 1), None)
        if self._sample is None:
            return CheckWarning(
                "empty_scope", "Nothing has been uploaded yet.", "Upload a file with POST .../uploads?name=..."
            )
        return None

    def _check_read(self) -> CheckWarning | Skipped | None:
        found = self._sample
        return Skipped() if found is None else sample.check(lambda: self.open_file(found.path), None)


class _Body:
    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader

    def read(self, size: int = -1, /) -> bytes:
        return _ask(lambda: self._reader.read(size))

    def close(self) -> None:
        self._reader.close()


def _entry(file: StoredFile) -> FileEntry:
    return FileEntry(path=file.name, size=file.size, etag=file.etag, modified_at=file.updated_at)


def _ask(call: Callable[[], T]) -> T:
    """What `call` gives; the storage's errors become a source's."""
    try:
        return call()
    except ObjectMissing as error:
        raise _gone() from error
    except StorageError as error:
        raise Transient(error.message, code=error.code) from error


def _gone() -> Permanent:
    return Permanent("The file is gone.", code="file_not_found", hint="List the files again.")
