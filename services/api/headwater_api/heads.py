"""Heads that two servers in a row could read differently: they are refused, whatever the parser makes of them.

Where a proxy in front takes one of two `Host` fields and this server the other, or where they disagree on where a body
ends, a request can be hidden in another one (RFC 9112, section 11.2).
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

VERSIONS: Final = frozenset({"1.0", "1.1"})

# Each decides something, and lists of them mean nothing.
_ONCE: Final = (b"host", b"authorization", b"content-type", b"content-encoding", b"idempotency-key", b"prefer")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(?::\d*)?")


def ambiguity(version: str, fields: Sequence[tuple[bytes, bytes]]) -> str | None:
    """What can be read in two ways in a head of HTTP/`version`, or None. Names of `fields` are in lower case."""
    counts = Counter(name for name, _value in fields)
    if version == "1.1" and not counts[b"host"]:
        return "A request needs a `Host` field."
    for name in _ONCE:
        if counts[name] > 1:
            return f"`{name.decode().title()}` may stand in a request once."
    for name, value in fields:
        if name == b"host" and not _HOST.fullmatch(value):
            return "`Host` is no name and port."
        if name == b"transfer-encoding" and (version == "1.0" or value.strip().lower() != b"chunked"):
            return "The only `Transfer-Encoding` is `chunked`, of HTTP/1.1."
    return None
