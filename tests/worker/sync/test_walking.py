"""Whole syncs of a real API: what replaces what, what is seen when, and what a crash leaves behind."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import api_stub
import making
import pytest
from api_stub import ApiStub, Asked, Reply

from headwater import db
from headwater.access.organizations import CreatedOrganization
from headwater.catalogue import pruning, reading
from headwater.db import Connection
from headwater.errors import CancelRequested, DeadlineExceeded, Transient
from headwater.settings import EgressSettings
from headwater_worker.connectors import api_client
from headwater_worker.context import JobContext
from headwater_worker.sync import landing

from .conftest import Ended, Source, readers_now

INCREMENTAL = {"parameter": "since", "cursor_path": "at", "format": "integer"}
AN_HOUR_AGO = "now() - interval '2 hours'"


@dataclass
class ApiSource(Source):
    """A data source of type `api` and the API behind it."""

    api: ApiStub = field(default_factory=ApiStub)
    config: dict[str, Any] = field(default_factory=dict)

    def configure(self, *, validation: dict[str, Any] | None = None, **reading_options: Any) -> None:
        self.version += 1
        self.connection.execute(
            """
            insert into data_source_version (data_source_id, version, organization_id, config, validation, reading)
            values (%s, %s, %s, %s, %s, %s)
            """,
            (
                self.id,
                self.version,
                self.organization.organization_id,
                db.json({"type": "api", "endpoint": self.api.endpoint} | self.config),
                db.json(validation or {}),
                db.json(reading_options),
            ),
        )
        self.connection.execute("update data_source set version = %s where id = %s", (self.version, self.id))

    def keyed(self, **config: Any) -> None:
        """From now on records have keys, and walks go on from the last one."""
        self.config = {"record_key": "id", "incremental": INCREMENTAL} | config
        self.configure()

    def submit(self, **params: Any) -> UUID:
        answer = making.submit(
            self.connection, self.organization, self.project_id, self.id, "sync", types=["api"], params=params
        )
        return UUID(answer["job"]["id"])

    def claim(self, job_id: UUID, interrupt: Any = lambda: None) -> JobContext:
        context = super().claim(job_id, interrupt)
        return JobContext(**(vars(context) | {"egress": EgressSettings(egress_allow="127.0.0.0/8")}))

    def values(self) -> list[Any]:
        """The visible records, in their order."""
        return [json.loads(item["data"]) for item in self.items()]

    def by_key(self) -> dict[Any, Any]:
        """What each key says; the counts of the source agree with what is there."""
        values = self.values()
        found = {value["id"]: value.get("v") for value in values}
        assert len(found) == len(values) == self.totals()["item_count"]
        assert self.totals()["error_count"] == len(self.rejects())
        (file,) = [file for file in self.catalogue() if file["state"] != "missing"]
        assert (file["item_count"], file["error_count"]) == (len(values), self.totals()["error_count"])
        return found

    def has_since(self) -> list[str | None]:
        """What each request asked for."""
        return [asked.query.get("since") for asked in self.api.asked]


def since_answer(api: ApiStub) -> None:
    """The API gives the records whose `at` is not below `since`."""

    def answer(asked: Asked) -> Reply:
        since = int(asked.query.get("since", 0))
        return Reply(json.dumps([record for record in api.records if record["at"] >= since]).encode())

    api.answer = answer


@pytest.fixture
def api() -> Iterator[ApiStub]:
    """An API without records."""
    with api_stub.running() as stub:
        yield stub


@pytest.fixture
def source(
    database: str,
    connection: Connection,
    working: Connection,
    organization: CreatedOrganization,
    master_key_file: Path,
    api: ApiStub,
) -> ApiSource:
    """A source of that API, lenient, its records without keys."""
    return new_api_source(database, connection, working, organization, master_key_file, api)


def new_api_source(
    database: str,
    connection: Connection,
    working: Connection,
    organization: CreatedOrganization,
    master_key_file: Path,
    api: ApiStub,
) -> ApiSource:
    """A source of an API, lenient, its records without keys."""
    connection.execute("update job set status = 'failed' where status in ('running', 'queued')")
    project_id = making.make_project(connection, organization.organization_id)
    making.act_for(connection, organization.organization_id)
    source = ApiSource(database, connection, working, organization, project_id, master_key_file, api=api)
    connection.execute(
        "insert into data_source (id, organization_id, project_id, name, type) values (%s, %s, %s, %s, 'api')",
        (source.id, organization.organization_id, project_id, source.id.hex),
    )
    connection.execute(
        "insert into data_source_totals (data_source_id, organization_id) values (%s, %s)",
        (source.id, organization.organization_id),
    )
    source.configure()
    return source


class TestWithoutKeys:
    """Every sync is a full replacement."""

    @pytest.mark.parametrize("kind", api_stub.PAGINATION)
    def test_a_sync_brings_every_page(self, source: ApiSource, kind: str) -> None:
        """One file, one item a record, numbered through all pages."""
        source.api.records = [{"id": number} for number in range(7)]
        source.api.answer = api_stub.paged(source.api, kind)
        source.config = api_stub.config(source.api, kind)
        source.configure()
        ended = source.sync()
        assert ended.status == "succeeded"
        assert source.values() == source.api.records
        assert [item["record_number"] for item in source.items()] == list(range(1, 8))
        assert source.files() == {"/v1/items": "imported"}
        counted = {name: ended.counters.get(name) for name in ("listed", "matched", "new", "parsed", "valid", "landed")}
        assert counted == {"listed": 1, "matched": 1, "new": 1, "parsed": 7, "valid": 7, "landed": 7}
        assert ended.counters["bytes_read"] > 0

    def test_the_next_sync_replaces_it(self, source: ApiSource) -> None:
        """What is no longer there is gone, what stays is not doubled."""
        source.api.records = [{"id": 1}, {"id": 2}]
        source.sync()
        source.api.records = [{"id": 2}, {"id": 3}, {"id": 4}]
        source.sync()
        assert source.values() == [{"id": 2}, {"id": 3}, {"id": 4}]
        assert source.totals()["item_count"] == 3

    def test_an_answer_that_says_it_is_unchanged_is_not_read_again(self, source: ApiSource) -> None:
        """By its etag, until that changes or everything is asked for."""
        etag = '"v1"'
        body = b'[{"id": 1}]'

        def answer(_: Asked) -> Reply:
            return Reply(body, headers={"Content-Type": "application/json", "ETag": etag})

        source.api.answer = answer
        assert source.sync().counters["new"] == 1
        again = source.sync()
        assert (again.counters["unchanged"], again.counters.get("parsed", 0)) == (1, 0)
        body, etag = b'[{"id": 2}]', '"v2"'
        assert source.sync().counters["changed"] == 1
        assert source.values() == [{"id": 2}]

    def test_an_error_on_a_later_page_leaves_all_as_it_was(self, source: ApiSource) -> None:
        """Half a walk replaces nothing, though it is lenient."""
        source.api.records = [{"id": number} for number in range(7)]
        usual = api_stub.paged(source.api, "page")
        source.api.answer = usual
        source.config = api_stub.config(source.api, "page")
        source.configure()
        source.sync()
        source.api.answer = lambda asked: Reply(b"", 404) if asked.query["page"] == "2" else usual(asked)
        ended = source.sync()
        assert (ended.status, ended.code) == ("failed", "endpoint_not_found")
        assert len(source.values()) == 7

    def test_bad_records_are_rejects_and_the_rest_lands(self, source: ApiSource) -> None:
        """Lenient, as with files."""
        source.api.records = [{"id": 1}, {"id": "x"}, {"id": 3}]
        source.configure(validation={"schema": {"properties": {"id": {"type": "integer"}}}})
        ended = source.sync()
        assert ended.status == "partially_succeeded"
        assert [(reject["record_number"], reject["line"], reject["code"]) for reject in source.rejects()] == [
            (2, None, "schema_mismatch")
        ]
        assert len(source.values()) == 2

    def test_strict_shows_nothing_of_a_bad_walk(self, source: ApiSource) -> None:
        """Items and counts stay as they were."""
        source.api.records = [{"id": 1}]
        schema = {"mode": "strict", "schema": {"properties": {"id": {"type": "integer"}}}}
        source.configure(validation=schema)
        source.sync()
        source.api.records = [{"id": 2}, {"id": "x"}]
        assert source.sync().code == "validation_failed"
        assert source.values() == [{"id": 1}]

    def test_csv_cells_are_converted_as_the_schema_says(self, source: ApiSource) -> None:
        """An API's CSV is read like a file's."""
        source.api.answer = lambda _: Reply(b"id,v\n1,a\n2,b\n", headers={"Content-Type": "text/csv"})
        source.configure(validation={"schema": {"properties": {"id": {"type": "integer"}}}})
        source.sync()
        assert source.values() == [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]

    def test_an_empty_walk_says_so(self, source: ApiSource) -> None:
        """It replaces, and warns."""
        source.api.records = [{"id": 1}]
        source.sync()
        source.api.records = []
        assert source.sync().warnings == ["no_records"]
        assert source.values() == []

    def test_another_path_replaces_too(self, source: ApiSource) -> None:
        """A source shows the walk of one endpoint."""
        source.api.records = [{"id": 1}]
        source.sync()
        source.config = {"endpoint": f"{source.api.url}/v2/items/"}
        source.configure()
        source.sync()
        assert source.values() == [{"id": 1}]
        assert source.files() == {"/v1/items": "missing", "/v2/items/": "imported"}
        assert source.totals()["item_count"] == 1


class TestKeys:
    """(source, key) is the identity, and a later record replaces."""

    def test_a_key_twice_in_a_walk_counts_once_and_the_last_wins(
        self, source: ApiSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is dropped in silence; also across slices."""
        monkeypatch.setattr("headwater.catalogue.keyed.SLICE", 2)
        source.api.records = [{"id": number % 3, "v": number} for number in range(8)]
        source.keyed(incremental=None)
        ended = source.sync()
        assert source.by_key() == {0: 6, 1: 7, 2: 5}
        assert (ended.counters["landed"], ended.counters["skipped_by"]) == (3, {"duplicate_key": 5})

    def test_records_without_a_key_are_rejects(self, source: ApiSource) -> None:
        """Missing, null, empty or no scalar."""
        source.api.records = [{"id": 1}, {}, {"id": None}, {"id": ""}, {"id": [1]}, {"id": True}, 7]
        source.keyed(incremental=None)
        ended = source.sync()
        assert ended.error_summary[0]["code"] == "missing_key"
        assert [reject["record_number"] for reject in source.rejects()] == [2, 3, 4, 5, 6, 7]
        assert source.by_key() == {1: None}

    def test_long_keys_are_told_apart(self, source: ApiSource) -> None:
        """Beyond what an index takes, by their digests."""
        source.api.records = [{"id": "k" * 5000 + str(number)} for number in range(3)]
        source.keyed(incremental=None)
        source.sync()
        assert len(source.by_key()) == 3

    def test_gone_keys_stay_unless_the_policy_deletes_them(self, source: ApiSource) -> None:
        """`mark` and `keep` carry them along, `delete` lets them go; all are counted as missing."""
        source.api.records = [{"id": number, "v": 1} for number in range(5)]
        source.keyed(incremental=None)
        source.sync()
        source.api.records = [{"id": number, "v": 2} for number in range(2, 6)]
        ended = source.sync()
        assert source.by_key() == {0: 1, 1: 1, 2: 2, 3: 2, 4: 2, 5: 2}
        assert ended.counters["missing"] == 2
        source.configure(on_missing="delete")
        assert source.sync().counters["missing"] == 2
        assert source.by_key() == {2: 2, 3: 2, 4: 2, 5: 2}

    def test_a_mass_deletion_is_refused(self, source: ApiSource) -> None:
        """An API that suddenly has almost nothing deletes nothing."""
        source.api.records = [{"id": number, "v": 1} for number in range(20)]
        source.keyed(incremental=None)
        source.configure(on_missing="delete")
        source.sync()
        source.api.records = source.api.records[:5]
        assert source.sync().code == "mass_delete_refused"
        assert len(source.by_key()) == 20

    def test_another_key_begins_anew(self, source: ApiSource) -> None:
        """What was told apart otherwise is replaced as a whole."""
        source.api.records = [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]
        source.keyed(incremental=None)
        source.sync()
        source.api.records = [{"id": 3, "v": "a"}]
        source.keyed(incremental=None, record_key="v")
        source.sync()
        assert source.values() == [{"id": 3, "v": "a"}]


