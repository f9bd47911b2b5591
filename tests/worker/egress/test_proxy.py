import base64
import contextlib
import http.client
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import httpx2
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from headwater.errors import ConnectorError, Permanent
from headwater_worker.egress import Failure, Policy, Proxy

from .conftest import Canary, Names, Serve, Speak

ONE = Policy.parse("127.0.0.1")


@dataclass
class Seen:
    """What a server was sent: request lines, headers, bodies, and the connections they came on."""

    lines: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    clients: list[tuple[str, int]] = field(default_factory=list)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def responder(serve: Serve, seen: Seen) -> int:
    """A store that keeps what it is sent and answers a GET with `stored`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"", b"stored")

        def do_PUT(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                self._answer(b"".join(self._chunks()), b"")
            else:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])), b"")

        def _chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def _answer(self, body: bytes, answer: bytes) -> None:
            seen.lines.append(self.requestline)
            seen.headers.append({name.lower(): value for name, value in self.headers.items()})
            seen.bodies.append(body)
            seen.clients.append(self.client_address)
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("X-Headwater-Refusal", "forged")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

    return serve(Handler)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(ONE, connect_seconds=1) as proxy:
        yield proxy


def authorization(proxy: Proxy) -> str:
    parts = urlsplit(proxy.url)
    return "Basic " + base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()


def raw(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", urlsplit(proxy.url).port or 0))
    connection.settimeout(5)
    return connection


def everything(connection: socket.socket) -> bytes:
    blocks = []
    while block := connection.recv(65536):
        blocks.append(block)
    return b"".join(blocks)


def say(proxy: Proxy, request: str) -> bytes:
    """The whole answer to one raw request, in which `AUTH` stands for the header with the token."""
    with raw(proxy) as connection:
        header = f"Proxy-Authorization: {authorization(proxy)}\r\n"
        connection.sendall(request.replace("AUTH\r\n", header).encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        return everything(connection)


def s3(proxy: Proxy, endpoint: str) -> BaseClient:
    return boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(
            proxies={"http": proxy.url, "https": proxy.url},
            retries={"max_attempts": 1},
            connect_timeout=5,
            read_timeout=5,
            s3={"addressing_style": "path"},
        ),
    )


def _proxies() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "egress-proxy"]


def test_it_is_served_from_when_somebody_asks_for_it() -> None:
    """Not before: a job that needs no way out has no thread for it. Asked for from many threads it is one."""
    with Proxy(ONE) as proxy:
        assert _proxies() == []
        with ThreadPoolExecutor(8) as threads:
            urls = set(threads.map(lambda _: proxy.url, range(8)))
        assert len(urls) == len(_proxies()) == 1
    assert _proxies() == []


def test_a_block_that_ends_while_it_starts_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a cancel does with a step that asks for the way out in its thread."""
    starting, ended = threading.Event(), threading.Event()
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        if thread.name == "egress-proxy":
            starting.set()
            ended.wait(0.2)  # in vain: the end waits for the start
        start(thread)

    with ThreadPoolExecutor(1) as step:
        with Proxy(ONE) as proxy:
            monkeypatch.setattr(threading.Thread, "start", start_late)
            asked = step.submit(lambda: proxy.url)
            assert starting.wait(10)
        ended.set()
        assert asked.result().startswith("http://")
        assert _proxies() == []


def test_nobody_is_let_out_after_the_end() -> None:
    """A driver that is left behind in its thread starts nothing that nobody would stop."""
    with Proxy(ONE) as proxy:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        _ = proxy.url
    assert _proxies() == []


def test_boto3_reaches_an_allowed_store(proxy: Proxy, responder: int, seen: Seen) -> None:
    """The honest twin: an upload and a download of the SDK pass, and the body arrives as it was sent."""
    client = s3(proxy, f"http://127.0.0.1:{responder}")
    client.put_object(Bucket="b", Key="k", Body=b"x" * 300_000)
    read = client.get_object(Bucket="b", Key="k")["Body"].read()
    assert (read, b"x" * 300_000 in seen.bodies[0], proxy.refusals) == (b"stored", True, ())


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("answers", [["127.0.0.2"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]])
def test_boto3_cannot_reach_a_denied_store(
    scheme: str, answers: list[str], proxy: Proxy, canary: Canary, names: Names
) -> None:
    """A denied or a mixed answer is never dialled, with or without TLS, and the true reason is kept."""
    names["store.example"] = [answers]
    client = s3(proxy, f"{scheme}://store.example:{canary.port}")
    with pytest.raises((ClientError, BotoCoreError)):
        client.list_objects_v2(Bucket="b")
    assert canary.hits() == 0
    assert set(proxy.refusals) == {_failure("store.example", canary.port, "blocked_target")}


