"""The identity provider's public keys: found through its discovery document, kept, and asked for again in time.

OpenID Connect Discovery 1.0, section 4; JSON Web Key (RFC 7517). What a caller sends decides nothing here: neither
where keys are asked for nor, beyond one question every few seconds, how often.
"""

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import jwt

from headwater import log
from headwater.errors import Unavailable
from headwater.settings import is_https_or_loopback

FRESH_SECONDS: Final = 600.0
"""Older keys are asked for again, while they go on to be used."""
USABLE_SECONDS: Final = 86_400.0
"""So long the keys that were heard last are good while the provider is away."""
PAUSE_SECONDS: Final = 5.0
"""Between two questions, however many unknown keys are named."""

_LARGEST_BYTES: Final = 256 * 1024
_FETCH_SECONDS: Final = 8.0
_TIMEOUT: Final = httpx2.Timeout(3.0, connect=2.0)
_FITTING: Final[Mapping[tuple[str, str | None], tuple[str, ...]]] = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}

# They would say every URL, at every question.
for _chatty in ("httpx2", "httpcore2"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)

_log = log.get(__name__)

Keys = Mapping[tuple[str, str], jwt.PyJWK]
"""{(key id, algorithm): key}: a key that fits no algorithm that is allowed is not there."""


class _NotUsable(Exception):
    """What the provider said cannot be used; the text says why, for the log."""


@dataclass(frozen=True)
class _Heard:
    keys: Keys
    at: float


class ProviderKeys:
    """The keys of one issuer for these algorithms. `now` counts seconds and never goes back."""

    def __init__(self, issuer: str, algorithms: frozenset[str], *, now: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._algorithms = algorithms
        self._now = now
        self._heard: _Heard | None = None
        self._asked_at: float | None = None
        self._asking: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._client = httpx2.AsyncClient(
            # Whatever is compressed would have to be bounded twice.
            headers={"User-Agent": "headwater", "Accept": "application/json", "Accept-Encoding": "identity"},
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=_TIMEOUT,
        )

    def start(self) -> None:
        """Ask for the keys, so that the first request finds them, and again in time while nobody comes."""
        self._keeping = asyncio.create_task(self._keep_fresh())

    async def stop(self) -> None:
        """End a question that is on its way, and close the client."""
        for task in (self._keeping, self._asking):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self._client.aclose()

    async def _keep_fresh(self) -> None:
        # A key that was withdrawn in a quiet night must not open the door once more in the morning.
        while True:
            self._ask()
            await asyncio.sleep(FRESH_SECONDS)

    async def find(self, key_id: str, algorithm: str) -> jwt.PyJWK | None:
        """The key with this id, if it is for this algorithm; its `algorithm_name` is `algorithm`.

        A key that is not known is asked for, unless somebody did just now. Raises `Unavailable`
        (`identity_provider_unavailable`) while there are no keys at all.
        """
        if self._usable() is None:
            await self._answer()
        heard = self._usable()
        if heard is None:
            raise _unavailable()
        if self._now() - heard.at > FRESH_SECONDS:
            self._ask()
        found = heard.keys.get((key_id, algorithm))
        if found is None:
            await self._answer()
            found = (self._usable() or heard).keys.get((key_id, algorithm))
        return found

    def _usable(self) -> _Heard | None:
        if self._heard is None or self._now() - self._heard.at > USABLE_SECONDS:
            return None
        return self._heard

    def _ask(self) -> None:
        """Begin to ask, unless somebody did just now."""
        if self._asking is None and (self._asked_at is None or self._now() - self._asked_at >= PAUSE_SECONDS):
            self._asked_at = self._now()
            self._asking = asyncio.create_task(self._refresh())
            self._asking.add_done_callback(self._asked)

    def _asked(self, _task: asyncio.Task[None]) -> None:
        self._asking = None

    async def _answer(self) -> None:
        """Wait for the question that is on its way, or for one that begins here. A caller who leaves ends it not."""
        self._ask()
        if self._asking is not None:
            await asyncio.shield(self._asking)

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                keys = await self._fetch()
        except (_NotUsable, httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            reason = str(error) if isinstance(error, _NotUsable) else type(error).__name__
            _log.warning("identity_provider.keys_not_fetched", reason=reason)
            return
        if self._heard is None or self._heard.keys.keys() != keys.keys():
            _log.info("identity_provider.keys_fetched", count=len({key_id for key_id, _ in keys}))
        self._heard = _Heard(keys, self._now())

    async def _fetch(self) -> Keys:
        document = await self._read(self._issuer.rstrip("/") + "/.well-known/openid-configuration", "discovery")
        if document.get("issuer") != self._issuer:
            raise _NotUsable("discovery: another issuer than HEADWATER_OIDC_ISSUER")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not is_https_or_loopback(url):
            raise _NotUsable("discovery: no jwks_uri with https")
        keys = dict(_usable_keys(await self._read(url, "keys"), self._algorithms))
        if not keys:
            raise _NotUsable("keys: none fits HEADWATER_OIDC_ALGORITHMS")
        return keys

    async def _read(self, url: str, what: str) -> dict[str, Any]:
        async with self._client.stream("GET", url) as response:
            if response.status_code != httpx2.codes.OK:
                raise _NotUsable(f"{what}: status {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _LARGEST_BYTES:
                    raise _NotUsable(f"{what}: more than {_LARGEST_BYTES} bytes")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise _NotUsable(f"{what}: no JSON object")
        return found


def _unavailable() -> Unavailable:
    return Unavailable(
        "The identity provider did not tell its keys, so no token of it can be checked.",
        code="identity_provider_unavailable",
        hint="Try again in a moment; API keys work meanwhile.",
        retry_after_seconds=int(PAUSE_SECONDS),
    )


def _usable_keys(
    document: Mapping[str, Any], algorithms: frozenset[str]
) -> Iterator[tuple[tuple[str, str], jwt.PyJWK]]:
    published = document.get("keys")
    for data in published if isinstance(published, list) else ():
        if not isinstance(data, dict) or not isinstance(data.get("kid"), str):
            continue
        for algorithm in _fitting(data):
            if algorithm in algorithms and (key := _parsed(data, algorithm)) is not None:
                yield (data["kid"], algorithm), key


def _fitting(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The algorithms that a published key is for: by its type, its curve, its `use` and its `alg`."""
    # With a private half that anybody can read, anybody signs.
    if data.get("use") not in (None, "sig") or "d" in data:
        return ()
    kind, curve = data.get("kty"), data.get("crv")
    fitting = _FITTING.get((str(kind), None if kind == "RSA" else str(curve)), ())
    return tuple(name for name in fitting if data.get("alg") in (None, name))


def _parsed(data: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK(data, algorithm)
    except jwt.PyJWTError:
        return None
    return key if key.Algorithm.check_key_length(key.key) is None else None
