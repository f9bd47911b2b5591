"""The GCS connector: the suite that all share against an emulator with checked tokens, then what only GCS has."""

import json
import secrets
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from headwater.connectors.gcs import GOOGLE_TOKEN_URL, SPEC, GcsConfig
from headwater.connectors.spec import ConnectorConfig
from headwater.errors import ConnectorError, Permanent, Transient
from headwater_worker.connectors import gcs_errors, gcs_identity, ladder
from headwater_worker.connectors.base import FileEntry, Opening
from headwater_worker.connectors.conformance import LOOPBACK, Access, FileConnectorConformance, Store
from headwater_worker.connectors.gcs import GcsConnector
from headwater_worker.egress import Policy, Proxy

from . import gcs_emulator
from .conftest import Answer, Answering, Asked, StartStub, Stub
from .gcs_emulator import READER, STRANGER, UNKNOWN, Gate


class GateStore(Store):
    """A bucket behind the gate."""

    def __init__(self, gate: Gate, name: str) -> None:
        self._gate = gate
        self._name = name

    def access(self, prefix: str = "") -> Access:
        return self._access(prefix=prefix)

    def put(self, path: str, body: bytes) -> None:
        self._gate.put(self._name, path, body)

    def delete(self, path: str) -> None:
        self._gate.delete(self._name, path)

    def wrong_secret(self) -> Access:
        return self._access(gcs_emulator.key_file(READER, signed_with="ours"))

    def no_rights(self) -> Access:
        return self._access(gcs_emulator.key_file(STRANGER))

    def no_target(self) -> Access:
        return self._access(bucket="no-such-bucket")

    def elsewhere(self, host: str, port: int, *, tls: bool) -> Access:
        return self._access(endpoint_url=f"{'https' if tls else 'http'}://{host}:{port}")

    def unknown_account(self) -> Access:
        """An account that was deleted."""
        return self._access(gcs_emulator.key_file(UNKNOWN))

    def _access(self, key_file: str | None = None, **config: Any) -> Access:
        named = {"bucket": self._name, "endpoint_url": self._gate.url}
        return Access(named | config, {"service_account_json": key_file or gcs_emulator.key_file(READER)})


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    with gcs_emulator.serve() as gate:
        yield gate


@pytest.fixture
def store(gate: Gate) -> GateStore:
    name = f"bucket-{secrets.token_hex(4)}"
    gate.create_bucket(name)
    return GateStore(gate, name)


class TestGcsConformance(FileConnectorConformance):
    """What every file connector must do."""

    spec = SPEC
    runtime = GcsConnector

    @pytest.fixture(autouse=True)
    def _tokens(self, gate: Gate) -> None:
        self.token_url = gate.token_url

    def opening(self, config: ConnectorConfig, access: Access, policy: Policy, proxy: Proxy) -> Opening:
        return Opening(config, dict(access.credentials), policy, proxy, gcs_token_url=self.token_url)

    def test_a_deleted_account_is_invalid_credentials(self, store: GateStore) -> None:
        """An account that does not exist is told like a wrong key."""
        result = self.result_of(store.unknown_account())
        assert _failing(result) == ("authenticate", "invalid_credentials")

    def test_a_clock_that_is_off_is_named(self, store: GateStore, gate: Gate) -> None:
        """Google refuses what was signed at another time with the code of a wrong key; its clock tells them apart."""
        gate.clock_offset_seconds = 1000
        try:
            assert _failing(self.result_of(store.access())) == ("authenticate", "clock_skew")
        finally:
            gate.clock_offset_seconds = 0

    def test_a_test_sends_three_requests(self, store: GateStore, gate: Gate) -> None:
        """A token, a listing, a sample; no look-ups behind anybody's back."""
        store.put("a.json", b"{}")
        gate.asked.clear()
        assert self.result_of(store.access())["success"] is True
        assert [asked.split("?")[0].split("/")[-1] for asked in gate.asked] == ["token", "o", "a.json"]


TOKEN = Answer(200, b'{"access_token": "the-token", "expires_in": 3599, "token_type": "Bearer"}')
OBJECT = {"name": "a.json", "size": "7", "md5Hash": "m==", "generation": "1", "updated": "2026-01-02T03:04:05.678Z"}


