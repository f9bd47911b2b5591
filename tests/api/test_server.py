"""Slow and huge requests end by themselves: raw sockets against the server as it is deployed, with shorter limits."""

import json
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from serving import Api

from headwater import ids
from headwater.access.organizations import CreatedOrganization
from headwater_api import guard, server
from headwater_api.uploads import receiving

LIMIT_SECONDS = 1.0
ENOUGH_SECONDS = 20.0


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Api]) -> Iterator[Api]:
    """An API that is patient for a second only; idle connections have their usual time."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (server, "HEAD_SECONDS"),
            (server, "LINGER_SECONDS"),
            (server, "UNREAD_SECONDS"),
            (guard, "BODY_SECONDS"),
            (receiving, "STALL_SECONDS"),
        ):
            patch.setattr(module, name, LIMIT_SECONDS)
        yield start_api()


@contextmanager
def connected(api: Api, data: bytes = b"") -> Iterator[socket.socket]:
    """A connection on which `data` was sent."""
    base = urlsplit(api.url)
    with socket.create_connection((base.hostname or "", base.port or 0), timeout=ENOUGH_SECONDS) as connection:
        connection.sendall(data)
        yield connection


def head(request_line: str, *fields: str) -> bytes:
    """A whole head."""
    return "\r\n".join((f"{request_line} HTTP/1.1", "Host: api", *fields, "", "")).encode()


def drip(connection: socket.socket, data: bytes) -> None:
    """Send `data` again and again, a little at a time, until the other side says something or hangs up."""
    deadline = time.monotonic() + ENOUGH_SECONDS
    try:
        while not select.select([connection], [], [], 0.1)[0]:
            assert time.monotonic() < deadline, "the server goes on listening"
            connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def answer_of(connection: socket.socket) -> bytes:
    """The next answer, in however many pieces it comes."""
    answer = b""
    while not (found := re.search(rb"(?is)content-length: (\d+).*?\r\n\r\n(.*)", answer)) or len(found[2]) < int(
        found[1]
    ):
        part = connection.recv(65536)
        assert part, answer
        answer += part
    return answer


def all_of(connection: socket.socket) -> bytes:
    """What comes until the server hangs up."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def files_in(folder: Path) -> set[Path]:
    """Every file below `folder`."""
    return {path for path in folder.rglob("*") if path.is_file()}


def problem(answer: bytes) -> tuple[int, str]:
    """Status and code of an answer that is a problem and the last one of its connection."""
    top, _, body = answer.partition(b"\r\n\r\n")
    status_line, *lines = top.decode().lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    found = json.loads(body)
    assert (fields["content-type"], fields["connection"]) == ("application/problem+json", "close")
    assert fields["x-request-id"] == found["request_id"]
    assert fields["x-content-type-options"] == "nosniff"
    assert int(fields["content-length"]) == len(body)
    assert found["status"] == int(status_line.split()[1])
    return found["status"], found["code"]


def test_a_connection_that_says_nothing_is_closed(api: Api) -> None:
    """Without an answer: nothing was asked."""
    with connected(api) as connection:
        assert all_of(connection) == b""


@pytest.mark.parametrize("before", [b"", head("GET /healthz")], ids=["first", "later"])
def test_a_head_that_drips_is_ended(api: Api, before: bytes) -> None:
    """A byte now and then gives no more time, for the first request of a connection and for a later one."""
    with connected(api, before) as connection:
        if before:
            assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        drip(connection, b"x")
        assert problem(all_of(connection)) == (408, "request_timeout")


