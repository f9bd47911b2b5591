"""Whole syncs: what is read, what is shown, what is counted."""

import gzip
import io
import json
from typing import Any

import pytest

from headwater import db
from headwater.errors import Draining, LeaseLost, Permanent, Transient
from headwater_worker.handlers import sync
from headwater_worker.sync import fetching, landing, readers

from .conftest import spoil

SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "integer"}, "name": {"type": "string"}},
    "required": ["id"],
}


def lines(*records: Any) -> bytes:
    """JSON Lines."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def numbered(count: int, start: int = 0) -> bytes:
    """So many small records."""
    return lines(*({"id": start + number} for number in range(count)))


def test_records_of_every_format_become_items(source):
    """CSV, JSON, JSONL, their compressed forms and a plain file give one item per record, in path order."""
    source.shelf.files = {
        "a.csv": b"id,name\n1,Ada\n2,Bob\n",
        "b.json": b'[{"id": 1}, {"id": 2}]',
        "c.jsonl": numbered(2),
        "d.jsonl.gz": gzip.compress(numbered(1)),
        "e.png": b"\x89PNG",
    }
    ended = source.sync()
    assert ended.status == "succeeded"
    assert source.data() == {
        "a.csv": ['{"id": "1", "name": "Ada"}', '{"id": "2", "name": "Bob"}'],
        "b.json": ['{"id": 1}', '{"id": 2}'],
        "c.jsonl": ['{"id": 0}', '{"id": 1}'],
        "d.jsonl.gz": ['{"id": 0}'],
        "e.png": [source.data()["e.png"][0]],
    }
    pointer = json.loads(source.data()["e.png"][0])
    assert pointer == {
        "uri": f"shelf://{source.id.hex}/e.png",
        "size": 4,
        "etag": source.shelf.entry("e.png").etag,
        "content_type": "image/png",
    }
    assert "e.png" not in source.shelf.opened


@pytest.mark.parametrize(("schema", "landed"), [(True, 3), (False, 0)])
def test_a_schema_may_be_true_or_false(source, schema, landed):
    """JSON Schema's two shortest: everything, or nothing, is valid."""
    source.shelf.files = {"a.jsonl": numbered(3)}
    source.configure(validation={"mode": "lenient", "schema": schema})
    assert source.sync().counters["landed"] == landed


def test_the_result_is_of_the_source_and_the_funnel_adds_up(source):
    """Counters equal rows, and each step of the funnel is the one before less what was refused."""
    source.shelf.files = {"a.jsonl": numbered(5) + b"nonsense\n", "dir/": b"", "b.txt": b"text"}
    ended = source.sync()
    assert ended.status == "partially_succeeded"
    assert ended.outcome.result | {"duration_ms": 0} == {"item_count": 6, "error_count": 1, "duration_ms": 0}
    assert ended.counters == {
        "listed": 3, "matched": 2, "new": 2, "changed": 0, "unchanged": 0, "missing": 0, "skipped": 1,
        "parsed": 7, "valid": 6, "rejected": 1, "landed": 6, "bytes_read": len(source.shelf.files["a.jsonl"]),
        "skipped_by": {"directory": 1},
    }  # fmt: skip
    assert (len(source.items()), len(source.rejects())) == (6, 1)


def test_unchanged_files_are_not_read_again(source):
    """A second sync opens nothing, changes nothing but the time of the last sync."""
    source.shelf.files = {"a.jsonl": numbered(3), "b.csv": b"id\n1\n"}
    source.sync()
    before = source.totals()
    source.shelf.opened.clear()
    ended = source.sync()
    assert source.shelf.opened == []
    assert ended.counters["unchanged"] == 2
    assert ended.counters["landed"] == 0
    after = source.totals()
    assert (after["snapshot"], after["item_count"]) == (before["snapshot"], 4)
    assert after["last_sync_at"] > before["last_sync_at"]


def test_a_full_sync_reads_everything_again(source):
    """`full` reads unchanged files too, and replaces their items by the same ones."""
    source.shelf.files = {"a.jsonl": numbered(3)}
    source.sync()
    first = {item["load_id"] for item in source.items()}
    source.sync(full=True)
    assert source.shelf.opened == ["a.jsonl", "a.jsonl"]
    assert len(source.items()) == 3
    assert first.isdisjoint(item["load_id"] for item in source.items())


