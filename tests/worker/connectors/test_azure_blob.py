"""The Azure connector: the suite that all share against Azurite, then what only Azure has."""

import base64
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from headwater.connectors.azure_blob import SPEC, AzureBlobConfig
from headwater.errors import ConnectorError, Permanent, Transient
from headwater_cli.errors import Failure
from headwater_worker.connectors import ladder
from headwater_worker.connectors.azure_blob import AzureBlobConnector
from headwater_worker.connectors.base import FileEntry, Opening
from headwater_worker.connectors.conformance import LOOPBACK, Access, FileConnectorConformance, Store, closed_port
from headwater_worker.egress import Policy, Proxy

from . import azurite
from .azurite import ACCOUNT, KEY, Azurite
from .conftest import Answer, Asked, StartStub, Stub

WRONG_KEY = base64.b64encode(b"not-the-key-of-account1").decode()


class AzuriteStore(Store):
    """A container of Azurite's."""

    def __init__(self, server: Azurite, name: str) -> None:
        self._server = server
        self._name = name
        self._container = server.client().create_container(name)

    def access(self, prefix: str = "") -> Access:
        return self._access({"account_key": KEY}, prefix=prefix)

    def put(self, path: str, body: bytes) -> None:
        self._container.upload_blob(path, body, overwrite=True)

    def delete(self, path: str) -> None:
        self._container.delete_blob(path)

    def wrong_secret(self) -> Access:
        return self._access({"account_key": WRONG_KEY})

    def no_rights(self) -> Access:
        return self.signed("r")

    def no_target(self) -> Access:
        return self._access({"account_key": KEY}, container="no-such-container")

    def elsewhere(self, host: str, port: int, *, tls: bool) -> Access:
        url = f"{'https' if tls else 'http'}://{host}:{port}"
        return self._access({"account_key": KEY}, endpoint_url=url)

    def signed(self, rights: str = "rl", **moments: float) -> Access:
        """With a shared access signature."""
        return self._access({"sas_token": azurite.signature(self._name, rights, **moments)})

    def unknown_account(self) -> Access:
        """An account that the server does not have."""
        return self._access({"account_key": KEY}, account="account2")

    def _access(self, credentials: Mapping[str, str], **config: Any) -> Access:
        named = {"container": self._name, "account": ACCOUNT, "endpoint_url": self._server.url}
        return Access(named | config, credentials)


@pytest.fixture(scope="module")
def server() -> Iterator[Azurite]:
    with ExitStack() as stack:
        try:
            server = stack.enter_context(azurite.serve())
        except Failure as failure:
            if "CI" in os.environ:
                raise
            pytest.skip(f"Azurite cannot be installed from npm: {failure}")
        yield server


@pytest.fixture
def store(server: Azurite) -> AzuriteStore:
    return AzuriteStore(server, f"container-{secrets.token_hex(4)}")


