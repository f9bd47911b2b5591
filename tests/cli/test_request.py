"""`./dev api` against a real HTTP server."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headwater_cli import ports, request
from headwater_cli.errors import Failure
from headwater_cli.verbs import rest


class _Api(BaseHTTPRequestHandler):
    """Echoes what it got; `/api/v1/problem` is a 404, `/api/v1/stream` NDJSON with a pause in it."""

    read_on = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/api/v1/problem":
            self._answer(404, "application/problem+json", b'{"title":"Not Found","code":"not_found"}')
        elif self.path == "/api/v1/stream":
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.end_headers()
            self.wfile.write(b'{"n":1}\n')
            self.read_on.wait(30)
            self.wfile.write(b'{"n":2}\n')
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            seen = {"method": self.command, "path": self.path, "body": body, "headers": dict(self.headers)}
            self._answer(200, "application/json", json.dumps(seen).encode())

    def do_POST(self) -> None:
        self.do_GET()

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/api/v1"
        monkeypatch.setenv("HEADWATER_API_URL", url)
        monkeypatch.setenv("HEADWATER_API_KEY", "hw_key")
        yield url
        server.shutdown()
        thread.join()


def _call(*arguments: str, stdin: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(rest.app, ["api", *arguments], input=stdin, catch_exceptions=False)
    return done.exit_code, done.stdout


def test_a_path_stands_below_the_base_and_the_key_is_sent(api: str) -> None:
    """`/jobs` is enough to type."""
    code, text = _call("GET", "/jobs?kind=sync")
    seen = json.loads(text)
    assert code == 0
    assert seen["path"] == "/api/v1/jobs?kind=sync"
    assert seen["headers"]["authorization"] == "Bearer hw_key"


def test_paths_outside_the_base_are_found(api: str) -> None:
    """`/healthz` stands beside `/api/v1`, not below it."""
    paths = [json.loads(_call("GET", path)[1])["path"] for path in ("/healthz", "/api/v1/jobs", "jobs")]
    assert paths == ["/healthz", "/api/v1/jobs", "/api/v1/jobs"]


def test_a_body_is_json_unless_a_header_says_otherwise(api: str) -> None:
    """And whatever a header of the caller says, wins."""
    _, plain = _call("post", "/projects", '{"name": "ü"}')
    _, typed = _call("POST", "/projects", "-", "-H", "Content-Type: text/csv", stdin="a,b\n")
    assert json.loads(plain)["method"] == "POST"
    assert json.loads(plain)["body"] == '{"name": "ü"}'
    assert json.loads(plain)["headers"]["content-type"] == "application/json"
    assert json.loads(typed)["body"] == "a,b\n"
    assert json.loads(typed)["headers"]["content-type"] == "text/csv"


def test_a_refusal_is_printed_and_ends_with_exit_code_1(api: str) -> None:
    """The body says what was wrong; the code is for scripts."""
    code, text = _call("GET", "/problem")
    assert code == 1
    assert json.loads(text) == {"title": "Not Found", "code": "not_found"}
    assert text.count("\n") > 1  # for people: indented


def test_a_stream_is_printed_as_it_comes(api: str) -> None:
    """The first record is on the screen before the second one exists."""
    _Api.read_on.clear()
    argv = (sys.executable, "-m", "headwater_cli", "api", "GET", "/stream")
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        first = client.stdout.readline()
        _Api.read_on.set()
        rest_of_it = client.stdout.read()
    assert (first, rest_of_it) == (b'{"n":1}\n', b'{"n":2}\n')


def test_a_file_gets_the_answer_byte_for_byte(api: str, tmp_path: Path) -> None:
    """Nothing is made pretty for a program."""
    code, text = _call("GET", "/problem", "-o", str(tmp_path / "answer"))
    assert (code, text) == (1, "")
    assert (tmp_path / "answer").read_bytes() == b'{"title":"Not Found","code":"not_found"}'


def test_an_api_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback for a stack that was not started."""
    target = request.Target(f"http://127.0.0.1:{ports.free_port()}/api/v1", None)
    with pytest.raises(Failure, match="does not answer"):
        request.send(target, method="GET", path="/jobs", body=None, headers={}, sink=request.Sink())


def test_a_header_without_a_colon_is_refused() -> None:
    """It would be sent as nothing otherwise."""
    with pytest.raises(Failure, match="is no header"):
        request.parse_headers(["Accept"])
