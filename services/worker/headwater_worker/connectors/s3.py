"""Amazon S3 and stores that speak its protocol, through botocore."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, ClassVar, Final, TypeVar, cast
from urllib.parse import urlsplit

from headwater.connectors.s3 import S3Config
from headwater.errors import Permanent
from headwater_worker.connectors import meaning, object_store, ranges, s3_errors, s3_identity, s3_session
from headwater_worker.connectors.base import FileEntry, OpenFile, Opening
from headwater_worker.connectors.ladder import Origin
from headwater_worker.connectors.object_store import ObjectStoreConnector
from headwater_worker.connectors.s3_session import Settings
from headwater_worker.egress import second_line

T = TypeVar("T")

PAGE_KEYS: Final = 1000

_DATA_READ_SECONDS: Final = 60.0
_DATA_ATTEMPTS: Final = 4
_PROBE_READ_SECONDS: Final = 6.0
_PROBE_ATTEMPTS: Final = 1
_DOT_SEGMENTS: Final = frozenset({".", ".."})


class S3Connector(ObjectStoreConnector):
    """A bucket, or what starts with a prefix in it."""

    type: ClassVar[str] = "s3"

    def __init__(self, opening: Opening) -> None:
        self._config = cast(S3Config, opening.config)
        self._lock = threading.RLock()
        url = self._config.endpoint_url
        self._is_tls = url is None or url.startswith("https:")
        super().__init__(opening, tls=self._is_tls)

    @property
    def lists_in_order(self) -> bool:
        # As ListObjectsV2 does, but for directory buckets.
        return not self._config.bucket.endswith("--x-s3")

    def list_files(self, prefix: str = "") -> Iterator[Sequence[FileEntry]]:
        scope = object_store.narrower(self._config.prefix, prefix)
        return iter(()) if scope is None else self._pages(scope)

    def list_known(self, prefix: str, landmarks: Sequence[str]) -> Iterator[Sequence[FileEntry]]:
        scope = object_store.narrower(self._config.prefix, prefix)
        if scope is None or not self.lists_in_order:
            return self.list_files(prefix)
        _ = self._data_client  # made once, by this thread
        bounds = [path for path in landmarks if path.startswith(scope)]
        return ranges.in_order(bounds, lambda after: self._pages(scope, after))

    def _pages(self, scope: str, after: str = "") -> Iterator[Sequence[FileEntry]]:
        """The files whose key starts with `scope` and comes behind `after`."""
        token: str | None = None
        while True:
            page = self._list_page(self._data_client, scope, PAGE_KEYS, token, after)
            if found := s3_session.entries(page):
                yield found
            following = page.get("NextContinuationToken")
            if not page.get("IsTruncated"):
                return
            if not following or following == token:
                raise meaning.ENDLESS.error()
            token = following

    def open_file(self, path: str) -> OpenFile:
        if not self._is_tls and not _DOT_SEGMENTS.isdisjoint(path.split("/")):
            # urllib3 folds them in the URL that it gives a proxy, and the signature no longer fits.
            raise Permanent(
                "Its key has a `.` or `..` between slashes, which cannot be asked for over plain HTTP.",
                code="unreadable_name",
                hint="Rename the file, or use the store's HTTPS endpoint.",
            )
        answer = self._ask(lambda: self._data_client.get_object(Bucket=self._config.bucket, Key=path))
        entry = FileEntry(
            path=path,
            size=answer.get("ContentLength"),
            etag=s3_session.plain_etag(answer.get("ETag")),
            modified_at=answer.get("LastModified"),
        )
        return OpenFile(entry, answer.get("ContentType"), _Body(answer["Body"], self._ask))

    def uri(self, path: str) -> str:
        return f"s3://{self._config.bucket}/{path}"

    # The clients. Made on first use: a source that is refused before needs none of the SDK's memory.

    def _settings(self, read_seconds: float, attempts: int) -> Settings:
        config = self._config
        return Settings(config.region, config.endpoint_url, self.opening.proxy.url, read_seconds, attempts)

    def _sts_settings(self) -> Settings:
        settings = self._settings(_PROBE_READ_SECONDS, _PROBE_ATTEMPTS)
        # Other stores have theirs at the same origin; Amazon's is the region's.
        return dataclasses.replace(settings, endpoint_url=None) if self._config.is_amazons else settings

    @functools.cached_property
    def _credentials(self) -> Any:
        config = self._config
        settings = self._sts_settings()
        source = self._own_role(settings) if config.use_iam_role else self._given()
        if config.role_arn is None:
            return source
        return s3_session.assumed(source, config.role_arn, config.external_id, settings)

    def _given(self) -> Any:
        given = self.opening.credentials
        key, secret = given.get("access_key_id"), given.get("secret_access_key")
        if not key or not secret:
            # botocore takes None for "look around for some": never let it come to that.
            raise Permanent(
                "Credentials are missing.",
                code="missing_credentials",
                hint="Put `access_key_id` and `secret_access_key`.",
            )
        return s3_session.static(key, secret, given.get("session_token"))

    def _own_role(self, settings: Settings) -> Any:
        variables = self._identity_variables("an access key")
        if asked := s3_identity.endpoint(variables):
            self._closing.enter_context(second_line.own_endpoint(*asked))
        found = self._ask(lambda: s3_identity.ambient(variables, settings))
        if found is None:
            raise Permanent(
                "The worker has no role of its own.",
                code="missing_credentials",
                hint="Give the machine or the container a role, or use an access key.",
            )
        return found

    @functools.cached_property
    def _data_client(self) -> Any:
        return self._make_client(_DATA_READ_SECONDS, _DATA_ATTEMPTS)

    @functools.cached_property
    def _probe_client(self) -> Any:
        return self._make_client(_PROBE_READ_SECONDS, _PROBE_ATTEMPTS)

    def _make_client(self, read_seconds: float, attempts: int) -> Any:
        with self._lock:
            settings = self._settings(read_seconds, attempts)
            credentials = self._credentials
            try:
                made = s3_session.client("s3", credentials, settings)
            except s3_errors.FOREIGN as error:
                raise s3_errors.unusable() from error
            self._closing.callback(made.close)
            return made

    def _ask(self, call: Callable[[], T]) -> T:
        """What `call` gives; botocore's errors become ours."""
        try:
            return call()
        except s3_errors.FOREIGN as error:
            raise s3_errors.translated(error, self.opening.proxy) from error

    def _list_page(
        self, client: Any, prefix: str, keys: int, token: str | None = None, after: str = ""
    ) -> Mapping[str, Any]:
        arguments = {"ContinuationToken": token} if token else {"StartAfter": after} if after else {}
        page: Mapping[str, Any] = self._ask(
            lambda: client.list_objects_v2(
                Bucket=self._config.bucket, Prefix=prefix, MaxKeys=keys, EncodingType="url", **arguments
            )
        )
        if page.get(s3_session.NOT_A_LISTING):
            raise s3_errors.not_s3()
        return page

    # The ladder.

    def _check_config(self) -> None:
        # Making the client proves that bucket, region and endpoint fit together.
        _ = self._probe_client

    def _origin(self) -> Origin:
        parts = urlsplit(self._probe_client.meta.endpoint_url)
        host = parts.hostname or ""
        if self._config.endpoint_url is None and "." not in self._config.bucket:
            host = f"{self._config.bucket}.{host}"
        return Origin(host, object_store.port_of(parts.scheme, parts.port))

    def _prove_identity(self) -> None:
        # A role is assumed here: what fails in that is about the identity, whatever its code.
        self._ask(lambda: self._credentials.get_frozen_credentials())

    def _first_page(self) -> Sequence[FileEntry]:
        page = self._list_page(self._probe_client, self._config.prefix, object_store.PROBE_KEYS)
        return s3_session.entries(page)

    def _read_sample(self, sample: FileEntry) -> None:
        part = {"Range": f"bytes=0-{object_store.SAMPLE_BYTES - 1}"} if sample.size else {}
        get = self._probe_client.get_object
        with closing(self._ask(lambda: get(Bucket=self._config.bucket, Key=sample.path, **part)["Body"])) as body:
            # Not all of it, should a store know no ranges.
            self._ask(lambda: body.read(object_store.SAMPLE_BYTES))


class _Body:
    """botocore's streaming body, with errors of ours."""

    def __init__(self, body: Any, ask: Callable[[Callable[[], bytes]], bytes]) -> None:
        self._body = body
        self._ask = ask

    def read(self, size: int = -1, /) -> bytes:
        return self._ask(lambda: self._body.read(None if size < 0 else size))

    def close(self) -> None:
        self._body.close()
