"""Secrets that must not leave this process, and what is said without them.

Whoever opens a secret registers it with `mask_for` around its use. Everything that is said to somebody else (a line of
the log, an error, a result, progress) passes `masked` or `of`, which know each secret in every spelling that drivers
print. Within `masks_kept` it stays masked beyond that: what went wrong is logged when its source is closed.

A process that serves many at once says `mask_here` within `masks_here` instead: what one request sent is masked in what
is said for that request, and is spelt out only when something is.
"""

import base64
import dataclasses
import html
import itertools
import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar
from urllib.parse import quote, quote_plus

MASK: Final = "[masked]"
SHORT: Final = 4
"""A shorter one is masked only where a value stands: elsewhere it would mask innocent text, and say how short it is."""
_SHORTEST_PART: Final = 6
# While it is spelt out what a stranger sent, all other requests wait. No connector has that many secrets.
_MOST_HERE: Final = 16
_MOST_HERE_CHARACTERS: Final = 32 * 1024
_MOST_PARTS_HERE: Final = 128
_LONGEST_PAIRED_HERE: Final = 512
_BREAKS: Final = re.compile(r"[\s@:/?#&;=,]+")
_WHERE_A_VALUE_STANDS: Final = r"(?<=[=:'\"`]){}(?![\w-])"
_URL_PASSWORD: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/]*@(?=[^\s@]*)", re.IGNORECASE)
# What a source gave us for a while, such as a token, is registered by nobody.
_BEARER: Final = re.compile(r"(?P<scheme>\bBearer\s+)[\w.~+/=-]{16,}", re.IGNORECASE)
_SIGNED: Final = re.compile(
    r"(?P<scheme>[?&](?:sig|signature|access_token|X-Amz-(?:Signature|Security-Token)|X-Goog-Signature)=)[^&\s\"'<>]+",
    re.IGNORECASE,
)
_SECRET_MEMBER: Final = re.compile(r"key|secret|token|password|sig", re.IGNORECASE)

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class _Masks:
    """What stands for some secrets: texts, the longest first, and patterns of the short ones."""

    texts: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]


class _Here:
    """The secrets of one request."""

    def __init__(self) -> None:
        self._secrets: list[str] = []
        self._masks: _Masks | None = None

    def add(self, secrets: Iterable[str]) -> None:
        self._secrets.extend(secret for secret in secrets if secret)
        self._masks = None

    def masks(self) -> _Masks:
        if self._masks is None:
            self._masks = _bounded_masks(self._secrets)
        return self._masks

    def forget(self) -> None:
        self._secrets, self._masks = [], None


_here: ContextVar[_Here | None] = ContextVar("here", default=None)
_live: dict[int, _Masks] = {}
_kept: list[set[int]] = []
_lingering: set[int] = set()
_lock = threading.Lock()


@contextmanager
def mask_for(secrets: Iterable[str]) -> Iterator[None]:
    """While the block runs, every spelling of `secrets` is masked in all that this process says.

    Within a block of `masks_kept`, until the next of these.
    """
    masks = _masks([secret for secret in secrets if secret])
    with _lock:
        _live[id(masks)] = masks
    try:
        yield
    finally:
        with _lock:
            if _kept:
                _kept[-1].add(id(masks))
            else:
                _live.pop(id(masks), None)


@contextmanager
def masks_kept() -> Iterator[None]:
    """What `mask_for` masks within the block stays masked until the next one begins, or the process ends.

    For a process that does one job at a time: a thread, a finaliser or what was printed may speak behind its end.
    """
    with _lock:
        for key in _lingering:
            _live.pop(key, None)
        _lingering.clear()
        _kept.append(set())
    try:
        yield
    finally:
        with _lock:
            _lingering.update(_kept.pop())


@contextmanager
def masks_here() -> Iterator[None]:
    """What `mask_here` names within the block is masked in all that is said in it, by threads too that run in a copy of
    its context.

    What others say meanwhile is left alone. Nothing is kept beyond the block.
    """
    here = _Here()
    before = _here.set(here)
    try:
        yield
    finally:
        here.forget()  # timers and tasks of the block keep its context for a while
        _here.reset(before)


def mask_here(secrets: Iterable[str]) -> None:
    """Mask `secrets` until the end of the innermost block of `masks_here`; without one this does nothing.

    The first 16 of them, and as many as have 32,768 characters together.
    """
    if (here := _here.get()) is not None:
        here.add(secrets)