class TestIncrements:
    """Only what changed is asked for, and it replaces what it changes."""

    @pytest.fixture(autouse=True)
    def _since(self, source: ApiSource) -> None:
        since_answer(source.api)
        source.api.records = [{"id": number, "at": number, "v": 0} for number in range(5)]
        source.keyed()

    def test_an_increment_replaces_and_does_not_double(self, source: ApiSource) -> None:
        """Changed records change, new ones come, the others stay; the counts are exact."""
        source.sync()
        source.api.records[1] |= {"at": 10, "v": 1}
        source.api.records.append({"id": 9, "at": 11, "v": 1})
        ended = source.sync()
        assert source.by_key() == {0: 0, 1: 1, 2: 0, 3: 0, 4: 0, 9: 1}
        assert source.has_since()[-1] == "4"
        assert ended.counters["landed"] == 3
        source.sync()
        assert source.has_since()[-1] == "11"
        assert len(source.by_key()) == 6

    def test_many_increments_stay_one_set(self, source: ApiSource) -> None:
        """Each key once, whatever came in which order; page by page too."""
        expected = dict.fromkeys(range(5), 0)
        source.sync()
        for step in range(1, 9):
            for key in (step % 5, 100 + step // 3):
                source.api.records.append({"id": key, "at": 10 * step, "v": step})
                expected[key] = step
            source.sync()
            assert source.by_key() == expected

    def test_a_reader_sees_one_moment(self, source: ApiSource) -> None:
        """Pages of a walk that began before an increment show what was there then."""
        source.sync()
        before = source.items()
        source.api.records[0] |= {"at": 10, "v": 1}
        source.sync()
        of_before = {"snapshot": before[0]["snapshot"]}
        assert source.items(**of_before) == before
        assert source.by_key()[0] == 1

    def test_a_replaced_item_is_gone_by_its_id(self, source: ApiSource) -> None:
        """An id names what is live."""
        source.sync()
        old = source.items()[0]
        source.api.records[0] |= {"at": 10, "v": 1}
        source.sync()
        statement = reading.item(
            organization_id=source.organization.organization_id,
            data_source_id=source.id,
            load_id=old["load_id"],
            record_number=old["record_number"],
        )
        assert db.run(source.connection, statement).fetchone() is None

    def test_an_increment_without_news_adds_no_load(self, source: ApiSource) -> None:
        """Thousands of quiet syncs leave a source as fast as it was."""
        source.sync()
        source.api.answer = lambda _: Reply(b"[]")
        before = source.totals()
        ended = source.sync()
        assert ended.status == "succeeded"
        after = source.totals()
        assert (after["snapshot"], after["item_count"]) == (before["snapshot"], 5)
        assert after["last_sync_at"] > before["last_sync_at"]
        source.sync()
        assert source.has_since()[-2:] == ["4", "4"]

    def test_a_full_sync_asks_for_everything(self, source: ApiSource) -> None:
        """And makes one load of many."""
        source.sync()
        source.api.records[0] |= {"at": 10, "v": 1}
        source.sync()
        source.configure(on_missing="delete")
        source.api.records.pop()
        source.sync(full=True)
        assert source.has_since()[-1] is None
        assert source.by_key() == {0: 1, 1: 0, 2: 0, 3: 0}
        assert len({item["load_id"] for item in source.items()}) == 1

    def test_another_schema_reads_everything_again(self, source: ApiSource) -> None:
        """As with files: how it is read has changed."""
        source.sync()
        source.configure(validation={"schema": {"required": ["v"]}})
        source.sync()
        assert source.has_since()[-1] is None
        assert len(source.by_key()) == 5

    def test_rejects_of_increments_are_added_up_and_paged(self, source: ApiSource) -> None:
        """Numbers go on, so that each reject is shown once."""
        source.api.records += [{"at": number} for number in range(10, 20)]
        source.sync()
        source.api.records += [{"at": number} for number in range(20, 30)]
        source.sync()
        # The overlap: the record at `since` itself comes again.
        assert source.totals()["error_count"] == len(source.rejects()) == 21
        assert len({(reject["path"], reject["number"]) for reject in source.rejects()}) == 21

    def test_a_failed_increment_replaces_nothing(self, source: ApiSource) -> None:
        """What it had marked counts as soon as it is shown, and it never is."""
        source.configure(validation={"max_errors": 0})
        source.sync()
        source.api.records[0] |= {"at": 10, "v": 1}
        source.api.records.append({"at": 11})
        assert source.sync().code == "max_errors_exceeded"
        assert source.by_key() == dict.fromkeys(range(5), 0)
        source.api.records.pop()
        source.sync()
        assert source.has_since()[-1] == "4"
        assert source.by_key()[0] == 1

    def test_a_crash_while_replacing_is_taken_up(self, source: ApiSource, monkeypatch: pytest.MonkeyPatch) -> None:
        """The walk has landed: it is not repeated, and nothing is counted twice."""
        monkeypatch.setattr("headwater.catalogue.keyed.SLICE", 2)
        source.sync()
        for record in source.api.records:
            record |= {"at": 10, "v": 1}
        source.api.records.append({"id": 0, "at": 10, "v": 2})
        context = source.claim(source.submit())
        monkeypatch.setattr("headwater_worker.sync.showing.finish_walk", _crash)
        source.die(context, ZeroDivisionError)
        assert source.by_key() == dict.fromkeys(range(5), 0)
        monkeypatch.undo()
        asked = len(source.api.asked)
        ended = source.attempt(source.claim(context.claim.job_id))
        assert ended.status == "succeeded"
        assert source.by_key() == {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}
        assert len(source.api.asked) == asked
        assert (ended.counters["landed"], ended.counters["skipped_by"]) == (5, {"duplicate_key": 1})

    def test_what_nobody_can_see_any_more_is_deleted(self, source: ApiSource) -> None:
        """Replaced records go, their keys with them, and loads that are hollow then."""
        source.sync()
        for step in range(1, 4):
            source.api.records[0] |= {"at": 10 * step, "v": step}
            source.sync()
        stored = source.stored_items()
        pruning.prune(source.connection)
        assert source.stored_items() == stored
        _age(source)
        assert pruning.prune(source.connection) > 0
        assert source.stored_items()["/v1/items"] == 5
        keys = source.connection.execute("select count(*) from item_key where data_source_id = %s", (source.id,))
        assert keys.fetchone() == {"count": 5}
        assert source.by_key()[0] == 3
        # The third of the four holds nothing any more.
        live = "select count(*) from load where data_source_id = %s and valid_to is null and valid_from is not null"
        assert source.connection.execute(live, (source.id,)).fetchone() == {"count": 3}
        source.sync()
        assert source.has_since()[-1] == "30"


def _age(source: ApiSource) -> None:
    """The jobs of the source ended two hours ago. A final job never changes, but for a test."""
    source.connection.execute("alter table job disable trigger job_status_is_guarded")
    source.connection.execute(f"update job set finished_at = {AN_HOUR_AGO} where data_source_id = %s", (source.id,))
    source.connection.execute("alter table job enable trigger job_status_is_guarded")


def _crash(_: JobContext) -> None:
    raise ZeroDivisionError


class TestInterruptions:
    """A walk is stopped at any time, and leaves all as it was."""

    def test_a_crash_between_pages_walks_again(self, source: ApiSource, monkeypatch: pytest.MonkeyPatch) -> None:
        """What had landed of the walk is thrown away; every record is there once."""
        monkeypatch.setattr(landing, "_CHUNK_RECORDS", 1)
        source.api.records = [{"id": number} for number in range(9)]
        usual = api_stub.paged(source.api, "page")
        source.api.answer = lambda asked: (
            Reply(b"", 429, {"Retry-After": "99"}) if asked.query["page"] == "3" else usual(asked)
        )
        source.config = api_stub.config(source.api, "page")
        source.configure()
        context = source.claim(source.submit())
        source.die(context, Transient)
        assert source.stored_items()["/v1/items"] > 0
        assert source.values() == []
        source.api.answer = usual
        ended = source.attempt(source.claim(context.claim.job_id))
        assert source.values() == source.api.records
        assert (ended.counters["parsed"], ended.counters["landed"]) == (9, 9)
        assert source.stored_items()["/v1/items"] == 9

    @pytest.mark.parametrize("stop", [CancelRequested, DeadlineExceeded])
    @pytest.mark.parametrize("where", ["head", "body"])
    def test_a_dripping_api_does_not_hold_a_job(self, source: ApiSource, stop: type[BaseException], where: str) -> None:
        """A cancel or the deadline ends the walk within a second or two, wherever it waits."""
        released, dripping = threading.Event(), threading.Event()

        def drip() -> Iterator[bytes]:
            yield b"["
            dripping.set()
            while not released.wait(0.1):
                yield b" "

        def answer(asked: Asked) -> Reply:
            if asked.query.get("page") == "1":
                return Reply(b"[1]")
            if where == "body":
                return Reply(drip())
            dripping.set()
            released.wait(20)
            return Reply(b"[]")

        def interrupt() -> None:
            if dripping.is_set():
                raise stop

        source.api.answer = answer
        source.config = {"pagination": {"type": "page"}}
        source.configure()
        began = time.monotonic()
        try:
            source.die(source.claim(source.submit(), interrupt), stop)
            assert time.monotonic() - began < 5
        finally:
            released.set()
        assert source.values() == []

    @pytest.mark.parametrize(
        ("ending", "status", "code"),
        [(signal.SIGKILL, "queued", "reader_died"), (signal.SIGPROF, "failed", "page_too_complex")],
    )
    def test_a_reader_that_ends_in_a_page_ends_the_walk(
        self, source: ApiSource, ending: signal.Signals, status: str, code: str
    ) -> None:
        """One that died costs an attempt, one that used up its time (SIGPROF) the job; nothing is there twice after."""
        source.api.records = [{"id": number} for number in range(7)]
        usual, going_on, ended = api_stub.paged(source.api, "page"), threading.Event(), threading.Event()

        def half() -> Iterator[bytes]:
            yield b'{"data": '
            going_on.set()
            ended.wait(20)

        def interrupt() -> None:
            if going_on.is_set():
                going_on.clear()
                (pid,) = readers_now()
                os.kill(pid, ending)
                ended.set()

        source.api.answer = lambda asked: (
            Reply(half()) if asked.query["page"] == "2" and not ended.is_set() else usual(asked)
        )
        source.config = api_stub.config(source.api, "page")
        source.configure()
        context = source.claim(source.submit(), interrupt)
        failed = source.attempt(context)
        assert (failed.status, failed.code) == (status, code)
        assert (source.values(), list(readers_now())) == ([], [])
        again = source.claim(context.claim.job_id) if status == "queued" else source.claim(source.submit())
        assert source.attempt(again).status == "succeeded"
        assert source.values() == source.api.records
        assert source.totals()["item_count"] == 7

    def test_a_throttled_walk_waits_in_its_place(self, source: ApiSource, monkeypatch: pytest.MonkeyPatch) -> None:
        """One page asks for patience: the pages before it are not asked for again."""
        monkeypatch.setattr(api_client, "_BACKOFF_SECONDS", 0)
        source.api.records = [{"id": number} for number in range(7)]
        usual, refusals = api_stub.paged(source.api, "page"), [Reply(b"", 429), Reply(b"", 503)]
        source.api.answer = lambda asked: refusals.pop() if asked.query["page"] == "2" and refusals else usual(asked)
        source.config = api_stub.config(source.api, "page")
        source.configure()
        assert source.sync().status == "succeeded"
        assert [asked.query["page"] for asked in source.api.asked] == ["1", "2", "2", "2", "3", "4"]


def test_ended_is_what_a_sync_gives(source: ApiSource) -> None:
    """A walk's result is that of any sync: the source's counts afterwards."""
    source.api.records = [{"id": 1}]
    ended: Ended = source.sync()
    assert ended.outcome.result["item_count"] == 1  # type: ignore[union-attr]
