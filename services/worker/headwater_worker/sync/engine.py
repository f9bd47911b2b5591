"""One sync from its first listing to its last flip."""

import io
import mimetypes
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import orjson

from headwater import db
from headwater.catalogue import loads
from headwater.catalogue.loads import Differences
from headwater.errors import ConnectorError, Transient
from headwater.jobs.outcome import FAILING_CODES, Failed, JobFailure, Outcome, Succeeded
from headwater_worker.connectors.base import ByteStream, FileConnector, FileEntry, RecordConnector
from headwater_worker.context import JobContext
from headwater_worker.sync import fetching, listing, showing, walking
from headwater_worker.sync import plan as planning
from headwater_worker.sync.fetching import Fetched, Wanted
from headwater_worker.sync.formats import choice
from headwater_worker.sync.formats.base import Block, Options, Refusal, Source, Unreadable
from headwater_worker.sync.landing import Landing
from headwater_worker.sync.loading import Loading
from headwater_worker.sync.plan import Plan

# A strict sync that has failed goes on looking until it can say this much.
_ENOUGH_REJECTS: Final = 1_000
# These speak of the source as a whole, not of one file.
_OF_THE_SOURCE: Final = FAILING_CODES - {"permission_denied", "not_found"}
# Of its own tables: what the machine has installed must not show in items.
_TYPES: Final = mimetypes.MimeTypes(filenames=())


def run(context: JobContext, connector: FileConnector | RecordConnector) -> Outcome:
    """Bring in what is new and changed. Raises `JobError` before anything is read, `ConnectorError`, `JobInterrupted`.

    A killed sync goes on where it was: whole files that an earlier attempt of the job has landed are not read again.
    """
    plan = planning.plan(context.claim)
    if isinstance(connector, RecordConnector):
        plan = walking.plan_of(plan, connector.walk)
    listing.list_source(context, connector, plan)
    parsed, rejected = _resume(context, plan)
    with Landing(context, plan, parsed=parsed, rejected=rejected) as landing:
        if isinstance(connector, RecordConnector):
            walking.Walking(context, connector, plan, landing).run()
        else:
            _Reading(context, connector, plan, landing).run()
        landing.flush()
        landing.settle()
    return _end(context, plan, landing)


def _resume(context: JobContext, plan: Plan) -> tuple[int, int]:
    """Throw away what an earlier attempt left unfinished, count what it finished: (parsed, rejected)."""
    connection, job_id = context.connection, context.claim.job_id
    with context.fenced():
        db.run(connection, loads.disown_outdated(job_id=job_id, fingerprint=plan.fingerprint))
    unfinished = [row["id"] for row in db.run(connection, loads.unfinished(job_id)).fetchall()]
    if unfinished:
        deleted = 1
        while deleted:
            context.checkpoint()
            with context.fenced():
                deleted = db.run(connection, loads.discard_items(unfinished)).rowcount
        with context.fenced():
            db.run(connection, loads.discard(unfinished))
    db.run(connection, loads.remember_landed(job_id=job_id, fingerprint=plan.fingerprint))
    connection.execute("analyze landed_before")
    kept = db.run(connection, loads.kept(job_id)).fetchone()
    assert kept is not None
    shown_new, shown_changed = kept.pop("shown_new"), kept.pop("shown_changed")
    # The comparison took what this job itself had shown for unchanged.
    context.progress.count(new=shown_new, changed=shown_changed, unchanged=-shown_new - shown_changed, **kept)
    for row in db.run(connection, loads.kept_errors(job_id)).fetchall():
        context.progress.refuse(row["code"], 0)
        for sample in row["samples"]:
            context.progress.refuse(row["code"], 0, sample)
        context.progress.refuse(row["code"], row["count"])
    return kept["parsed"], kept["rejected"]


def _end(context: JobContext, plan: Plan, landing: Landing) -> Outcome:
    parsed, rejected = landing.parsed, landing.rejected
    if plan.limit is not None and plan.limit.is_over(rejected=rejected, parsed=parsed):
        context.progress.count(landed=-context.progress.snapshot().counters.get("landed", 0))
        return Failed(_too_many(plan, parsed=parsed, rejected=rejected))
    if plan.whole:
        walking.finish(context, plan)
    else:
        context.progress.phase("showing")
        showing.finish(context, on_missing=plan.on_missing, prefix=plan.prefix)
    assert context.claim.data_source_id is not None
    result = db.run(
        context.connection,
        loads.outcome(data_source_id=context.claim.data_source_id, job_id=context.claim.job_id),
    ).fetchone()
    assert result is not None
    return Succeeded(dict(result), partially=rejected > 0)


