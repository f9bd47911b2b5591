"""The seam between jobs and sources: what a connector's runtime offers.

A runtime is opened for one job in one process, used by one thread at a time unless it says otherwise, and closed. It
raises nothing but `ConnectorError`s: each has one table from its SDK's errors to ours.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

from headwater.connectors.spec import ConnectorConfig
from headwater.errors import ConnectorError, Permanent
from headwater.uploads.reading import SourceUploads
from headwater_worker.egress import Policy, Proxy
from headwater_worker.sync.answers import Envelope, Told
from headwater_worker.sync.formats.base import ByteStream, Refusal
from headwater_worker.sync.formats.choice import Format

StepName: TypeAlias = Literal[
    "config", "resolve", "egress", "connect", "tls", "authenticate", "target", "list", "read"
]  # fmt: skip


@dataclass(frozen=True)
class Opening:
    """What a runtime is opened with.

    `credentials` are the unsealed fields that are set. `policy` and `proxy` are the only way out: HTTP clients get
    `proxy.url` as their one proxy. `ambient_allowed`: the operator lets sources use the worker's own role.
    `local_files_roots`: the folders of the worker's machine that sources may be in. `uploads`: what was uploaded to
    this source; None for a source that is not saved, and for types that take no uploads. `gcs_token_url`: the
    operator's token endpoint instead of Google's.
    """

    config: ConnectorConfig
    credentials: Mapping[str, str] = field(repr=False)
    policy: Policy
    proxy: Proxy
    ambient_allowed: bool = False
    local_files_roots: Sequence[str] = ()
    uploads: SourceUploads | None = None
    gcs_token_url: str | None = None


@dataclass(frozen=True)
class CheckWarning:
    """A step that passed but has something to say, such as `empty_scope`."""

    code: str
    message: str
    hint: str | None = None


class Skipped:
    """A step that found nothing to work on: nothing can be read where nothing is."""


@dataclass(frozen=True)
class Step:
    """One step of a connection test. `run` raises `ConnectorError` if it fails; None as `run` means not applicable."""

    name: StepName
    run: Callable[[], CheckWarning | Skipped | None] | None


class FileEntry(NamedTuple):
    """One file as a listing shows it: what goes into the inventory, in that order, and `skipped`.

    `path` is the full key; `etag` changes when the content does.
    `skipped`: it is there and cannot be brought in, for this reason; it is counted in `skipped_by` and never opened.
    """

    path: str
    size: int | None
    etag: str | None
    modified_at: datetime | None
    skipped: str | None = None


@dataclass(frozen=True)
class OpenFile:
    """A file opened for reading; `entry` is what is being read, which may be newer than what was listed."""

    entry: FileEntry
    content_type: str | None
    stream: ByteStream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


class Connector(ABC):
    """A source that can be tested."""

    type: ClassVar[str]

    def __init__(self, opening: Opening) -> None:
        self.opening = opening

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def steps(self) -> Sequence[Step]:
        """The ladder of a connection test, in order; after the first failure the rest is skipped."""

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of clients and connections."""


class ListedConnector(Connector):
    """A source whose content can be listed into the catalogue."""

    @property
    def lists_in_order(self) -> bool:
        """Whether `list_files` promises the order of the paths (of their UTF-8): the catalogue need not wait for it."""
        return False

    @abstractmethod
    def list_files(self, prefix: str = "") -> Iterator[Sequence[FileEntry]]:
        """Pages of files under the config's own prefix whose path starts with `prefix`, each path once.

        Keys that stand for directories (an empty object whose key ends in `/`) are included; the caller skips them.
        """

    def list_known(self, prefix: str, landmarks: Sequence[str]) -> Iterator[Sequence[FileEntry]]:  # noqa: ARG002
        """As `list_files`, of a source that was listed before; for connectors that can list parts of it at once.

        `landmarks`: paths under `prefix` in byte order, some thousand files apart when they were seen; they may be
        gone.
        """
        return self.list_files(prefix)

    @abstractmethod
    def uri(self, path: str) -> str:
        """Where the file is, for people and programs: `s3://bucket/key`. Never with credentials."""


class FileConnector(ListedConnector):
    """A source of files. `open_file` may be called from several threads at once."""

    @abstractmethod
    def open_file(self, path: str) -> OpenFile:
        """Open a file by its full path. Raises `Permanent(code="file_not_found")` when it is gone."""


@dataclass(frozen=True)
class Walk:
    """How the records of a source are told apart, and what makes a later walk a continuation of an earlier one.

    `key`: the members, from the outside in, that lead to what identifies a record; None if nothing does. `cursor`
    leads to the value that says when a record changed, compared as `cursor_format` says; None if every walk is of all
    records. `identity`: what the records come from; with another one, nothing is known of them yet.
    """

    identity: Mapping[str, Any]
    key: tuple[str, ...] | None = None
    cursor: tuple[str, ...] | None = None
    cursor_format: str = "text"


@dataclass
class Page:
    """One answer of a source of records: `stream` holds it as it came, in `format`; in JSON within `envelope`.

    A connector looks into none: a reader takes it apart, in a process of its own. Before the next page is asked for,
    how many records came is in `seen`, and what else a walk has to know in `told`.
    """

    format: Format
    stream: ByteStream
    envelope: Envelope | None = None
    etag: str | None = None
    seen: int = 0
    told: Told | None = None


class RecordConnector(ListedConnector):
    """A source of records, one file in the catalogue, that are walked through page by page."""

    @property
    @abstractmethod
    def walk(self) -> Walk:
        """What the records are."""

    @abstractmethod
    def pages(self, *, since: str | None = None, named: str | None = None) -> Iterator[Page]:
        """The pages of one walk, all records or those that changed `since`.

        `named`: the format of all pages, if the user said it. Used by one thread at a time. An error is an error of
        the whole walk: half of one is worth nothing.
        """

    def misread(self, fault: Refusal) -> ConnectorError:
        """What it means that a page could not be read; `fault.code` is one of `sync.answers` or of a format."""
        return Permanent(
            f"An answer of the source cannot be read: {fault.message}",
            code="invalid_answer",
            hint="Check that the source answers in the format that it names.",
        )