class TestAzureBlobConformance(FileConnectorConformance):
    """What every file connector must do."""

    spec = SPEC
    runtime = AzureBlobConnector
    many_files = 210

    @pytest.fixture(autouse=True)
    def _small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Azurite takes its time with every file that it is given.
        monkeypatch.setattr("headwater_worker.connectors.azure_session.PAGE_KEYS", 100)

    def test_an_unknown_account_fails_at_target(self, store: AzuriteStore) -> None:
        """At an emulator the account is a part of the path; at Azure, where it is a host, `resolve` fails."""
        assert _failing(self.result_of(store.unknown_account())) == ("target", "account_not_found")

    def test_a_signature_opens_the_container(self, store: AzuriteStore) -> None:
        """A shared access signature is as good as a key."""
        store.put("a.json", b"{}")
        result = self.result_of(store.signed())
        assert result["success"] is True
        assert [entry.path for entry in self.listed(store.signed())] == ["a.json"]

    def test_an_expired_signature_is_told_from_a_wrong_one(self, store: AzuriteStore) -> None:
        """The store has one code for both; the signature says until when it is valid."""
        assert _failing(self.result_of(store.signed(starts_in=-7200, ends_in=-3600))) == (
            "authenticate",
            "expired_credentials",
        )

    def test_a_signature_of_the_future_says_so(self, store: AzuriteStore) -> None:
        """Not valid yet is not the same as wrong."""
        result = self.result_of(store.signed(starts_in=3600, ends_in=7200))
        assert _failing(result) == ("authenticate", "invalid_credentials")
        assert "not valid yet" in result["message"]

    def test_listing_without_reading_fails_at_read(self, store: AzuriteStore) -> None:
        """Listing is one right, reading another."""
        store.put("a.json", b"{}")
        assert _failing(self.result_of(store.signed("l"))) == ("read", "permission_denied")

    def test_a_file_that_changes_while_it_is_read_is_no_mixture(self, store: AzuriteStore) -> None:
        """Its later parts are of the version that was opened, or there are none."""
        store.put("a.bin", b"a" * 20_000_000)
        with self.opened(store.access()) as connector, connector.open_file("a.bin") as file:
            assert file.stream.read(10) == b"a" * 10
            store.put("a.bin", b"b" * 20_000_000)
            with pytest.raises(Transient) as caught:
                file.stream.read()
        assert caught.value.code == "file_changed"


def _failing(result: Mapping[str, Any]) -> tuple[str, str] | None:
    return next(((check["name"], check["code"]) for check in result["checks"] if check["status"] == "failed"), None)


def _opening(stub: Stub, proxy: Proxy, **options: Any) -> Opening:
    config = {"container": "the-container", "account": ACCOUNT, "endpoint_url": stub.url} | options.pop("config", {})
    credentials = options.pop("credentials", {"account_key": KEY})
    # The spec sends the worker's own tokens to Azure alone: at a stub it is seen what would be sent.
    make = AzureBlobConfig.model_construct if options.get("ambient_allowed") else AzureBlobConfig
    return Opening(make(**config), credentials, LOOPBACK, proxy, **options)


def _test(stub: Stub, **options: Any) -> dict[str, Any]:
    with Proxy(LOOPBACK) as proxy, AzureBlobConnector(_opening(stub, proxy, **options)) as connector:
        return ladder.run(connector)


def _list(stub: Stub, **options: Any) -> list[FileEntry]:
    with Proxy(LOOPBACK) as proxy, AzureBlobConnector(_opening(stub, proxy, **options)) as connector:
        return [entry for page in connector.list_files() for entry in page]


def _error(status: int, code: str, **headers: str) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>the store's own words</Message></Error>"
    return Answer(status, body.encode(), {"x-ms-error-code": code, "Content-Type": "application/xml", **headers})


def _blob(name: str, *, attributes: str = "", more: str = "") -> str:
    return (
        f"<Blob><Name{attributes}>{name}</Name><Properties><Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified>"
        f"<Etag>0xABC</Etag><Content-Length>7</Content-Length>{more}</Properties></Blob>"
    )


def _listing(*blobs: str, marker: str = "") -> Answer:
    text = f"<EnumerationResults><Blobs>{''.join(blobs)}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    return Answer(200, text.encode(), {"Content-Type": "application/xml"})


# What the store says, and what becomes of it.


