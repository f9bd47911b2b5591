"""A driver that puts its password everywhere it can, in every spelling that one meets."""

import atexit
import base64
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from typing import NoReturn
from urllib.parse import quote, quote_plus

from headwater.errors import Permanent


class Panic(BaseException):
    """As a driver in Rust ends: no `Exception`."""


class _Dying:
    def __init__(self, said: str) -> None:
        self._said = said

    def __del__(self) -> None:
        raise RuntimeError(self._said)


def spellings(secret: str) -> list[str]:
    """As drivers print it."""
    raw = secret.encode()
    return [
        secret, json.dumps({"password": secret}), json.dumps(secret, ensure_ascii=False),
        json.dumps(json.dumps(secret)), quote(secret), quote(secret, safe=""), quote_plus(secret),
        quote(quote(secret, safe="")), repr([secret]), ascii(secret), repr(raw), raw.hex(), raw.hex().upper(),
        *(base64.b64encode(before + raw).decode() for before in (b"", b"u:", b"user:", b"another user:")),
        base64.urlsafe_b64encode(raw).decode(), f"postgresql://u:{secret}@h/d", f"Server=h;Password={secret};Port=1",
        secret.split("/")[0],
    ]  # fmt: skip


def log(secret: str) -> None:
    """Say it in the log."""
    for text in spellings(secret):
        logging.getLogger("driver.of.theirs").error("failed: %s", text, extra={"dsn": text}, stack_info=True)


def shout(secret: str) -> None:
    """Say it in every way but by raising it."""
    logger = logging.getLogger("driver.of.theirs")
    for text in spellings(secret):
        logger.debug("connecting with %s", text)
        logger.error("failed: %s", text, extra={"dsn": text}, stack_info=True)
        print(text)
        print(text, file=sys.stderr)
        os.write(1, text.encode() + b"\n")
        os.write(2, text.encode() + b"\n")
    try:
        raise ValueError(secret)
    except ValueError:
        logger.exception("in %r", {"password": secret})
    logger.error("broken %d", secret)
    warnings.warn(f"deprecated: {secret}", stacklevel=1)
    _fault_in_thread(secret)
    _Dying(secret)
    atexit.register(print, secret)
    subprocess.run(["/bin/echo", secret], check=True)


def refuse(secret: str) -> NoReturn:
    """Raise an error of ours, made of theirs."""
    raise Permanent(f"It said {secret!r}.", code="permission_denied", hint=quote(secret, safe="")) from _chained(secret)


def fail(secret: str) -> NoReturn:
    """Raise one of theirs, with everything that an exception can carry."""
    error = ExceptionGroup(secret, [_chained(secret), ExceptionGroup("inner", [KeyError(secret)])])
    error.add_note(f"with {json.dumps(secret)}")
    raise error


def panic(secret: str) -> NoReturn:
    """Raise what nobody catches."""
    raise Panic(secret) from _chained(secret)


def _chained(secret: str) -> Exception:
    try:
        try:
            {}[secret]
        except KeyError:
            raise RuntimeError("while", {"dsn": f"https://u:{secret}@h/"}) from OSError(5, secret, secret)
    except RuntimeError as error:
        return error


def _fault_in_thread(secret: str) -> None:
    def run() -> None:
        raise RuntimeError(secret)

    thread = threading.Thread(target=run, name=secret)
    thread.start()
    thread.join()
