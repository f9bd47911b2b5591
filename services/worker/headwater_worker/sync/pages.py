"""A worker's side of the answers of sources of records: a reader takes them apart, one after another."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import wait
from typing import TYPE_CHECKING, Final

from headwater import log
from headwater.data_sources.record_schema import RecordSchema
from headwater.errors import ConnectorError, Permanent, Transient
from headwater_worker.sync import readers
from headwater_worker.sync.formats.base import CsvOptions, Refusal
from headwater_worker.sync.judging import Judged
from headwater_worker.sync.loading import Loading
from headwater_worker.sync.messages import TOO_COMPLEX, Done, Garbled, Order
from headwater_worker.sync.readers import Reader, Reading
from headwater_worker.sync.records import Looking

if TYPE_CHECKING:  # a connector looks at its first page through this module
    from headwater_worker.connectors.base import Page, RecordConnector

_WAIT_SECONDS: Final = 0.5

_log = log.get(__name__)


class Pages:
    """Has pages of one walk read. `cursor` and `odd_cursors` are as in `Records`, of all of them.

    `interrupt` is called at least every half second while waiting.
    """

    def __init__(
        self,
        connector: "RecordConnector",
        loading: Loading | None = None,
        *,
        csv: CsvOptions = CsvOptions(),  # noqa: B008 - it is frozen
        schema: RecordSchema | None = None,
        since: str | None = None,
        on_read: Callable[[int], None] = lambda _: None,
        interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        self.cursor = since
        self.odd_cursors = 0
        self._connector = connector
        self._loading = loading or Loading(1, "", None, "new")
        self._read = self._loading.first
        self._csv = csv
        self._schema = schema
        self._on_read = on_read
        self._interrupt = interrupt
        self._reader: Reader | None = None

    def read(self, page: "Page") -> Iterator[Judged]:
        """What becomes of its records; then `page` knows the rest. Raises `ConnectorError`."""
        reading = self._give(page)
        done = yield from self._answers(reading)
        if done.fault is not None:
            raise self._misread(done.fault)
        self._await_source(reading)
        if done.told is None:
            raise self._died()
        page.seen, page.told = reading.answered, done.told
        self._read += reading.answered
        self.cursor = done.told.cursor
        self.odd_cursors += done.told.odd_cursors

    def first(self, page: "Page") -> Refusal | Sequence[str] | None:
        """What its first record lacks, as in `Records`; no more is read than that takes. Raises `ConnectorError`."""
        reading = self._give(page)
        answers = self._answers(reading)
        while True:
            try:
                next(answers)
            except StopIteration as end:
                done: Done = end.value
                break
            reading.enough = True
        if done.told is not None and done.told.first is not None:
            return done.told.first
        if done.fault is not None:
            raise self._misread(done.fault)
        self._await_source(reading)
        return None

    def close(self) -> None:
        """End the reader, whatever it does."""
        if self._reader is not None:
            self._reader.end()
            self._reader = None

    def _give(self, page: "Page") -> Reading:
        if self._reader is None:
            self._reader = Reader(self._schema)
        walk = self._connector.walk
        order = Order(
            load_id=self._loading.id,
            format=page.format,
            csv=self._csv,
            found={},
            first=self._read,
            looking=Looking(walk.key, walk.cursor, walk.cursor_format, self.cursor),
            envelope=page.envelope,
        )
        reading = Reading(order, self._loading, lambda: page.stream, on_read=self._on_read)
        self._reader.give(reading)
        return reading

    def _answers(self, reading: Reading) -> Generator[Judged, None, Done]:
        reader = self._reader
        assert reader is not None
        while True:
            try:
                answer = reader.answer(self._interrupt)
            except Garbled:
                answer = None
            if answer is None:
                raise self._died()
            if isinstance(answer, Done):
                reader.readings.popleft()
                reading.enough = True
                return answer
            yield answer

    def _await_source(self, reading: Reading) -> None:
        """Whether all of the page came is the source's to say."""
        assert reading.fed is not None
        while not wait([reading.fed], timeout=_WAIT_SECONDS).done:
            self._interrupt()
        reading.fed.result()

    def _misread(self, fault: Refusal) -> ConnectorError:
        if fault.code == TOO_COMPLEX:
            return _too_complex("Reading it takes more than 768 MiB of memory.")
        return self._connector.misread(fault)

    def _died(self) -> ConnectorError:
        assert self._reader is not None
        status, self._reader = self._reader.end(), None
        refusal = readers.why(status)
        _log.warning("reader.died", status=status, code=refusal.code)
        if refusal.code == TOO_COMPLEX:
            return _too_complex("Reading it took more than 30 s of a processor without a record.")
        return Transient("The process that read an answer of the source ended in the middle of it.", code=refusal.code)


def _too_complex(why: str) -> ConnectorError:
    return Permanent(
        f"An answer of the source cannot be read. {why}",
        code="page_too_complex",
        hint="Ask for smaller pages, or for records in another form.",
    )
