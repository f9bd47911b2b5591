"""Uploading over HTTP: whole, in parts, again, cut off."""

import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import pytest

from headwater import ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection

from .conftest import MakeSource

CSV = b"id,name\n1,Ada\n2,Bob\n"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 100
MIB = 1024 * 1024


def _post(client: httpx2.Client, uploads: str, name: str, body: bytes, **headers: str) -> httpx2.Response:
    return client.post(uploads, params={"name": name}, content=body, headers=headers)


def _part(client: httpx2.Client, uploads: str, name: str, body: bytes, *, start: int, total: int) -> httpx2.Response:
    header = {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{total}"}
    return client.put(f"{uploads}/{quote(name, safe='')}", content=body, headers=header)


def _asked(client: httpx2.Client, uploads: str, name: str, total: int) -> httpx2.Response:
    return client.put(f"{uploads}/{quote(name, safe='')}", headers={"Content-Range": f"bytes */{total}"})


def _code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def _kept(uploads_dir: Path) -> set[Path]:
    """Every file in the storage."""
    return {path for path in uploads_dir.rglob("*") if path.is_file()}


def test_an_upload_is_answered_with_its_size_and_checksum(client: httpx2.Client, uploads: str) -> None:
    """201 with the file, which is then listed and read."""
    answer = _post(client, uploads, "orders.csv", CSV)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["name"], body["size"], body["content_type"]) == ("orders.csv", len(CSV), "text/csv")
    assert body["sha256"] == hashlib.sha256(CSV).hexdigest()
    assert answer.headers["ETag"] == f'"{body["etag"]}"'
    assert client.get(f"{uploads}/orders.csv").json() == body
    assert client.get(uploads).json() == {"data": [body], "next_cursor": None, "has_more": False}


def test_bytes_are_stored_under_keys_and_never_under_names(
    client: httpx2.Client, uploads: str, uploads_dir: Path
) -> None:
    """The file's name is nowhere on the disk, and nobody else on the machine can read the bytes."""
    before = _kept(uploads_dir)
    assert _post(client, uploads, "..passwd", CSV).status_code == 201
    (made,) = _kept(uploads_dir) - before
    assert made.read_bytes() == CSV
    assert "passwd" not in str(made)
    assert made.stat().st_mode & 0o077 == 0


def test_the_same_name_replaces(client: httpx2.Client, uploads: str) -> None:
    """One file of this name is listed, with the new bytes; the same bytes again keep the ETag."""
    first = _post(client, uploads, "a.csv", CSV).json()
    second = _post(client, uploads, "a.csv", CSV + b"3,Cy\n").json()
    third = _post(client, uploads, "a.csv", CSV).json()
    assert [entry["sha256"] for entry in client.get(uploads).json()["data"]] == [third["sha256"]]
    assert first["etag"] == third["etag"] != second["etag"]


def test_a_list_is_sorted_by_name_and_paged(client: httpx2.Client, uploads: str) -> None:
    """Every file once, in the order of the bytes of their names."""
    names = ["b.csv", "a.csv", "Z.csv", "ä.csv", "a b.csv"]
    for name in names:
        assert _post(client, uploads, name, CSV).status_code == 201
    found: list[str] = []
    cursor = None
    while True:
        page = client.get(uploads, params={"page_size": 2} | ({"cursor": cursor} if cursor else {})).json()
        found += [entry["name"] for entry in page["data"]]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    assert found == sorted(names, key=str.encode)


def test_a_deleted_file_is_gone(client: httpx2.Client, uploads: str) -> None:
    """204, then 404; `If-Match` is honoured."""
    etag = _post(client, uploads, "a.csv", CSV).headers["ETag"]
    assert client.delete(f"{uploads}/a.csv", headers={"If-Match": '"other"'}).status_code == 412
    assert client.delete(f"{uploads}/a.csv", headers={"If-Match": etag}).status_code == 204
    assert client.get(f"{uploads}/a.csv").status_code == 404
    assert client.delete(f"{uploads}/a.csv").status_code == 404
    assert client.get(uploads).json()["data"] == []