def test_boto3_ignores_what_the_environment_says(proxy: Proxy, canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY cannot take an SDK around the proxy."""
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises((ClientError, BotoCoreError)):
        s3(proxy, f"http://127.0.0.3:{canary.port}").list_buckets()
    assert [failure.host for failure in proxy.refusals][-1] == "127.0.0.3"


def test_rebinding_gains_nothing(proxy: Proxy, responder: int, names: Names) -> None:
    """Each connection asks once and goes to the answer that was checked."""
    names["rebind.example"] = [["127.0.0.1"], ["127.0.0.2"]]
    with httpx2.Client(proxy=proxy.url, trust_env=False) as client:
        text = client.get(f"http://rebind.example:{responder}/").text
    assert (text, names.asked) == ("stored", ["rebind.example"])


def test_a_redirect_to_a_denied_host_is_refused(proxy: Proxy, canary: Canary, serve: Serve) -> None:
    """The policy holds on every hop, not only on the first."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://0x7f.0.0.2:{canary.port}/")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

    with httpx2.Client(proxy=proxy.url, trust_env=False, follow_redirects=True) as client:
        response = client.get(f"http://127.0.0.1:{serve(Handler)}/")
    assert (response.status_code, response.headers["X-Headwater-Refusal"]) == (403, "blocked_target")
    assert (canary.hits(), proxy.refusals) == (0, (_failure("0x7f.0.0.2", canary.port, "blocked_target"),))


@pytest.mark.parametrize(
    "request_line",
    ["GET http://127.0.0.2:80/ HTTP/1.1", "CONNECT 127.0.0.2:443 HTTP/1.1", "CONNECT [::1]:443 HTTP/1.1"],
)
def test_a_refusal_carries_a_mark(request_line: str, proxy: Proxy) -> None:
    """A 403 of ours is told from a store's by its header."""
    answer = say(proxy, f"{request_line}\r\nAUTH\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\nX-Headwater-Refusal: blocked_target\r\n")


def test_a_store_cannot_forge_the_mark(proxy: Proxy, responder: int) -> None:
    """The header of a refusal never comes from a store."""
    with httpx2.Client(proxy=proxy.url, trust_env=False) as client:
        response = client.get(f"http://127.0.0.1:{responder}/")
    assert (response.status_code, "X-Headwater-Refusal" in response.headers) == (200, False)


def test_a_host_that_is_none_is_refused(proxy: Proxy) -> None:
    """A host that breaks the grammar is refused by us, not looked up."""
    say(proxy, "CONNECT ex%61mple.com:443 HTTP/1.1\r\nAUTH\r\n\r\n")
    assert proxy.refusals == (_failure("ex%61mple.com", 443, "config_invalid"),)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("authority", "port"), [("[2001:db8::1]:8443", 8443), ("[2001:db8::80]", None)])
def test_an_ipv6_address_is_read_as_it_was_meant(scheme: str, authority: str, port: int | None, proxy: Proxy) -> None:
    """httpx sends it without its brackets, where its last part could be a port."""
    with httpx2.Client(proxy=proxy.url, trust_env=False) as client, contextlib.suppress(httpx2.ProxyError):
        client.get(f"{scheme}://{authority}/")
    host, wanted = authority.partition("]")[0] + "]", port or {"http": 80, "https": 443}[scheme]
    assert proxy.refusals == (_failure(host, wanted, "blocked_target"),)


@pytest.mark.parametrize("given", ["", "Proxy-Authorization: Basic am9iOndyb25n\r\n", "Authorization: AUTH\r\n"])
@pytest.mark.parametrize("request_line", ["GET http://127.0.0.1:{port}/ HTTP/1.1", "CONNECT 127.0.0.1:{port} HTTP/1.1"])
def test_without_the_token_nothing_is_dialled(given: str, request_line: str, proxy: Proxy, canary: Canary) -> None:
    """Another process of the machine cannot use the proxy."""
    given = given.replace("AUTH", authorization(proxy))
    answer = say(proxy, f"{request_line.format(port=canary.port)}\r\n{given}\r\n")
    assert (answer.split(b"\r\n")[0][9:12], canary.hits()) == (b"407", 0)


