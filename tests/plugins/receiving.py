"""A server that webhooks point at, in a thread: it keeps what it was sent, and answers as it is told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue


@dataclass(frozen=True)
class Received:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers` are given in turn, then 204s; a threading event in their place is waited for before a 204."""

    url: str = ""
    answers: list[tuple[int, dict[str, str]] | threading.Event] = field(default_factory=list)
    received: SimpleQueue[Received] = field(default_factory=SimpleQueue)

    def next(self, seconds: float = 30) -> Received:
        """The next request that nobody has looked at; waits for it. Raises `queue.Empty`."""
        return self.received.get(timeout=seconds)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A running one; `url` ends in /hook."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            made.received.put(Received(self.path, headers, body))
            answer = made.answers.pop(0) if made.answers else (204, {})
            if isinstance(answer, threading.Event):
                answer.wait(60)
                answer = (204, {})
            self.send_response(answer[0])
            for name, value in answer[1].items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        for answer in made.answers:
            if isinstance(answer, threading.Event):
                answer.set()
        server.shutdown()
        server.server_close()
        thread.join()