@pytest.mark.parametrize(
    ("answer", "step", "code", "kind"),
    [
        (_error(403, "AuthenticationFailed"), "authenticate", "invalid_credentials", Permanent),
        (_error(403, "AuthenticationFailed", Date=formatdate(0, usegmt=True)), "authenticate", "clock_skew", Permanent),
        (_error(401, "NoAuthenticationInformation"), "authenticate", "invalid_credentials", Permanent),
        (_error(404, "ContainerNotFound"), "target", "container_not_found", Permanent),
        (_error(409, "ContainerBeingDeleted"), "target", "container_not_found", Permanent),
        (_error(404, "ResourceNotFound"), "target", "account_not_found", Permanent),
        (_error(403, "AuthorizationFailure"), "list", "permission_denied", Permanent),
        (_error(403, "AuthorizationPermissionMismatch"), "list", "permission_denied", Permanent),
        (_error(403, "KeyBasedAuthenticationNotPermitted"), "list", "permission_denied", Permanent),
        (_error(403, "AccountIsDisabled"), "list", "account_disabled", Permanent),
        (_error(400, "InvalidHeaderValue"), "list", "source_error", Permanent),
        (_error(400, "SomethingElse"), "list", "source_error", Permanent),
        (_error(503, "ServerBusy"), "list", "throttled", Transient),
        (_error(429, "SomethingElse"), "list", "throttled", Transient),
        (_error(500, "InternalError"), "list", "source_error", Transient),
        (Answer(404), "target", "container_not_found", Permanent),
        (Answer(403, b"<html>Forbidden</html>"), "list", "permission_denied", Permanent),
        (Answer(200, b"<html><body>Welcome</body></html>"), "list", "source_error", Permanent),
        (Answer(200, b"Welcome & enjoy"), "list", "source_error", Permanent),
        (Answer(200, b""), "list", "source_error", Permanent),
        (Answer(200, b'{"a": 1}', {"Content-Type": "application/json"}), "list", "source_error", Permanent),
        (Answer(200, b"<EnumerationResults><Blobs><Blob>"), "list", "source_error", Permanent),
        (_listing("<Blob><Name/></Blob>"), "list", "source_error", Permanent),
    ],
    ids=lambda value: f"{value.status} {value.body[:60].decode()}" if isinstance(value, Answer) else None,
)
def test_an_answer_of_the_store_has_one_meaning(
    start_stub: StartStub, answer: Answer, step: str, code: str, kind: type[ConnectorError]
) -> None:
    """The step, the code and whether to try again follow from the store's code, and its words are not repeated."""
    stub = start_stub(lambda _: answer)
    result = _test(stub)
    assert _failing(result) == (step, code)
    assert "own words" not in json.dumps(result)
    assert len(stub.asked) == 1
    if kind is Permanent:
        with pytest.raises(Permanent) as caught:
            _list(stub)
        assert caught.value.code == code


