"""botocore, closed off: nothing of the worker's environment, home or machine gets into a customer's session.

A plain session reads `AWS_*`, `~/.aws`, `REQUESTS_CA_BUNDLE`, the environment's proxies and the instance's metadata
service, and signs with the worker's own keys where none are given. This one has no source for any of that.
"""

import functools
import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from itertools import repeat
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from botocore import handlers
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    Credentials,
    DeferredRefreshableCredentials,
)
from botocore.loaders import Loader
from botocore.session import Session
from botocore.utils import parse_timestamp

from headwater_worker.connectors.base import FileEntry

CONNECT_SECONDS: Final = 10.0

ROLE_SESSION: Final = "headwater"
_FILE_VARIABLES: Final = frozenset({"config_file", "credentials_file"})
_LONGEST_SIZE: Final = 19  # digits; 10**18 bytes are an exabyte


@dataclass(frozen=True)
class Settings:
    """How a client talks. `attempts` counts the first; `read_seconds` is the longest silence of the store."""

    region: str
    endpoint_url: str | None
    proxy_url: str
    read_seconds: float
    attempts: int


class _Given(CredentialProvider):
    METHOD = "given"

    def __init__(self, credentials: Credentials | None) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> Credentials | None:
        return self._credentials


@functools.cache
def _loader() -> Loader:
    # Only the models that come with botocore: not those of ~/.aws/models or AWS_DATA_PATH.
    return Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)


def _closed_session(credentials: Credentials | None) -> Session:
    variables = {
        name: (None, None, os.devnull if name in _FILE_VARIABLES else default, conversion)
        for name, (_, _, default, conversion) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    session = Session(session_vars=variables)
    session.register_component("credential_provider", CredentialResolver([_Given(credentials)]))
    session.register_component("data_loader", _loader())
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
    return session


def client(service: str, credentials: Credentials | None, settings: Settings) -> Any:
    """A client of `service` ("s3" or "sts") that signs with `credentials`, if any, and leaves by the proxy alone."""
    made = _closed_session(credentials).create_client(
        service,
        region_name=settings.region,
        endpoint_url=settings.endpoint_url,
        # The machine's authorities, as everywhere else in the worker: not botocore's own list.
        verify=ssl.get_default_verify_paths().cafile or True,
        config=Config(
            signature_version="s3v4" if service == "s3" else "v4",
            proxies={"http": settings.proxy_url, "https": settings.proxy_url},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=settings.read_seconds,
            retries={"mode": "standard", "total_max_attempts": settings.attempts},
            tcp_keepalive=True,
            max_pool_connections=16,
            ignore_configured_endpoint_urls=True,  # type: ignore[call-arg] # the stubs lag behind
            use_dualstack_endpoint=False,
            use_fips_endpoint=False,
            # Compatible stores know no checksums beyond S3's first ones.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                "addressing_style": "path" if settings.endpoint_url else "auto",
                "us_east_1_regional_endpoint": "regional",
            },
        ),
    )
    if service == "s3":
        made.meta.events.register("before-call.s3", _stay_in_region)
        _read_pages_first(made.meta.events)
    return made


def static(access_key_id: str, secret_access_key: str, session_token: str | None) -> Credentials:
    """Credentials that the customer gave."""
    return Credentials(access_key_id, secret_access_key, session_token)


def assumed(source: Credentials, role_arn: str, external_id: str | None, settings: Settings) -> Credentials:
    """The credentials of a role, fetched with `source` on first use and again before they expire.

    The request goes to the region's STS, or to the store itself where `endpoint_url` is set: keys of another store
    are none of Amazon's business.
    """
    extra = {"RoleSessionName": ROLE_SESSION} | ({"ExternalId": external_id} if external_id else {})

    def create(_service: str, **_keys: object) -> Any:
        # botocore hands over the source's keys; they are those of `source`.
        return client("sts", source, settings)

    fetcher = AssumeRoleCredentialFetcher(create, source, role_arn, extra_args=extra)
    refreshable: Credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
    return refreshable


def _stay_in_region(context: dict[str, Any], **_: object) -> None:
    # botocore would find the right region by itself, with further requests to hosts that nobody configured.
    context.setdefault("s3_redirect", {})["redirected"] = True


PAGE: Final = "HeadwaterPage"
"""In the answer of ListObjectsV2: the page's files as a list of `FileEntry`, if the fast way could read it."""
NOT_A_LISTING: Final = "HeadwaterNotAListing"
"""In the answer of ListObjectsV2: what came is no listing, whatever it is."""

