"""As much of HTTP/1.1 (RFC 9112) as a proxy needs: heads, the framing of bodies, targets.

Strict where two readings are possible: a message that two parsers could cut differently is refused, not
mended.
"""

import re
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader, StreamWriter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

# What a stream holds before it stops reading; a head must fit.
BUFFER_BYTES: Final = 256 * 1024
REFUSAL_HEADER: Final = "X-Headwater-Refusal"
FAILURE_HEADER: Final = "X-Headwater-Failure"

_TRAILERS: Final = 100
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A line end or NUL that some parsers would take for the end of a header, and others not.
_STRAY: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")
_NUMBER: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?\r\n", re.DOTALL)
_ABSOLUTE: Final = re.compile(rb"http://([^/?#]*)([!-~\x80-\xff]*)", re.IGNORECASE)
_AUTHORITY: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#]+)(?::([0-9]{1,5}))?")
_BARE_IPV6: Final = re.compile(rb"[0-9A-Fa-f]*:[0-9A-Fa-f:.]*")
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"upgrade",
        # Ours alone: a store must not be able to pass its own answer off as the worker's refusal.
        REFUSAL_HEADER.lower().encode(),
        FAILURE_HEADER.lower().encode(),
    }
)
# `Connection` may name further headers that end here, but never those that say where a message ends and for
# whom it is.
_KEPT: Final = frozenset({b"content-length", b"host", b"transfer-encoding"})


class WireError(Exception):
    """The peer sent something that is not HTTP/1.1, or that could be read in two ways."""


@dataclass(frozen=True)
class Head:
    """The start line in its three parts, and the headers in order; names as they were sent."""

    start: tuple[bytes, bytes, bytes]
    headers: tuple[tuple[bytes, bytes], ...]

    def values(self, name: bytes) -> list[bytes]:
        """The values of one header; `name` in lower case."""
        return [value for key, value in self.headers if key.lower() == name]

    def tokens(self, name: bytes) -> frozenset[bytes]:
        """The comma-separated members of a header, in lower case."""
        return frozenset(token.strip().lower() for value in self.values(name) for token in value.split(b","))


@dataclass(frozen=True)
class Framing:
    """Where a body ends: after `length` bytes, with its last chunk, or (neither) with the connection."""

    length: int | None = None
    chunked: bool = False

    @property
    def empty(self) -> bool:
        return self.length == 0

    @property
    def until_closed(self) -> bool:
        return self.length is None and not self.chunked


@dataclass(frozen=True)
class Target:
    """Where a request goes: host and port to dial, the `Host` header and the path to send."""

    host: str
    port: int
    host_header: bytes = b""
    path: bytes = b""


async def read_head(reader: StreamReader) -> Head | None:
    """The next head, or None if the peer closed before it. Raises `WireError`."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except IncompleteReadError as error:
        if not error.partial:
            return None
        raise WireError("the connection ended within a head") from None
    except LimitOverrunError:
        raise WireError("the head is too long") from None
    first, *lines = raw[:-4].split(b"\r\n")
    start = first.split(b" ", 2)
    if len(start) < 2 or _STRAY.search(raw):
        raise WireError("the start line or a line end is malformed")
    return Head((start[0], start[1], start[2] if len(start) > 2 else b""), tuple(map(_header, lines)))


def request_framing(request: Head) -> Framing:
    """The framing of a request's body; without a header that names one there is none."""
    framing = _declared(request)
    return Framing(0) if framing.until_closed else framing


def response_framing(response: Head, method: bytes) -> Framing:
    """The framing of the body that answers `method`."""
    if method == b"HEAD" or response.start[1] in (b"204", b"304"):
        return Framing(0)
    return _declared(response)


def status(response: Head) -> int:
    version, code, _ = response.start
    if not version.startswith(b"HTTP/1.") or len(code) != 3 or not code.isdigit():
        raise WireError("the status line is malformed")
    return int(code)


def persistent(head: Head, version: bytes) -> bool:
    """Whether the sender of `head` keeps its connection open after this message."""
    tokens = head.tokens(b"connection") | head.tokens(b"proxy-connection")
    return version == b"HTTP/1.1" and b"close" not in tokens


def connect_target(text: bytes) -> Target:
    """`host:port` of a CONNECT."""
    # httpx leaves the brackets of an IPv6 address out; behind the last colon is the port.
    address, _, number = text.rpartition(b":")
    host, port = _authority(b"[%b]:%b" % (address, number) if _BARE_IPV6.fullmatch(address) else text)
    if port is None:
        raise WireError("CONNECT needs a port")
    return Target(host, port)


