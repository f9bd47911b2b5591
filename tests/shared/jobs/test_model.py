"""Any order of submits, claims, beats, batches, ends, cancels, lost leases and late workers, against a small model.

The model is what docs/jobs.md promises, written down once more in Python; Postgres is asked with the rights that each
process has. Claims are kept after they were lost, so that a worker which comes back late is one more move.
"""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import making
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from headwater import db
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.errors import LeaseLost
from headwater.jobs import dispatching, lifecycle, statements
from headwater.jobs.lifecycle import Claim
from headwater.jobs.outcome import Cancelled, Failed, JobFailure, Outcome, Progress, Released, Succeeded
from headwater.settings import JobSettings

SETTINGS: Final = JobSettings(
    lease_seconds=3600, retry_base_seconds=0, running_per_organization=1000, running_per_source=1000
)
MAX_ATTEMPTS: Final = 3
KINDS: Final = st.sampled_from(["connection_test", "file_listing", "sync"])
LIVE: Final = ("queued", "running", "cancelling")
NEXT: Final = {
    "queued": {"running", "cancelled"},
    "running": {"queued", "cancelling", "succeeded", "partially_succeeded", "failed", "cancelled"},
    "cancelling": {"succeeded", "partially_succeeded", "failed", "cancelled"},
}
OUTCOMES: Final[dict[str, Outcome]] = {
    "succeeded": Succeeded({"success": True, "message": "fine"}),
    "partially": Succeeded({"success": True, "message": "fine"}, partially=True),
    "busy": Failed(JobFailure("throttled", "Busy.", origin="source", retryable=True)),
    "busy for an hour": Failed(JobFailure("throttled", "Busy.", origin="source", retryable=True), 3600),
    "refused": Failed(JobFailure("permission_denied", "No.", origin="source")),
    "cancelled": Cancelled(),
    "released": Released(),
}


@dataclass
class Job:
    """What the model knows of a job. `holder` may write its effects; `claims` are all that ever could."""

    id: UUID
    kind: str
    status: str = "queued"
    attempt: int = 0
    interruptions: int = 0
    crashes: int = 0
    is_cancelled: bool = False
    is_delayed: bool = False
    is_late: bool = False
    is_expired: bool = False
    effects: int = 0
    holder: Claim | None = None
    claims: list[Claim] = field(default_factory=list)
    history: list[str] = field(default_factory=lambda: ["queued"])

    def become(self, status: str) -> None:
        """Go to `status`, which has to be allowed; the model is checked as well."""
        if status != self.status:
            assert status in NEXT[self.status], (self.status, status)
            self.history.append(status)
        self.status = status
        if status not in ("running", "cancelling"):
            self.holder, self.is_expired = None, False


@dataclass
class Lanes:
    """A connection for each process, with its own login."""

    api: Connection
    workers: list[Connection]
    scheduler: Connection
    superuser: Connection
    organization: CreatedOrganization
    project_id: UUID


@pytest.fixture
def lanes(
    database: str, connection: Connection, organization: CreatedOrganization, project_id: UUID
) -> Iterator[Lanes]:
    """One API, two workers, one scheduler; effects go into a table of the test's own."""
    connection.execute("create table if not exists effect (job_id uuid, token uuid)")
    connection.execute("grant insert on effect to headwater_worker")
    with ExitStack() as stack:

        def lane(service: Any) -> Connection:
            return stack.enter_context(db.connect(making.as_service(database, service), application="tests"))

        yield Lanes(
            lane("api"), [lane("worker"), lane("worker")], lane("scheduler"), connection, organization, project_id
        )