def test_if_match_protects_from_replacing_what_others_replaced(client: httpx2.Client, uploads: str) -> None:
    """A stale ETag is 412, and nothing is replaced."""
    stale = _post(client, uploads, "a.csv", CSV).headers["ETag"]
    current = _post(client, uploads, "a.csv", b"id\n1\n")
    assert _code(_post(client, uploads, "a.csv", b"id\n2\n", **{"If-Match": stale})) == (412, "stale_revision")
    assert client.get(f"{uploads}/a.csv").json() == current.json()


@pytest.mark.parametrize(
    "name",
    ["a/b.csv", "../a.csv", "..", "a\\b.csv", "a\nb.csv", "a\x7fb.csv", "é" * 130 + ".csv", " a.csv", "\u202ea.csv"],
)
def test_a_name_that_is_a_path_or_misleads_is_refused(client: httpx2.Client, uploads: str, name: str) -> None:
    """400 naming `name`."""
    answer = _post(client, uploads, name, CSV)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "name"


def test_an_upload_without_a_name_is_refused(client: httpx2.Client, uploads: str) -> None:
    """400, before the body is read."""
    assert client.post(uploads, content=CSV).status_code == 400


def test_extensions_are_those_of_the_source_in_any_case(client: httpx2.Client, make_source: MakeSource) -> None:
    """Others are 415, and nothing is kept."""
    uploads = f"{make_source(allowed_extensions=['CSV', 'json.gz'])}/uploads"
    gzip = b"\x1f\x8b" + b"\0" * 30
    assert _post(client, uploads, "a.csv", CSV).status_code == 201
    assert _post(client, uploads, "a.CSV", CSV).status_code == 201
    assert _post(client, uploads, "a.json.gz", gzip).status_code == 201
    for name in ("a.json", "csv", "a.csv.gz", "acsv", "a.csv.exe"):
        assert _code(_post(client, uploads, name, CSV)) == (415, "extension_refused")
    assert len(client.get(uploads).json()["data"]) == 3


@pytest.mark.parametrize("extension", [".csv", "", "c/v", "*", "a" * 40])
def test_an_extension_in_a_config_has_no_dot(client: httpx2.Client, project: dict[str, Any], extension: str) -> None:
    """Letters and digits, or 400 naming the field."""
    body = {"name": "x", "type": "file_upload", "config": {"allowed_extensions": [extension]}}
    answer = client.post(f"projects/{project['id']}/data-sources", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/config/allowed_extensions"


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("a.csv", PNG, "content_mismatch"),
        ("a.parquet", CSV, "content_mismatch"),
        ("a.json.gz", b'{"a": 1}', "content_mismatch"),
        ("a.xlsx", PNG, "content_mismatch"),
        ("a.csv", b"\x7fELF\x02\x01\x01" + b"\0" * 60, "content_refused"),
        ("a.bin", b"MZ\x90\0\x03\0\0\0" + b"\0" * 60, "content_refused"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    client: httpx2.Client, uploads: str, uploads_dir: Path, name: str, body: bytes, code: str
) -> None:
    """415, and no byte of it stays."""
    before = _kept(uploads_dir)
    assert _code(_post(client, uploads, name, body)) == (415, code)
    assert _kept(uploads_dir) == before


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a.csv", "naïve,日本\n1,2\n".encode("utf-16")),
        ("a.csv", b"MZ,PK\n1,2\n"),
        ("a.csv", b"GIF89a is a format,b\n"),
        ("a.png", PNG),
        ("data", PNG),
        ("a.csv", b""),
    ],
)
def test_text_is_never_judged(client: httpx2.Client, uploads: str, name: str, body: bytes) -> None:
    """Only what is known for certain is refused."""
    assert _post(client, uploads, name, body).status_code == 201


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("Content-Type", "multipart/form-data; boundary=x", "multipart_refused"),
        ("Content-Encoding", "gzip", "content_encoding_refused"),
    ],
)
def test_a_body_that_is_not_the_file_itself_is_refused(
    client: httpx2.Client, uploads: str, header: str, value: str, code: str
) -> None:
    """415 with the way out, instead of a file that nobody can read."""
    assert _code(_post(client, uploads, "a.csv", CSV, **{header: value})) == (415, code)