def _opening(stub: Stub, proxy: Proxy, **options: Any) -> Opening:
    config = {"bucket": "the-bucket", "endpoint_url": stub.url} | options.pop("config", {})
    credentials = options.pop("credentials", {"service_account_json": gcs_emulator.key_file(READER)})
    token_url = f"{stub.url}/token"
    # The spec sends the worker's own tokens to Google alone: at a stub it is seen what would be sent.
    make = GcsConfig.model_construct if options.get("ambient_allowed") else GcsConfig
    return Opening(make(**config), credentials, LOOPBACK, proxy, gcs_token_url=token_url, **options)


def _test(stub: Stub, **options: Any) -> dict[str, Any]:
    with Proxy(LOOPBACK) as proxy, GcsConnector(_opening(stub, proxy, **options)) as connector:
        return ladder.run(connector)


def _list(stub: Stub, **options: Any) -> list[FileEntry]:
    with Proxy(LOOPBACK) as proxy, GcsConnector(_opening(stub, proxy, **options)) as connector:
        return [entry for page in connector.list_files() for entry in page]


def _failing(result: Mapping[str, Any]) -> tuple[str, str] | None:
    return next(((check["name"], check["code"]) for check in result["checks"] if check["status"] == "failed"), None)


def _behind_tokens(storage: Answer | Answering) -> Answering:
    """A stub that gives a token to all, and then answers with `storage`."""

    def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            return TOKEN
        return storage if isinstance(storage, Answer) else storage(asked)

    return answer


def _error(status: int, reason: str, **headers: str) -> Answer:
    words = "the store's own words"
    error = {"code": status, "message": words, "errors": [{"domain": "global", "reason": reason, "message": words}]}
    return Answer(status, json.dumps({"error": error}).encode(), {"Content-Type": "application/json", **headers})


def _listing(*objects: Mapping[str, Any], **more: Any) -> Answer:
    return Answer(200, json.dumps({"items": objects, **more}).encode(), {"Content-Type": "application/json"})


# What the store says, and what becomes of it.


@pytest.mark.parametrize(
    ("answer", "step", "code", "kind"),
    [
        (_error(401, "authError"), "authenticate", "invalid_credentials", Permanent),
        (_error(404, "notFound"), "target", "bucket_not_found", Permanent),
        (_error(403, "forbidden"), "list", "permission_denied", Permanent),
        (_error(403, "accessNotConfigured"), "list", "permission_denied", Permanent),
        (_error(403, "accountDisabled"), "list", "billing_disabled", Permanent),
        (_error(400, "userProjectMissing"), "list", "requester_pays", Permanent),
        (_error(429, "rateLimitExceeded"), "list", "throttled", Transient),
        (_error(403, "userRateLimitExceeded"), "list", "throttled", Transient),
        (_error(503, "backendError"), "list", "source_error", Transient),
        (_error(400, "invalid"), "list", "source_error", Permanent),
        (Answer(403, b"<html>Forbidden</html>"), "list", "permission_denied", Permanent),
        (Answer(403, b'["odd"]'), "list", "permission_denied", Permanent),
        (Answer(200, b"<html><body>Welcome</body></html>"), "list", "source_error", Permanent),
        (Answer(200, b"[]"), "list", "source_error", Permanent),
        (Answer(200, b'{"items": [1]}'), "list", "source_error", Permanent),
        (_listing(OBJECT | {"size": "many"}), "list", "source_error", Permanent),
    ],
    ids=lambda value: value.body[:70].decode() if isinstance(value, Answer) else None,
)
def test_an_answer_of_the_store_has_one_meaning(
    start_stub: StartStub, answer: Answer, step: str, code: str, kind: type[ConnectorError]
) -> None:
    """The step, the code and whether to try again follow from status and reason; its words are not repeated."""
    stub = start_stub(_behind_tokens(answer))
    result = _test(stub)
    assert _failing(result) == (step, code)
    assert "own words" not in json.dumps(result)
    if kind is Permanent:
        with pytest.raises(Permanent) as caught:
            _list(stub)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("status", "body", "code", "kind"),
    [
        (
            400,
            {"error": "invalid_grant", "error_description": "Invalid JWT Signature."},
            "invalid_credentials",
            Permanent,
        ),
        (400, {"error": "invalid_grant", "error_description": "account not found"}, "invalid_credentials", Permanent),
        (400, {"error": "invalid_grant", "error_description": "Check your iat and exp"}, "clock_skew", Permanent),
        (401, {"error": "invalid_client"}, "invalid_credentials", Permanent),
        (401, {"error": "unauthorized_client"}, "invalid_credentials", Permanent),
        (403, {"error": "access_denied"}, "permission_denied", Permanent),
        (429, {"error": "rate_limit_exceeded"}, "throttled", Transient),
        (429, {}, "throttled", Transient),
        (503, {"error": "temporarily_unavailable"}, "source_error", Transient),
        (500, {}, "source_error", Transient),
        (404, {}, "source_error", Permanent),
        (200, {}, "source_error", Permanent),
        (200, {"access_token": "", "expires_in": 3600}, "source_error", Permanent),
        (200, {"access_token": "t", "expires_in": "soon"}, "source_error", Permanent),
        (200, [], "source_error", Permanent),
    ],
)
def test_an_answer_of_the_token_endpoint_has_one_meaning(
    start_stub: StartStub, status: int, body: Any, code: str, kind: type[ConnectorError]
) -> None:
    """Whatever it is, it is about the identity, and the bucket is not asked."""
    stub = start_stub(lambda _: Answer(status, json.dumps(body).encode()))
    assert _failing(_test(stub)) == ("authenticate", code)
    with pytest.raises(ConnectorError) as caught:
        _list(stub)
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert {asked.path for asked in stub.asked} == {"/token"}


