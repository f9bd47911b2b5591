"""Grammar of the origins that configs name.

Several parsers read them later: Python's, ours, and one in each SDK. What two of them could read in different ways is
not accepted, so that the host that is checked is the host that is asked.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

_PORTS: Final = range(1, 65536)
_LONGEST_HOST: Final = 254  # a name's 253 and its final dot
_ORIGIN: Final = re.compile(
    r"https?://(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?))(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII | re.IGNORECASE,
)
# Such a name is an address to libc and to browsers: in octal, in hexadecimal, with fewer than four parts.
_ENDS_IN_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.ASCII | re.IGNORECASE)


def check_endpoint_url(text: str) -> str:
    """`text` in lower case and without a trailing slash, if it is `http(s)://host[:port]` and nothing more.

    A name that is not ASCII is written as its A-label: SDKs do not agree on how to make one. Raises `ValueError`.
    """
    found = _ORIGIN.fullmatch(text)
    if found is None:
        raise ValueError(
            "must be an origin such as https://host:9000, without user, path or query; "
            "write a host that is not ASCII in its xn-- form"
        )
    if found["port"] is not None and int(found["port"]) not in _PORTS:
        raise ValueError("must name a port from 1 to 65535")
    _check_host(found["ipv6"], found["name"])
    return text.removesuffix("/").lower()


def _check_host(ipv6: str | None, name: str | None) -> None:
    try:
        if ipv6 is not None:
            IPv6Address(ipv6)
        elif name is not None and _ENDS_IN_NUMBER.fullmatch(name):
            IPv4Address(name)
    except AddressValueError:
        raise ValueError("must name a host, or an address as four numbers with dots or as IPv6 in brackets") from None
    if name is not None and len(name) > _LONGEST_HOST:
        raise ValueError("must name a host of up to 253 characters")
