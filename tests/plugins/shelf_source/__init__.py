"""An outside connector for tests of the sync engine: files in this process's memory, and faults on demand."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from headwater.connectors.spec import TARGET, Capability, ConnectorConfig, ConnectorSpec, NoCredentials
from headwater.errors import Permanent
from headwater_worker.connectors.base import FileConnector, FileEntry, OpenFile, Step
from headwater_worker.sync.formats.base import ByteStream


@dataclass
class Shelf:
    """Files by path. `faults`: what opening a path raises. `streams`: what stands in for a path's bytes.

    `opened` are the paths that were opened, in order. `page` is how many files a page of the listing holds.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    streams: dict[str, Callable[[], ByteStream]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)
    on_open: Callable[[str], None] = lambda _: None
    page: int = 1000

    def entry(self, path: str) -> FileEntry:
        """The file as a listing shows it."""
        body = self.files[path]
        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        return FileEntry(path=path, size=len(body), etag=None if path in self.hidden else digest, modified_at=None)


SHELVES: dict[str, Shelf] = {}


class ShelfConfig(ConnectorConfig):
    """Names a shelf of this process."""

    type: Literal["shelf"] = "shelf"
    shelf: Annotated[str, TARGET]


SPEC = ConnectorSpec(
    type="shelf",
    title="Shelf",
    description="Files in memory.",
    config=ShelfConfig,
    credentials=NoCredentials,
    capabilities=frozenset({Capability.TEST, Capability.FILES, Capability.SYNC}),
)


class ShelfConnector(FileConnector):
    """Reads a shelf."""

    type = "shelf"

    @property
    def shelf(self) -> Shelf:
        """The shelf that the config names."""
        return SHELVES[self.opening.config.shelf]

    def steps(self) -> Sequence[Step]:
        return [Step("config", None)]

    def list_files(self, prefix: str = "") -> Iterator[Sequence[FileEntry]]:
        paths = sorted(path for path in self.shelf.files if path.startswith(prefix))
        for start in range(0, len(paths), self.shelf.page):
            yield [self.shelf.entry(path) for path in paths[start : start + self.shelf.page]]

    def open_file(self, path: str) -> OpenFile:
        self.shelf.opened.append(path)
        self.shelf.on_open(path)
        if self.shelf.faults.get(path):
            raise self.shelf.faults[path].pop(0)
        if path not in self.shelf.files:
            raise Permanent("The file is gone.", code="file_not_found")
        stream = self.shelf.streams.get(path, lambda: io.BytesIO(self.shelf.files[path]))()
        return OpenFile(self.shelf.entry(path), None, stream)

    def uri(self, path: str) -> str:
        return f"shelf://{self.opening.config.shelf}/{path}"