def test_each_proxy_has_its_own_token() -> None:
    """A job's token opens no other job's proxy."""
    with Proxy(ONE) as one, Proxy(ONE) as other:
        assert urlsplit(one.url).password != urlsplit(other.url).password


def test_a_failed_dial_is_remembered_with_its_reason(proxy: Proxy, canary: Canary) -> None:
    """SDKs wrap what happened; the proxy knows it."""
    canary.close()
    answer = say(proxy, f"CONNECT 127.0.0.1:{canary.port} HTTP/1.1\r\nAUTH\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\nX-Headwater-Failure: connection_refused\r\n")
    assert proxy.last_failure == _failure(
        "127.0.0.1",
        canary.port,
        "connection_refused",
    )
    assert proxy.refusals == ()


def test_a_failure_brings_the_error_to_raise(proxy: Proxy) -> None:
    """A connector raises our error instead of what the SDK made of it; it keeps no stream of the proxy alive."""
    say(proxy, "CONNECT 127.0.0.2:443 HTTP/1.1\r\nAUTH\r\n\r\n")
    assert proxy.last_failure is not None
    error = proxy.last_failure.error
    assert (type(error), error.code, error.__traceback__) == (Permanent, "blocked_target", None)
    assert "HEADWATER_EGRESS_ALLOW" in (error.hint or "")


def test_an_unknown_name_is_remembered(proxy: Proxy, names: Names) -> None:
    """A typo in a host is told as such."""
    say(proxy, "CONNECT missing.example:443 HTTP/1.1\r\nAUTH\r\n\r\n")
    assert proxy.last_failure == _failure(
        "missing.example",
        443,
        "dns_not_found",
    )


def test_a_swallowed_dial_ends_in_time(proxy: Proxy) -> None:
    """A host behind a firewall that drops is a timeout of ours, not of the SDK."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        answer = say(proxy, f"CONNECT 127.0.0.1:{full.getsockname()[1]} HTTP/1.1\r\nAUTH\r\n\r\n")
        for each in waiting:
            each.close()
    assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\nX-Headwater-Failure: timeout\r\n")


def test_a_later_success_forgets_the_failure(proxy: Proxy, responder: int, names: Names) -> None:
    """A retry that worked must not leave a reason for the next thing that goes wrong."""
    names["late.example"] = [[], ["127.0.0.1"]]
    with httpx2.Client(proxy=proxy.url, trust_env=False) as client:
        first = client.get(f"http://late.example:{responder}/").status_code
        second = client.get(f"http://late.example:{responder}/").status_code
    assert (first, second, proxy.last_failure) == (403, 200, None)


def test_a_chunked_upload_passes(proxy: Proxy, responder: int, seen: Seen) -> None:
    """A body of unknown length arrives whole."""
    blocks = [os.urandom(70_000), b"", b"end"]
    with httpx2.Client(proxy=proxy.url, trust_env=False) as client:
        status = client.put(f"http://127.0.0.1:{responder}/k", content=iter(blocks)).status_code
    assert (status, seen.bodies) == (200, [b"".join(blocks)])


def test_an_upload_waits_for_the_servers_continue(proxy: Proxy, responder: int, seen: Seen) -> None:
    """`100 Continue` comes from the server, before the body and before the answer."""
    with raw(proxy) as connection:
        connection.sendall(
            f"PUT http://127.0.0.1:{responder}/k HTTP/1.1\r\nProxy-Authorization: {authorization(proxy)}\r\n"
            "Expect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n".encode()
        )
        interim = connection.recv(65536)
        connection.sendall(b"body")
        final = everything(connection)
    assert (interim.split(b"\r\n")[0], final[:12], seen.bodies) == (
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 200",
        [b"body"],
    )


def test_a_half_sent_upload_is_not_a_whole_one(proxy: Proxy, responder: int, seen: Seen) -> None:
    """A client that dies within a body: the server does not get an end that nobody sent."""
    answer = say(
        proxy,
        f"PUT http://127.0.0.1:{responder}/k HTTP/1.1\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    )
    assert (answer, seen.bodies) == (b"", [])


def test_a_refusal_is_heard_in_the_middle_of_an_upload(proxy: Proxy) -> None:
    """The answer is not lost in the reset that unread bytes would cause."""
    with raw(proxy) as connection:
        head = (
            f"PUT http://127.0.0.2/k HTTP/1.1\r\nProxy-Authorization: {authorization(proxy)}\r\n"
            "Content-Length: 3000000\r\n\r\n"
        )
        connection.sendall(head.encode() + bytes(3_000_000))
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection).startswith(b"HTTP/1.1 403")


def test_requests_share_a_connection(proxy: Proxy, responder: int, seen: Seen) -> None:
    """Keep-alive works on both sides: three requests, one connection to the store."""
    with httpx2.Client(proxy=proxy.url, trust_env=False) as client:
        for _ in range(3):
            client.get(f"http://127.0.0.1:{responder}/")
    assert len(set(seen.clients)) == 1


def test_a_client_connection_may_change_its_host(proxy: Proxy, responder: int, seen: Seen, names: Names) -> None:
    """urllib3 sends requests for all hosts over one connection: each is judged, and goes to its own."""
    names["one.example"] = [["127.0.0.1"]]
    names["two.example"] = [["127.0.0.2"]]
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(proxy.url).port)
    answers = []
    for host in ("one.example", "127.0.0.1", "two.example"):
        headers = {"Proxy-Authorization": authorization(proxy)}
        connection.request("GET", f"http://{host}:{responder}/", headers=headers)
        answers.append(connection.getresponse())
        answers[-1].read()
    connection.close()
    assert ([answer.status for answer in answers], len(seen.lines)) == ([200, 200, 403], 2)


def test_the_store_sees_what_a_direct_client_sends(proxy: Proxy, responder: int, seen: Seen) -> None:
    """Path and headers as they were, `Host` from the target, nothing of the hop between client and proxy."""
    say(
        proxy,
        f"GET http://127.0.0.1:{responder}/a%2Fb//c?x=%20&y HTTP/1.1\r\nHost: evil.example\r\nAUTH\r\n"
        "Connection: close, X-Hop\r\nKeep-Alive: 1\r\nX-Hop: 1\r\nTE: trailers\r\nX-Amz-Date: now\r\n\r\n",
    )
    assert seen.lines == ["GET /a%2Fb//c?x=%20&y HTTP/1.1"]
    assert seen.headers == [{"host": f"127.0.0.1:{responder}", "x-amz-date": "now"}]


def test_a_tunnel_carries_both_ways_and_closes_by_halves(proxy: Proxy, speak: Speak) -> None:
    """A client that has sent all may still read: the server sees the end, then answers."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(everything(connection)[::-1])

    with raw(proxy) as connection:
        head = f"CONNECT 127.0.0.1:{speak(talk)} HTTP/1.1\r\nProxy-Authorization: {authorization(proxy)}\r\n\r\n"
        connection.sendall(head.encode())
        established = connection.recv(65536)
        connection.sendall(b"abc" * 100_000)
        connection.shutdown(socket.SHUT_WR)
        assert (established[:12], everything(connection)) == (b"HTTP/1.1 200", b"cba" * 100_000)


