"""The handler of file listings: the catalogue after it, its counters, its result."""

import threading
from dataclasses import replace
from typing import Any
from uuid import UUID

import making
import pytest

from headwater import db
from headwater.catalogue import inventory
from headwater.errors import CancelRequested, LeaseLost, Permanent
from headwater.jobs.outcome import Succeeded
from headwater_worker.handlers import file_listing

from .conftest import Bench


def _list(bench: Bench, source_id: UUID, **params: Any) -> dict[str, Any]:
    context = bench.claim(source_id, "file_listing", **params)
    outcome = file_listing.run(context)
    assert isinstance(outcome, Succeeded)
    assert bench.record(context, outcome) == "succeeded"
    return outcome.result


def _counts(bench: Bench) -> tuple[int, int, int, int, int]:
    counters = bench.counters()
    return tuple(counters.get(name, 0) for name in ("listed", "new", "changed", "unchanged", "missing"))  # type: ignore[return-value]


def _import(bench: Bench, source_id: UUID) -> None:
    """As if a sync had brought in everything that was seen."""
    bench.connection.execute(
        """
        update file set state = 'imported', imported_etag = etag, imported_fingerprint = 'f', item_count = 1,
            load_id = 7
        where data_source_id = %s
        """,
        (source_id,),
    )


def test_a_listing_fills_the_catalogue(bench: Bench) -> None:
    """Every file becomes a row; the result shows them in path order."""
    bench.put("b.json", "a.json", body=b"12345")
    source_id = bench.source()
    result = _list(bench, source_id)
    assert bench.files(source_id) == {"a.json": "new", "b.json": "new"}
    assert (result["file_count"], result["total_bytes"]) == (2, 10)
    assert (result["truncated"], result["truncated_reason"]) == (False, None)
    assert [file["path"] for file in result["files"]] == ["a.json", "b.json"]
    assert set(result["files"][0]) == {"path", "size", "modified_at", "etag"}
    assert result["files"][0]["modified_at"].endswith("Z")
    assert _counts(bench) == (2, 2, 0, 0, 0)


def test_a_second_listing_tells_what_changed(bench: Bench) -> None:
    """New, changed, unchanged and missing files are told apart and counted."""
    bench.put("same.json", "other.json", "gone.json")
    source_id = bench.source()
    _list(bench, source_id)
    _import(bench, source_id)
    bench.put("other.json", body=b"[]")
    bench.put("fresh.json")
    bench.delete("gone.json")
    _list(bench, source_id)
    assert bench.files(source_id) == {
        "same.json": "imported",
        "other.json": "changed",
        "fresh.json": "new",
        "gone.json": "missing",
    }
    assert _counts(bench) == (3, 1, 1, 1, 1)


def test_a_listing_never_makes_a_sync_skip_a_file(bench: Bench) -> None:
    """What was imported, and how, stays as the sync wrote it."""
    bench.put("a.json")
    source_id = bench.source()
    _list(bench, source_id)
    _import(bench, source_id)
    query = "select imported_etag, imported_fingerprint, load_id, item_count from file where data_source_id = %s"
    before = bench.connection.execute(query, (source_id,)).fetchone()
    bench.put("a.json", body=b"[]")
    _list(bench, source_id)
    assert bench.connection.execute(query, (source_id,)).fetchone() == before


def test_a_file_that_is_back_gets_the_state_that_its_content_gives_it(bench: Bench) -> None:
    """The imported content back is imported, other content is changed, what was never imported is new."""
    bench.put("same.json", "other.json")
    source_id = bench.source()
    _list(bench, source_id)
    _import(bench, source_id)
    bench.put("never.json")
    _list(bench, source_id)
    bench.delete("same.json", "other.json", "never.json")
    _list(bench, source_id)
    assert set(bench.files(source_id).values()) == {"missing"}
    bench.put("same.json", "never.json")
    bench.put("other.json", body=b"[]")
    _list(bench, source_id)
    assert bench.files(source_id) == {"same.json": "imported", "other.json": "changed", "never.json": "new"}


def test_a_change_and_its_undoing_are_no_change(bench: Bench) -> None:
    """A file whose imported content is there again needs no reading."""
    bench.put("a.json")
    source_id = bench.source()
    _list(bench, source_id)
    _import(bench, source_id)
    bench.put("a.json", body=b"[]")
    _list(bench, source_id)
    assert bench.files(source_id) == {"a.json": "changed"}
    bench.put("a.json")
    _list(bench, source_id)
    assert bench.files(source_id) == {"a.json": "imported"}


def test_a_file_that_is_still_missing_is_not_counted_again(bench: Bench) -> None:
    """`missing` counts those that vanished since."""
    bench.put("a.json")
    source_id = bench.source()
    _list(bench, source_id)
    bench.delete("a.json")
    _list(bench, source_id)
    assert _counts(bench)[-1] == 1
    _list(bench, source_id)
    assert _counts(bench)[-1] == 0