def _too_many(plan: Plan, *, parsed: int, rejected: int) -> JobFailure:
    stays = "Nothing of this sync is shown; items and counts are as they were."
    if plan.strict:
        return JobFailure(
            code="validation_failed",
            message=f"{rejected} of {parsed} records were refused, and the source is strict. {stays}",
            hint="The job's rejects name each record and its fault. Correct them, or make `validation.mode` lenient.",
            origin="source",
        )
    return JobFailure(
        code="max_errors_exceeded",
        message=f"{rejected} of {parsed} records were refused, more than `max_errors` allows. {stays}",
        hint="The job's rejects name each record and its fault. Correct them, or raise `validation.max_errors`.",
        origin="source",
    )


class _Reading:
    """The second half of a sync: read, parse, land."""

    def __init__(self, context: JobContext, connector: FileConnector, plan: Plan, landing: Landing) -> None:
        self._context = context
        self._connector = connector
        self._plan = plan
        self._landing = landing
        self._in_bytes = False

    def run(self) -> None:
        """Read all that is to be read, or as much as shows that the sync has failed."""
        total = self._landing.ask(loads.total_to_read(self._differences()))[0]
        self._in_bytes = bool(total["bytes"])
        if self._in_bytes:
            self._context.progress.phase("reading", total=total["bytes"], unit="bytes")
        else:
            self._context.progress.phase("reading", total=total["files"], unit="files")
        for wanted, ready in fetching.in_turn(self._wanted(), self._connector, self._context.checkpoint):
            self._context.checkpoint()
            if self._is_lost():
                return
            self._read(wanted, ready)
            if not self._in_bytes:
                self._context.progress.advance()

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

    def _read(self, wanted: Wanted, ready: Fetched | ConnectorError | None) -> None:
        if wanted.format.is_plain:
            self._point_at(wanted)
            return
        try:
            if isinstance(ready, ConnectorError):
                raise ready
            if ready is not None:
                etag, stream = ready.entry.etag, _in_memory(ready.body)
            else:
                etag, stream = fetching.open_patiently(self._connector, wanted.entry.path)
        except ConnectorError as error:
            self._could_not_open(wanted, error)
            return
        with closing(stream):
            self._parse(wanted, self._begin(wanted, etag), stream)

    def _begin(self, wanted: Wanted, etag: str | None) -> Loading:
        return self._landing.begin(wanted.entry.path, etag=etag, was="new" if wanted.is_new else "changed")

    def _parse(self, wanted: Wanted, loading: Loading, stream: ByteStream) -> None:
        options = Options(csv=self._plan.csv, schema=self._plan.schema, found=wanted.found, details=loading.details)

        def read(count: int) -> None:
            loading.bytes_read += count
            self._context.progress.count(bytes_read=count)
            self._advance(count)

        try:
            for block in wanted.format.blocks(Source(stream, read), options):
                self._context.checkpoint()
                self._landing.add(loading, block)
                if self._is_lost():
                    return
        except Unreadable as error:
            self._landing.refuse_file(loading, Refusal(error.line, error.code, error.message))
        except ConnectorError as error:
            self._break_off(loading, error)
        self._landing.finish(loading)

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
        self._landing.add(loading, Block([(None, orjson.dumps(item), item)]), validated=False)
        self._landing.finish(loading)
        self._advance(entry.size or 0)

    def _could_not_open(self, wanted: Wanted, error: ConnectorError) -> None:
        if error.code == "file_not_found":
            self._context.progress.skip("vanished")
        else:
            loading = self._begin(wanted, None)
            self._break_off(loading, error)
            self._landing.finish(loading)
        self._advance(wanted.entry.size or 0)

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


def _in_memory(body: bytes) -> ByteStream:
    return io.BytesIO(body)


def _content_type(path: str) -> str | None:
    _, dot, extension = path.rpartition("/")[2].rpartition(".")
    return _TYPES.guess_type(f"file.{extension}")[0] if dot else None