@pytest.mark.parametrize("head", ["GET http://127.0.0.1:{port}/ HTTP/1.1", "CONNECT 127.0.0.1:{port} HTTP/1.1"])
def test_a_slow_reader_holds_the_server_up(head: str, proxy: Proxy, speak: Speak) -> None:
    """Back-pressure: an endless body that nobody reads is not collected in memory."""
    sent = [0]
    stalled = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.settimeout(0.3)
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while sent[0] < 1 << 30:
                sent[0] += connection.send(bytes(65536))
        except TimeoutError:
            stalled.set()

    with raw(proxy) as connection:
        line = head.format(port=speak(talk))
        connection.sendall(f"{line}\r\nProxy-Authorization: {authorization(proxy)}\r\n\r\n".encode())
        assert stalled.wait(20)
    # What the kernel holds in the socket buffers of two connections, and a few blocks of ours.
    assert sent[0] < 32 << 20


@pytest.mark.parametrize(
    "request_text",
    [
        "GET / HTTP/1.1\r\nAUTH\r\n\r\n",
        "GET https://127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\n\r\n",
        "GET http://127.0.0.1:{port}@127.0.0.1/ HTTP/1.1\r\nAUTH\r\n\r\n",
        "GET http://user@127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\n\r\n",
        "GET http://127.0.0.1:{port}/ x HTTP/1.1\r\nAUTH\r\n\r\n",
        "GET http://127.0.0.1:{port}/ HTTP/2.0\r\nAUTH\r\n\r\n",
        "GET http:///\r\nAUTH\r\n\r\n",
        "GET http://::1:{port}/ HTTP/1.1\r\nAUTH\r\nHost: ::1:{port}\r\n\r\n",
        "GET http://::1:{port}/ HTTP/1.1\r\nAUTH\r\nHost: [::2]:{port}\r\n\r\n",
        "CONNECT 127.0.0.1 HTTP/1.1\r\nAUTH\r\n\r\n",
        "CONNECT 127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\n\r\n",
        "PUT http://127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0",
        "PUT http://127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n0",
        "PUT http://127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\nContent-Length: +1\r\n\r\n0",
        "PUT http://127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0",
    ],
)
def test_an_ambiguous_request_is_refused(request_text: str, proxy: Proxy, canary: Canary) -> None:
    """What two parsers could read in two ways does not reach anybody."""
    answer = say(proxy, request_text.format(port=canary.port))
    assert (answer[:12], canary.hits()) == (b"HTTP/1.1 400", 0)