def test_a_new_schema_reads_again(source):
    """Files that did not change are read again when they would be read otherwise."""
    source.shelf.files = {"a.csv": b"id,name\n1,Ada\nx,Bob\n"}
    source.sync()
    source.configure(validation={"schema": SCHEMA})
    ended = source.sync()
    assert ended.counters["changed"] == 1
    assert source.data() == {"a.csv": ['{"id": 1, "name": "Ada"}']}
    assert [(reject["line"], reject["code"], reject["pointer"]) for reject in source.rejects()] == [
        (3, "schema_mismatch", "/id")
    ]
    assert source.totals()["item_count"] == 1


def test_a_changed_file_replaces_its_items(source):
    """Only the changed file is read, and its former items are gone."""
    source.shelf.files = {"a.jsonl": numbered(3), "b.jsonl": numbered(2)}
    source.sync()
    source.shelf.files["a.jsonl"] = numbered(1, start=7)
    source.shelf.opened.clear()
    ended = source.sync()
    assert source.shelf.opened == ["a.jsonl"]
    assert (ended.counters["changed"], ended.counters["unchanged"]) == (1, 1)
    assert source.data() == {"a.jsonl": ['{"id": 7}'], "b.jsonl": ['{"id": 0}', '{"id": 1}']}
    assert source.totals()["item_count"] == 3


def test_a_file_without_etag_is_always_read(source):
    """Where a source gives no etag nobody can say that a file is unchanged."""
    source.shelf.files = {"a.jsonl": numbered(1)}
    source.shelf.hidden = {"a.jsonl"}
    source.sync()
    source.sync()
    assert source.shelf.opened == ["a.jsonl", "a.jsonl"]
    assert source.totals()["item_count"] == 1


def test_a_walk_through_pages_is_of_one_moment(source):
    """A cursor with its snapshot goes on reading what was replaced meanwhile."""
    source.shelf.files = {"a.jsonl": numbered(10)}
    source.sync()
    first = source.items()[0]
    source.shelf.files["a.jsonl"] = numbered(2, start=100)
    source.sync()
    assert len(source.items()) == 2
    assert len(source.items(snapshot=first["snapshot"])) == 10


def test_strict_leaves_all_as_it_was(source, monkeypatch):
    """One invalid record fails a strict sync: items, counts, time of the last sync stay; its rejects can be read."""
    monkeypatch.setattr(landing, "_SHOW_SECONDS", 0)
    monkeypatch.setattr(landing, "_CHUNK_LOADS", 1)
    source.shelf.files = {"a.jsonl": numbered(3)}
    source.configure(validation={"mode": "strict", "schema": SCHEMA})
    source.sync()
    before, seen = source.totals(), source.data()
    source.shelf.files |= {"a.jsonl": numbered(2, start=5), "b.jsonl": lines({"id": 1}, {"id": "x"}, {"id": 3})}
    ended = source.sync()
    assert (ended.status, ended.code) == ("failed", "validation_failed")
    assert source.totals() == before
    assert source.data() == seen
    assert [(reject["path"], reject["line"]) for reject in source.rejects_of(ended.job_id)] == [("b.jsonl", 2)]
    assert source.rejects() == []
    assert ended.error_summary[0]["count"] == 1
    assert ended.counters["landed"] == 0


def test_strict_shows_a_good_sync_in_one_step(source):
    """Without a fault a strict sync raises the snapshot once, at its end."""
    source.configure(validation={"mode": "strict", "schema": SCHEMA})
    source.shelf.files = {f"{number}.jsonl": numbered(2) for number in range(5)}
    assert source.sync().status == "succeeded"
    assert (source.totals()["snapshot"], source.totals()["item_count"]) == (1, 10)


@pytest.mark.parametrize(
    ("max_errors", "code"),
    [(2, None), (1, "max_errors_exceeded"), ("20%", None), ("19%", "max_errors_exceeded"), (0, "max_errors_exceeded")],
)
def test_max_errors_lies_between(source, max_errors, code):
    """Two rejects of ten records are borne by 2 and by 20 %, and by nothing less."""
    source.configure(validation={"max_errors": max_errors})
    source.shelf.files = {"a.jsonl": numbered(8) + b"x\ny\n"}
    ended = source.sync()
    assert ended.code == code
    assert len(source.items()) == (0 if code else 8)
    assert len(source.rejects_of(ended.job_id)) in (1, 2)


def test_vanished_files_are_marked_by_default(source):
    """A marked file's items stay visible and counted; it is whole again when it comes back."""
    source.shelf.files = {"a.jsonl": numbered(2), "b.jsonl": numbered(3)}
    source.sync()
    gone = source.shelf.files.pop("a.jsonl")
    ended = source.sync()
    assert ended.counters["missing"] == 1
    assert source.files() == {"a.jsonl": "missing", "b.jsonl": "imported"}
    assert (len(source.items()), source.totals()["item_count"]) == (5, 5)
    source.shelf.files["a.jsonl"] = gone
    source.shelf.opened.clear()
    source.sync()
    assert source.files()["a.jsonl"] == "imported"
    assert source.shelf.opened == []