def test_throttling_is_tried_again_and_passes_on_when(start_stub: StartStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several attempts in the client, then `Transient` with what Retry-After said."""
    monkeypatch.setattr("azure.storage.blob._shared.policies.ExponentialRetry.get_backoff_time", lambda *_: 0)
    stub = start_stub(lambda _: _error(503, "ServerBusy", **{"Retry-After": "17"}))
    with pytest.raises(Transient) as caught:
        _list(stub)
    assert (caught.value.code, caught.value.retry_after_seconds) == ("throttled", 17.0)
    assert len(stub.asked) == 4


@pytest.mark.parametrize("body", ["<Error><Code>Odd</Code></Error>", '{"error": {"code": "Odd", "message": 7}}'])
def test_an_error_without_words_is_an_error_of_the_store(start_stub: StartStub, body: str) -> None:
    """The client adds to a message that need not be there."""
    media = "application/json" if body.startswith("{") else "application/xml"
    stub = start_stub(lambda _: Answer(401, body.encode(), {"Content-Type": media}))
    assert _failing(_test(stub)) == ("list", "source_error")


def test_nobody_is_sent_on(start_stub: StartStub, canary: str) -> None:
    """A redirect is no answer."""
    stub = start_stub(lambda _: Answer(302, headers={"Location": canary}))
    assert _failing(_test(stub)) == ("list", "source_error")


def test_an_archived_file_is_a_warning(start_stub: StartStub) -> None:
    """The connection works; one file in an archive says nothing about the others."""
    stub = start_stub(lambda asked: _listing(_blob("a")) if "comp=list" in asked.path else _error(409, "BlobArchived"))
    result = _test(stub)
    assert result["success"] is True
    assert [check["code"] for check in result["checks"] if check["status"] == "warning"] == ["file_archived"]


def test_a_body_that_breaks_off_is_transient(start_stub: StartStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file is never taken for a whole one."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    ranged = {"Content-Range": "bytes 0-999/1000", "ETag": '"0xABC"'}
    stub = start_stub(lambda _: Answer(206, b"half", ranged, length=1000))
    with (
        Proxy(LOOPBACK) as proxy,
        AzureBlobConnector(_opening(stub, proxy)) as connector,
        pytest.raises(Transient) as caught,
        connector.open_file("a.json") as file,
    ):
        file.stream.read()
    assert caught.value.code == "network"


# Listings.


def test_a_listing_goes_on_until_there_is_no_marker(start_stub: StartStub) -> None:
    """Each page is asked for with the marker of the one before."""

    def answer(asked: Asked) -> Answer:
        return _listing(_blob("b")) if "marker=next" in asked.path else _listing(_blob("a"), marker="next")

    assert _list(start_stub(answer)) == [
        FileEntry(path, 7, "0xABC", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) for path in ("a", "b")
    ]


def test_a_listing_without_a_way_on_is_refused(start_stub: StartStub) -> None:
    """The same marker for ever: asking again would go round for ever."""
    stub = start_stub(lambda _: _listing(_blob("a"), marker="again"))
    with pytest.raises(Permanent) as caught:
        _list(stub)
    assert caught.value.code == "source_error"


@pytest.mark.parametrize(
    ("blob", "path"),
    [
        (_blob("a&amp;b%20c"), "a&b%20c"),
        (_blob("a%EF%BF%BE%20b", attributes=' Encoded="true"'), "a\ufffe b"),
        (_blob("dir", more="<ResourceType>directory</ResourceType>"), "dir/"),
        (_blob("dir/a.json", more="<ResourceType>file</ResourceType>"), "dir/a.json"),
    ],
)
def test_names_are_read_as_they_were_written(start_stub: StartStub, blob: str, path: str) -> None:
    """Encoded where XML cannot hold them; a directory of a hierarchical namespace is shown to be one."""
    assert [entry.path for entry in _list(start_stub(lambda _: _listing(blob)))] == [path]


@pytest.mark.parametrize("path", ["../other-container/a.json", "a/../b.json", "./a.json"])
def test_a_name_that_a_url_would_fold_is_refused(start_stub: StartStub, path: str) -> None:
    """Nothing is sent: it would be for another file."""
    stub = start_stub(_file_of)
    with (
        Proxy(LOOPBACK) as proxy,
        AzureBlobConnector(_opening(stub, proxy)) as connector,
        pytest.raises(Permanent) as caught,
    ):
        connector.open_file(path)
    assert caught.value.code == "unreadable_name"
    assert stub.asked == []


# TLS.


def test_an_unknown_authority_fails_at_tls(start_tls_stub: StartStub) -> None:
    """The ladder says so, and a listing sends nothing."""
    stub = start_tls_stub(lambda _: _listing(_blob("a")))
    assert _failing(_test(stub)) == ("tls", "tls_invalid")
    with pytest.raises(Permanent) as caught:
        _list(stub)
    assert caught.value.code == "tls_invalid"
    assert stub.asked == []


def _file_of(asked: Asked) -> Answer:
    if "comp=list" in asked.path:
        return _listing(_blob("a"))
    return Answer(206, b"1234567", {"Content-Range": "bytes 0-6/7", "ETag": '"0xABC"'})


def test_a_connection_that_is_refused_is_not_tried_again() -> None:
    """The proxy has tried; the job comes back later, and does not wait here."""
    stub = Stub(f"http://127.0.0.1:{closed_port()}")
    began = time.monotonic()
    with pytest.raises(Transient) as caught:
        _list(stub)
    assert caught.value.code == "connection_refused"
    assert time.monotonic() - began < 2.0


def test_a_blocked_target_behind_tls_is_told_from_a_stores_refusal() -> None:
    """The proxy's answer to CONNECT is no answer of a store."""
    with (
        Proxy(Policy()) as proxy,
        AzureBlobConnector(_opening(Stub("https://127.0.0.1:9"), proxy)) as connector,
        pytest.raises(Permanent) as caught,
    ):
        list(connector.list_files())
    assert caught.value.code == "blocked_target"


# Nothing of the worker's own.


@pytest.fixture
def ambient(canary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine full of other people's settings, which all lead to where nobody may come."""
    for name, value in {
        "AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={canary};AccountName=ambient;AccountKey={KEY}",
        "AZURE_STORAGE_KEY": KEY,
        "IDENTITY_ENDPOINT": f"{canary}/token",
        "IDENTITY_HEADER": "ambient",
        "REQUESTS_CA_BUNDLE": "/nowhere",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("ambient")
def test_only_the_given_key_signs(start_stub: StartStub) -> None:
    """Environment and its proxies count for nothing."""
    stub = start_stub(_file_of)
    assert _failing(_test(stub)) is None
    assert len(stub.asked) == 2
    assert all(asked.headers["authorization"].startswith(f"SharedKey {ACCOUNT}:") for asked in stub.asked)


@pytest.mark.usefixtures("ambient")
def test_missing_credentials_are_never_made_up_for(start_stub: StartStub) -> None:
    """The confused deputy: without credentials nothing is sent, whatever the machine has."""
    stub = start_stub(_file_of)
    assert _failing(_test(stub, credentials={})) == ("config", "missing_credentials")
    assert stub.asked == []


def test_two_credentials_are_one_too_many(start_stub: StartStub) -> None:
    """They may have been put one after the other; nothing says which counts."""
    stub = start_stub(_file_of)
    both = {"account_key": KEY, "sas_token": "sv=1&sig=2"}
    assert _failing(_test(stub, credentials=both)) == ("config", "config_invalid")
    assert stub.asked == []


@pytest.mark.usefixtures("ambient")
def test_the_workers_identity_needs_the_operators_leave(start_stub: StartStub) -> None:
    """`use_managed_identity` alone is refused, and the hint names the setting."""
    stub = start_stub(_file_of)
    result = _test(stub, credentials={}, config={"endpoint_url": None, "use_managed_identity": True})
    assert _failing(result) == ("config", "ambient_credentials_not_allowed")
    assert "HEADWATER_ALLOW_AMBIENT_CREDENTIALS" in result["checks"][0]["hint"]
    assert stub.asked == []


def _of_identity(stub: Stub) -> dict[str, Any]:
    return _test(stub, credentials={}, config={"use_managed_identity": True}, ambient_allowed=True)


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub's authority is one of the machine's: tokens go over TLS alone."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.mark.usefixtures("trusted")
def test_the_workers_identity_is_that_of_app_service(
    start_tls_stub: StartStub, start_stub: StartStub, identity: dict[str, str]
) -> None:
    """Its endpoint is asked once, with its header, and the store with the token."""
    platform = start_stub(lambda _: Answer(200, b'{"access_token": "own-token", "expires_on": "4102444800"}'))
    identity |= {"IDENTITY_ENDPOINT": f"{platform.url}/token", "IDENTITY_HEADER": "the-header"}
    store = start_tls_stub(_file_of)
    assert _failing(_of_identity(store)) is None
    assert [asked.headers["x-identity-header"] for asked in platform.asked] == ["the-header"]
    assert {asked.headers["authorization"] for asked in store.asked} == {"Bearer own-token"}


@pytest.mark.usefixtures("trusted")
def test_the_workers_identity_is_that_of_kubernetes(
    start_tls_stub: StartStub, start_stub: StartStub, tmp_path: Path, identity: dict[str, str]
) -> None:
    """The cluster's token is exchanged for Azure's."""
    platform = start_stub(lambda _: Answer(200, b'{"access_token": "own-token", "expires_in": 3600}'))
    (tmp_path / "token").write_text("the-clusters-token")
    identity |= {
        "AZURE_AUTHORITY_HOST": platform.url,
        "AZURE_TENANT_ID": "tenant",
        "AZURE_CLIENT_ID": "client",
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"),
    }
    store = start_tls_stub(_file_of)
    assert _failing(_of_identity(store)) is None
    assert [(asked.method, asked.path) for asked in platform.asked] == [("POST", "/tenant/oauth2/v2.0/token")]
    assert b"client_assertion=the-clusters-token" in platform.asked[0].body
    assert {asked.headers["authorization"] for asked in store.asked} == {"Bearer own-token"}


@pytest.mark.usefixtures("trusted")
def test_a_worker_without_an_identity_fails_at_authenticate(
    start_tls_stub: StartStub, start_stub: StartStub, identity: dict[str, str]
) -> None:
    """Allowed, and there is none."""
    platform = start_stub(lambda _: Answer(400, b'{"error": "invalid_request"}'))
    identity |= {"IDENTITY_ENDPOINT": f"{platform.url}/token", "IDENTITY_HEADER": "the-header"}
    store = start_tls_stub(_file_of)
    assert _failing(_of_identity(store)) == ("authenticate", "missing_credentials")
    assert store.asked == []


@pytest.mark.usefixtures("trusted")
def test_a_platform_that_is_busy_is_no_lack_of_an_identity(
    start_tls_stub: StartStub, start_stub: StartStub, identity: dict[str, str]
) -> None:
    """The job comes back."""
    platform = start_stub(lambda _: Answer(429, b"", {"Retry-After": "7"}))
    identity |= {"IDENTITY_ENDPOINT": f"{platform.url}/token", "IDENTITY_HEADER": "the-header"}
    with pytest.raises(Transient) as caught:
        _list(start_tls_stub(_file_of), credentials={}, config={"use_managed_identity": True}, ambient_allowed=True)
    assert (caught.value.code, caught.value.retry_after_seconds) == ("throttled", 7)


@pytest.mark.usefixtures("trusted")
def test_a_clusters_token_that_is_not_there_is_no_identity(
    start_tls_stub: StartStub, tmp_path: Path, identity: dict[str, str]
) -> None:
    """The file that the platform names cannot be read."""
    missing = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token")}
    identity |= missing
    assert _failing(_of_identity(start_tls_stub(_file_of))) == ("authenticate", "missing_credentials")


def test_an_identity_never_goes_over_plain_http(start_stub: StartStub) -> None:
    """A token can be read by whoever listens: the client refuses, and so the config is refused."""
    stub = start_stub(_file_of)
    assert _failing(_of_identity(stub)) == ("config", "config_invalid")
    assert stub.asked == []


# Azure itself: nothing is sent, only where to is looked at.


@pytest.mark.parametrize(
    ("endpoint_url", "host", "port"),
    [
        (None, "account1.blob.core.windows.net", 443),
        ("https://account1.blob.core.chinacloudapi.cn", "account1.blob.core.chinacloudapi.cn", 443),
        ("http://azurite:10000", "azurite", 10000),
    ],
)
def test_azures_hosts_are_those_of_the_account(endpoint_url: str | None, host: str, port: int) -> None:
    """The ladder looks at the host that the requests will go to."""
    config = {"endpoint_url": endpoint_url}
    with Proxy(Policy()) as proxy, AzureBlobConnector(_opening(Stub(""), proxy, config=config)) as connector:
        assert connector._origin() == ladder.Origin(host, port)
