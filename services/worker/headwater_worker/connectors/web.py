"""`requests`, closed off: it leaves by the job's proxy alone and reads nothing of the machine's settings."""

import ssl
from typing import Final, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as Urllib3Timeout
from urllib3.util import Retry

from headwater.errors import ConnectorError
from headwater_worker.connectors import meaning
from headwater_worker.egress import Proxy

Session = TypeVar("Session", bound=requests.Session)

CONNECT_SECONDS: Final = 10.0

FOREIGN: Final = (requests.RequestException, HTTPError)
"""What a session raises; a body that breaks off may show urllib3's own errors."""

_POOL: Final = 16
_BACKOFF_SECONDS: Final = 0.5
# Asked again; the rest is the store's last word.
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})


def closed_off(made: Session, proxy: Proxy, *, attempts: int = 1) -> Session:
    """`made` without environment, netrc and redirects. `attempts` counts the first; only GETs are repeated."""
    made.trust_env = False
    made.proxies = {"http": proxy.url, "https": proxy.url}
    # The machine's authorities, as everywhere else in the worker: not those that come with requests.
    made.verify = ssl.get_default_verify_paths().cafile or True
    # Nobody is sent on to where nobody pointed.
    made.max_redirects = 0
    retries = Retry(
        total=attempts - 1,
        connect=0,
        redirect=0,
        allowed_methods={"GET"},
        status_forcelist=_PASSING,
        backoff_factor=_BACKOFF_SECONDS,
        # A job that waits holds its place: what the store asks for is passed on when the attempts are used up.
        respect_retry_after_header=False,
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=retries, pool_connections=_POOL, pool_maxsize=_POOL))
    return made


def translated(error: BaseException, proxy: Proxy) -> ConnectorError:
    """What `error`, that has no answer of a store in it, means; chained to it."""
    failure = _meant(error, proxy)
    failure.__cause__ = error
    return failure


def _meant(error: BaseException, proxy: Proxy) -> ConnectorError:
    behind = list(meaning.causes(error))
    if any(isinstance(cause, requests.exceptions.SSLError | ssl.SSLError) for cause in behind):
        return meaning.of_broken_tls(error).error()
    if any(isinstance(cause, requests.ConnectionError) for cause in behind) and (failure := meaning.of_proxy(proxy)):
        return failure
    if any(isinstance(cause, requests.Timeout | Urllib3Timeout | TimeoutError) for cause in behind):
        return meaning.TIMEOUT.error()
    if any(isinstance(cause, requests.TooManyRedirects) for cause in behind):
        return meaning.REFUSED.error()
    return meaning.BROKEN.error()
