"""One sync from its first listing to its last flip."""

from headwater import db
from headwater.catalogue import loads
from headwater.jobs.outcome import Failed, JobFailure, Outcome, Succeeded
from headwater_worker.connectors.base import FileConnector, RecordConnector
from headwater_worker.context import JobContext
from headwater_worker.sync import listing, showing, walking
from headwater_worker.sync import plan as planning
from headwater_worker.sync.files import Files
from headwater_worker.sync.landing import Landing
from headwater_worker.sync.plan import Plan


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
            Files(context, connector, plan, landing).run()
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