def test_googles_clock_tells_a_skew_from_a_wrong_key() -> None:
    """`invalid_grant` with an answer that was written at quite another time."""
    with Proxy(LOOPBACK) as proxy, pytest.raises(Permanent) as caught:
        gcs_errors.token_of(400, {"Date": formatdate(0, usegmt=True)}, b'{"error": "invalid_grant"}', proxy)
    assert caught.value.code == "clock_skew"


def test_throttling_is_tried_again_and_passes_on_when(start_stub: StartStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several attempts in the client, then `Transient` with what Retry-After said."""
    monkeypatch.setattr("headwater_worker.connectors.web._BACKOFF_SECONDS", 0)
    stub = start_stub(_behind_tokens(_error(429, "rateLimitExceeded", **{"Retry-After": "17"})))
    with pytest.raises(Transient) as caught:
        _list(stub)
    assert (caught.value.code, caught.value.retry_after_seconds) == ("throttled", 17.0)
    assert len([asked for asked in stub.asked if asked.method == "GET"]) == 4


def test_a_test_asks_once(start_stub: StartStub) -> None:
    """Somebody waits: a connection test does not try again by itself."""
    stub = start_stub(_behind_tokens(_error(503, "backendError")))
    assert _failing(_test(stub)) == ("list", "source_error")
    assert [asked.method for asked in stub.asked] == ["POST", "GET"]


def test_nobody_is_sent_on(start_stub: StartStub, canary: str) -> None:
    """A redirect is no answer, of the store's and of the token endpoint's."""
    for answer in (
        _behind_tokens(Answer(302, headers={"Location": canary})),
        lambda _: Answer(307, b"", {"Location": canary}),
    ):
        with pytest.raises(Permanent) as caught:
            _list(start_stub(answer))
        assert caught.value.code == "source_error"


def test_a_denied_object_fails_at_read(start_stub: StartStub) -> None:
    """Listing is one right, reading another."""
    stub = start_stub(
        _behind_tokens(lambda asked: _error(403, "forbidden") if "alt=media" in asked.path else _listing(OBJECT))
    )
    assert _failing(_test(stub)) == ("read", "permission_denied")


def test_a_folders_marker_is_not_the_sample(start_stub: StartStub) -> None:
    """The first file is read, not the empty object that stands for its folder."""
    marker, file = OBJECT | {"name": "dir/", "size": "0"}, OBJECT | {"name": "dir/a.json"}
    stub = start_stub(
        _behind_tokens(lambda asked: Answer(200, b"{}") if "alt=media" in asked.path else _listing(marker, file))
    )
    assert _failing(_test(stub)) is None
    assert stub.asked[-1].path.split("?")[0].endswith("/o/dir%2Fa.json")


def test_a_body_that_breaks_off_is_transient(start_stub: StartStub) -> None:
    """Half a file is never taken for a whole one."""
    stub = start_stub(_behind_tokens(Answer(200, b"half", length=1000)))
    with (
        Proxy(LOOPBACK) as proxy,
        GcsConnector(_opening(stub, proxy)) as connector,
        connector.open_file("a.json") as file,
        pytest.raises(Transient) as caught,
    ):
        list(iter(lambda: file.stream.read(100), b""))
    assert caught.value.code == "network"


def test_a_listing_without_a_way_on_is_refused(start_stub: StartStub) -> None:
    """The same page token for ever: asking again would go round for ever."""
    stub = start_stub(_behind_tokens(_listing(OBJECT, nextPageToken="again")))
    with pytest.raises(Permanent) as caught:
        _list(stub)
    assert caught.value.code == "source_error"


def test_only_the_fields_of_a_file_are_asked_for(start_stub: StartStub) -> None:
    """Neither owners nor metadata of every object."""
    stub = start_stub(_behind_tokens(_listing(OBJECT)))
    (entry,) = _list(stub)
    assert (entry.path, entry.size, entry.etag) == ("a.json", 7, "m==")
    assert "fields=items%28name%2Csize%2Cmd5Hash%2Cgeneration%2Cupdated%29%2CnextPageToken" in stub.asked[-1].path


def test_a_composed_object_is_known_by_its_generation(start_stub: StartStub) -> None:
    """It has no MD5; listed and opened agree all the same."""
    composed = {name: value for name, value in OBJECT.items() if name != "md5Hash"}
    opened = Answer(200, b"1234567", {"X-Goog-Generation": "1", "X-Goog-Hash": "crc32c=AAAAAA=="})
    stub = start_stub(_behind_tokens(lambda asked: opened if "alt=media" in asked.path else _listing(composed)))
    assert _list(stub)[0].etag == "1"
    with (
        Proxy(LOOPBACK) as proxy,
        GcsConnector(_opening(stub, proxy)) as connector,
        connector.open_file("a.json") as file,
    ):
        assert (file.entry.etag, file.entry.size) == ("1", 7)


def test_bytes_are_those_that_are_stored(start_stub: StartStub) -> None:
    """An object that is stored compressed is neither unpacked by Google nor here: its size is what was listed."""
    stub = start_stub(_behind_tokens(Answer(200, b"\x1f\x8b-packed", {"Content-Encoding": "gzip"})))
    with (
        Proxy(LOOPBACK) as proxy,
        GcsConnector(_opening(stub, proxy)) as connector,
        connector.open_file("a.gz") as file,
    ):
        assert file.stream.read() == b"\x1f\x8b-packed"
    assert stub.asked[-1].headers["accept-encoding"] == "gzip"


# TLS.


def test_an_unknown_authority_fails_at_tls(start_tls_stub: StartStub) -> None:
    """The ladder says so, and a listing sends no token request."""
    stub = start_tls_stub(_behind_tokens(_listing(OBJECT)))
    assert _failing(_test(stub)) == ("tls", "tls_invalid")
    with pytest.raises(Permanent) as caught:
        _list(stub)
    assert caught.value.code == "tls_invalid"
    assert stub.asked == []


def test_a_trusted_authority_passes_everywhere(
    start_tls_stub: StartStub, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ladder, the token request and the store's client trust the same authorities."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    stub = start_tls_stub(
        _behind_tokens(lambda asked: Answer(200, b"{}") if "alt=media" in asked.path else _listing(OBJECT))
    )
    assert [check["status"] for check in _test(stub)["checks"]] == ["passed"] * len(ladder.STEP_NAMES)


# Nothing of the worker's own.


@pytest.fixture
def ambient(canary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine full of other people's settings, which all lead to where nobody may come. Gives its key file."""
    path = tmp_path / "ambient.json"
    path.write_text(json.dumps(json.loads(gcs_emulator.key_file(STRANGER)) | {"token_uri": f"{canary}/token"}))
    for name, value in {
        "GOOGLE_APPLICATION_CREDENTIALS": str(path),
        "GOOGLE_CLOUD_PROJECT": "ambient-project",
        "GCE_METADATA_HOST": canary.removeprefix("http://"),
        "STORAGE_EMULATOR_HOST": canary,
        "API_ENDPOINT_OVERRIDE": canary,
        "REQUESTS_CA_BUNDLE": "/nowhere",
        "NO_PROXY": "*",
        "no_proxy": "*",
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ambient password ambient\n")
    return path


@pytest.mark.usefixtures("ambient")
def test_only_the_given_key_signs(start_stub: StartStub) -> None:
    """Environment, netrc and their proxies count for nothing."""
    stub = start_stub(
        _behind_tokens(lambda asked: Answer(200, b"{}") if "alt=media" in asked.path else _listing(OBJECT))
    )
    assert _failing(_test(stub)) is None
    assert [asked.method for asked in stub.asked] == ["POST", "GET", "GET"]
    assert [asked.headers.get("authorization") for asked in stub.asked] == [
        None,
        "Bearer the-token",
        "Bearer the-token",
    ]


@pytest.mark.usefixtures("ambient")
def test_a_missing_key_is_never_made_up_for(start_stub: StartStub) -> None:
    """The confused deputy: without a key nothing is sent, whatever the machine has."""
    stub = start_stub(_behind_tokens(_listing()))
    assert _failing(_test(stub, credentials={})) == ("config", "missing_credentials")
    assert stub.asked == []


@pytest.mark.usefixtures("ambient")
def test_the_workers_identity_needs_the_operators_leave(start_stub: StartStub) -> None:
    """`use_workload_identity` alone is refused, and the hint names the setting."""
    stub = start_stub(_behind_tokens(_listing()))
    result = _test(stub, credentials={}, config={"endpoint_url": None, "use_workload_identity": True})
    assert _failing(result) == ("config", "ambient_credentials_not_allowed")
    assert "HEADWATER_ALLOW_AMBIENT_CREDENTIALS" in result["checks"][0]["hint"]
    assert stub.asked == []


@pytest.mark.usefixtures("ambient")
def test_the_workers_identity_is_used_where_it_is_allowed(
    start_stub: StartStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metadata server gives the token, and nobody else is asked, whatever key files the machine has."""
    platform = start_stub(lambda _: Answer(200, b'{"access_token": "own-token", "expires_in": 3599}'))
    monkeypatch.setattr(gcs_identity, "_URL", f"{platform.url}/token")
    stub = start_stub(lambda _: _listing())
    result = _test(stub, credentials={}, config={"use_workload_identity": True}, ambient_allowed=True)
    assert _failing(result) is None
    assert [asked.headers["metadata-flavor"] for asked in platform.asked] == ["Google"]
    assert [asked.headers["authorization"] for asked in stub.asked] == ["Bearer own-token"]


def test_a_worker_without_an_identity_fails_at_authenticate(
    start_stub: StartStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Allowed, and the machine has no service account."""
    platform, stub = start_stub(lambda _: Answer(404)), start_stub(lambda _: _listing())
    monkeypatch.setattr(gcs_identity, "_URL", f"{platform.url}/token")
    result = _test(stub, credentials={}, config={"use_workload_identity": True}, ambient_allowed=True)
    assert _failing(result) == ("authenticate", "missing_credentials")
    assert stub.asked == []


def test_the_token_request_leaves_by_the_proxy(start_stub: StartStub) -> None:
    """Where the operator allows nothing, the token endpoint is refused like any other host."""
    stub = start_stub(_behind_tokens(_listing()))
    with Proxy(Policy()) as proxy, GcsConnector(_opening(stub, proxy)) as connector, pytest.raises(Permanent) as caught:
        list(connector.list_files())
    assert caught.value.code == "blocked_target"
    assert stub.asked == []


def test_a_key_that_cannot_sign_fails_at_config(start_stub: StartStub) -> None:
    """It has the form of a key and is none."""
    stub = start_stub(_behind_tokens(_listing()))
    content = json.loads(gcs_emulator.key_file(READER))
    lines = content["private_key"].splitlines()
    content["private_key"] = "\n".join([*lines[:3], lines[1], *lines[4:]]) + "\n"
    result = _test(stub, credentials={"service_account_json": json.dumps(content)})
    assert _failing(result) == ("config", "invalid_credentials")


def test_without_an_endpoint_requests_go_to_google() -> None:
    """Nothing is sent, only where to is looked at."""
    with (
        Proxy(Policy()) as proxy,
        GcsConnector(_opening(Stub("http://unused"), proxy, config={"endpoint_url": None})) as made,
    ):
        assert made._origin() == ladder.Origin("storage.googleapis.com", 443)


def test_without_an_endpoint_tokens_are_googles() -> None:
    """The operator's token endpoint is for other stores. Nothing is sent, only where to is looked at."""
    with (
        Proxy(Policy()) as proxy,
        GcsConnector(_opening(Stub("http://unused"), proxy, config={"endpoint_url": None})) as made,
    ):
        assert made._credentials._token_url == GOOGLE_TOKEN_URL