class Lifecycle(RuleBasedStateMachine):
    """The moves. Which job or claim a move is about is drawn as a number."""

    lanes: Lanes

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[UUID, Job] = {}
        self.source_id = making.make_source(
            self.lanes.superuser, self.lanes.organization.organization_id, self.lanes.project_id
        )

    def teardown(self) -> None:
        """Leave nothing to the next example."""
        self.lanes.superuser.execute("delete from job")
        self.lanes.superuser.execute("delete from effect")

    def job(self, number: int) -> Job:
        """Those that live come first, so that long lives are not rare."""
        jobs = sorted(self.jobs.values(), key=lambda job: job.status not in LIVE)
        return jobs[number % len(jobs)]

    def place_of(self, job: Job) -> int:
        """The number by which `job` finds it."""
        return next(place for place in range(len(self.jobs)) if self.job(place) is job)

    def claim_of(self, number: int) -> tuple[Job, Claim]:
        return self.claims()[number % len(self.claims())]

    def place_of_claim(self, claim: Claim | None) -> int:
        """The number by which `claim_of` finds it."""
        return next(place for place, (_, each) in enumerate(self.claims()) if each is claim)

    def claims(self) -> list[tuple[Job, Claim]]:
        """Those that hold come first."""
        claims = [(job, claim) for job in self.jobs.values() for claim in job.claims]
        return sorted(claims, key=lambda each: each[0].holder is not each[1])

    def holders(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.holder is not None]

    @initialize(kinds=st.tuples(KINDS, KINDS))
    def begin(self, kinds: tuple[str, str]) -> None:
        """Two jobs run: which moves an example may draw is drawn as well, and most are about jobs that run."""
        for kind in kinds:
            self.start(kind, full=False)

    @precondition(lambda self: sum(job.status in LIVE for job in self.jobs.values()) < 2)
    @rule(kind=KINDS, full=st.booleans())
    def start(self, kind: str, full: bool) -> None:
        """A job is submitted, and whatever waits is rung for."""
        self.submit(kind, full)
        for job in [job for job in self.jobs.values() if job.status == "queued"]:
            self.ring(self.place_of(job), 0)

    @precondition(lambda self: sum(job.status in LIVE for job in self.jobs.values()) < 2)
    @rule(kind=KINDS, full=st.booleans())
    def submit(self, kind: str, full: bool) -> None:
        """A sync joins a live one that does the same, and is refused beside another; the rest always starts."""
        live = [job for job in self.jobs.values() if job.kind == kind == "sync" and job.status in LIVE]
        answer = making.submit(
            self.lanes.api, self.lanes.organization, self.lanes.project_id, self.source_id, kind,
            params={"full": True} if full else {}, max_attempts=MAX_ATTEMPTS, deadline_seconds=3600,
        )  # fmt: skip
        if not live:
            assert answer["outcome"] == "created"
            job_id = UUID(answer["job"]["id"])
            self.jobs[job_id] = Job(job_id, kind)
            return
        assert answer["outcome"] in ("joined", "sync_in_progress")
        if live[0].status == "cancelling":
            assert answer["outcome"] == "sync_in_progress"
        assert UUID(answer.get("job_id") or answer["job"]["id"]) == live[0].id

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 3), worker=st.integers(0, 1))
    def ring(self, number: int, worker: int) -> None:
        """A message for any job, needed or not: it is claimed if it is queued and due, and else nothing happens."""
        job = self.job(number)
        claim = lifecycle.claim(self.lanes.workers[worker], job.id, worker=f"w{worker}", settings=SETTINGS)
        assert (claim is not None) == (job.status == "queued" and not job.is_delayed)
        if claim is not None:
            job.become("running")
            job.attempt += 1
            job.holder = claim
            job.claims.append(claim)
            assert (claim.attempt, claim.kind.name) == (job.attempt, job.kind)

    @precondition(lambda self: any(job.claims for job in self.jobs.values()))
    @rule(number=st.integers(0, 3), worker=st.integers(0, 1), reports=st.booleans())
    def beat(self, number: int, worker: int, reports: bool) -> None:
        """The holder extends its lease and hears of a cancel; anybody else hears that it is lost."""
        job, claim = self.claim_of(number)
        lane = self.acting(worker, claim)
        try:
            if reports:
                cancel = lifecycle.report(lane, claim, Progress("working", current=job.effects))
            else:
                cancel = lifecycle.beat(lane, claim, settings=SETTINGS)
                job.is_expired = False if job.holder is claim else job.is_expired
        except LeaseLost:
            assert job.holder is not claim
        else:
            assert (job.holder is claim, cancel) == (True, job.is_cancelled)

    @precondition(lambda self: any(job.claims for job in self.jobs.values()))
    @rule(number=st.integers(0, 3), worker=st.integers(0, 1), rows=st.integers(1, 3), breaks=st.booleans())
    def batch(self, number: int, worker: int, rows: int, breaks: bool) -> None:
        """Effects are written by the holder alone, all of a batch or none."""
        job, claim = self.claim_of(number)
        with suppress(ZeroDivisionError):
            try:
                with lifecycle.fenced(self.acting(worker, claim), claim) as connection:
                    for _ in range(rows):
                        connection.execute("insert into effect values (%s, %s)", (job.id, claim.token))
                    _ = 1 / (not breaks)
                assert job.holder is claim
                job.effects += rows
            except LeaseLost:
                assert job.holder is not claim

    @precondition(lambda self: any(job.claims for job in self.jobs.values()))
    @rule(number=st.integers(0, 3), worker=st.integers(0, 1), name=st.sampled_from(sorted(OUTCOMES)))
    def end(self, number: int, worker: int, name: str) -> None:
        """The holder's word counts, once; a late one changes nothing."""
        job, claim = self.claim_of(number)
        outcome = OUTCOMES[name]
        status = lifecycle.record(self.acting(worker, claim), claim, outcome, Progress("done"), settings=SETTINGS)
        if job.holder is not claim:
            assert status is None
            return
        expected = self.expected_end(job, outcome)
        assert status == expected
        job.interruptions += isinstance(outcome, Released)
        job.is_delayed = name == "busy for an hour" and expected == "queued"
        job.become(expected)

    def expected_end(self, job: Job, outcome: Outcome) -> str:
        match outcome:
            case Succeeded():
                return "partially_succeeded" if outcome.partially else "succeeded"
            case Cancelled():
                return "cancelled"
            case Failed() if not outcome.failure.retryable or job.attempt - job.interruptions >= MAX_ATTEMPTS:
                return "failed"
            case _:
                return "cancelled" if job.is_cancelled else "queued"

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 3))
    def cancel(self, number: int) -> None:
        """At once if it waits, `cancelling` if it runs, refused if it has ended."""
        job = self.job(number)
        statement = statements.cancel(
            organization_id=self.lanes.organization.organization_id, job_id=job.id,
            actor_id=self.lanes.organization.member_id, key_id=None, reason="r", request_id="r", address=None,
        )  # fmt: skip
        row = db.run(self.lanes.api, statement).fetchone()
        assert row is not None
        expected = {"cancelled": "already"} | dict.fromkeys(LIVE, "accepted")
        assert row["answer"]["outcome"] == expected.get(job.status, "ended")
        if job.status in LIVE:
            job.is_cancelled = True
            job.become("cancelled" if job.status == "queued" else "cancelling")

    @precondition(lambda self: any(job.holder for job in self.jobs.values()))
    @rule(number=st.integers(0, 3))
    def fall_silent(self, number: int) -> None:
        """A holder has not been heard of for the time of its lease."""
        job = self.holders()[number % len(self.holders())]
        self.lanes.superuser.execute(
            "update job_lease set until = now() - interval '1 second' where job_id = %s", (job.id,)
        )
        job.is_expired = True

    @rule()
    def reap(self) -> None:
        """Silent holders lose their jobs: once is bad luck, twice is the job's fault."""
        taken = dict(lifecycle.reap(self.lanes.scheduler, settings=SETTINGS))
        for job in self.jobs.values():
            if not job.is_expired:
                assert job.id not in taken
                continue
            if job.is_cancelled:
                expected = "cancelled"
            elif job.is_late or job.crashes or job.attempt - job.interruptions >= MAX_ATTEMPTS:
                expected = "failed"
            else:
                expected = "queued"
            assert taken[job.id] == expected
            job.crashes += 1
            job.become(expected)

    @precondition(lambda self: any(job.holder for job in self.jobs.values()))
    @rule(number=st.integers(0, 3), cancels=st.booleans(), late=st.booleans())
    def vanish(self, number: int, cancels: bool, late: bool) -> None:
        """A holder is never heard of again; before that is noticed its job may be cancelled, or too late."""
        job = self.holders()[number % len(self.holders())]
        if cancels:
            self.cancel(self.place_of(job))
        if late:
            self.run_late(self.place_of(job))
        self.fall_silent(self.holders().index(job))
        self.reap()

    @precondition(lambda self: any(job.holder for job in self.jobs.values()))
    @rule(number=st.integers(0, 3), name=st.sampled_from(sorted(OUTCOMES)), cancels=st.booleans())
    def end_and_be_rung_for(self, number: int, name: str, cancels: bool) -> None:
        """A holder ends, perhaps behind a cancel that it has not heard of, and somebody rings for the job at once."""
        job = self.holders()[number % len(self.holders())]
        if cancels:
            self.cancel(self.place_of(job))
        self.end(self.place_of_claim(job.holder), 0, name)
        self.ring(self.place_of(job), 1)

    @precondition(lambda self: any(job.holder for job in self.jobs.values()))
    @rule(number=st.integers(0, 3), does=st.sampled_from(["beat", "report", "batch", "end"]))
    def come_back_late(self, number: int, does: str) -> None:
        """A holder falls silent, another takes its job over, and the first goes on where it was."""
        job = self.holders()[number % len(self.holders())]
        late = job.holder
        self.fall_silent(self.holders().index(job))
        self.reap()
        if job.status == "queued":
            self.let_time_pass()
            self.ring(self.place_of(job), 1)
        at = self.place_of_claim(late)
        match does:
            case "batch":
                self.batch(at, 0, rows=1, breaks=False)
            case "end":
                self.end(at, 0, "succeeded")
            case _:
                self.beat(at, 0, reports=does == "report")

    @precondition(lambda self: any(job.status == "queued" for job in self.jobs.values()))
    @rule(times=st.integers(1, MAX_ATTEMPTS), dies=st.booleans(), busy=st.sampled_from(["busy", "released"]))
    def try_in_vain(self, times: int, dies: bool, busy: str) -> None:
        """Whole attempts that lead nowhere, in one move, so that many in a row are not rare; the last may die."""
        job = next(job for job in self.jobs.values() if job.status == "queued")
        for left in reversed(range(times)):
            if job.status == "queued":
                self.try_once(job, dies=dies and not left, busy=busy)

    def try_once(self, job: Job, *, dies: bool, busy: str) -> None:
        self.let_time_pass()
        self.ring(self.place_of(job), 0)
        if dies:
            self.fall_silent(self.holders().index(job))
            self.reap()
        elif job.holder is not None:
            self.end(self.place_of_claim(job.holder), 0, busy)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 3))
    def run_late(self, number: int) -> None:
        """The deadline of a job passes."""
        job = self.job(number)
        if job.attempt:
            job.is_late = True
            self.lanes.superuser.execute(
                "update job set deadline_at = now() - interval '1 second' where id = %s", (job.id,)
            )

    @rule()
    def let_time_pass(self) -> None:
        """What waits for its next attempt is due."""
        self.lanes.superuser.execute("update job set run_at = now() where status = 'queued'")
        for job in self.jobs.values():
            job.is_delayed = False

    @rule(limit=st.integers(1, 5))
    def dispatch(self, limit: int) -> None:
        """Rings are for what can be claimed, each once until it is taken back."""
        statement = dispatching.dispatch(
            queue="interactive", limit=limit, running_limit=1000, source_limit=1000, rering_seconds=3600
        )
        rung = [row["id"] for row in db.run(self.lanes.scheduler, statement)]
        assert len(rung) <= limit
        assert all(self.jobs[job_id].status == "queued" and not self.jobs[job_id].is_delayed for job_id in rung)

    def acting(self, worker: int, claim: Claim) -> Connection:
        """A worker's connection as its runner has it while it is at the claim's job."""
        lane = self.lanes.workers[worker]
        lane.execute("select set_config('headwater.organization', %s, false)", (str(claim.organization_id),))
        return lane

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        """Status, attempts, effects, leases; and a final job has its end and nothing that can still write."""
        rows = self.lanes.superuser.execute(
            """
            select j.id, j.status, j.attempt, j.interruptions, j.crashes, j.finished_at is not null as is_final,
                   (select array_agg(l.token) from job_lease l where l.job_id = j.id) as tokens,
                   (select count(*) from job_attempt a where a.job_id = j.id) as attempts,
                   (select count(*) from job_attempt a where a.job_id = j.id and a.outcome is null) as open_attempts,
                   (select count(*) from effect e where e.job_id = j.id) as effects,
                   (
                       select array_agg(e.details ->> 'status' order by e.number) from event e where e.job_id = j.id
                   ) as told
            from job j
            """
        ).fetchall()
        assert {row["id"] for row in rows} == self.jobs.keys()
        for row in rows:
            job = self.jobs[row["id"]]
            holds = [job.holder.token] if job.holder else None
            assert row == {
                "id": job.id, "status": job.status, "attempt": job.attempt, "interruptions": job.interruptions,
                "crashes": job.crashes, "is_final": job.status not in LIVE, "tokens": holds,
                "attempts": job.attempt, "open_attempts": len(holds or ()), "effects": job.effects,
                "told": job.history,
            }  # fmt: skip


def test_no_order_of_moves_breaks_the_promise(lanes: Lanes) -> None:
    """A few hundred random histories of up to fifty moves each."""
    machine = type("Machine", (Lifecycle,), {"lanes": lanes})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