def test_vanished_files_are_kept_by_policy(source):
    """`keep` leaves a vanished file as it was."""
    source.configure(on_missing="keep")
    source.shelf.files = {"a.jsonl": numbered(2), "b.jsonl": numbered(3)}
    source.sync()
    del source.shelf.files["a.jsonl"]
    assert source.sync().counters["missing"] == 1
    assert source.files()["a.jsonl"] == "imported"
    assert len(source.items()) == 5


def test_vanished_files_are_deleted_by_policy(source):
    """`delete` takes a vanished file's items and its row away."""
    source.configure(on_missing="delete")
    source.shelf.files = {"a.jsonl": numbered(2), "b.jsonl": numbered(3), "c.jsonl": b"broken\n"}
    source.sync()
    del source.shelf.files["a.jsonl"], source.shelf.files["c.jsonl"]
    assert source.sync().status == "succeeded"
    assert source.files() == {"b.jsonl": "imported"}
    assert list(source.data()) == ["b.jsonl"]
    assert (source.totals()["item_count"], source.totals()["error_count"]) == (3, 0)


@pytest.mark.parametrize("on_missing", ["mark", "delete"])
def test_what_a_newer_listing_found_has_not_vanished(source, on_missing):
    """A file that somebody else's listing saw after this sync had listed is new, and stays so."""
    source.configure(on_missing=on_missing)
    source.shelf.files = {"a.jsonl": numbered(2)}
    source.sync()

    def list_meanwhile(_path: str) -> None:
        with db.connect(source.database, application="tests") as listing:
            listing.execute(
                "insert into file (data_source_id, path, organization_id) values (%s, 'z.jsonl', %s)",
                (source.id, source.organization.organization_id),
            )

    source.shelf.files = {"a.jsonl": numbered(3)}
    source.shelf.on_open = list_meanwhile
    assert source.sync().status == "succeeded"
    assert source.files() == {"a.jsonl": "imported", "z.jsonl": "new"}


@pytest.mark.parametrize(("known", "left", "refused"), [(30, 14, True), (30, 15, False), (12, 3, False), (3, 0, True)])
def test_a_mass_delete_is_refused(source, known, left, refused):
    """More than half of the known files and at least ten, or all of them, may not vanish under `delete`."""
    source.configure(on_missing="delete")
    source.shelf.files = {f"{number:02}.jsonl": numbered(1) for number in range(known)}
    source.sync()
    source.shelf.files = {path: source.shelf.files[path] for path in sorted(source.shelf.files)[:left]}
    ended = source.sync()
    assert (ended.code == "mass_delete_refused") is refused
    assert len(source.items()) == (known if refused else left)


def test_a_prefix_limits_what_is_missed(source):
    """What lies outside the prefix is neither read nor missed."""
    source.shelf.files = {"a/1.jsonl": numbered(1), "a/2.jsonl": numbered(1), "b/1.jsonl": numbered(1)}
    source.sync()
    source.shelf.files = {"a/1.jsonl": numbered(1)}
    ended = source.sync(prefix="a/")
    assert ended.counters["missing"] == 1
    assert source.files() == {"a/1.jsonl": "imported", "a/2.jsonl": "missing", "b/1.jsonl": "imported"}


def test_globs_choose_and_what_they_pass_over_is_not_missing(source):
    """Files that `include` and `exclude` pass over are counted as skipped, and are still there."""
    source.shelf.files = {"a.jsonl": numbered(1), "tmp/b.jsonl": numbered(1), "c.txt": b"x"}
    source.sync()
    source.configure(include=["*.jsonl"], exclude=["tmp/**"])
    ended = source.sync()
    assert ended.counters["matched"] == 1
    assert ended.counters["skipped_by"] == {"not_included": 1, "excluded": 1}
    assert ended.counters["missing"] == 0
    assert set(source.files().values()) == {"imported"}


def test_zero_matches_are_a_warning(source):
    """An empty scope is said, not passed over."""
    ended = source.sync()
    assert (ended.status, ended.warnings) == ("succeeded", ["no_files_matched"])


def test_a_file_that_vanishes_before_it_is_read_is_skipped(source):
    """Between listing and reading a file may go; that is no fault of the sync."""
    source.shelf.files = {"a.jsonl": numbered(1), "b.jsonl": numbered(1)}
    source.shelf.faults = {"a.jsonl": [Permanent("Gone.", code="file_not_found")]}
    ended = source.sync()
    assert (ended.status, ended.counters["skipped_by"]) == ("succeeded", {"vanished": 1})
    assert list(source.data()) == ["b.jsonl"]


