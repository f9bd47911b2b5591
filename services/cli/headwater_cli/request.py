"""One HTTP request from the command line: pretty JSON for people, bytes as they come for programs."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

import httpx2

from headwater_cli.errors import Failure

_CONNECT_SECONDS: Final = 5
# Long polls answer within half a minute; streams send something at least as often.
_READ_SECONDS: Final = 120
_STREAMED: Final = frozenset({"application/x-ndjson", "application/jsonl", "text/event-stream", "text/csv"})
_BASE_PATH: Final = "/api/v1"


@dataclass(frozen=True)
class Target:
    """An API and a key for it; `url` ends in `/api/v1`."""

    url: str
    key: str | None = field(repr=False)

    def resolve(self, path: str) -> str:
        """The whole URL of `path`: what stands outside `/api/v1` (`/healthz`, `/openapi.json`) is found too."""
        path = path if path.startswith("/") else f"/{path}"
        parts = urlsplit(self.url)
        outside = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", f"{_BASE_PATH}/")
        origin = f"{parts.scheme}://{parts.netloc}"
        return f"{origin}{path}" if path.startswith(outside) else f"{self.url.rstrip('/')}{path}"


@dataclass(frozen=True)
class Sink:
    """Where the answer goes."""

    output: Path | None = None
    raw: bool = False
    include: bool = False


def parse_headers(lines: Iterable[str]) -> dict[str, str]:
    """`Name: value` lines as a mapping.

    Raises:
        Failure: a line without a colon.
    """
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise Failure(f"{line!r} is no header.", hint="Write 'Name: value'.")
        headers[name.strip()] = value.strip()
    return headers


def send(target: Target, *, method: str, path: str, body: bytes | None, headers: dict[str, str], sink: Sink) -> int:
    """Send one request and print the answer. Returns the exit code: 1 for a status of 400 or more.

    Raises:
        Failure: no answer.
    """
    sent = {name.lower(): value for name, value in headers.items()}
    if target.key:
        sent.setdefault("authorization", f"Bearer {target.key}")
    if body is not None:
        sent.setdefault("content-type", "application/json")
    timeout = httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
    url = target.resolve(path)
    try:
        # trust_env: a proxy or a netrc of the caller has no say in this.
        with (
            httpx2.Client(timeout=timeout, trust_env=False) as client,
            client.stream(method.upper(), url, content=body, headers=sent) as answer,
        ):
            _show(answer, sink)
            return int(answer.status_code >= 400)
    except httpx2.ReadTimeout:
        raise Failure(f"{_origin(url)} took longer than {_READ_SECONDS} s to say something.") from None
    except httpx2.InvalidURL:
        raise Failure(f"{url!r} is no URL.") from None
    except httpx2.HTTPError:
        raise Failure(f"{_origin(url)} does not answer.", hint="./dev status shows what runs.") from None


def _origin(url: str) -> str:
    return urlsplit(url).netloc


def _show(answer: httpx2.Response, sink: Sink) -> None:
    if sink.include:
        sys.stdout.write(f"HTTP {answer.status_code} {answer.reason_phrase}\n")
        sys.stdout.writelines(f"{name}: {value}\n" for name, value in answer.headers.items())
        sys.stdout.write("\n")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sink.output is not None or sink.raw or kind in _STREAMED:
        with _opened(sink.output) as out:
            for chunk in answer.iter_bytes():
                out.write(chunk)
                out.flush()
        return
    text = answer.read().decode(errors="replace")
    if kind == "application/json" or kind.endswith("+json"):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False) if text else ""
    if text:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[bytes]]:
    if path is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
    else:
        with path.open("wb") as file:
            yield file