_FILES: Final = re.compile(r"<Contents>.*</Contents>", re.DOTALL)
# A file as Amazon writes it and most others do: this order, a plain size, a time with its zone.
_FILE: Final = re.compile(
    r"<Contents><Key>([^<]*+)</Key><LastModified>([0-9T:.-]{19,26}+Z)</LastModified>"
    r'<ETag>(?:&quot;|&#34;|")?+([^<&"]++)(?:&quot;|&#34;|")?+</ETag>'
    r"(?:<Checksum(?:Algorithm|Type)>[A-Z0-9_]*</Checksum(?:Algorithm|Type)>)*+<Size>([0-9]{1,18}+)</Size>"
)
_ENCODED: Final = "&%+"
_FIELDS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"<Key>([^<]*)</Key>",
        r"<Size>([^<]*)</Size>",
        r'<ETag>(?:&quot;|&#34;|")?([^<&"]*)(?:&quot;|&#34;|")?</ETag>',
        r"<LastModified>([^<]*)</LastModified>",
    )
)


def _read_pages_first(events: Any) -> None:
    """Put `_read_page` before botocore's look for errors inside of answers of 200, which parses the page once more."""
    name = "before-parse.s3.*"
    look = getattr(handlers, "_handle_200_error", None)
    events.unregister(name, look)
    events.register_first(name, _read_page)
    if look is not None:
        events.register_first(name, look)


def _read_page(
    operation_model: Any, response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    """Read the files of a page without an object tree: about twenty times as fast as botocore's parser.

    Where the page is not as plain as S3 writes it (a field missing, CDATA, a prefix), it is left to botocore.
    """
    if operation_model.name != "ListObjectsV2" or response_dict["status_code"] != 200:
        return
    text: str = response_dict["body"].decode("utf-8", "surrogateescape")
    if "<ListBucketResult" not in text[:1024] and "<Error" not in text[:1024]:
        customized_response_dict[NOT_A_LISTING] = True
        response_dict["body"] = b"<ListBucketResult/>"
        return
    count = text.count("<Contents>")
    if text.count("Contents") != 2 * count:
        return
    page = _as_usual(text, count) or _by_fields(text, count)
    if page is None:
        return
    customized_response_dict[PAGE] = page
    # What botocore still parses: the page's own fields. It refuses a page that was cut off.
    response_dict["body"] = _FILES.sub("", text).encode("utf-8", "surrogateescape")


def _as_usual(text: str, count: int) -> list[FileEntry] | None:
    """The files of a page of which each is written as `_FILE` says and no key is encoded; None for another page."""
    found = _FILE.findall(text)
    if not found or len(found) != count:
        return None
    keys, moments, etags, sizes = zip(*found, strict=True)
    all_keys = "".join(keys)
    if any(sign in all_keys for sign in _ENCODED):
        return None
    try:
        rows = zip(keys, map(int, sizes), etags, map(datetime.fromisoformat, moments), repeat(None))
        # As `FileEntry(...)` does, without a call of Python for each.
        return list(map(tuple.__new__, repeat(FileEntry), rows))
    except ValueError:
        return None


def _by_fields(text: str, count: int) -> list[FileEntry] | None:
    """The files of a page of which each has every field once; None for another page."""
    columns = [pattern.findall(text) for pattern in _FIELDS]
    if any(len(column) != count for column in columns):
        return None
    decode = key_decoder("<EncodingType>url</EncodingType>" in text)
    return [
        FileEntry(decode(unescape(key) if "&" in key else key), _size(size), etag or None, _moment_or_none(modified))
        for key, size, etag, modified in zip(*columns, strict=True)
    ]


def entries(page: Mapping[str, Any]) -> Sequence[FileEntry]:
    """The files of an answer of ListObjectsV2 that was asked for with `EncodingType="url"`."""
    if PAGE in page:
        read: Sequence[FileEntry] = page[PAGE]
        return read
    decode = key_decoder(page.get("EncodingType") == "url")
    return [
        FileEntry(
            decode(entry.get("Key", "")),
            _size(str(entry.get("Size"))),
            plain_etag(entry.get("ETag")),
            entry.get("LastModified"),
        )
        for entry in page.get("Contents", ())
    ]


def key_decoder(encoded: bool) -> Callable[[str], str]:
    """From a key as it was sent to the key. Bytes that are no UTF-8 become lone surrogates, which cannot be stored."""
    return _unquoted if encoded else str


def _unquoted(text: str) -> str:
    if "%" not in text and "+" not in text:
        return text
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "surrogateescape")


def _size(text: str) -> int | None:
    # A store can write anything here, and Postgres takes a bigint.
    return int(text) if len(text) < _LONGEST_SIZE and text.isascii() and text.isdigit() else None


def plain_etag(text: str | None) -> str | None:
    """An entity tag without its quotes."""
    return text.strip('"') or None if text else None


def moment(text: Any) -> datetime:
    """A timestamp of the wire; botocore's own parser (dateutil) takes two thirds of a listing's time."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        parsed: datetime = parse_timestamp(text)
        return parsed
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _moment_or_none(text: str) -> datetime | None:
    try:
        return moment(text)
    except ValueError:
        return None