def test_a_file_that_cannot_be_read_is_one_reject(source):
    """Corrupt files are `rejected` with one reject of the whole file; the others come in, and nothing is retried."""
    source.shelf.files = {
        "a.csv.gz": b"this is not gzip",
        "b.parquet": b"nor is this Parquet",
        "c.jsonl": numbered(2),
    }
    ended = source.sync()
    assert ended.status == "partially_succeeded"
    assert source.files() == {"a.csv.gz": "rejected", "b.parquet": "rejected", "c.jsonl": "imported"}
    assert [(reject["path"], reject["code"], reject["record_number"]) for reject in source.rejects()] == [
        ("a.csv.gz", "unreadable_file", None),
        ("b.parquet", "unreadable_file", None),
    ]
    source.shelf.opened.clear()
    source.sync()
    assert source.shelf.opened == []


def test_a_file_that_the_source_refuses_is_asked_for_again_next_time(source):
    """A permission that is missing for one file is a reject, and no reason to call the file unchanged."""
    source.shelf.files = {"a.jsonl": numbered(1), "b.jsonl": numbered(1)}
    source.shelf.faults = {"a.jsonl": [Permanent("Not for you.", code="permission_denied")]}
    assert source.sync().status == "partially_succeeded"
    assert source.sync().status == "succeeded"
    assert len(source.items()) == 2
    assert source.rejects() == []


def test_bad_credentials_fail_the_sync(source):
    """What is wrong with the source as a whole is not a reject of each file."""
    source.shelf.files = {"a.jsonl": numbered(1)}
    source.shelf.faults = {"a.jsonl": [Permanent("Expired.", code="expired_credentials")]}
    ended = source.sync()
    assert (ended.status, ended.code) == ("failed", "expired_credentials")


def test_a_hiccup_is_tried_again_at_once(source):
    """Two transient faults in opening one file cost no attempt of the job."""
    source.shelf.files = {"a.jsonl": numbered(1)}
    source.shelf.faults = {"a.jsonl": [Transient(retry_after_seconds=0.01), Transient(retry_after_seconds=0.01)]}
    assert source.sync().status == "succeeded"
    assert len(source.shelf.opened) == 3


def test_a_lasting_hiccup_puts_the_job_back(source):
    """A source that stays busy is asked again later, by another attempt."""
    source.shelf.files = {"a.jsonl": numbered(1)}
    source.shelf.faults = {"a.jsonl": [Transient(retry_after_seconds=0.01) for _ in range(3)]}
    assert source.sync().status == "queued"


def test_a_killed_sync_goes_on_with_the_unfinished_files(source, monkeypatch):
    """Files that have landed whole are not read again, half a file is; every item is there exactly once."""
    monkeypatch.setattr(landing, "_CHUNK_RECORDS", 10)
    monkeypatch.setattr(landing, "_SHOW_SECONDS", 3600)  # however long it takes, nothing is shown before the end
    monkeypatch.setattr(fetching, "SMALL_BYTES", 0)
    monkeypatch.setattr(readers, "MOST", 1)
    source.shelf.files = {
        "a.jsonl": numbered(30) + b"bad\n",
        "b.jsonl": numbered(100),
        "c.jsonl": numbered(20),
    }
    job_id = source.submit()
    source.shelf.streams["b.jsonl"] = lambda: _Cut(source.shelf.files["b.jsonl"][:600])
    source.die(source.claim(job_id), Draining)
    assert source.stored_items()["a.jsonl"] == 30
    assert 0 < source.stored_items()["b.jsonl"] < 100
    assert source.items() == []

    source.shelf.streams.clear()
    source.shelf.opened.clear()
    ended = source.attempt(source.claim(job_id))
    assert source.shelf.opened == ["b.jsonl", "c.jsonl"]
    assert ended.status == "partially_succeeded"
    assert source.stored_items() == {"a.jsonl": 30, "b.jsonl": 100, "c.jsonl": 20}
    assert len({(item["path"], item["record_number"]) for item in source.items()}) == 150
    assert {name: ended.counters[name] for name in ("new", "parsed", "valid", "rejected", "landed")} == {
        "new": 3, "parsed": 151, "valid": 150, "rejected": 1, "landed": 150,
    }  # fmt: skip
    assert ended.error_summary[0]["count"] == 1
    assert source.totals()["item_count"] == 150