def test_a_file_that_is_too_large_is_refused_by_its_length(
    client: httpx2.Client, make_source: MakeSource, api: Any, organization: CreatedOrganization
) -> None:
    """413 before a byte of the body is sent."""
    uploads = f"{make_source(max_file_size_mb=1)}/uploads"
    connection = _raw(api, organization, uploads, "big.csv", {"Content-Length": str(MIB + 1)})
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (413, "file_too_large")
    connection.close()
    assert _post(client, uploads, "fits.csv", b"x" * MIB).status_code == 201


def test_a_file_that_grows_too_large_is_refused_while_it_comes(
    client: httpx2.Client, make_source: MakeSource, uploads_dir: Path
) -> None:
    """A body without a length is cut off as soon as it is over the limit, and leaves nothing behind."""
    uploads = f"{make_source(max_file_size_mb=1)}/uploads"
    before = _kept(uploads_dir)

    def body() -> Iterator[bytes]:
        for _ in range(17):
            yield b"x" * (MIB // 16)

    answer = client.post(uploads, params={"name": "big.csv"}, content=body())
    assert _code(answer) == (413, "file_too_large")
    assert _kept(uploads_dir) == before
    assert client.get(uploads).json()["data"] == []


def test_other_types_take_no_uploads(client: httpx2.Client, make_source: MakeSource) -> None:
    """409 `capability_missing` from each route."""
    uploads = f"{make_source('s3', bucket='my-bucket', region='eu-central-1')}/uploads"
    answers = [
        _post(client, uploads, "a.csv", CSV),
        client.put(f"{uploads}/a.csv", content=CSV),
        client.get(uploads),
        client.get(f"{uploads}/a.csv"),
        client.delete(f"{uploads}/a.csv"),
    ]
    assert {_code(answer) for answer in answers} == {(409, "capability_missing")}


def test_another_organization_sees_nothing(client: httpx2.Client, other_client: httpx2.Client, uploads: str) -> None:
    """404 for every route, whatever is sent."""
    _post(client, uploads, "a.csv", CSV)
    answers = [
        _post(other_client, uploads, "a.csv", CSV),
        _post(other_client, uploads, "a/b", CSV),
        _part(other_client, uploads, "a.csv", CSV, start=0, total=100),
        other_client.get(uploads),
        other_client.get(f"{uploads}/a.csv"),
        other_client.delete(f"{uploads}/a.csv"),
    ]
    assert {answer.status_code for answer in answers} == {404}


def test_a_viewer_reads_and_an_operator_uploads(client_with_role: Callable[[str], httpx2.Client], uploads: str) -> None:
    """403 for a viewer who uploads or deletes."""
    viewer, operator = client_with_role("viewer"), client_with_role("operator")
    assert _post(operator, uploads, "a.csv", CSV).status_code == 201
    assert viewer.get(uploads).json()["data"][0]["name"] == "a.csv"
    assert _post(viewer, uploads, "a.csv", CSV).status_code == 403
    assert viewer.delete(f"{uploads}/a.csv").status_code == 403


def test_a_repeated_key_acts_once(client: httpx2.Client, uploads: str, uploads_dir: Path) -> None:
    """The stored answer comes back and what came with the replay is not kept; another body is 422."""
    key = {"Idempotency-Key": "once"}
    first = _post(client, uploads, "a.csv", CSV, **key)
    _post(client, uploads, "a.csv", b"id\n9\n")
    kept = _kept(uploads_dir)
    again = _post(client, uploads, "a.csv", CSV, **key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert client.get(f"{uploads}/a.csv").json()["size"] == 5
    assert _kept(uploads_dir) == kept
    assert _code(_post(client, uploads, "a.csv", b"id\n8\n", **key)) == (422, "idempotency_key_reused")
    assert _code(_post(client, uploads, "b.csv", CSV, **key)) == (422, "idempotency_key_reused")


def test_an_upload_is_in_the_history_and_in_the_audit_log(
    client: httpx2.Client, uploads: str, connection: Connection
) -> None:
    """Who uploaded and deleted what."""
    _post(client, uploads, "a.csv", CSV)
    client.delete(f"{uploads}/a.csv")
    events = client.get(uploads.removesuffix("uploads") + "events").json()["data"]
    assert [event["act"] for event in events[:2]] == ["upload.deleted", "upload.stored"]
    assert events[1]["details"]["name"] == "a.csv"
    # What others were refused before is written whenever its minute is over.
    acts = connection.execute(
        "select act from audit_entry where act <> 'access.deny' order by number desc limit 2"
    ).fetchall()
    assert [row["act"] for row in acts] == ["upload.delete", "upload.store"]


def test_a_deleted_source_shows_no_uploads(client: httpx2.Client, make_source: MakeSource) -> None:
    """404 at once."""
    source = make_source()
    _post(client, f"{source}/uploads", "a.csv", CSV)
    assert client.delete(source, headers={"If-Match": "*"}).status_code == 204
    assert client.get(f"{source}/uploads").status_code == 404
    assert _post(client, f"{source}/uploads", "b.csv", CSV).status_code == 404


def test_of_many_who_send_the_same_name_at_once_one_is_seen(
    client: httpx2.Client, uploads: str, connection: Connection
) -> None:
    """Each is answered 201; one file is there, whole, and the bytes of the others are on their way out."""
    bodies = [f"id\n{number}\n".encode() * 1000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: _post(client, uploads, "a.csv", body), bodies))
    assert {answer.status_code for answer in answers} == {201}
    (entry,) = client.get(uploads).json()["data"]
    assert entry["sha256"] in {hashlib.sha256(body).hexdigest() for body in bodies}
    states = connection.execute(
        "select state, count(*) as n from upload where name = 'a.csv' and data_source_id = %s group by state",
        (ids.decode("dsrc", uploads.split("/")[-2]),),
    ).fetchall()
    assert {row["state"]: row["n"] for row in states} == {"stored": 1, "dropped": 7}


# In parts.


def test_a_file_comes_in_parts(client: httpx2.Client, uploads: str) -> None:
    """Each part is 202 with the offset, the last one 201 with the file; nothing is listed before."""
    body = os.urandom(3 * 1000)
    for start in (0, 1000):
        answer = _part(client, uploads, "a.bin", body[start : start + 1000], start=start, total=3000)
        assert answer.status_code == 202, answer.text
        assert answer.headers["Upload-Offset"] == str(start + 1000)
        assert answer.headers["Range"] == f"bytes=0-{start + 999}"
        assert answer.json() == {"name": "a.bin", "received": start + 1000, "total": 3000}
        assert client.get(uploads).json()["data"] == []
    last = _part(client, uploads, "a.bin", body[2000:], start=2000, total=3000)
    assert (last.status_code, last.json()["sha256"]) == (201, hashlib.sha256(body).hexdigest())
    assert client.get(f"{uploads}/a.bin").json() == last.json()
    # Whoever lost that answer asks.
    asked = _asked(client, uploads, "a.bin", 3000)
    assert (asked.status_code, asked.json()) == (200, last.json())


def test_a_part_that_does_not_go_on_is_refused(client: httpx2.Client, uploads: str) -> None:
    """409 `offset_mismatch` for a gap, a repetition, or another total; the file goes on from where it was."""
    assert _asked(client, uploads, "a.bin", 100).headers["Upload-Offset"] == "0"
    assert _code(_part(client, uploads, "a.bin", b"x" * 10, start=50, total=100)) == (409, "offset_mismatch")
    assert _part(client, uploads, "a.bin", b"x" * 50, start=0, total=100).status_code == 202
    for start, total in ((60, 100), (40, 100), (50, 200)):
        answer = _part(client, uploads, "a.bin", b"x" * 10, start=start, total=total)
        assert _code(answer) == (409, "offset_mismatch")
    assert _asked(client, uploads, "a.bin", 100).headers["Upload-Offset"] == "50"
    assert _part(client, uploads, "a.bin", b"x" * 50, start=50, total=100).status_code == 201


def test_a_part_from_the_beginning_begins_anew(client: httpx2.Client, uploads: str) -> None:
    """What was there of it is forgotten."""
    _part(client, uploads, "a.bin", b"x" * 50, start=0, total=100)
    _part(client, uploads, "a.bin", b"y" * 30, start=0, total=60)
    done = _part(client, uploads, "a.bin", b"z" * 30, start=30, total=60)
    assert done.json()["sha256"] == hashlib.sha256(b"y" * 30 + b"z" * 30).hexdigest()


@pytest.mark.parametrize(
    "header", ["bytes 5-2/10", "bytes 0-10/10", "bytes 0-5/*", "0-5/10", "bytes x", "items 0-5/10"]
)
def test_a_range_that_is_none_is_refused(client: httpx2.Client, uploads: str, header: str) -> None:
    """400 naming the header."""
    answer = client.put(f"{uploads}/a.bin", content=b"x" * 6, headers={"Content-Range": header})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "Content-Range")


