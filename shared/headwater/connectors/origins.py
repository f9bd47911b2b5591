"""Grammar of the origins that configs name."""

from typing import Final
from urllib.parse import urlsplit

_PORTS: Final = range(1, 65536)
_FORBIDDEN: Final = frozenset("\\@?#%") | {chr(code) for code in range(33)} | {chr(127)}


def check_endpoint_url(text: str) -> str:
    """`text` without a trailing slash, if it is `http(s)://host[:port]` and nothing more. Raises `ValueError`."""
    if any(character in _FORBIDDEN for character in text):
        raise ValueError("must be an origin such as https://host:9000, without user, query or blanks")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("must be an origin such as https://host:9000") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must start with http:// or https:// and name a host")
    if parts.path not in ("", "/"):
        raise ValueError("must be an origin without a path")
    if port is not None and port not in _PORTS:
        raise ValueError("must name a port from 1 to 65535")
    return text.rstrip("/")