def test_a_resumed_full_sync_does_not_read_twice_what_it_has_shown(source, monkeypatch):
    """What the first attempt showed counts as read, though `full` reads the unchanged."""
    monkeypatch.setattr(landing, "_SHOW_SECONDS", 0)
    monkeypatch.setattr(landing, "_CHUNK_LOADS", 1)
    source.shelf.files = {"a.jsonl": numbered(3), "b.jsonl": numbered(3)}
    source.sync()
    job_id = source.submit(full=True)
    source.shelf.faults["b.jsonl"] = [Permanent("No.", code="invalid_credentials")]
    source.die(source.claim(job_id), Permanent)
    source.shelf.opened.clear()
    ended = source.attempt(source.claim(job_id))
    assert source.shelf.opened == ["b.jsonl"]
    assert ended.counters["landed"] == 6
    assert source.totals()["item_count"] == 6


def test_a_file_that_changed_between_attempts_is_read_again(source, monkeypatch):
    """What an earlier attempt landed is of no use when the file is another now."""
    monkeypatch.setattr(landing, "_CHUNK_LOADS", 1)
    source.shelf.files = {"a.jsonl": numbered(3), "b.jsonl": numbered(1)}
    job_id = source.submit()
    source.shelf.faults["b.jsonl"] = [Permanent("No.", code="invalid_credentials")]
    source.die(source.claim(job_id), Permanent)
    assert source.stored_items() == {"a.jsonl": 3}
    source.shelf.files["a.jsonl"] = numbered(1, start=50)
    assert source.attempt(source.claim(job_id)).counters["landed"] == 2
    assert source.data() == {"a.jsonl": ['{"id": 50}'], "b.jsonl": ['{"id": 0}']}
    assert source.stored_items() == {"a.jsonl": 1, "b.jsonl": 1}


def test_a_lost_lease_writes_nothing(source):
    """Once somebody else owns the job, no row of ours is written and nothing becomes visible."""
    source.shelf.files = {"a.jsonl": numbered(5), "b.jsonl": numbered(5)}
    context = source.claim(source.submit())

    source.shelf.on_open = lambda _: _steal(source, context)
    with pytest.raises(LeaseLost):
        sync.run(context)
    assert source.stored_items() == {}
    assert (source.totals()["snapshot"], source.totals()["last_sync_at"]) == (0, None)


def test_what_only_postgres_refuses_is_found_by_halving(source, monkeypatch):
    """A record that passes our checks and not Postgres's costs itself, not its block."""
    spoil(monkeypatch)
    source.shelf.files = {"a.jsonl": numbered(40) + b'{"id": "\\u0001"}\n' + numbered(40), "b.jsonl": numbered(3)}
    ended = source.sync()
    assert ended.counters["landed"] == 83
    assert {name: ended.counters[name] for name in ("parsed", "valid", "rejected")} == {
        "parsed": 84, "valid": 83, "rejected": 1,
    }  # fmt: skip
    assert [(reject["line"], reject["record_number"], reject["code"]) for reject in source.rejects()] == [
        (41, 41, "not_storable")
    ]
    assert (source.totals()["item_count"], source.totals()["error_count"]) == (83, 1)
    assert {file["path"]: (file["item_count"], file["error_count"]) for file in source.catalogue()} == {
        "a.jsonl": (80, 1),
        "b.jsonl": (3, 0),
    }


def test_rejects_beyond_the_limit_are_counted(source, monkeypatch):
    """A file that is all faults keeps so many rejects and counts the rest, with a warning."""
    monkeypatch.setattr(landing, "KEPT_REJECTS", 5)
    source.shelf.files = {"a.jsonl": b"bad\n" * 12}
    ended = source.sync()
    assert ended.counters["rejected"] == 12
    assert ended.warnings == ["rejects_truncated"]
    assert len(source.rejects()) == 5
    assert source.totals()["error_count"] == 12
    assert source.files() == {"a.jsonl": "rejected"}


def test_a_broken_schema_is_a_config_fault(source):
    """A schema that is none, or that points outside itself, fails the job before anything is read."""
    source.shelf.files = {"a.jsonl": numbered(1)}
    for schema in ({"type": "nonsense"}, {"$ref": "http://127.0.0.1:1/schema.json"}):
        source.configure(validation={"schema": schema})
        assert source.sync().code == "config_invalid"
    assert source.shelf.opened == []


class _Cut(io.BytesIO):
    """Bytes after which the worker is asked to stop."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise Draining
        return data


def _steal(source: Any, context: Any) -> None:
    with db.connect(source.database, application="thief") as thief:
        thief.execute("delete from job_lease where job_id = %s", (context.claim.job_id,))
