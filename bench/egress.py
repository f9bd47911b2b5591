"""What the egress proxy costs: the same requests to a small static responder, direct and through it.

Told without a goal: what it may cost stands in the goals of what goes through it.
"""

import base64
import http.client
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

from bench.measuring import Figure, Report, interleaved, median
from headwater_worker.egress import Policy, Proxy

SHAPES: Final = {"small answers (100 B)": (100, 500), "large answers (8 MiB)": (8 << 20, 8)}


class Responder(BaseHTTPRequestHandler):
    """Answers `/<size>` with that many bytes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        size = int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(bytes(size))

    def log_message(self, *_arguments: object) -> None:
        """Nothing per request."""


def run(report: Report, *, quick: bool) -> None:
    """Small answers show what a request costs, large ones what a byte does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Responder)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    with Proxy(Policy.parse("127.0.0.1")) as proxy:
        parts = urlsplit(proxy.url)
        token = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
        headers = {"Proxy-Authorization": f"Basic {token}"}

        for shape, (size, full_count) in SHAPES.items():
            count = max(1, full_count // 100) if quick else full_count
            url = f"http://127.0.0.1:{port}/{size}"
            ways: dict[str, Callable[[], float]] = {
                "direct": partial(_seconds, ("127.0.0.1", port), f"/{size}", count),
                "absolute": partial(_seconds, ("127.0.0.1", parts.port or 0), url, count, headers=headers),
                "CONNECT": partial(
                    _seconds,
                    ("127.0.0.1", parts.port or 0),
                    f"/{size}",
                    count,
                    tunnel=("127.0.0.1", port, headers),
                ),
            }
            seconds = {name: median(values) for name, values in interleaved(ways).items()}
            for name in ("absolute", "CONNECT"):
                report.add(
                    Figure(
                        f"{shape}, {name}",
                        "requests/s",
                        ours=count / seconds[name],
                        baseline=count / seconds["direct"],
                        beside="direct",
                    )
                )
    server.shutdown()
    server.server_close()


def _seconds(
    address: tuple[str, int],
    target: str,
    count: int,
    *,
    headers: dict[str, str] | None = None,
    tunnel: tuple[str, int, dict[str, str]] | None = None,
) -> float:
    connection = http.client.HTTPConnection(*address)
    if tunnel is not None:
        connection.set_tunnel(*tunnel)
    began = time.perf_counter()
    for _ in range(count):
        connection.request("GET", target, headers=headers or {})
        connection.getresponse().read()
    connection.close()
    return time.perf_counter() - began