def test_a_preview_stops_at_its_limit_and_marks_nothing_missing(bench: Bench) -> None:
    """Files behind the limit were not seen, which says nothing about them."""
    bench.put(*(f"{number}.json" for number in range(5)))
    source_id = bench.source()
    _list(bench, source_id)
    bench.delete("0.json")
    result = _list(bench, source_id, limit=2)
    assert (result["file_count"], result["truncated"], result["truncated_reason"]) == (2, True, "limit")
    assert [file["path"] for file in result["files"]] == ["1.json", "2.json"]
    assert set(bench.files(source_id).values()) == {"new"}
    assert len(bench.files(source_id)) == 5


def test_a_limit_that_was_just_reached_cuts_nothing_off(bench: Bench) -> None:
    """As many files as asked for, and no more there."""
    bench.put("a.json", "b.json")
    result = _list(bench, bench.source(), limit=2)
    assert (result["file_count"], result["truncated"]) == (2, False)


def test_a_prefix_marks_nothing_missing_outside_of_it(bench: Bench) -> None:
    """Only what starts with it was looked for."""
    bench.put("in/a.json", "in/b.json", "out/c.json", "in.json")
    source_id = bench.source()
    _list(bench, source_id)
    bench.delete("in/a.json", "out/c.json", "in.json")
    result = _list(bench, source_id, prefix="in/")
    assert result["file_count"] == 1
    assert bench.files(source_id) == {
        "in/a.json": "missing",
        "in/b.json": "new",
        "out/c.json": "new",
        "in.json": "new",
    }


def test_folders_are_passed_over_by_name(bench: Bench) -> None:
    """An empty object whose key ends in a slash is no file, and is counted as what it is."""
    bench.put("dir/", body=b"")
    bench.put("dir/a.json")
    source_id = bench.source()
    _list(bench, source_id)
    assert bench.files(source_id) == {"dir/a.json": "new"}
    counters = bench.counters()
    assert (counters["listed"], counters["skipped"], counters["skipped_by"]) == (2, 1, {"directory": 1})


def test_an_empty_bucket_is_a_warning(bench: Bench) -> None:
    """Nothing to see is said, and everything known is missing."""
    bench.put("a.json")
    source_id = bench.source()
    _list(bench, source_id)
    bench.delete("a.json")
    result = _list(bench, source_id)
    assert (result["file_count"], result["files"]) == (0, [])
    assert bench.files(source_id) == {"a.json": "missing"}
    assert [warning["code"] for warning in bench.reporters[-1].snapshot().warnings] == ["no_files_matched"]


def test_many_files_go_into_the_catalogue_slice_by_slice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices add up, their borders included; the result shows the first thousand."""
    monkeypatch.setattr(inventory.slice_end, "__kwdefaults__", {"limit": 500})
    bench.put(*(f"{number:05}.json" for number in range(1500)))
    source_id = bench.source()
    result = _list(bench, source_id)
    assert _counts(bench) == (1500, 1500, 0, 0, 0)
    assert (result["file_count"], len(result["files"])) == (1500, 1000)
    bench.delete("00000.json", "00499.json", "00500.json", "01499.json")
    _list(bench, source_id)
    assert _counts(bench) == (1496, 0, 0, 1496, 4)
    assert sorted(path for path, state in bench.files(source_id).items() if state == "missing") == [
        "00000.json",
        "00499.json",
        "00500.json",
        "01499.json",
    ]


def test_a_lost_lease_writes_nothing(bench: Bench) -> None:
    """Another attempt owns the job: the catalogue is its business."""
    bench.put("a.json")
    source_id = bench.source()
    context = bench.claim(source_id, "file_listing")
    bench.connection.execute("delete from job_lease where job_id = %s", (context.claim.job_id,))
    with pytest.raises(LeaseLost):
        file_listing.run(context)
    assert bench.files(source_id) == {}


def test_a_cancel_between_pages_stops_the_listing(bench: Bench) -> None:
    """Nothing reaches the catalogue."""
    bench.put("a.json")
    source_id = bench.source()
    context = bench.claim(source_id, "file_listing")

    def interrupt() -> None:
        raise CancelRequested

    with pytest.raises(CancelRequested):
        file_listing.run(replace(context, interrupt=interrupt))
    assert context.progress.snapshot().phase == "listing"
    assert bench.files(source_id) == {}


def test_a_refused_listing_leaves_the_catalogue_alone(bench: Bench) -> None:
    """Missing rights are no proof that files are gone."""
    bench.put("a.json")
    source_id = bench.source()
    _list(bench, source_id)
    bench.connection.execute("delete from sealed_credential where subject_id = %s", (source_id,))
    with pytest.raises(Permanent) as caught:
        file_listing.run(bench.claim(source_id, "file_listing"))
    assert caught.value.code == "missing_credentials"
    assert bench.files(source_id) == {"a.json": "new"}


def test_listings_of_one_source_at_once_do_not_hurt_each_other(bench: Bench, database: str) -> None:
    """Both end well, each file is there once."""
    bench.put(*(f"{number:04}.json" for number in range(300)))
    source_id = bench.source()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            organization_id = bench.organization.organization_id
            with db.connect(worker, application="tests", organization_id=organization_id) as connection:
                file_listing.run(replace(contexts.pop(), connection=connection))
        except BaseException as error:
            errors.append(error)

    worker = making.as_service(database, "worker")
    contexts = [bench.claim(source_id, "file_listing") for _ in range(2)]
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(bench.files(source_id)) == 300