def absolute_target(text: bytes, host_headers: Sequence[bytes] = ()) -> Target:
    """Host and path of `http://host[:port]/path`; `https` goes through CONNECT."""
    match = _ABSOLUTE.fullmatch(text)
    if match is None:
        raise WireError("the target is not an absolute http URL")
    authority = match[1]
    if [header.translate(None, b"[]") for header in host_headers] == [authority]:
        # httpx leaves the brackets of an IPv6 address out, but not here: only they tell where a port begins.
        authority = host_headers[0]
    host, port = _authority(authority)
    path = match[2] if match[2].startswith(b"/") else b"/" + match[2]
    # Signatures cover `Host`, and clients leave the default port out of it.
    host_header = authority.rsplit(b":", 1)[0] if port == 80 else authority.removesuffix(b":")
    return Target(host, port or 80, host_header, path)


def request_bytes(request: Head, target: Target) -> bytes:
    """The head to send to `target`: path instead of URL, `Host` from the target, nothing hop-by-hop."""
    headers = [(name, value) for name, value in end_to_end(request) if name.lower() != b"host"]
    return _head_bytes((request.start[0], target.path, b"HTTP/1.1"), [(b"Host", target.host_header), *headers])


def response_bytes(response: Head, *, close: bool) -> bytes:
    """The head to send back; with `close`, it says that the connection ends with this answer."""
    headers = [*end_to_end(response), *([(b"Connection", b"close")] if close else [])]
    return _head_bytes((b"HTTP/1.1", response.start[1], response.start[2]), headers)


def end_to_end(head: Head) -> list[tuple[bytes, bytes]]:
    """The headers that travel past one hop."""
    dropped = (_HOP_BY_HOP | head.tokens(b"connection")) - _KEPT
    return [(name, value) for name, value in head.headers if name.lower() not in dropped]


async def copy_body(reader: StreamReader, writer: StreamWriter, framing: Framing, touch: Callable[[], None]) -> None:
    """Pass a body on as it arrives, holding no more than a block or two; `touch` is called with each block."""
    if framing.chunked:
        await _copy_chunks(reader, writer, touch)
    elif framing.length is not None:
        await _copy_exactly(reader, writer, framing.length, touch)
    else:
        await copy_until_closed(reader, writer, touch)


async def copy_until_closed(reader: StreamReader, writer: StreamWriter, touch: Callable[[], None]) -> None:
    while block := await reader.read(BUFFER_BYTES):
        touch()
        writer.write(block)
        await writer.drain()


async def _copy_exactly(reader: StreamReader, writer: StreamWriter, count: int, touch: Callable[[], None]) -> None:
    while count:
        block = await reader.read(min(count, BUFFER_BYTES))
        if not block:
            raise WireError("the connection ended within a body")
        touch()
        count -= len(block)
        writer.write(block)
        await writer.drain()


async def _copy_chunks(reader: StreamReader, writer: StreamWriter, touch: Callable[[], None]) -> None:
    while size := await _chunk_size(reader):
        writer.write(b"%x\r\n" % size)
        await _copy_exactly(reader, writer, size, touch)
        if await reader.readexactly(2) != b"\r\n":
            raise WireError("a chunk is longer than it says")
        writer.write(b"\r\n")
    writer.write(b"0\r\n")
    for _ in range(_TRAILERS):
        line = await _line(reader)
        writer.write(line)
        if line == b"\r\n":
            await writer.drain()
            return
    raise WireError("there are too many trailers")


async def _chunk_size(reader: StreamReader) -> int:
    match = _CHUNK.fullmatch(await _line(reader))
    if match is None:
        raise WireError("a chunk's size is malformed")
    return int(match[1], 16)


async def _line(reader: StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n")
    except LimitOverrunError:
        raise WireError("a line is too long") from None


def _declared(head: Head) -> Framing:
    codings, lengths = head.values(b"transfer-encoding"), head.values(b"content-length")
    if codings:
        if lengths or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise WireError("the end of the body is ambiguous")
        return Framing(chunked=True)
    if not lengths:
        return Framing()
    if len(lengths) != 1 or _NUMBER.fullmatch(lengths[0]) is None:
        raise WireError("the length of the body is malformed")
    return Framing(int(lengths[0]))


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or _NAME.fullmatch(name) is None:
        raise WireError("a header is malformed")
    return name, value.strip(b" \t")


def _authority(text: bytes) -> tuple[str, int | None]:
    match = _AUTHORITY.fullmatch(text.removesuffix(b":"))
    if match is None or not text.isascii():
        raise WireError("the authority is not host[:port]")
    return match[1].decode("ascii"), None if match[2] is None else int(match[2])


def _head_bytes(start: tuple[bytes, bytes, bytes], headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = [b" ".join(start), *(b"%s: %s" % header for header in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"
