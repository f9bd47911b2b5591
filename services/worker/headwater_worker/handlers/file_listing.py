"""What files are there? Brings the catalogue up to date with the source; imports nothing."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Final

from headwater import clock, db
from headwater.catalogue import inventory
from headwater.db import Row
from headwater.errors import JobError
from headwater.jobs.outcome import Outcome, Succeeded
from headwater_worker.connectors.base import FileEntry, ListedConnector
from headwater_worker.connectors.opening import open_connector
from headwater_worker.context import JobContext
from headwater_worker.sync.cataloguing import Cataloguing, pages_ahead
from headwater_worker.sync.inventory import all_files, not_a_file

_SHOWN: Final = 1000


def run(context: JobContext) -> Outcome:
    """List the source into the catalogue, the whole of it or what starts with `params.prefix`.

    With `params.limit` it is a preview: it stops after so many files and marks nothing missing. The result is
    {file_count, total_bytes, truncated, truncated_reason, files}; the counters are listed, new, changed, unchanged,
    missing, and skipped by reason. Raises `ConnectorError`, `JobError`, `VaultError` and what `checkpoint` raises.
    """
    listing = _Listing(context)
    with open_connector(context) as connector:
        if not isinstance(connector, ListedConnector):
            raise JobError("This source has no files to list.", code="unsupported")
        cataloguing = Cataloguing(
            context,
            prefix=listing.prefix,
            complete=listing.is_whole,
            in_order=connector.lists_in_order,
            marks=listing.is_whole,
        )
        context.progress.phase("listing", unit="files")
        with closing(pages_ahead(context, connector, listing.prefix)) as pages:
            cataloguing.take(listing.wanted(pages))
    cataloguing.sight()
    if listing.count == 0:
        context.progress.warn("no_files_matched", "There are no files to see here.")
    return Succeeded(_result(context, listing))


class _Listing:
    """The pages of one listing as they go by: filtered, counted, and ended at the limit."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._limit: int | None = context.claim.params.get("limit")
        self.prefix: str = context.claim.params.get("prefix") or ""
        self.truncated = False
        self.count = 0

    @property
    def is_whole(self) -> bool:
        """Everything under the prefix was seen. A limit never says so, even if it was not reached."""
        return self._limit is None

    def wanted(self, pages: Iterator[Sequence[FileEntry]]) -> Iterator[Sequence[FileEntry]]:
        """The files of each page."""
        for page in pages:
            self._context.checkpoint()
            wanted = page if all_files(page) else [entry for entry in page if self._is_listed(entry)]
            files = self._up_to_limit(wanted)
            self.count += len(files)
            # What was passed over was listed too; what lies behind the limit was not.
            self._context.progress.count(listed=len(page) - len(wanted) + len(files))
            self._context.progress.advance(len(files))
            yield files
            if self.truncated:
                return

    def _up_to_limit(self, files: Sequence[FileEntry]) -> Sequence[FileEntry]:
        if self._limit is None:
            return files
        room = self._limit - self.count
        # One more than the limit has to be seen before anything is known to be cut off.
        self.truncated = len(files) > room
        return files[:room]

    def _is_listed(self, entry: FileEntry) -> bool:
        reason = not_a_file(entry)
        if reason is not None:
            self._context.progress.skip(reason)
        return reason is None


def _result(context: JobContext, listing: _Listing) -> dict[str, Any]:
    total = _row(context, inventory.total())
    shown = db.run(context.connection, inventory.first(_SHOWN)).fetchall()
    return {
        "file_count": total["file_count"],
        "total_bytes": total["total_bytes"],
        "truncated": listing.truncated,
        "truncated_reason": "limit" if listing.truncated else None,
        "files": [_shown(row) for row in shown],
    }


def _shown(row: Row) -> dict[str, Any]:
    modified_at = None if row["modified_at"] is None else clock.rfc3339(row["modified_at"])
    return {"path": row["path"], "size": row["size"], "modified_at": modified_at, "etag": row["etag"]}


def _row(context: JobContext, statement: db.Statement) -> Row:
    row = db.run(context.connection, statement).fetchone()
    assert row is not None
    return row
