"""Reading files, items, rejects and tables."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from headwater import clock, db, ids
from headwater_api.catalogue.schemas import FILE_COLUMNS, ITEM_COLUMNS, REJECT_COLUMNS

NDJSON = {"Accept": "application/x-ndjson"}
CSV = {"Accept": "text/csv"}


def _walk(client: httpx2.Client, path: str, *, page_size: int, between: Any = None, **filters: Any) -> list[Any]:
    seen: list[Any] = []
    parameters: dict[str, Any] = {"page_size": page_size} | filters
    while True:
        answer = client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        seen += page["data"]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            return seen
        parameters["cursor"] = page["next_cursor"]
        if between:
            between()


class TestItems:
    """Records."""

    def test_an_item_has_the_fields_of_the_contract(self, client: httpx2.Client, source: Any) -> None:
        """Id, path, number, record, job and time."""
        job_id = source.sync({"a.csv": [{"x": 1}]})
        (item,) = client.get(f"{source.path}/items").json()["data"]
        assert tuple(item) == ITEM_COLUMNS
        assert (item["path"], item["record_number"], item["data"]) == ("a.csv", 1, {"x": 1})
        assert item["job_id"] == ids.encode("job", job_id)
        assert item["created_at"].endswith("Z")

    @pytest.mark.parametrize("page_size", [1, 2, 3, 7, 200])
    def test_a_walk_gives_every_item_once(self, client: httpx2.Client, source: Any, page_size: int) -> None:
        """By path and record number, whatever the size of a page."""
        source.sync({"b": [3, 4, 5], "a": [1, 2], "c": []})
        items = _walk(client, f"{source.path}/items", page_size=page_size)
        assert [item["data"] for item in items] == [1, 2, 3, 4, 5]

    def test_a_walk_is_of_one_moment(self, client: httpx2.Client, source: Any) -> None:
        """A sync that replaces a file between two pages is not in the walk, but in the next one."""
        source.sync({"a": [1, 2], "b": [3, 4]})
        items = _walk(
            client, f"{source.path}/items", page_size=1, between=lambda: source.sync({"b": ["new"], "c": ["later"]})
        )
        assert [item["data"] for item in items] == [1, 2, 3, 4]
        assert [item["data"] for item in _walk(client, f"{source.path}/items", page_size=9)] == [1, 2, "new", "later"]

    def test_what_is_not_shown_is_not_seen(self, client: httpx2.Client, source: Any) -> None:
        """A sync that is going on, or failed, shows nothing."""
        source.sync({"a": [1]})
        source.sync({"a": [2], "b": [3]}, shown=False)
        assert [item["data"] for item in client.get(f"{source.path}/items").json()["data"]] == [1]

    def test_filters_choose(self, client: httpx2.Client, source: Any) -> None:
        """By file, by job, by time."""
        first = source.sync({"a": [1], "b": [2]})
        middle = clock.rfc3339(datetime.now(UTC))
        second = source.sync({"c": [3]})

        def chosen(**filters: Any) -> list[Any]:
            return [item["data"] for item in client.get(f"{source.path}/items", params=filters).json()["data"]]

        assert chosen(path="b") == [2]
        assert chosen(job_id=ids.encode("job", first)) == [1, 2]
        assert chosen(job_id=ids.encode("job", second)) == [3]
        assert chosen(created_after=middle) == [3]

    def test_numbers_keep_their_digits(self, client: httpx2.Client, source: Any) -> None:
        """Beyond 64 bits and beyond double precision, in all three forms."""
        source.sync({"a": [0]})
        digits = "[123456789012345678901234567890, 0.12345678901234567890123]"
        source.connection.execute(
            "update item set data = %s::jsonb where load_id in (select id from load where data_source_id = %s)",
            (digits, source.id),
        )
        for headers in ({}, NDJSON, CSV):
            assert digits in client.get(f"{source.path}/items", headers=headers).text

    def test_ndjson_streams_all_of_it(self, client: httpx2.Client, source: Any) -> None:
        """Many chunks, one object a line, the same as the pages give."""
        source.sync({f"file {n}": [{"n": n, "i": i} for i in range(500)] for n in range(10)})
        answer = client.get(f"{source.path}/items", headers=NDJSON)
        items = [json.loads(line) for line in answer.text.splitlines()]
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        assert items == _walk(client, f"{source.path}/items", page_size=200)
        assert len(items) == 5000

    def test_csv_streams_all_of_it(self, client: httpx2.Client, source: Any) -> None:
        """A header, then a row an item, with the record as JSON."""
        source.sync({"a": [{"text": 'comma, "quote"\nline'}] * 120})
        answer = client.get(f"{source.path}/items", headers=CSV)
        header, *rows = csv.reader(io.StringIO(answer.text, newline=""))
        assert tuple(header) == ITEM_COLUMNS
        assert len(rows) == 120
        assert json.loads(rows[-1][ITEM_COLUMNS.index("data")]) == {"text": 'comma, "quote"\nline'}

    def test_an_empty_stream_has_its_header(self, client: httpx2.Client, source: Any) -> None:
        """CSV without items is a header, NDJSON nothing."""
        assert client.get(f"{source.path}/items", headers=CSV).text == ",".join(ITEM_COLUMNS) + "\r\n"
        assert client.get(f"{source.path}/items", headers=NDJSON).text == ""

    def test_a_stream_resumes_at_a_cursor(self, client: httpx2.Client, source: Any) -> None:
        """What is behind it, of the cursor's moment."""
        source.sync({"a": [1, 2, 3]})
        cursor = client.get(f"{source.path}/items", params={"page_size": 1}).json()["next_cursor"]
        source.sync({"a": ["new"]})
        lines = client.get(f"{source.path}/items", params={"cursor": cursor}, headers=NDJSON).text.splitlines()
        assert [json.loads(line)["data"] for line in lines] == [2, 3]

    def test_large_records_make_short_pages(self, client: httpx2.Client, source: Any) -> None:
        """A page of 30 records of 1 MiB stops early, says that more follow, and nothing is lost."""
        source.sync({"a": ["x" * 1024 * 1024] * 30})
        first = client.get(f"{source.path}/items", params={"page_size": 200}).json()
        assert first["has_more"] or len(first["data"]) == 30
        assert len(_walk(client, f"{source.path}/items", page_size=200)) == 30

    def test_one_item_is_read_by_its_id(self, client: httpx2.Client, source: Any) -> None:
        """Until its file is replaced."""
        source.sync({"a": [1, 2]})
        item = client.get(f"{source.path}/items").json()["data"][1]
        assert client.get(f"{source.path}/items/{item['id']}").json() == item
        source.sync({"a": [1, 2]})
        assert client.get(f"{source.path}/items/{item['id']}").status_code == 404

    @pytest.mark.parametrize(
        "item_id", ["item_1", "x", ids.encode("item", ids.pack(2**40, 1)), ids.encode("item", ids.pack(2**63, 2**63))]
    )
    def test_an_item_that_never_was_is_404(self, client: httpx2.Client, source: Any, item_id: str) -> None:
        """Malformed, unknown, or with numbers that no row can have."""
        assert client.get(f"{source.path}/items/{item_id}").status_code == 404

    def test_an_old_cursor_is_refused(
        self, client: httpx2.Client, source: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After an hour what it saw may be gone."""
        source.sync({"a": [1, 2]})
        cursor = client.get(f"{source.path}/items", params={"page_size": 1}).json()["next_cursor"]
        later = datetime.now(UTC) + timedelta(minutes=61)
        monkeypatch.setattr(clock, "now", lambda: later)
        answer = client.get(f"{source.path}/items", params={"page_size": 1, "cursor": cursor})
        assert (answer.status_code, answer.json()["code"]) == (400, "cursor_expired")

    def test_a_cursor_of_another_source_is_refused(self, client: httpx2.Client, source: Any) -> None:
        """Cursors are bound to their list."""
        source.sync({"a": [1, 2]}, rejects={"a": ["x", "y"]})
        cursor = client.get(f"{source.path}/items", params={"page_size": 1}).json()["next_cursor"]
        answer = client.get(f"{source.path}/rejects", params={"page_size": 1, "cursor": cursor})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


class TestRejects:
    """What was refused."""

    def test_a_source_shows_the_rejects_of_what_is_live(self, client: httpx2.Client, source: Any) -> None:
        """Not those of a reading that was replaced."""
        source.sync({"a": [1]}, rejects={"a": ["old 1", "old 2"], "b": ["b"]})
        source.sync({"a": [1]}, rejects={"a": ["new"]})
        rejects = _walk(client, f"{source.path}/rejects", page_size=1)
        assert [(reject["path"], reject["excerpt"]) for reject in rejects] == [("a", "new"), ("b", "b")]
        assert tuple(rejects[0]) == REJECT_COLUMNS

    def test_a_job_shows_what_it_refused_also_when_nothing_is_shown(self, client: httpx2.Client, source: Any) -> None:
        """A strict sync that failed says why; the source stays as it was."""
        job_id = source.sync({}, rejects={"a": ["1", "2", "3"], "b": ["4"]}, shown=False)
        path = f"jobs/{ids.encode('job', job_id)}/rejects"
        assert [reject["excerpt"] for reject in _walk(client, path, page_size=2)] == ["1", "2", "3", "4"]
        assert client.get(f"{source.path}/rejects").json()["data"] == []

    def test_rejects_stream_too(self, client: httpx2.Client, source: Any) -> None:
        """Of a source and of a job, as NDJSON and CSV."""
        job_id = source.sync({}, rejects={"a": [str(n) for n in range(300)]})
        for path in (f"{source.path}/rejects", f"jobs/{ids.encode('job', job_id)}/rejects"):
            lines = client.get(path, headers=NDJSON).text.splitlines()
            header, *rows = csv.reader(io.StringIO(client.get(path, headers=CSV).text, newline=""))
            assert (len(lines), len(rows), tuple(header)) == (300, 300, REJECT_COLUMNS)


class TestFiles:
    """The catalogue."""

    @pytest.fixture(autouse=True)
    def _files(self, source: Any) -> None:
        source.connection.execute(
            "insert into file (data_source_id, organization_id, path, size, etag, state)"
            " select %s, %s, path, 1, 'e', state from (values ('a/1', 'new'), ('a/2', 'imported'), ('a/%%_', 'new'),"
            " ('b/1', 'missing'), ('\u00e4', 'new')) as f (path, state)",
            (source.id, source.organization_id),
        )

    def test_files_come_by_path(self, client: httpx2.Client, source: Any) -> None:
        """Each once, in byte order."""
        files = _walk(client, f"{source.path}/files", page_size=2)
        assert [file["path"] for file in files] == ["a/%_", "a/1", "a/2", "b/1", "\u00e4"]
        assert tuple(files[0]) == FILE_COLUMNS

    def test_filters_choose(self, client: httpx2.Client, source: Any) -> None:
        """A prefix is text, not a pattern."""

        def chosen(**filters: Any) -> list[str]:
            return [file["path"] for file in client.get(f"{source.path}/files", params=filters).json()["data"]]

        assert chosen(prefix="a/") == ["a/%_", "a/1", "a/2"]
        assert chosen(prefix="a/%") == ["a/%_"]
        assert chosen(state="missing") == ["b/1"]
        assert chosen(prefix="a/", state="imported") == ["a/2"]

    def test_a_csv_file_says_how_it_was_read(self, client: httpx2.Client, source: Any) -> None:
        """As the live load notes it; null where there is none, or where it is no CSV."""
        source.sync({"a/1": [1], "a/2": [2]})
        read_as = {"delimiter": ";", "encoding": "cp1252", "header": True}
        source.connection.execute(
            "update load set counters = %s where data_source_id = %s and path = 'a/1'",
            (db.json({"parsed": 1, "csv": read_as}), source.id),
        )
        source.connection.execute(
            "update file f set load_id = l.id from load l"
            " where f.data_source_id = %s and l.data_source_id = f.data_source_id and l.path = f.path",
            (source.id,),
        )
        files = client.get(f"{source.path}/files", params={"prefix": "a/"}).json()["data"]
        assert {file["path"]: file["csv"] for file in files} == {"a/%_": None, "a/1": read_as, "a/2": None}

    def test_an_unknown_state_is_400(self, client: httpx2.Client, source: Any) -> None:
        """It names the parameter."""
        answer = client.get(f"{source.path}/files", params={"state": "old"})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "state")


def test_a_bucket_has_no_tables(client: httpx2.Client, source: Any) -> None:
    """409 `capability_missing`."""
    answer = client.get(f"{source.path}/tables")
    assert (answer.status_code, answer.json()["code"]) == (409, "capability_missing")


@pytest.mark.parametrize("noun", ["files", "items", "rejects", "tables", "items/item_00000000000000000000000001"])
def test_other_organizations_see_nothing(
    client: httpx2.Client, other_client: httpx2.Client, source: Any, noun: str
) -> None:
    """404, also for a filter that is wrong, and for streams."""
    source.sync({"a": [1]}, rejects={"a": ["x"]})
    for headers in ({}, NDJSON):
        assert other_client.get(f"{source.path}/{noun}", headers=headers).status_code == 404
    assert other_client.get(f"{source.path}/{noun}", params={"unknown": "1"}).status_code == 404


def test_other_organizations_see_no_rejects_of_a_job(other_client: httpx2.Client, source: Any) -> None:
    """404."""
    job_id = source.sync({}, rejects={"a": ["x"]})
    assert other_client.get(f"jobs/{ids.encode('job', job_id)}/rejects").status_code == 404
