"""A listing becomes the catalogue while it goes on: copied, compared slice by slice, written where it differs."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from operator import attrgetter, lt
from typing import Final, TypedDict
from uuid import UUID

from psycopg.errors import UniqueViolation

from headwater import db
from headwater.catalogue import inventory
from headwater.db import Row, Statement
from headwater_worker.connectors.base import FileEntry, ListedConnector
from headwater_worker.context import JobContext
from headwater_worker.sync.ahead import ahead
from headwater_worker.sync.inventory import copy_entries

_COPIED_AT_ONCE: Final = 20_000
_WAITING: Final = 50_000  # files that were listed and not copied yet
_TRIES: Final = 10
_PATH: Final = attrgetter("path")


class _Source(TypedDict):
    organization_id: UUID
    data_source_id: UUID


class _Slice(TypedDict):
    after: str
    through: str | None


class Cataloguing:
    """Takes one listing of the job's source into the catalogue.

    `prefix`: what was asked for. `complete`: the pages will be all there is under it. `in_order`: they are promised to
    come in the order of their paths. `marks`: what is not there becomes `missing`. `fingerprint`: as for
    `inventory.see`.

    A listing in order is compared while it goes on: what it says of a slice is final. Where the promise is broken, all
    is compared once more at its end.
    """

    def __init__(
        self,
        context: JobContext,
        *,
        prefix: str,
        complete: bool,
        in_order: bool,
        marks: bool,
        fingerprint: str | None = None,
    ) -> None:
        assert context.claim.data_source_id is not None
        self._context = context
        self._source = _Source(
            organization_id=context.claim.organization_id, data_source_id=context.claim.data_source_id
        )
        self._prefix = prefix
        self._whole = complete and not prefix
        self._in_order = in_order
        self._marks = marks
        self._fingerprint = fingerprint
        self._after = ""
        self._last = ""
        self._behind = 0  # files copied since the last slice
        self._missing = 0
        self._compared = 0
        self.count = 0
        db.run(context.connection, inventory.create())
        if self._whole:
            self._write(inventory.begin_sight(**self._source))

    def take(self, pages: Iterable[Sequence[FileEntry]]) -> None:
        """Take in all pages. Paths must be unique and storable (`sync.inventory`)."""
        for entries in _gathered(pages):
            self._copy(entries)
            if self._in_order and self._behind >= inventory.SLICE:
                self._take_slice(self._last, self._behind)
        db.run(self._context.connection, inventory.analyze())
        left = self._behind if self._in_order else self.count
        self._context.progress.phase("cataloguing", total=left, unit="files")
        if self._in_order:
            self._take_slice(None, self._behind)
        else:
            self._take_slices()

    def sight(self) -> None:
        """Say when the source was seen, if all of it was. After this nothing is missing that the listing showed."""
        if self._whole:
            self._write(inventory.sight(**self._source))
            self._write(inventory.see_again(data_source_id=self._source["data_source_id"]))

    def _copy(self, entries: Sequence[FileEntry]) -> None:
        self._context.checkpoint()
        copy_entries(self._context.connection, entries)
        self.count += len(entries)
        self._behind += len(entries)
        paths = [self._last, *map(_PATH, entries)]
        self._in_order = self._in_order and all(map(lt, paths, paths[1:]))
        self._last = paths[-1]

    def _take_slices(self) -> None:
        """All that was copied, whatever of it was compared before."""
        self._after = ""
        self._context.progress.count(unchanged=-self._compared)
        through: str | None = ""
        while through is not None:
            found = self._ask(inventory.slice_end(after=self._after))
            through = found["through"]
            self._take_slice(through, found["files"])

    def _take_slice(self, through: str | None, files: int) -> None:
        self._context.checkpoint()
        counts = self._seen(through)
        missing = self._missed(through) if counts["gone"] and self._marks else 0
        # What was marked before the order broke, and is there after all.
        mistaken = 0 if self._in_order else min(counts["back"], self._missing)
        new = counts["new"] - min(counts["new_again"], mistaken)
        self._missing += missing - mistaken
        self._compared += files
        self._context.progress.count(
            new=new,
            changed=counts["changed"],
            unchanged=files - new - counts["changed"],
            missing=missing - mistaken,
        )
        self._context.progress.advance(files)
        self._after, self._behind = through or self._after, 0

    def _seen(self, through: str | None) -> Row:
        where = _Slice(after=self._after, through=through)
        for left in reversed(range(_TRIES)):
            try:
                if not self._ask(inventory.is_known(data_source_id=self._source["data_source_id"], **where))["known"]:
                    with self._context.fenced() as connection:
                        db.run(connection, inventory.in_path_order())
                        add = inventory.add(**self._source, **where, whole=self._whole)
                        return {
                            "new": db.run(connection, add).rowcount,
                            "changed": 0,
                            "back": 0,
                            "new_again": 0,
                            "gone": 0,
                        }
                with self._context.fenced() as connection:
                    db.run(connection, inventory.in_path_order())
                    see = inventory.see(**self._source, **where, whole=self._whole, fingerprint=self._fingerprint)
                    return self._ask(see)
            except UniqueViolation:
                # Another listing has added a file meanwhile; now it is known.
                if not left:
                    raise
        raise AssertionError

    def _missed(self, through: str | None) -> int:
        # In a transaction of its own, so that each locks its files in path order: two listings never deadlock.
        with self._context.fenced() as connection:
            db.run(connection, inventory.in_path_order())
            mark = inventory.mark_missing(
                data_source_id=self._source["data_source_id"],
                prefix=self._prefix,
                after=self._after,
                through=through,
            )
            missing: int = self._ask(mark)["missing"]
            return missing

    def _write(self, statement: Statement) -> int:
        with self._context.fenced() as connection:
            return db.run(connection, statement).rowcount

    def _ask(self, statement: Statement) -> Row:
        row = db.run(self._context.connection, statement).fetchone()
        assert row is not None
        return row


def _gathered(pages: Iterable[Sequence[FileEntry]]) -> Iterator[list[FileEntry]]:
    """The pages, so many together that a COPY is worth it."""
    gathered: list[FileEntry] = []
    for page in pages:
        gathered.extend(page)
        if len(gathered) >= _COPIED_AT_ONCE:
            yield gathered
            gathered = []
    if gathered:
        yield gathered


def pages_ahead(
    context: JobContext, connector: ListedConnector, prefix: str
) -> Generator[Sequence[FileEntry], None, None]:
    """The pages of a listing, which goes on while they are taken in."""
    assert context.claim.data_source_id is not None
    landmarks: list[str] = []
    if connector.lists_in_order:
        known = inventory.landmarks(data_source_id=context.claim.data_source_id, prefix=prefix)
        landmarks = [row["path"] for row in db.run(context.connection, known)]
    pages = connector.list_known(prefix, landmarks) if landmarks else connector.list_files(prefix)
    return ahead(pages, context.checkpoint, room=_WAITING, size=len)
