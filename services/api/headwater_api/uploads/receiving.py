"""A body on its way into the storage: in pieces, hashed as it comes, never whole in memory."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from headwater.errors import RequestError
from headwater.uploads.storage import COPY_BYTES, ObjectWriter
from headwater_api.uploads import contents

STALL_SECONDS: Final = 30.0
_SIGN_OF_LIFE_SECONDS: Final = 60.0


class Arriving:
    """What has come so far. `check` sees the beginning of the file before anything is written."""

    def __init__(self, writer: ObjectWriter, check: Callable[[bytes], None] | None) -> None:
        self._writer = writer
        self._check = check
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Of all that was taken, in hexadecimal."""
        return self._digest.hexdigest()

    def take(self, data: bytes) -> None:
        """Write down the next piece. Raises `StorageError`, and what `check` raises."""
        if self._check is not None:
            self._check(data[: contents.HEAD_BYTES])
            self._check = None
        self._writer.write(data)
        self._digest.update(data)
        self.size += len(data)


async def receive(
    request: Request,
    arriving: Arriving,
    *,
    most_bytes: int,
    too_much: RequestError,
    alive: Callable[[], Awaitable[None]],
) -> bool:
    """Take the body of `request`; False if the client went away, or was silent for half a minute, before its end.

    What came until then is taken. Raises `too_much` as soon as there are more than `most_bytes`. `alive` is awaited
    once a minute.
    """
    body, seen, told_at, complete = request.stream(), 0, time.monotonic(), False
    waiting = bytearray()
    try:
        while True:
            async with asyncio.timeout(STALL_SECONDS):
                chunk = await anext(body, None)
            if chunk is None:
                complete = True
                break
            seen += len(chunk)
            if seen > most_bytes:
                raise too_much
            waiting += chunk
            if len(waiting) >= COPY_BYTES:
                await run_in_threadpool(arriving.take, bytes(waiting))
                waiting.clear()
            if time.monotonic() - told_at > _SIGN_OF_LIFE_SECONDS:
                told_at = time.monotonic()
                await alive()
    except (ClientDisconnect, TimeoutError):
        pass
    await run_in_threadpool(arriving.take, bytes(waiting))
    return complete
