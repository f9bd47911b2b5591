"""The flip: what has landed becomes visible in one short transaction, whatever its size."""

from collections.abc import Sequence
from uuid import UUID

from headwater import db
from headwater.catalogue import keyed, loads
from headwater.db import Connection, Row
from headwater.errors import LeaseLost
from headwater_worker.context import JobContext
from headwater_worker.sync.plan import OnMissing


def show(context: JobContext) -> None:
    """Show the loads that have landed so far. Raises `LeaseLost`."""
    _flip(context, finished=False, on_missing="keep", prefix="")


def finish(context: JobContext, *, on_missing: OnMissing, prefix: str) -> None:
    """The last flip of a sync that ends well: show the rest, treat what vanished by policy, note the time."""
    if on_missing == "mark":
        assert context.claim.data_source_id is not None
        # Not within the flip: each transaction locks files in one go, in path order, or a listing could deadlock it.
        with context.fenced() as connection:
            db.run(connection, loads.mark_vanished(data_source_id=context.claim.data_source_id, prefix=prefix))
    _flip(context, finished=True, on_missing=on_missing, prefix=prefix)


def finish_walk(context: JobContext) -> None:
    """The flip of a walk: show it instead of what it replaces or beside it, note the time. Raises `LeaseLost`."""
    claim = context.claim
    assert claim.data_source_id is not None
    with context.fenced() as connection:
        at = db.run(connection, loads.snapshot(claim.data_source_id)).fetchone()
        assert at is not None
        shown = db.run(
            connection,
            keyed.show(data_source_id=claim.data_source_id, job_id=claim.job_id, snapshot=at["snapshot"]),
        ).fetchall()
        _count(connection, claim.data_source_id, at["snapshot"], shown, finished=True)


def _flip(context: JobContext, *, finished: bool, on_missing: OnMissing, prefix: str) -> None:
    claim = context.claim
    assert claim.data_source_id is not None
    source = claim.data_source_id
    with context.fenced() as connection:
        at = db.run(connection, loads.snapshot(source)).fetchone()
        assert at is not None
        snapshot = at["snapshot"]
        changes = [db.run(connection, loads.show(data_source_id=source, job_id=claim.job_id, snapshot=snapshot))]
        if on_missing == "delete":
            changes.append(
                db.run(connection, loads.delete_vanished(data_source_id=source, prefix=prefix, snapshot=snapshot))
            )
        rows = [row for change in changes for row in change.fetchall()]
        _count(connection, source, snapshot, rows, finished=finished)


def _count(connection: Connection, data_source_id: UUID, snapshot: int, rows: Sequence[Row], *, finished: bool) -> None:
    counted = db.run(
        connection,
        loads.count(
            data_source_id=data_source_id,
            snapshot=snapshot,
            flip=any(row["loads"] for row in rows),
            items=sum(row["items"] for row in rows),
            errors=sum(row["errors"] for row in rows),
            finished=finished,
        ),
    ).fetchone()
    if counted is None:
        # One sync per source lives at a time: whoever raised the snapshot has our lease.
        raise LeaseLost