def test_a_part_of_a_file_that_will_be_too_large_is_refused(client: httpx2.Client, make_source: MakeSource) -> None:
    """413 with the first part."""
    uploads = f"{make_source(max_file_size_mb=1)}/uploads"
    assert _code(_part(client, uploads, "a.bin", b"x", start=0, total=MIB + 1)) == (413, "file_too_large")


def test_a_program_in_parts_is_refused(client: httpx2.Client, uploads: str) -> None:
    """Also if its first part is too short to know it."""
    program = b"\x7fELF" + b"\0" * 60
    assert _part(client, uploads, "a.bin", program[:2], start=0, total=64).status_code == 202
    assert _code(_part(client, uploads, "a.bin", program[2:], start=2, total=64)) == (415, "content_refused")
    assert client.get(uploads).json()["data"] == []
    assert _asked(client, uploads, "a.bin", 64).headers["Upload-Offset"] == "0"


def test_an_upload_goes_on_after_its_connection_was_cut(
    client: httpx2.Client, uploads: str, api: Any, organization: CreatedOrganization
) -> None:
    """What had come is kept; the client asks how much that is and sends the rest."""
    body = os.urandom(5 * MIB)
    connection = _raw(
        api,
        organization,
        f"{uploads}/big.bin",
        None,
        {"Content-Length": str(len(body)), "Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}"},
        method="PUT",
    )
    connection.send(body[: 3 * MIB])
    _cut(connection)
    offset = _offset_when_kept(client, uploads, "big.bin", len(body))
    assert 0 < offset <= 3 * MIB
    done = _part(client, uploads, "big.bin", body[offset:], start=offset, total=len(body))
    assert (done.status_code, done.json()["sha256"]) == (201, hashlib.sha256(body).hexdigest())


