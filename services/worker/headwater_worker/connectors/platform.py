"""Tokens of the worker's own identity, asked for where a cloud's platform gives them.

These requests do not go through the job's proxy: they are between the worker and its own platform, and no config of a
customer has a word in them.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import requests

from headwater_worker.connectors import meaning
from headwater_worker.connectors.meaning import Meaning

_TIMEOUT: Final = (2.0, 6.0)
_BUSY: Final = Meaning(
    "throttled", "The worker's platform asks for fewer requests.", "Wait: the token is asked for again.", transient=True
)
_DOWN: Final = Meaning(
    "source_error",
    "The worker's platform failed to give a token.",
    "Try again; an operator can look at the platform's own state.",
    transient=True,
)


@dataclass(frozen=True)
class Request:
    """What is asked. A GET has `parameters` in its query, a POST in a form."""

    url: str
    parameters: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: str = "GET"


class Token(NamedTuple):
    """What is answered. `ends_at` in seconds since 1970."""

    text: str
    ends_at: float


def ask(request: Request) -> Token:
    """The token that `request` is answered with.

    Raises `LookupError` where there is none to be had, and `Transient` where the platform asks for patience.
    """
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                request.method,
                request.url,
                headers=dict(request.headers),
                timeout=_TIMEOUT,
                allow_redirects=False,
                params=dict(request.parameters) if request.method == "GET" else None,
                data=dict(request.parameters) if request.method == "POST" else None,
            )
        if answer.status_code == requests.codes.too_many_requests:
            raise _BUSY.error(meaning.retry_after(answer.headers))
        if answer.status_code >= 500:
            raise _DOWN.error(meaning.retry_after(answer.headers))
        content = answer.json()
        # Azure's machines and App Service say when it ends, the others how long it lives.
        ends_at = float(content.get("expires_on") or time.time() + int(content["expires_in"]))
        return Token(str(content["access_token"]), ends_at)
    except requests.ReadTimeout as error:
        raise _DOWN.error() from error
    except (requests.RequestException, KeyError, TypeError, ValueError, AttributeError) as error:
        raise LookupError("the platform gives no token") from error
