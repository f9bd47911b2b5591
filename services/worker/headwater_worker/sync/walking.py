"""The sync of a source of records: one walk through its pages, landed in one load and shown in one step.

Half a walk says nothing about what is gone, so that an error in it is an error of the sync, and a sync that was killed
walks again, unless the walk had landed whole. What a walk replaces is settled before it is shown (decision 0007), in
short fenced transactions that can be repeated.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any, Final

import orjson

from headwater import db
from headwater.catalogue import keyed, loads
from headwater.catalogue.loads import Differences
from headwater.db import Row
from headwater_worker.connectors.base import Page, RecordConnector, Walk
from headwater_worker.context import JobContext
from headwater_worker.sync import listing, showing
from headwater_worker.sync.ahead import ahead
from headwater_worker.sync.landing import Landing
from headwater_worker.sync.loading import Loading
from headwater_worker.sync.pages import Pages
from headwater_worker.sync.plan import Plan

# A strict sync that has failed goes on looking until it can say this much.
_ENOUGH_REJECTS: Final = 1_000


def plan_of(plan: Plan, walk: Walk) -> Plan:
    """The plan of a walk: nothing of it is shown before its end, and it is another one if the walk is."""
    how = orjson.dumps([plan.fingerprint, walk.identity], option=orjson.OPT_SORT_KEYS)
    return dataclasses.replace(plan, fingerprint=hashlib.sha256(how).hexdigest(), whole=True)


class Walking:
    """The second half of a sync: walk, have each page read, land."""

    def __init__(self, context: JobContext, connector: RecordConnector, plan: Plan, landing: Landing) -> None:
        self._context = context
        self._connector = connector
        self._plan = plan
        self._landing = landing

    def run(self) -> None:
        """Walk through the source, if it is wanted and not known to be unchanged. Raises `ConnectorError`."""
        claim = self._context.claim
        assert claim.data_source_id is not None
        self._context.progress.phase("reading", unit="records")
        wanted = Differences(claim.data_source_id, self._plan.fingerprint, self._plan.full)
        for row in self._landing.ask(loads.to_read(wanted, after="")):
            self._read(row, self._landing.ask(keyed.before(claim.data_source_id))[0])

    def _read(self, row: Row, before: Row) -> None:
        since = self._since(before)
        loading = self._landing.begin(
            row["path"],
            etag=None,
            was="new" if row["is_new"] else "changed",
            first=0 if since is None else before["records"],
            first_reject=0 if since is None else before["rejects"],
        )
        loading.details["walk"] = "full" if since is None else "increment"
        key = self._connector.walk.key
        if key is not None:
            loading.details["key"] = list(key)
        with closing(self._reading(loading, since)) as pages:
            for page in self._pages(since):
                # A load is only taken up again by a later attempt if it is of what was listed.
                loading.etag = page.etag if row["etag"] is not None else None
                for judged in pages.read(page):
                    self._context.checkpoint()
                    self._context.progress.advance(judged.parsed)
                    self._landing.add(loading, judged)
                    if self._landing.doomed and self._landing.rejected >= (_ENOUGH_REJECTS if self._plan.strict else 0):
                        return
            self._end(loading, pages)

    def _since(self, before: Row) -> str | None:
        """Where the last walk ended, if this one may go on from there."""
        if self._connector.walk.cursor is None or self._plan.full or before["fingerprint"] != self._plan.fingerprint:
            return None
        cursor: str | None = before["cursor"]
        return cursor

    def _end(self, loading: Loading, pages: Pages) -> None:
        loading.details["last"] = loading.first + loading.parsed
        if pages.cursor is not None:
            loading.details["cursor"] = pages.cursor
        if pages.odd_cursors:
            self._context.progress.warn(
                "cursor_not_understood",
                "Some records have no value of the named format where `incremental.cursor_path` leads.",
            )
        if loading.details["walk"] == "full" and not loading.parsed:
            self._context.progress.warn("no_records", "The source answered, and has no records.")
        self._landing.finish(loading)

    def _pages(self, since: str | None) -> Iterator[Page]:
        """The pages in their order; each is asked for on a thread of its own, once the one before it is read."""
        pages = self._connector.pages(since=since, named=self._plan.format)
        while (page := next(ahead(islice(pages, 1), self._context.checkpoint), None)) is not None:
            yield page

    def _reading(self, loading: Loading, since: str | None) -> Pages:
        def read(count: int) -> None:
            loading.bytes_read += count
            self._context.progress.count(bytes_read=count)

        return Pages(
            self._connector,
            loading,
            csv=self._plan.csv,
            schema=self._plan.record_schema,
            since=since,
            on_read=read,
            interrupt=self._context.checkpoint,
        )


def finish(context: JobContext, plan: Plan) -> None:
    """Settle what the walk replaces, then show it. Raises `JobError` (`mass_delete_refused`), `LeaseLost`."""
    load = db.run(context.connection, keyed.landed(context.claim.job_id)).fetchone()
    if load is not None and "key" in load["counters"]:
        _Settling(context, plan, load).run()
    context.progress.phase("showing")
    showing.finish_walk(context)


class _Settling:
    """Which records of a walk replace which: worked out slice by slice, before the flip."""

    def __init__(self, context: JobContext, plan: Plan, load: Row) -> None:
        assert context.claim.data_source_id is not None
        self._context = context
        self._plan = plan
        self._source = context.claim.data_source_id
        self._id: int = load["id"]
        self._counters: dict[str, Any] = load["counters"]

    def run(self) -> None:
        """All of it; what an earlier attempt has done is found done."""
        is_full = self._counters["walk"] == "full"
        self._context.progress.phase("settling", total=self._counters["last"], unit="records")
        self._settle(replaces=not is_full)
        if is_full:
            self._miss()

    def _settle(self, *, replaces: bool) -> None:
        earlier: int = self._counters.get("duplicates", 0)
        duplicates, after = 0, 0
        while (through := self._ask(keyed.item_slice_end(load_id=self._id, after=after))["through"]) is not None:
            duplicates += self._write(
                keyed.settle(
                    data_source_id=self._source,
                    load_id=self._id,
                    key=self._counters["key"],
                    replaces=replaces,
                    after=after,
                    through=through,
                )
            )["duplicates"]
            self._context.progress.advance(through - after)
            after = through
        self._context.progress.count(landed=-duplicates)
        if earlier + duplicates:
            self._context.progress.skip("duplicate_key", earlier + duplicates)

    def _miss(self) -> None:
        carry = self._plan.on_missing != "delete"
        gone: int = self._counters.get("carried", 0)
        after: str | None = ""
        while after is not None:
            through = self._ask(keyed.key_slice_end(data_source_id=self._source, after=after))["through"]
            gone += self._write(
                keyed.gone(
                    data_source_id=self._source,
                    load_id=self._id,
                    key=self._counters["key"],
                    carry=carry,
                    after=after,
                    through=through,
                )
            )["gone"]
            after = through
        self._context.progress.count(missing=gone)
        if not carry:
            known = self._ask(loads.totals(self._source))["item_count"]
            listing.guard_deletion(known=known, gone=gone, things="records")

    def _ask(self, statement: db.Statement) -> Row:
        self._context.checkpoint()
        row = db.run(self._context.connection, statement).fetchone()
        assert row is not None
        return row

    def _write(self, statement: db.Statement) -> Row:
        with self._context.fenced() as connection:
            row = db.run(connection, statement).fetchone()
        assert row is not None
        return row