def test_a_whole_body_that_is_cut_off_leaves_nothing(
    client: httpx2.Client, uploads: str, uploads_dir: Path, api: Any, organization: CreatedOrganization
) -> None:
    """Neither a file in the list nor a byte in the storage."""
    before = _kept(uploads_dir)
    connection = _raw(api, organization, uploads, "big.csv", {"Content-Length": str(5 * MIB)})
    connection.send(b"x" * (3 * MIB))
    deadline = time.monotonic() + 10
    while _kept(uploads_dir) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    _cut(connection)
    while _kept(uploads_dir) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _kept(uploads_dir) == before
    assert client.get(uploads).json()["data"] == []


_SERVE = """
import resource, sys, threading, time
from headwater import log
from headwater.settings import ApiSettings
from headwater_api import server as servers
from headwater_api.main import create_app
log.configure("api")
server = servers.make(create_app(), ApiSettings(api_port=0))
thread = threading.Thread(target=server.run, daemon=True)
thread.start()
while not server.started:
    time.sleep(0.01)
print(server.servers[0].sockets[0].getsockname()[1], flush=True)
for line in sys.stdin:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
server.should_exit = True
thread.join(10)
"""


def test_a_large_upload_runs_in_bounded_memory(
    client: httpx2.Client,
    uploads: str,
    database: str,
    pepper_file: Path,
    tmp_path: Path,
    organization: CreatedOrganization,
) -> None:
    """200 MiB, whole and in parts, cost the server less than 40 MiB over what it takes to stand there."""
    environment = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        "HEADWATER_DATABASE_URL": database,
        "HEADWATER_REDIS_URL": "redis://127.0.0.1:1/0",
        "HEADWATER_PEPPER_FILE": str(pepper_file),
        "HEADWATER_UPLOADS_DIR": str(tmp_path),
        "HEADWATER_LOG_LEVEL": "error",
    }
    piece, pieces = os.urandom(MIB), 200
    digest = hashlib.sha256(piece * pieces).hexdigest()
    assert client.patch(
        uploads.removesuffix("/uploads"), json={"config": {"max_file_size_mb": 1000}}, headers={"If-Match": "*"}
    ).is_success
    with (
        subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as server,
        httpx2.Client(
            headers={"Authorization": f"Bearer {organization.api_key}"}, timeout=60, trust_env=False
        ) as direct,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        base = f"http://127.0.0.1:{server.stdout.readline().strip()}/api/v1/{uploads}"

        def peak_mib() -> float:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write("\n")
            server.stdin.flush()
            return int(server.stdout.readline()) / 1024

        assert direct.post(base, params={"name": "small.bin"}, content=piece).status_code == 201
        before = peak_mib()
        whole = direct.post(base, params={"name": "large.bin"}, content=(piece for _ in range(pieces)))
        assert (whole.status_code, whole.json()["sha256"]) == (201, digest)
        half = pieces // 2 * MIB
        for start in (0, half):
            header = {
                "Content-Range": f"bytes {start}-{start + half - 1}/{2 * half}",
                "Content-Length": str(half),
            }
            parted = direct.put(f"{base}/parts.bin", content=(piece for _ in range(pieces // 2)), headers=header)
        assert (parted.status_code, parted.json()["sha256"]) == (201, digest)
        grown = peak_mib() - before
        server.stdin.close()
    assert grown < 40


def _raw(
    api: Any,
    organization: CreatedOrganization,
    path: str,
    name: str | None,
    headers: dict[str, str],
    *,
    method: str = "POST",
) -> http.client.HTTPConnection:
    """A request whose head is sent, and nothing of its body."""
    base = urlsplit(api.url)
    connection = http.client.HTTPConnection(base.hostname or "", base.port, timeout=20)
    query = "" if name is None else f"?name={quote(name, safe='')}"
    connection.putrequest(method, f"{base.path}/{path}{query}")
    for key, value in {"Authorization": f"Bearer {organization.api_key}", **headers}.items():
        connection.putheader(key, value)
    connection.endheaders()
    return connection


def _cut(connection: http.client.HTTPConnection) -> None:
    """As a network does it: no goodbye."""
    assert connection.sock is not None
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def _offset_when_kept(client: httpx2.Client, uploads: str, name: str, total: int) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if offset := int(_asked(client, uploads, name, total).headers["Upload-Offset"]):
            return offset
        time.sleep(0.02)
    pytest.fail("nothing was kept")
