"""The second half of a sync of files: each is opened here, read by a reader, landed here.

Several are under way at once. Small ones are answered in their order; a large one has a reader for itself and is landed
beside them as it comes. Each load's records keep their order and numbers, whatever else is under way.
"""

import io
import mimetypes
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from functools import partial
from typing import Final

import orjson

from headwater import log
from headwater.catalogue import loads
from headwater.catalogue.loads import Differences
from headwater.errors import ConnectorError, Transient
from headwater.jobs.outcome import FAILING_CODES
from headwater_worker.connectors.base import FileConnector, FileEntry
from headwater_worker.context import JobContext
from headwater_worker.sync import fetching, readers
from headwater_worker.sync.fetching import Fetched, Wanted
from headwater_worker.sync.formats import choice
from headwater_worker.sync.formats.base import Block, Refusal
from headwater_worker.sync.judging import Judge, Judged
from headwater_worker.sync.landing import Landing
from headwater_worker.sync.loading import Loading
from headwater_worker.sync.messages import TOO_COMPLEX, Garbled, Order
from headwater_worker.sync.plan import Plan
from headwater_worker.sync.readers import Reader, Reading

# A strict sync that has failed goes on looking until it can say this much.
_ENOUGH_REJECTS: Final = 1_000
# These speak of the source as a whole, not of one file.
_OF_THE_SOURCE: Final = FAILING_CODES - {"permission_denied", "not_found"}
# Of its own tables: what the machine has installed must not show in items.
_TYPES: Final = mimetypes.MimeTypes(filenames=())
# What is under way, so that no reader waits for the next small file.
_MOST_FILES: Final = 64
_MOST_BYTES: Final = 16 * 1024 * 1024
_WAIT_MILLISECONDS: Final = 500

_log = log.get(__name__)


