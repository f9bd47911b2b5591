"""The client of an API: one origin, by the job's proxy alone, with its credentials in one header."""

import base64
import logging
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Final

import httpx2

from headwater.connectors.api import ApiConfig
from headwater.errors import Transient
from headwater_worker.connectors import api_errors
from headwater_worker.egress import Proxy

_CONNECT_SECONDS: Final = 10.0
_PIECE_BYTES: Final = 256 * 1024
_REDIRECTS: Final = 5
_REDIRECTING: Final = frozenset({301, 302, 303, 307, 308})
_LONGEST_URL: Final = 8_192
_BACKOFF_SECONDS: Final = 0.5
# What the API asks for beyond this is the scheduler's to wait for: it holds no slot meanwhile.
_LONGEST_PAUSE_SECONDS: Final = 60.0
_PORTS: Final = {"http": 80, "https": 443}
_USUAL: Final = {
    "User-Agent": "headwater",
    "Accept": "application/json, application/x-ndjson, text/csv;q=0.9, */*;q=0.5",
    "Accept-Encoding": "gzip",
}


# They would say every URL, and with it what a cursor or a query holds.
for _chatty in ("httpx2", "httpcore2"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)


class Body:
    """The bytes of one answer as they were sent. With `seconds`, all of it must come within that time."""

    def __init__(self, response: httpx2.Response, proxy: Proxy, seconds: float | None = None) -> None:
        self._response = response
        self._pieces = response.iter_raw(_PIECE_BYTES)
        self._proxy = proxy
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end. Raises `ConnectorError`."""
        if not self._rest:
            # A read's own timeout starts again with each byte: one byte a second would hold it for hours.
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise api_errors.too_slow()
            try:
                self._rest = next(self._pieces, b"")
            except api_errors.FOREIGN as error:
                raise api_errors.translated(error, self._proxy) from error
        wanted = len(self._rest) if size < 0 else size
        data, self._rest = self._rest[:wanted], self._rest[wanted:]
        return data

    def close(self) -> None:
        """Let go of the connection, read to the end or not."""
        self._response.close()


class Client:
    """Asks one origin with GET. Used by one thread at a time; `close` may come from another."""

    def __init__(
        self,
        config: ApiConfig,
        credentials: Mapping[str, str],
        proxy: Proxy,
        *,
        read_seconds: float,
        attempts: int,
    ) -> None:
        self._origin = _origin(httpx2.URL(config.endpoint))
        self._proxy = proxy
        self._attempts = attempts
        self._closed = threading.Event()
        self._client = httpx2.Client(
            headers=_USUAL | config.headers | _authorization(config, credentials),
            verify=ssl.create_default_context(),
            proxy=proxy.url,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(read_seconds, connect=_CONNECT_SECONDS),
        )

    def get(self, url: httpx2.URL) -> httpx2.Response:
        """A successful answer, its body not read yet; what passes is asked again. Raises `ConnectorError`."""
        for attempt in range(1, self._attempts):
            try:
                return self._follow(url)
            except Transient as error:
                pause = error.retry_after_seconds or _BACKOFF_SECONDS * 2**attempt
                if pause > _LONGEST_PAUSE_SECONDS or self._closed.wait(pause):
                    raise
        return self._follow(url)

    def next_url(self, current: httpx2.URL, text: str) -> httpx2.URL:
        """Where `text`, found in the answer at `current`, leads. Raises `Permanent` if that is another origin."""
        if len(text) > _LONGEST_URL:
            raise api_errors.BAD_LINK.error()
        try:
            url = current.join(text).copy_with(fragment=None)
        except api_errors.FOREIGN as error:
            raise api_errors.BAD_LINK.error() from error
        # A user in a URL would become credentials in place of ours.
        if _origin(url) != self._origin or url.userinfo:
            raise api_errors.SENT_AWAY.error()
        return url

    def close(self) -> None:
        """Let go of all connections; who waits to ask again gives up."""
        self._closed.set()
        self._client.close()

    def _follow(self, url: httpx2.URL) -> httpx2.Response:
        for _ in range(_REDIRECTS + 1):
            response = self._send(url)
            if response.status_code not in _REDIRECTING or "location" not in response.headers:
                break
            response.close()
            url = self.next_url(url, response.headers["location"])
        error = api_errors.of_answer(response, self._proxy)
        if error is not None:
            response.close()
            raise error
        return response

    def _send(self, url: httpx2.URL) -> httpx2.Response:
        try:
            response = self._client.send(self._client.build_request("GET", url), stream=True)
        except api_errors.FOREIGN as error:
            raise api_errors.translated(error, self._proxy) from error
        # What an answer sets is not sent with the next request: every page is asked for alike.
        self._client.cookies.clear()
        return response

    def body(self, response: httpx2.Response, seconds: float | None = None) -> Body:
        """The bytes of an answer that `get` gave."""
        return Body(response, self._proxy, seconds)


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def _authorization(config: ApiConfig, credentials: Mapping[str, str]) -> dict[str, str]:
    match config.auth_type:
        case "api_key":
            return {config.key_header: credentials["api_key"]}
        case "bearer":
            return {"Authorization": f"Bearer {credentials['token']}"}
        case "basic":
            pair = f"{credentials['username']}:{credentials['password']}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        case "none":
            return {}