@pytest.mark.parametrize(
    "request_text",
    [
        "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\nX: a\nY: b\r\n\r\n",
        "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\nX : a\r\n\r\n",
        "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\nX: a\r\n folded\r\n\r\n",
        "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\nX: " + "a" * 600_000 + "\r\n\r\n",
        "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nAUTH\r\n",
    ],
)
def test_a_broken_head_ends_the_connection(request_text: str, proxy: Proxy, canary: Canary) -> None:
    """A head that is not HTTP is not answered, and reaches nobody."""
    answer = b""
    with contextlib.suppress(OSError):
        answer = say(proxy, request_text.format(port=canary.port))
    assert (answer, canary.hits()) == (b"", 0)


def test_an_answer_that_breaks_off_is_not_a_whole_one(proxy: Proxy, speak: Speak) -> None:
    """The client is told the length that the store told, and can count."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    with httpx2.Client(proxy=proxy.url, trust_env=False) as client, pytest.raises(httpx2.RemoteProtocolError):
        client.get(f"http://127.0.0.1:{speak(talk)}/")


def test_a_silent_peer_is_dropped() -> None:
    """A connection on which nothing moves is closed, so that none is kept for ever."""
    with Proxy(ONE, idle_seconds=0.1) as proxy, raw(proxy) as connection:
        assert everything(connection) == b""


def test_a_one_way_stream_is_not_idle(speak: Speak) -> None:
    """A long download counts as movement although the client says nothing."""
    gate = threading.Event()

    def talk(connection: socket.socket) -> None:
        for _ in range(8):
            connection.sendall(b"x")
            gate.wait(0.3)

    with Proxy(ONE, idle_seconds=1.5) as proxy, raw(proxy) as connection:
        head = f"CONNECT 127.0.0.1:{speak(talk)} HTTP/1.1\r\nProxy-Authorization: {authorization(proxy)}\r\n\r\n"
        connection.sendall(head.encode())
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection).endswith(b"\r\n\r\nxxxxxxxx")


def test_nothing_is_left_behind(speak: Speak) -> None:
    """At the end threads and sockets are gone, also those of a transfer that was under way."""
    ended = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"x")
        with contextlib.suppress(ConnectionError):
            everything(connection)
        ended.set()

    port = speak(talk)
    before = _open_sockets()
    with Proxy(ONE) as proxy, raw(proxy) as connection:
        head = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nProxy-Authorization: {authorization(proxy)}\r\n\r\n"
        connection.sendall(head.encode())
        connection.recv(1)
        during = _open_sockets()
    assert ended.wait(5)
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("egress")]
    assert (threads, during > before, _open_sockets() - before <= 1) == ([], True, True)


def test_a_stopped_proxy_closes_its_clients() -> None:
    """A driver that hangs gets its end with the job, also one that the proxy is just accepting."""
    for _ in range(20):
        with Proxy(ONE) as proxy:
            connections = [raw(proxy) for _ in range(3)]
        for connection in connections:
            with connection, contextlib.suppress(ConnectionError):
                assert everything(connection) == b""


def test_failures_are_bounded(proxy: Proxy) -> None:
    """A source that links to a million denied hosts does not fill the worker's memory."""
    for number in range(1010):
        proxy._remember(
            _failure(
                "h",
                number,
                "blocked_target",
            )
        )
    assert [failure.port for failure in proxy.refusals] == list(range(10, 1010))


def _failure(host: str, port: int, code: str) -> Failure:
    return Failure(host, port, code, error=ConnectorError())


def _open_sockets() -> int:
    links = Path("/proc/self/fd")
    return sum(1 for link in links.iterdir() if link.is_symlink() and str(link.readlink()).startswith("socket:"))