class Files:
    """Has what is new and changed read, and lands it."""

    def __init__(self, context: JobContext, connector: FileConnector, plan: Plan, landing: Landing) -> None:
        self._context = context
        self._connector = connector
        self._plan = plan
        self._landing = landing
        self._in_bytes = False
        self._readers: list[Reader] = []

    def run(self) -> None:
        """Read all that is to be read, or as much as shows that the sync has failed."""
        total = self._landing.ask(loads.total_to_read(self._differences()))[0]
        self._in_bytes = bool(total["bytes"])
        if self._in_bytes:
            self._context.progress.phase("reading", total=total["bytes"], unit="bytes")
        else:
            self._context.progress.phase("reading", total=total["files"], unit="files")
        try:
            for wanted, ready in fetching.in_turn(self._wanted(), self._connector, self._context.checkpoint):
                self._context.checkpoint()
                if self._is_lost():
                    return
                self._read(wanted, ready)
            while any(reader.readings for reader in self._readers) and not self._is_lost():
                self._take()
        except ConnectorError:
            while any(one.size is not None for reader in self._readers for one in reader.readings):
                self._take()  # what came before it, and is here, is not fetched again
            raise
        finally:
            for reader in self._readers:
                reader.end()

    def _differences(self) -> Differences:
        claim = self._context.claim
        assert claim.data_source_id is not None
        return Differences(claim.data_source_id, self._plan.fingerprint, self._plan.full)

    def _is_lost(self) -> bool:
        enough = _ENOUGH_REJECTS if self._plan.strict else 0
        return self._landing.doomed and self._landing.rejected >= enough

    def _wanted(self) -> Iterator[Wanted]:
        after = ""
        while page := self._landing.ask(loads.to_read(self._differences(), after=after)):
            for row in page:
                is_new, found = row.pop("is_new"), row.pop("found")
                yield Wanted(FileEntry(**row), is_new, choice.format_of(row["path"], self._plan.format), found or {})
            after = page[-1]["path"]

    # From a file to a reader.

    def _read(self, wanted: Wanted, ready: Fetched | ConnectorError | None) -> None:
        if wanted.format.is_plain:
            self._point_at(wanted)
            return
        if isinstance(ready, ConnectorError):
            self._could_not_open(wanted, ready)
        elif ready is not None:
            self._give_small(wanted, ready)
        else:
            self._give_large(wanted)

    def _give_small(self, wanted: Wanted, fetched: Fetched) -> None:
        size = len(fetched.body)
        reader = self._wait_for(lambda: self._free(size))
        if reader is not None:
            loading = self._begin(wanted, fetched.entry.etag)
            self._count(loading, size)
            reader.give(Reading(self._order(wanted, loading), loading, partial(io.BytesIO, fetched.body), size=size))

    def _give_large(self, wanted: Wanted) -> None:
        # Only then it is opened: no source is kept waiting for a reader.
        reader = self._wait_for(self._idle)
        if reader is None:
            return
        try:
            etag, stream = fetching.open_patiently(self._connector, wanted.entry.path)
        except ConnectorError as error:
            self._could_not_open(wanted, error)
            return
        loading = self._begin(wanted, etag)
        read = partial(self._count, loading)
        reader.give(Reading(self._order(wanted, loading), loading, lambda: stream, on_read=read))

    def _begin(self, wanted: Wanted, etag: str | None) -> Loading:
        return self._landing.begin(wanted.entry.path, etag=etag, was="new" if wanted.is_new else "changed")

    def _order(self, wanted: Wanted, loading: Loading) -> Order:
        return Order(loading.id, wanted.format, self._plan.csv, wanted.found)

    def _count(self, loading: Loading, size: int) -> None:
        loading.bytes_read += size
        self._context.progress.count(bytes_read=size)
        self._advance(size)

    def _wait_for(self, found: Callable[[], Reader | None]) -> Reader | None:
        """A reader, as soon as there is one; None if the sync is lost meanwhile."""
        while (reader := found()) is None and not self._is_lost():
            self._take()
        return reader

    def _idle(self) -> Reader | None:
        """A reader without a file."""
        idle = next((one for one in self._readers if not one.readings), None)
        if idle is None and len(self._readers) < readers.MOST:
            idle = Reader(self._plan.record_schema)
            self._readers.append(idle)
        return idle

    def _free(self, size: int) -> Reader | None:
        """A reader for a small file; None while enough is under way."""
        waiting = [one.size for reader in self._readers for one in reader.readings if one.size is not None]
        if waiting and (len(waiting) >= _MOST_FILES or sum(waiting) + size > _MOST_BYTES):
            return None
        small = [one for one in self._readers if one.readings and one.readings[0].size is not None]
        return self._idle() or min(small, key=lambda one: len(one.readings), default=None)

    # From a reader to Postgres.

    def _take(self) -> None:
        """What has come from the large files, and from the first of the small ones."""
        busy = [one for one in self._readers if one.readings]
        small = [one for one in busy if one.readings[0].size is not None]
        first = min(small, key=lambda one: one.readings[0].loading.id, default=None)
        may = [one for one in busy if one not in small or one is first]
        while not (found := readers.ready(may, _WAIT_MILLISECONDS)):
            self._context.checkpoint()
        for reader in found:
            self._hear(reader)

    def _hear(self, reader: Reader) -> None:
        self._context.checkpoint()
        reading = reader.readings[0]
        try:
            answer = reader.answer(self._context.checkpoint)
        except Garbled:
            answer = None
        if isinstance(answer, Judged):
            self._landing.add(reading.loading, answer)
        elif answer is None:
            status = self._replace(reader)
            refusal = readers.why(status)
            _log.warning("reader.died", status=status, code=refusal.code)
            if refusal.code == readers.DIED:
                reading.loading.etag = None  # so that it is read again
            self._finish(reading, refusal)
        else:
            reader.readings.popleft()
            reading.loading.details.update(answer.details)
            if answer.fault is not None and answer.fault.code == TOO_COMPLEX:
                reader.readings.appendleft(reading)
                self._replace(reader)
            self._finish(reading, answer.fault, size=answer.size)

    def _replace(self, reader: Reader) -> int | None:
        """End a reader that is of no use any more; its wait status. Another one gets all but the first of its files."""
        _, *waiting = reader.readings
        self._readers.remove(reader)
        status = reader.end()
        for reading in waiting:
            heir = self._idle() or self._readers[0]
            heir.give(reading.again())
        return status

    def _finish(self, reading: Reading, fault: Refusal | None, *, size: int | None = None) -> None:
        loading, fed, reading.enough = reading.loading, reading.fed, True
        assert fed is not None
        while not wait([fed], timeout=_WAIT_MILLISECONDS / 1000).done:
            self._context.checkpoint()
        if fault is not None:
            if size is not None:
                # It was fed more, by chance, than was looked at.
                self._context.progress.count(bytes_read=size - loading.bytes_read)
                loading.bytes_read = size
            self._landing.refuse_file(loading, fault)
        else:
            try:
                fed.result()
            except ConnectorError as error:
                self._break_off(loading, error)
        self._landing.finish(loading)
        self._advance_file()

    def _point_at(self, wanted: Wanted) -> None:
        """A plain file is one item that says where it is; it is not opened."""
        entry = wanted.entry
        loading = self._begin(wanted, entry.etag)
        item = {
            "uri": self._connector.uri(entry.path),
            "size": entry.size,
            "etag": entry.etag,
            "content_type": _content_type(entry.path),
        }
        # The schema speaks of records.
        judge = Judge(None, load_id=loading.id)
        self._landing.add(loading, judge.judge(Block([(None, orjson.dumps(item), item)])))
        self._landing.finish(loading)
        self._advance(entry.size or 0)
        self._advance_file()

    def _could_not_open(self, wanted: Wanted, error: ConnectorError) -> None:
        if error.code == "file_not_found":
            self._context.progress.skip("vanished")
        else:
            loading = self._begin(wanted, None)
            self._break_off(loading, error)
            self._landing.finish(loading)
        self._advance(wanted.entry.size or 0)
        self._advance_file()

    def _break_off(self, loading: Loading, error: ConnectorError) -> None:
        """The source would not give the file, or the rest of it. Without an etag it is read again next time."""
        if isinstance(error, Transient) or error.code in _OF_THE_SOURCE:
            raise error
        loading.etag = None
        message = f"The source does not give this file: {error.message}"
        self._landing.refuse_file(loading, Refusal(None, error.code, message))

    def _advance(self, count: int) -> None:
        if self._in_bytes:
            self._context.progress.advance(count)

    def _advance_file(self) -> None:
        if not self._in_bytes:
            self._context.progress.advance()


def _content_type(path: str) -> str | None:
    _, dot, extension = path.rpartition("/")[2].rpartition(".")
    return _TYPES.guess_type(f"file.{extension}")[0] if dot else None
