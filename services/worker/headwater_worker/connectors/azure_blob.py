"""Azure Blob Storage, through Azure's own client."""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final, TypeVar, cast
from urllib.parse import urlsplit

from azure.core.credentials import AzureSasCredential

from headwater.connectors.azure_blob import AzureBlobConfig
from headwater.errors import ConnectorError, Permanent
from headwater_worker.connectors import azure_errors, azure_identity, azure_session, object_store
from headwater_worker.connectors.azure_errors import Validity
from headwater_worker.connectors.azure_identity import ManagedIdentity
from headwater_worker.connectors.azure_session import Client, Settings
from headwater_worker.connectors.base import FileEntry, OpenFile, Opening
from headwater_worker.connectors.ladder import Origin
from headwater_worker.connectors.object_store import ObjectStoreConnector
from headwater_worker.egress import second_line

T = TypeVar("T")

_DATA_READ_SECONDS: Final = 60.0
_DATA_ATTEMPTS: Final = 4
_PROBE_READ_SECONDS: Final = 6.0
_PROBE_ATTEMPTS: Final = 1


class AzureBlobConnector(ObjectStoreConnector):
    """A container, or what starts with a prefix in it."""

    type: ClassVar[str] = "azure_blob"

    def __init__(self, opening: Opening) -> None:
        self._config = cast(AzureBlobConfig, opening.config)
        self._lock = threading.RLock()
        super().__init__(opening, tls=self._config.account_url.startswith("https:"))

    def list_files(self, prefix: str = "") -> Iterator[Sequence[FileEntry]]:
        scope = object_store.narrower(self._config.prefix, prefix)
        if scope is None:
            return
        pages = self._data_client.pages(scope, azure_session.PAGE_KEYS)
        while (page := self._ask(lambda: next(pages, None))) is not None:
            if page:
                yield page

    def open_file(self, path: str) -> OpenFile:
        download = self._ask_for_file(lambda: self._data_client.download(path))
        found = download.properties
        entry = FileEntry(path, found.size, azure_session.plain_etag(found.etag), found.last_modified)
        return OpenFile(entry, found.content_settings.content_type, _Body(download, self._ask_for_file))

    def uri(self, path: str) -> str:
        return f"{self._config.account_url}/{self._config.container}/{path}"

    # The clients. Made on first use: a source that is refused before needs none of the SDK's memory.

    @functools.cached_property
    def _credential(self) -> Any:
        if self._config.use_managed_identity:
            return self._own_identity()
        key, token = (self.opening.credentials.get(name) for name in ("account_key", "sas_token"))
        if key and token:
            raise azure_errors.two_credentials()
        if token:
            return AzureSasCredential(token)
        if key:
            return {"account_name": self._config.account, "account_key": key}
        # The client takes None for "ask as nobody": never let it come to that.
        raise Permanent(
            "Credentials are missing.", code="missing_credentials", hint="Put `account_key` or `sas_token`."
        )

    def _own_identity(self) -> Any:
        variables = self._identity_variables("an account key or a shared access signature")
        self._closing.enter_context(second_line.own_endpoint(*azure_identity.endpoint(variables)))
        return ManagedIdentity(variables)

    @functools.cached_property
    def _validity(self) -> Validity | None:
        token = self.opening.credentials.get("sas_token")
        return Validity.of(token) if token and not self._config.use_managed_identity else None

    @functools.cached_property
    def _data_client(self) -> Client:
        return self._make_client(_DATA_READ_SECONDS, _DATA_ATTEMPTS)

    @functools.cached_property
    def _probe_client(self) -> Client:
        return self._make_client(_PROBE_READ_SECONDS, _PROBE_ATTEMPTS)

    def _make_client(self, read_seconds: float, attempts: int) -> Client:
        with self._lock:
            credential = self._credential
            config, proxy = self._config, self.opening.proxy
            try:
                made = Client(credential, Settings(config.account_url, config.container, proxy, read_seconds, attempts))
            except ValueError as error:
                raise azure_errors.unusable() from error
            self._closing.callback(made.close)
            return made

    def _ask(self, call: Callable[[], T]) -> T:
        """What `call` gives; Azure's errors become ours."""
        try:
            return call()
        except azure_errors.FOREIGN as error:
            raise azure_errors.translated(error, self.opening.proxy, self._validity) from error

    def _ask_for_file(self, call: Callable[[], T]) -> T:
        try:
            return self._ask(call)
        except ConnectorError as error:
            raise azure_errors.missing_file(error) from error

    # The ladder.

    def _check_config(self) -> None:
        _ = self._probe_client

    def _origin(self) -> Origin:
        parts = urlsplit(self._config.account_url)
        return Origin(parts.hostname or "", object_store.port_of(parts.scheme, parts.port))

    def _prove_identity(self) -> None:
        if isinstance(self._credential, ManagedIdentity):
            self._credential.get_token()

    def _first_page(self) -> Sequence[FileEntry]:
        pages = self._probe_client.pages(self._config.prefix, object_store.PROBE_KEYS)
        return self._ask(lambda: next(pages, ()))

    def _read_sample(self, sample: FileEntry) -> None:
        size_bytes = object_store.SAMPLE_BYTES if sample.size else None
        self._ask_for_file(lambda: self._probe_client.download(sample.path, size_bytes).read(object_store.SAMPLE_BYTES))


class _Body:
    """The SDK's downloader, with errors of ours. It holds no connection between reads."""

    def __init__(self, download: Any, ask: Callable[[Callable[[], bytes]], bytes]) -> None:
        self._download = download
        self._ask = ask

    def read(self, size: int = -1, /) -> bytes:
        return self._ask(lambda: self._download.read(size))

    def close(self) -> None:
        """Nothing is held."""