def masked(text: str) -> str:
    """`text` without the live secrets, and without passwords, signatures and bearer tokens where these stand."""
    here = _here.get()
    for masks in tuple(_live.values()) if here is None else (*_live.values(), here.masks()):
        for spelling in masks.texts:
            text = text.replace(spelling, MASK)
        for pattern in masks.patterns:
            text = pattern.sub(MASK, text)
    # Each line of a log has ten texts, and hardly one that any of these could stand in.
    if len(text.split(None, 1)) > 1:
        text = _BEARER.sub(rf"\g<scheme>{MASK}", text)
    if "=" in text:
        text = _SIGNED.sub(rf"\g<scheme>{MASK}", text)
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\g<scheme>{MASK}@", text)
    return text


def of(value: Value) -> Value:
    """The same value with every text in it masked: of dicts (their keys too), lists, tuples and dataclasses."""
    return _of(value)  # type: ignore[no-any-return]


def _of(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {_of(key): _of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_of(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_of(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {field.name: _of(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **changes)
    return value


def _bounded_masks(secrets: list[str]) -> _Masks:
    ends = list(itertools.accumulate(map(len, secrets[:_MOST_HERE])))
    taken = [secret for secret, end in zip(secrets, ends, strict=False) if end <= _MOST_HERE_CHARACTERS]
    parts = {part for secret in taken for part in _parts(secret)}
    paired = [secret for secret in taken if len(secret) <= _LONGEST_PAIRED_HERE]
    return _spelt(taken, sorted(parts, key=len, reverse=True)[:_MOST_PARTS_HERE], paired)


def _masks(secrets: list[str]) -> _Masks:
    return _spelt(secrets, {part for secret in secrets for part in _parts(secret)}, secrets)


def _spelt(secrets: Iterable[str], parts: Iterable[str], paired: Iterable[str]) -> _Masks:
    texts: set[str] = set()
    for part in parts:
        texts |= _spellings(part)
    for user, password in itertools.permutations(paired, 2):  # what HTTP's Basic makes of two of them
        texts |= _spellings(base64.b64encode(f"{user}:{password}".encode()).decode())
    long = sorted((text for text in texts if len(text) >= SHORT), key=len, reverse=True)
    short = [re.compile(_WHERE_A_VALUE_STANDS.format(re.escape(text))) for text in secrets if len(text) < SHORT]
    return _Masks(tuple(long), tuple(short))


def _parts(secret: str) -> set[str]:
    """The secret, and what a driver may tear out of it: words, lines of a PEM, secret members of a JSON document."""
    parts = {part for part in _BREAKS.split(secret) if len(part) >= _SHORTEST_PART and not _is_label(part)}
    lines = [line.strip() for line in secret.splitlines()]
    if len(lines) > 1:
        parts.add("".join(line for line in lines if not _is_label(line)))
    return {secret, secret.strip(), *parts, *_members(secret)}


def _is_label(part: str) -> bool:
    """Whether it is what every such secret has: the edge of a PEM, the name of a field, https."""
    return part.startswith("-----") or part.isalpha()


def _members(secret: str) -> Iterator[str]:
    try:
        found = json.loads(secret) if secret.lstrip().startswith(("{", "[")) else None
    except ValueError:
        return
    for name, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, str) and len(value) >= _SHORTEST_PART and _SECRET_MEMBER.search(name):
            yield from _parts(value)


def _spellings(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    spelled = {secret, html.escape(secret), repr(secret)[1:-1], ascii(secret)[1:-1], repr(raw)[2:-1]}
    for safe in ("", "/", "/:@+="):
        quoted = quote(raw, safe=safe)
        spelled |= {quoted, re.sub("%..", lambda found: found[0].lower(), quoted), quote(quoted, safe="")}
    spelled.add(quote_plus(raw))
    for escaped in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        spelled |= {escaped, escaped.replace("/", "\\/"), json.dumps(escaped)[1:-1]}
    if len(raw) >= SHORT:
        spelled |= {raw.hex(), raw.hex().upper(), raw.hex(" "), raw.hex(":"), raw.hex(":").upper(), *_base64(raw)}
    return spelled


def _base64(raw: bytes) -> Iterator[str]:
    """Of it alone, and what all texts have that hold it somewhere: it begins at one of three bits."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode().rstrip("=")
        for before in range(3):
            text = encode(b"\0" * before + raw).decode().rstrip("=")
            inner = text[(0, 2, 3)[before] : len(text) - ((before + len(raw)) % 3 > 0)]
            if len(inner) >= _SHORTEST_PART:
                yield inner