def test_blank_lines_keep_no_connection_alive(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a request they are no part of it (RFC 9112, section 2.2), and give no more time."""
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", LIMIT_SECONDS)
    with connected(api, head("GET /healthz")) as connection:
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
        drip(connection, b"\r\n")
        assert all_of(connection) == b""


def test_a_json_body_that_drips_is_ended(api: Api, client: httpx2.Client, organization: CreatedOrganization) -> None:
    """408 for the caller, and nothing of it is done."""
    fields = (
        f"Authorization: Bearer {organization.api_key}",
        "Content-Type: application/json",
        "Content-Length: 100000",
    )
    with connected(api, head("POST /api/v1/projects", *fields) + b'{"name": "dripped"}') as connection:
        drip(connection, b" ")
        assert problem(all_of(connection)) == (408, "request_timeout")
    assert "dripped" not in client.get("projects", params={"page_size": 200}).text


def test_an_upload_that_falls_silent_is_ended_and_not_kept(
    api: Api, client: httpx2.Client, project: dict[str, Any], organization: CreatedOrganization, uploads_dir: Path
) -> None:
    """Neither a file in the list nor a byte in the storage, and the connection is closed."""
    sources = f"projects/{project['id']}/data-sources"
    source = client.post(sources, json={"name": "files", "type": "file_upload", "config": {}}).json()["id"]
    kept = files_in(uploads_dir)
    fields = (f"Authorization: Bearer {organization.api_key}", "Content-Length: 100000")
    request = head(f"POST /api/v1/{sources}/{source}/uploads?name=a.csv", *fields)
    with connected(api, request + b"a,b\n" * 100) as connection:
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "body_incomplete"
    assert client.get(f"{sources}/{source}/uploads").json()["data"] == []
    assert files_in(uploads_dir) == kept


def test_a_body_behind_its_answer_is_not_waited_for(api: Api) -> None:
    """Whoever was refused without being heard out cannot go on talking for ever."""
    with connected(api, head("POST /api/v1/projects", "Content-Length: 1000000000")) as connection:
        assert answer_of(connection).startswith(b"HTTP/1.1 401 ")
        drip(connection, b" ")
        assert all_of(connection) == b""


def test_a_client_that_does_not_read_is_cut_off(api: Api) -> None:
    """The answers that wait for it would stay in memory."""
    with api.client(None) as client:
        each = len(client.get(api.url.removesuffix("/api/v1") + "/openapi.json").content)
    wanted = 32 * 1024 * 1024 // each  # no kernel keeps so much for a connection
    with connected(api) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(head("GET /openapi.json") * wanted)
        poll = select.poll()
        poll.register(connection, select.POLLERR | select.POLLHUP)
        assert poll.poll(ENOUGH_SECONDS * 1000), "the server goes on holding its answers"
        assert len(all_of(connection)) < wanted * each


def test_who_waits_for_a_job_is_not_ended(
    api: Api, client: httpx2.Client, project: dict[str, Any], organization: CreatedOrganization
) -> None:
    """A long poll and a stream outlast every limit: it is the server who has nothing to say."""
    sources = f"projects/{project['id']}/data-sources"
    config = {"bucket": "b-ucket", "region": "eu-central-1"}
    source = client.post(sources, json={"name": "s", "type": "s3", "config": config}).json()["id"]
    job = client.post(f"{sources}/{source}/test").json()["id"]
    stream = head(f"GET /api/v1/jobs/{job}/events", f"Authorization: Bearer {organization.api_key}")
    with connected(api, stream) as connection:
        began = time.monotonic()
        waited = client.get(f"jobs/{job}", params={"wait": 4})
        assert (waited.status_code, waited.json()["status"]) == (200, "queued")
        assert time.monotonic() - began > 3 * LIMIT_SECONDS
        assert client.post(f"jobs/{job}/cancel").is_success
        seen = b""
        while b"0\r\n\r\n" not in seen:
            part = connection.recv(65536)
            assert part, "the stream was cut off"
            seen += part
    assert b"event: cancelled" in seen or b'"cancelled"' in seen


@pytest.mark.parametrize("end", [b"\r\n\r\n", b""], ids=["whole", "endless"])
def test_a_head_that_is_too_large_is_refused(api: Api, end: bytes) -> None:
    """Whether it has come to its end or not."""
    request = b"GET /healthz HTTP/1.1\r\nHost: api\r\nX-Large: " + b"x" * (server.HEAD_BYTES + 1) + end
    with connected(api, request) as connection:
        assert problem(all_of(connection)) == (431, "head_too_large")


def test_a_large_head_is_read(api: Api) -> None:
    """Up to the limit."""
    request = head("GET /healthz", "X-Large: " + "x" * (server.HEAD_BYTES - 1000), "Connection: close")
    with connected(api, request) as connection:
        assert all_of(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1", head("GET /healthz", "Content-Length: none"), head("GET a b c")],
    ids=["TLS", "length", "line"],
)
def test_what_is_not_http_is_refused_as_a_problem(api: Api, request_bytes: bytes) -> None:
    """Like every other error."""
    with connected(api, request_bytes) as connection:
        assert problem(all_of(connection)) == (400, "malformed_request")


def test_a_refusal_is_never_taken_for_another_requests_answer(
    api: Api, client: httpx2.Client, organization: CreatedOrganization
) -> None:
    """What is malformed behind a request that is being answered ends the connection without a word."""
    slow = head(f"GET /api/v1/jobs/{ids.encode('job', ids.new())}", f"Authorization: Bearer {organization.api_key}")
    with connected(api, slow + b"\0\0\0\0\r\n\r\n") as connection:
        assert b"malformed_request" not in all_of(connection)


def test_trailers_are_no_headers(api: Api, organization: CreatedOrganization) -> None:
    """A proxy that checks the head never saw them."""
    chunked = head("POST /api/v1/projects", "Transfer-Encoding: chunked", "Content-Type: application/json")
    trailers = f"0\r\nAuthorization: Bearer {organization.api_key}\r\n\r\n".encode()
    with connected(api, chunked + b'f\r\n{"name": "abc"}\r\n' + trailers) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_trailers_have_the_limit_of_a_head(api: Api, organization: CreatedOrganization) -> None:
    """They would grow without end in memory otherwise."""
    fields = (
        f"Authorization: Bearer {organization.api_key}",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
    )
    with connected(api, head("POST /api/v1/projects", *fields) + b"2\r\n{}\r\n0\r\n") as connection:
        time.sleep(0.1)
        connection.sendall(b"X-Large: " + b"x" * (server.HEAD_BYTES + 1))
        assert problem(all_of(connection)) == (431, "head_too_large")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how many segments came")
def test_an_answer_comes_in_one_message(api: Api) -> None:
    """A client that is woken for a head alone has to sleep once more."""
    with connected(api, head("GET /healthz")) as connection:
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
        said = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
        [segments] = struct.unpack_from("I", said, 152)  # tcpi_data_segs_in
    assert segments == 1
