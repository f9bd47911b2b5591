"""Reading master keys and the pepper from text, and refusing those that somebody could guess."""

import base64
import binascii
import itertools
import stat
from pathlib import Path
from typing import Final

from headwater.errors import WeakKey

KEY_BYTES: Final = 32
_LEAST_VALUES: Final = 16  # of 32 random bytes fewer are different about once in 10**11 keys
_LEAST_STEPS: Final = 12
_HOW: Final = (
    "Make one with `headwater admin create-keys`, or with `openssl rand -base64 32`; a file with `chmod 600`."
    " docs/keys.md says how to go on where secrets are sealed already."
)


def parse(text: str, name: str) -> list[bytes]:
    """The keys in `text`, one a line in base64, the newest last. `name` is the setting that holds it, for people.

    Raises `WeakKey` where there is none, or one is not 32 bytes that look random.
    """
    keys = [_decoded(line, name) for line in text.split()]
    if not keys:
        raise _weak(name, "it is empty")
    for key in keys:
        if (reason := _weakness(key)) is not None:
            raise _weak(name, reason)
    return keys


def require_private(path: Path, name: str) -> None:
    """Make sure that not everybody on the machine can read the file. Raises `WeakKey`, or `OSError`."""
    if path.stat().st_mode & stat.S_IRWXO:
        raise _weak(name, "everybody on the machine may read or change its file")


def _decoded(line: str, name: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise _weak(name, "it is no base64") from None


def _weakness(key: bytes) -> str | None:
    if len(key) != KEY_BYTES:
        return f"a key of {KEY_BYTES} bytes is needed, and this one has {len(key)}"
    if key.isascii() and key.decode("ascii").isprintable():
        return "it is text, and no random bytes"
    steps = {(later - earlier) % 256 for earlier, later in itertools.pairwise(key)}
    half = KEY_BYTES // 2
    if len(set(key)) < _LEAST_VALUES or len(steps) < _LEAST_STEPS or key[:half] == key[half:]:
        return "its bytes repeat, or follow a pattern"
    return None


def _weak(name: str, reason: str) -> WeakKey:
    return WeakKey(f"{name} holds no key that can be trusted: {reason}.", hint=_HOW)
