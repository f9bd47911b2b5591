"""A static S3: listings of buckets that nobody had to fill, at a rate that no client keeps up with.

    python bench/bucket.py      # prints its port, runs until its standard input ends

The bucket `bucket-<count>` has so many thousand objects. `GET /.delay/<milliseconds>` lets every answer wait from then
on; from `GET /.later/1` to `GET /.later/0` all buckets are as they will be: 1 % of the objects changed, 0.5 % are new,
0.5 % are gone. Answers are cut from one block of 1000 objects into which numbers are written, so that no bucket takes
memory.
"""

import asyncio
import bisect
import functools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final, Literal
from urllib.parse import parse_qs, urlsplit

import httpx2

BLOCK: Final = 1000
_NUMBER: Final = b"#######"
_OBJECT: Final = (
    b"<Contents><Key>%s</Key><LastModified>2026-03-0%dT10:20:30.000Z</LastModified>"
    b"<ETag>&quot;%s&quot;</ETag><Size>%d</Size><StorageClass>STANDARD</StorageClass></Contents>"
)
_HEAD: Final = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Name>b</Name><Prefix>%s</Prefix><KeyCount>%d</KeyCount><MaxKeys>%d</MaxKeys><EncodingType>url</EncodingType>"
)


class Bucket:
    """Its objects in the order of their keys, each known by its position."""

    def __init__(self, name: str, *, later: bool) -> None:
        self.count = int(name.removeprefix("bucket-")) * BLOCK
        self._keys, self._objects = zip(*sorted(_block(later=later)), strict=True)

    def key(self, position: int) -> bytes:
        """The key at a position."""
        block, place = divmod(position, BLOCK)
        key: bytes = self._keys[place]
        return key.replace(_NUMBER, b"%07d" % block)

    def behind(self, key: bytes) -> int:
        """The position of the first key behind `key`."""
        return bisect.bisect_right(range(self.count), key, key=self.key)

    def end_of(self, prefix: bytes) -> int:
        """The position behind the last key that starts with `prefix`."""
        return bisect.bisect_right(range(self.count), prefix, key=lambda at: self.key(at)[: len(prefix)])

    def start_of(self, prefix: bytes) -> int:
        """The position of the first key that starts with `prefix`, or would."""
        return bisect.bisect_left(range(self.count), prefix, key=self.key)

    @functools.lru_cache(maxsize=5000)  # noqa: B019 - a bucket lives as long as its process
    def _cut(self, begin: int, end: int) -> list[bytes]:
        return b"".join(self._objects[begin:end]).split(_NUMBER)

    def objects(self, begin: int, end: int) -> bytes:
        """The objects from position `begin` to before `end`, as XML."""
        parts = []
        while begin < end:
            block, place = divmod(begin, BLOCK)
            stop = min(end, (block + 1) * BLOCK)
            parts.append((b"%07d" % block).join(self._cut(place, place + stop - begin)))
            begin = stop
        return b"".join(parts)


def _block(*, later: bool) -> Iterator[tuple[bytes, bytes]]:
    for place in range(BLOCK):
        key = b"events/2026/%s/part-%03d.json" % (_NUMBER, place)
        etag = b"%s%025x" % (_NUMBER, place * 7919)
        moment = 1
        if later and place % 100 == 50:
            etag, moment = etag[::-1].replace(_NUMBER[::-1], _NUMBER), 2
        if later and place % 200 == 101:
            key, moment = key.replace(b".json", b".new.json"), 3
        yield key, _OBJECT % (key, moment, etag, 1000 + place)


_bucket: Final = functools.cache(Bucket)


class _Answers(asyncio.Protocol):
    set: ClassVar[dict[str, int]] = {"delay": 0, "later": 0}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode("ascii")
            if target.startswith("/."):
                name, _, value = target.removeprefix("/.").partition("/")
                self.set[name] = int(value)
                self._answer(b"")
            elif self.set["delay"]:
                asyncio.get_running_loop().call_later(self.set["delay"] / 1000, self._list, target)
            else:
                self._list(target)

    def _list(self, target: str) -> None:
        self._answer(listing(target, later=bool(self.set["later"])))

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)


def listing(target: str, *, later: bool = False) -> bytes:
    """The answer to ListObjectsV2 at `/<bucket>?list-type=2&...`; a continuation token is a position."""
    parts = urlsplit(target)
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    bucket = _bucket(parts.path.strip("/"), later=later)
    prefix, most = asked.get("prefix", "").encode(), int(asked.get("max-keys", BLOCK))
    begin = bucket.start_of(prefix) if prefix else 0
    if "start-after" in asked:
        begin = max(begin, bucket.behind(asked["start-after"].encode()))
    begin = int(asked.get("continuation-token", begin))
    last = bucket.end_of(prefix) if prefix else bucket.count
    end = max(begin, min(begin + most, last))
    more = b"<IsTruncated>false</IsTruncated>"
    if end < last:
        more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>%d</NextContinuationToken>" % end
    return _HEAD % (prefix, end - begin, most) + more + bucket.objects(begin, end) + b"</ListBucketResult>"


@contextmanager
def served() -> Iterator[str]:
    """A process that answers; its URL."""
    process = subprocess.Popen(  # noqa: S603 - this file
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(10)


@contextmanager
def told(url: str, name: Literal["delay", "later"], value: int) -> Iterator[None]:
    """Within the block every answer takes so many milliseconds, or (1) all buckets are as they will be."""
    with httpx2.Client(base_url=url, trust_env=False) as client:
        client.get(f"/.{name}/{value}")
        try:
            yield
        finally:
            client.get(f"/.{name}/0")


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Answers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
