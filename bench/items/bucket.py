"""A bucket that makes its objects up: as much of S3 as a sync asks for, in a process of its own.

The bucket's name says what is in it: `jsonl-300000-100` is one object, a set of `records`; `large-1024` one JSONL
object of so many MB; `gzip-512` one gzip of so many MB; `small-10000` so many small objects.
"""

import gzip
import json
import random
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

from bench.items import records

_PAGE: Final = 1000
# Below what Postgres would compress.
_LINE: Final = json.dumps({"id": 12345678, "name": "a name", "note": "x" * 1500}).encode() + b"\n"
_PIECE: Final = _LINE * 300
# Packs to half of it, as ids and hashes do.
_MEMBER: Final = gzip.compress(
    b"".join(
        json.dumps({"id": n, "note": random.Random(n).randbytes(750).hex()}).encode() + b"\n"  # noqa: S311 - no secret
        for n in range(5_000)
    ),
    6,
)
_SMALL: Final = b'{"id": 1, "note": "small"}\n'


class Responder(BaseHTTPRequestHandler):
    """Lists and gives."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = parts.path.lstrip("/").partition("/")
        if key:
            self._answer(*_object(bucket), etag=True)
        else:
            page = _page(bucket, parse_qs(parts.query).get("continuation-token", ["0"])[0])
            self._answer(len(page), iter([page]))

    def _answer(self, size: int, pieces: Iterator[bytes], *, etag: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        if etag:
            self.send_header("ETag", '"e"')
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)

    def log_message(self, *_arguments: object) -> None:
        """Nothing per request."""


def _object(bucket: str) -> tuple[int, Iterator[bytes]]:
    """Size and bytes of each object of the bucket."""
    kind, _, size = bucket.partition("-")
    if kind == "small":
        return len(_SMALL), iter([_SMALL])
    if kind in ("large", "gzip"):
        piece = _PIECE if kind == "large" else _MEMBER
        count = max(1, int(size) * 1_000_000 // len(piece))
        return count * len(piece), (piece for _ in range(count))
    made = records.body(bucket)
    return len(made), iter([made])


def _page(bucket: str, token: str) -> bytes:
    kind, _, size = bucket.partition("-")
    count, extension = (
        (int(size), "jsonl") if kind == "small" else (1, {"large": "jsonl", "gzip": "jsonl.gz"}.get(kind, kind))
    )
    begin = int(token)
    end = min(begin + _PAGE, count)
    bytes_each = _object(bucket)[0]
    contents = "".join(
        f"<Contents><Key>{n // 1000:04}/{n:08}.{extension}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;e&quot;</ETag><Size>{bytes_each}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for n in range(begin, end)
    )
    more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < count else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket}</Name><Prefix></Prefix><KeyCount>{end - begin}</KeyCount><MaxKeys>{_PAGE}</MaxKeys>"
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{contents}</ListBucketResult>"
    ).encode()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Responder)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
