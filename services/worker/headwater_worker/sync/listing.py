"""The first half of a sync: list the source, pass over what is not wanted, compare the rest with the catalogue."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from headwater import db
from headwater.catalogue import loads
from headwater.errors import JobError
from headwater_worker.connectors.base import FileEntry, ListedConnector
from headwater_worker.context import JobContext
from headwater_worker.sync.cataloguing import Cataloguing, pages_ahead
from headwater_worker.sync.inventory import all_files, not_a_file, unstorable_path
from headwater_worker.sync.plan import Plan

_PASSED_OVER_AT_ONCE: Final = 20_000
# Fewer than this may vanish without a question, unless they are all there was.
_MANY: Final = 10


@dataclass(frozen=True)
class Scope:
    """What one listing found. `matched` files are in the temporary table `inventory`."""

    matched: int
    missing: int


def list_source(context: JobContext, connector: ListedConnector, plan: Plan) -> Scope:
    """Fill `inventory` and `passed_over`, bring the catalogue up to what was seen, count what is new.

    Raises `JobError` (`mass_delete_refused`) if the policy would delete more than is plausible.
    """
    connection, claim = context.connection, context.claim
    assert claim.data_source_id is not None
    cataloguing = Cataloguing(
        context,
        prefix=plan.prefix,
        complete=True,
        in_order=connector.lists_in_order,
        marks=False,  # by policy, when all is read
        fingerprint=plan.fingerprint,
    )
    db.run(connection, loads.create_scratch())
    context.progress.phase("listing", unit="files")
    with closing(pages_ahead(context, connector, plan.prefix)) as pages:
        cataloguing.take(_Wanted(context, plan).pages(pages))
    matched = cataloguing.count
    context.progress.count(matched=matched)
    if not matched:
        context.progress.warn("no_files_matched", "The source has no files that match what this sync asks for.")
    connection.execute("analyze passed_over")
    vanished = loads.vanished(data_source_id=claim.data_source_id, prefix=plan.prefix)
    found = db.run(connection, vanished).fetchone()
    assert found is not None
    context.progress.count(missing=found["unmarked"])
    if plan.on_missing == "delete" and not plan.whole:
        guard_deletion(known=found["known"], gone=found["gone"])
    if found["unsaid"]:
        with context.fenced():
            db.run(connection, loads.leave_vanished(data_source_id=claim.data_source_id, prefix=plan.prefix))
    cataloguing.sight()
    return Scope(matched=matched, missing=found["unmarked"])


class _Wanted:
    """Sorts a listing into what the sync wants and what it passes over."""

    def __init__(self, context: JobContext, plan: Plan) -> None:
        self._context = context
        self._plan = plan
        self._passed_over: list[str] = []

    def pages(self, listed: Iterator[Sequence[FileEntry]]) -> Iterator[Sequence[FileEntry]]:
        """The wanted files of each page."""
        for page in listed:
            plain = self._plan.globs.want_all and all_files(page)
            yield page if plain else [entry for entry in page if self._is_wanted(entry)]
            self._context.progress.count(listed=len(page))
            self._context.progress.advance(len(page))
            self._context.checkpoint()
            if len(self._passed_over) >= _PASSED_OVER_AT_ONCE:
                self._write()
        self._write()

    def _is_wanted(self, entry: FileEntry) -> bool:
        path, progress = entry.path, self._context.progress
        reason = not_a_file(entry)
        if reason is not None:
            progress.skip(reason)
            if entry.skipped is not None and unstorable_path(path) is None:
                self._passed_over.append(path)
            return False
        if self._plan.globs.want_all:
            return True
        passed_over = self._plan.globs.passed_over(path)
        if passed_over is not None:
            progress.skip(passed_over)
            self._passed_over.append(path)
        return passed_over is None

    def _write(self) -> None:
        # They are there, so they are not missing: an exclusion, or a right that is lost, takes nothing away.
        copy = self._context.connection.cursor().copy("copy passed_over (path) from stdin (format binary)")
        with copy as rows:
            rows.set_types(("text",))
            for path in self._passed_over:
                rows.write_row((path,))
        self._passed_over.clear()


def guard_deletion(*, known: int, gone: int, things: str = "files") -> None:
    """Raises `JobError` (`mass_delete_refused`) if more would be deleted than is plausible."""
    if gone and (gone == known or (gone >= _MANY and 2 * gone > known)):
        raise JobError(
            f"{gone} of {known} known {things} are gone from the source; this sync would delete what came of them.",
            code="mass_delete_refused",
            hint="If they are really gone, sync once with `reading.on_missing` set to `mark`, or delete the source.",
        )
