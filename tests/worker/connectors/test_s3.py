"""The S3 connector: the suite that all share against moto with checked signatures, then what only S3 has."""

import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.utils import ContainerMetadataFetcher

from headwater.connectors.s3 import SPEC, S3Config
from headwater.errors import ConnectorError, Permanent, Transient
from headwater_cli.demo import bucket
from headwater_worker.connectors import ladder, s3_identity, s3_session
from headwater_worker.connectors.base import FileEntry, Opening
from headwater_worker.connectors.conformance import (
    LOOPBACK,
    Access,
    FileConnectorConformance,
    Store,
)
from headwater_worker.connectors.s3 import S3Connector
from headwater_worker.egress import Policy, Proxy

from .conftest import Answer, Asked, StartStub, Stub

REGION = "eu-central-1"
KEYS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "the-secret-of-the-stub"}

LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><EncodingType>url</EncodingType>
<KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>{truncated}</IsTruncated>{contents}</ListBucketResult>"""
CONTENTS = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
    "<ETag>&quot;abc&quot;</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


class MotoStore(Store):
    """A bucket of the demo's server."""

    def __init__(self, server: bucket.Server, name: str) -> None:
        self._server = server
        self._name = name

    def access(self, prefix: str = "") -> Access:
        return self._access(self._keys("reader"), prefix=prefix)

    def put(self, path: str, body: bytes) -> None:
        self._server.put(self._name, path, body)

    def delete(self, path: str) -> None:
        self._server.delete(self._name, path)

    def wrong_secret(self) -> Access:
        return self._access(self._keys("reader") | {"secret_access_key": "not-the-secret-of-this-key"})

    def no_rights(self) -> Access:
        return self._access(self._keys("stranger"))

    def no_target(self) -> Access:
        return self._access(self._keys("reader"), bucket="no-such-bucket")

    def elsewhere(self, host: str, port: int, *, tls: bool) -> Access:
        url = f"{'https' if tls else 'http'}://{host}:{port}"
        return self._access(self._keys("reader"), endpoint_url=url)

    def unknown_key(self) -> Access:
        """A key id that the server has never seen."""
        return self._access(self._keys("reader") | {"access_key_id": "AKIAXXXXXXXXXXXXXXXX"})

    def _keys(self, name: str) -> dict[str, str]:
        user = self._server.users[name]
        return {"access_key_id": user.access_key_id, "secret_access_key": user.secret_access_key}

    def _access(self, credentials: Mapping[str, str], **config: Any) -> Access:
        named = {"bucket": self._name, "region": self._server.region, "endpoint_url": self._server.endpoint_url}
        return Access(named | config, credentials)


@pytest.fixture
def store() -> Iterator[MotoStore]:
    name = f"bucket-{secrets.token_hex(4)}"
    with bucket.serve(buckets={name: {}}) as server:
        yield MotoStore(server, name)


class TestS3Conformance(FileConnectorConformance):
    """What every file connector must do."""

    spec = SPEC
    runtime = S3Connector

    def test_an_unknown_key_is_invalid_credentials(self, store: MotoStore) -> None:
        """A key that does not exist is told like a wrong secret."""
        result = self.result_of(store.unknown_key())
        assert _failing(result) == ("authenticate", "invalid_credentials")


@pytest.mark.parametrize("key", ["n/../up.csv", "n/./here.csv", "../first", "n/.."])
def test_dots_in_a_key_are_no_fault_of_the_credentials(store: MotoStore, key: str) -> None:
    """Over plain HTTP such a key cannot be asked for; it is refused by itself, and says why."""
    store.put(key, b"x")
    access = store.access()
    opening = Opening(S3Config.model_validate(access.config), access.credentials, LOOPBACK, (proxy := Proxy(LOOPBACK)))
    with proxy, S3Connector(opening) as connector, pytest.raises(Permanent) as refused:
        connector.open_file(key)
    assert refused.value.code == "unreadable_name"


def _opening(url: str | None, proxy: Proxy, credentials: Mapping[str, str] = KEYS, **config: Any) -> Opening:
    named = {"bucket": "the-bucket", "region": REGION, "endpoint_url": url} | config
    ambient_allowed = bool(named.pop("ambient_allowed", False))
    # The spec lets the worker's own role sign for Amazon alone: at a stub it is seen what would be sent.
    config = S3Config.model_construct(**named) if ambient_allowed else S3Config.model_validate(named)
    return Opening(config, credentials, LOOPBACK, proxy, ambient_allowed)


def _test(url: str | None, **options: Any) -> dict[str, Any]:
    with Proxy(LOOPBACK) as proxy, S3Connector(_opening(url, proxy, **options)) as connector:
        return ladder.run(connector)


def _list(url: str, **options: Any) -> list[FileEntry]:
    with Proxy(LOOPBACK) as proxy, S3Connector(_opening(url, proxy, **options)) as connector:
        return [entry for page in connector.list_files() for entry in page]


def _failing(result: Mapping[str, Any]) -> tuple[str, str] | None:
    return next(((check["name"], check["code"]) for check in result["checks"] if check["status"] == "failed"), None)


def _hint(result: Mapping[str, Any]) -> str:
    return str(next(check["hint"] for check in result["checks"] if check["status"] == "failed"))


def _error(code: str, status: int, extra: str = "", **headers: str) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>the store's own words</Message>{extra}</Error>"
    return Answer(status, body.encode(), headers)


def _listing(*keys: str, truncated: bool = False, extra: str = "") -> Answer:
    contents = "".join(CONTENTS.format(key=key) for key in keys) + extra
    text = LISTING.format(count=len(keys), truncated=str(truncated).lower(), contents=contents)
    return Answer(200, text.encode(), {"Content-Type": "application/xml"})


# What the store says, and what becomes of it.


@pytest.mark.parametrize(
    ("answer", "step", "code", "kind"),
    [
        (_error("RequestTimeTooSkewed", 403), "authenticate", "clock_skew", Permanent),
        (_error("ExpiredToken", 400), "authenticate", "expired_credentials", Permanent),
        (_error("InvalidAccessKeyId", 403), "authenticate", "invalid_credentials", Permanent),
        (_error("SignatureDoesNotMatch", 403), "authenticate", "invalid_credentials", Permanent),
        (_error("NoSuchBucket", 404), "target", "bucket_not_found", Permanent),
        (_error("AccessDenied", 403), "list", "permission_denied", Permanent),
        (_error("SlowDown", 503), "list", "throttled", Transient),
        (_error("SomethingElse", 429), "list", "throttled", Transient),
        (_error("InternalError", 500), "list", "source_error", Transient),
        (_error("NotImplemented", 501), "list", "source_error", Permanent),
        (_error("SomethingElse", 400), "list", "source_error", Permanent),
        (Answer(200, b"<html><body>Welcome</body></html>"), "list", "source_error", Permanent),
        (Answer(200, b"Welcome & enjoy"), "list", "source_error", Permanent),
        (Answer(200, b"<ListBucketResult><Contents>"), "list", "source_error", Transient),
        (
            Answer(200, b"<ListBucketResult><Contents><Key>a</Key><Size>x</Size></Contents></ListBucketResult>"),
            "list",
            "source_error",
            Permanent,
        ),
        (Answer(403, b"<html>Forbidden</html>"), "list", "permission_denied", Permanent),
    ],
    ids=lambda value: value.body[:60].decode() if isinstance(value, Answer) else None,
)
def test_an_answer_of_the_store_has_one_meaning(
    start_stub: StartStub, answer: Answer, step: str, code: str, kind: type[ConnectorError]
) -> None:
    """The step, the code and whether to try again follow from the store's code, and its words are not repeated."""
    stub = start_stub(lambda _: answer)
    result = _test(stub.url)
    assert _failing(result) == (step, code)
    assert "own words" not in json.dumps(result)
    if kind is Permanent:
        with pytest.raises(Permanent) as caught:
            _list(stub.url)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "answer",
    [
        _error("PermanentRedirect", 301, **{"x-amz-bucket-region": "eu-west-3"}),
        _error("AuthorizationHeaderMalformed", 400, "<Region>eu-west-3</Region>"),
        _error("IllegalLocationConstraintException", 400, **{"x-amz-bucket-region": "eu-west-3"}),
        Answer(301, b"", {"x-amz-bucket-region": "eu-west-3"}),
    ],
    ids=["redirect", "signature", "opt-in", "empty"],
)
def test_the_wrong_region_is_named_with_the_right_one(start_stub: StartStub, answer: Answer) -> None:
    """`wrong_region` at `target`, the hint says which; nobody is sent on to where nobody pointed."""
    stub = start_stub(lambda _: answer)
    result = _test(stub.url)
    assert _failing(result) == ("target", "wrong_region")
    assert "eu-west-3" in _hint(result)
    assert len(stub.asked) == 1


def test_a_region_that_is_none_is_not_repeated(start_stub: StartStub) -> None:
    """What a store puts into its header reaches nobody's screen unless it is the name of a region."""
    stub = start_stub(lambda _: _error("PermanentRedirect", 301, **{"x-amz-bucket-region": "<b>Call 555"}))
    result = _test(stub.url)
    assert _failing(result) == ("target", "wrong_region")
    assert "555" not in json.dumps(result)


def test_a_malformed_authorization_without_a_region_is_the_key(start_stub: StartStub) -> None:
    """A key id with odd characters makes the header malformed."""
    stub = start_stub(lambda _: _error("AuthorizationHeaderMalformed", 400))
    assert _failing(_test(stub.url)) == ("authenticate", "invalid_credentials")


def test_throttling_is_tried_again_and_passes_on_when(start_stub: StartStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several attempts in the client, then `Transient` with what Retry-After said."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    stub = start_stub(lambda _: _error("SlowDown", 503, **{"Retry-After": "17"}))
    with pytest.raises(Transient) as caught:
        _list(stub.url)
    assert (caught.value.code, caught.value.retry_after_seconds) == ("throttled", 17.0)
    assert len(stub.asked) > 1


def test_a_test_asks_once(start_stub: StartStub) -> None:
    """Somebody waits: a connection test does not try again by itself."""
    stub = start_stub(lambda _: _error("SlowDown", 503))
    assert _failing(_test(stub.url)) == ("list", "throttled")
    assert len(stub.asked) == 1


def test_a_denied_object_fails_at_read(start_stub: StartStub) -> None:
    """Listing is one right, reading another."""

    def answer(asked: Asked) -> Answer:
        return _listing("a.json") if "list-type" in asked.path else _error("AccessDenied", 403)

    assert _failing(_test(start_stub(answer).url)) == ("read", "permission_denied")


def test_an_archived_object_is_a_warning(start_stub: StartStub) -> None:
    """The connection works; one file in an archive says nothing about the others."""

    def answer(asked: Asked) -> Answer:
        return _listing("a.json") if "list-type" in asked.path else _error("InvalidObjectState", 403)

    result = _test(start_stub(answer).url)
    assert result["success"] is True
    assert [check["code"] for check in result["checks"] if check["status"] == "warning"] == ["file_archived"]


def test_a_folders_marker_is_not_the_sample(start_stub: StartStub) -> None:
    """The first file is read, not the empty object that stands for its folder."""

    def answer(asked: Asked) -> Answer:
        return _listing("dir/", "dir/a.json") if "list-type" in asked.path else Answer(200, b"{}")

    stub = start_stub(answer)
    assert _failing(_test(stub.url)) is None
    assert stub.asked[-1].path == "/the-bucket/dir/a.json"


def test_a_bare_404_for_a_file_is_about_the_file(start_stub: StartStub) -> None:
    """Stores that answer without S3's words are understood by the status and by what was asked."""
    stub = start_stub(lambda _: Answer(404))
    with (
        Proxy(LOOPBACK) as proxy,
        S3Connector(_opening(stub.url, proxy)) as connector,
        pytest.raises(Permanent) as caught,
    ):
        connector.open_file("a.json")
    assert caught.value.code == "file_not_found"
    assert _failing(_test(stub.url)) == ("target", "bucket_not_found")


def test_a_body_that_breaks_off_is_transient(start_stub: StartStub) -> None:
    """Half a file is never taken for a whole one."""
    stub = start_stub(lambda _: Answer(200, b"half", length=1000))
    with (
        Proxy(LOOPBACK) as proxy,
        S3Connector(_opening(stub.url, proxy)) as connector,
        connector.open_file("a.json") as file,
        pytest.raises(Transient) as caught,
    ):
        list(iter(lambda: file.stream.read(100), b""))
    assert caught.value.code == "network"


# Listings that are not as plain as Amazon's.


def test_a_listing_without_a_way_on_is_refused(start_stub: StartStub) -> None:
    """Truncated and no token: asking again would go round for ever."""
    stub = start_stub(lambda _: _listing("a.json", truncated=True))
    with pytest.raises(Permanent) as caught:
        _list(stub.url)
    assert caught.value.code == "source_error"


def test_a_listing_that_is_cut_off_loses_no_file_in_silence(start_stub: StartStub) -> None:
    """A page without its end is an error, however complete it looks."""
    whole = _listing("a.json").body
    stub = start_stub(lambda _: Answer(200, whole.removesuffix(b"</ListBucketResult>")))
    assert _failing(_test(stub.url)) == ("list", "source_error")


@pytest.mark.parametrize(
    ("wire", "key"),
    [("a+b%2Fc.json", "a b/c.json"), ("100%25.json", "100%.json"), ("%FF.json", "\udcff.json"), ("a&amp;b", "a&b")],
)
def test_keys_are_decoded_as_they_were_encoded(start_stub: StartStub, wire: str, key: str) -> None:
    """`encoding-type=url`; what is no UTF-8 is kept apart, so that the caller can pass it over by name."""
    stub = start_stub(lambda _: _listing(wire))
    assert [entry.path for entry in _list(stub.url)] == [key]
    assert "encoding-type=url" in stub.asked[0].path


@pytest.mark.parametrize(
    "odd",
    [
        CONTENTS.format(key="<![CDATA[odd.json]]>"),
        CONTENTS.format(key="odd.json").replace("<ETag>&quot;abc&quot;</ETag>", ""),
        "<Contents><Key>odd.json</Key></Contents>",
        CONTENTS.format(key="odd.json").replace("Contents>", "Contents >"),
        '<s:Contents xmlns:s="http://s3.amazonaws.com/doc/2006-03-01/"><s:Key>odd.json</s:Key></s:Contents>',
    ],
    ids=["cdata", "no etag", "key alone", "blank in the tag", "prefix"],
)
def test_a_page_that_is_not_plain_is_read_all_the_same(start_stub: StartStub, odd: str) -> None:
    """The fast way steps aside for what it does not know, and no file is lost."""
    stub = start_stub(lambda _: _listing("a.json", extra=odd))
    assert [entry.path for entry in _list(stub.url)] == ["a.json", "odd.json"]


def test_the_fast_way_reads_what_botocore_reads(start_stub: StartStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways give the same files."""
    stub = start_stub(lambda _: _listing("a+b.json", "c%25.json", "%C3%BC"))
    fast = _list(stub.url)
    monkeypatch.setattr(s3_session, "_read_page", lambda **_: None)
    slow = _list(stub.url)
    assert fast == slow
    assert fast[0] == FileEntry("a b.json", 7, "abc", s3_session.moment("2026-01-02T03:04:05.000Z"))


# TLS.


def test_a_self_signed_certificate_fails_at_tls(start_tls_stub: StartStub) -> None:
    """Named as such, and no request is sent."""
    stub = start_tls_stub(lambda _: _listing())
    assert _failing(_test(stub.url)) == ("tls", "tls_invalid")
    assert stub.asked == []


def test_a_self_signed_certificate_ends_a_listing_for_good(start_tls_stub: StartStub) -> None:
    """The SDK verifies too, behind the proxy's tunnel."""
    stub = start_tls_stub(lambda _: _listing())
    with pytest.raises(Permanent) as caught:
        _list(stub.url)
    assert caught.value.code == "tls_invalid"
    assert stub.asked == []


def test_an_authority_of_the_machine_is_trusted(
    start_tls_stub: StartStub, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ladder and the SDK trust the same authorities."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    stub = start_tls_stub(lambda asked: _listing("a.json") if "list-type" in asked.path else Answer(200, b"{}"))
    result = _test(stub.url)
    assert [check["status"] for check in result["checks"]] == ["passed"] * len(ladder.STEP_NAMES)


def test_a_blocked_target_behind_tls_is_told_from_a_stores_refusal() -> None:
    """The proxy's answer to CONNECT is no answer of a store."""
    with (
        Proxy(Policy()) as proxy,
        S3Connector(_opening("https://127.0.0.1:9", proxy)) as connector,
        pytest.raises(Permanent) as caught,
    ):
        list(connector.list_files())
    assert caught.value.code == "blocked_target"


# Nothing of the worker's own.


@pytest.fixture
def ambient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A machine full of other people's settings. Gives a port that they all lead to, where nobody may come."""
    with socket.create_server(("127.0.0.1", 0)) as canary:
        port = canary.getsockname()[1]
        (tmp_path / ".aws").mkdir()
        keys = "aws_access_key_id = AKIAAMBIENTFILE00000\naws_secret_access_key = ambient-secret-file\n"
        (tmp_path / ".aws" / "credentials").write_text(f"[default]\n{keys}[other]\n{keys}")
        (tmp_path / ".aws" / "config").write_text(
            f"[default]\nregion = us-west-1\nendpoint_url = http://127.0.0.1:{port}\n"
            "ca_bundle = /nowhere\nuse_fips_endpoint = true\n"
        )
        leading = f"http://127.0.0.1:{port}"
        for name, value in {
            "HOME": str(tmp_path),
            "AWS_ACCESS_KEY_ID": "AKIAAMBIENTENV000000",
            "AWS_SECRET_ACCESS_KEY": "ambient-secret-env",
            "AWS_SESSION_TOKEN": "ambient-token",
            "AWS_ENDPOINT_URL": leading,
            "AWS_ENDPOINT_URL_S3": leading,
            "AWS_ENDPOINT_URL_STS": leading,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": leading,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": leading,
            "AWS_CA_BUNDLE": "/nowhere",
            "REQUESTS_CA_BUNDLE": "/nowhere",
            "AWS_USE_FIPS_ENDPOINT": "true",
            "AWS_DEFAULT_REGION": "us-west-1",
            "AWS_SDK_UA_APP_ID": "AMBIENT-APP",
            "HTTP_PROXY": leading,
            "HTTPS_PROXY": leading,
            "http_proxy": leading,
            "https_proxy": leading,
            "NO_PROXY": "*",
            "no_proxy": "*",
        }.items():
            monkeypatch.setenv(name, value)
        canary.setblocking(False)
        yield port
        with pytest.raises(BlockingIOError):
            canary.accept()


@pytest.mark.usefixtures("ambient")
def test_only_the_given_key_signs(start_stub: StartStub) -> None:
    """Environment, profiles and their proxies count for nothing."""
    stub = start_stub(lambda asked: _listing("a.json") if "list-type" in asked.path else Answer(200, b"{}"))
    assert _failing(_test(stub.url)) is None
    assert len(stub.asked) == 2
    for asked in stub.asked:
        assert f"Credential={KEYS['access_key_id']}/" in asked.headers["authorization"]
        assert f"/{REGION}/s3/" in asked.headers["authorization"]
        assert "x-amz-security-token" not in asked.headers
        assert "AMBIENT" not in str(asked)


def test_a_broken_profile_of_the_worker_matters_to_nobody(
    start_stub: StartStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of its home are not even opened."""
    (tmp_path / ".aws").mkdir()
    for name in ("config", "credentials"):
        (tmp_path / ".aws" / name).write_text("[this is no profile\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    stub = start_stub(lambda _: _listing())
    assert _failing(_test(stub.url)) is None


@pytest.mark.usefixtures("ambient")
@pytest.mark.parametrize("given", [{}, {"access_key_id": "AKIA"}, {"secret_access_key": "secret"}])
def test_missing_keys_are_never_made_up_for(start_stub: StartStub, given: dict[str, str]) -> None:
    """The confused deputy: without keys nothing is sent, whatever the machine has."""
    stub = start_stub(lambda _: _listing())
    result = _test(stub.url, credentials=given)
    assert _failing(result) == ("config", "missing_credentials")
    with pytest.raises(Permanent) as caught:
        _list(stub.url, credentials=given)
    assert caught.value.code == "missing_credentials"
    assert stub.asked == []


@pytest.mark.usefixtures("ambient")
def test_the_workers_role_needs_the_operators_leave(start_stub: StartStub) -> None:
    """`use_iam_role` alone is refused, and the hint names the setting."""
    stub = start_stub(lambda _: _listing())
    result = _test(None, credentials={}, use_iam_role=True)
    assert _failing(result) == ("config", "ambient_credentials_not_allowed")
    assert "HEADWATER_ALLOW_AMBIENT_CREDENTIALS" in _hint(result)
    assert stub.asked == []


ROLE = "arn:aws:iam::123456789012:role/reader"
OWN = b'{"AccessKeyId": "ASIAOWN", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}'


@pytest.mark.usefixtures("ambient")
def test_the_workers_role_signs_where_it_is_allowed(start_stub: StartStub, identity: dict[str, str]) -> None:
    """With the operator's leave the container's role signs; other keys of the machine still count for nothing."""
    platform, stub = start_stub(lambda _: Answer(200, OWN)), start_stub(lambda _: _listing())
    identity["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = platform.url
    assert _failing(_test(stub.url, credentials={}, use_iam_role=True, ambient_allowed=True)) is None
    assert "Credential=ASIAOWN/" in stub.asked[0].headers["authorization"]


@pytest.mark.parametrize(
    "answer",
    [Answer(200, b"[]"), Answer(200, b"{}"), Answer(200, b"no JSON")],
    ids=["list", "empty", "text"],
)
def test_a_platform_that_gives_no_role_fails_at_authenticate(
    start_stub: StartStub, identity: dict[str, str], answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Allowed, and what is told of a role leads to none."""
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    platform, stub = start_stub(lambda _: answer), start_stub(lambda _: _listing())
    identity["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = platform.url
    result = _test(stub.url, credentials={}, use_iam_role=True, ambient_allowed=True)
    assert _failing(result) == ("authenticate", "missing_credentials")
    assert stub.asked == []


def test_a_cluster_that_the_role_does_not_trust_is_said_so(
    start_stub: StartStub, identity: dict[str, str], tmp_path: Path
) -> None:
    """STS refuses the token of the service account; a token that cannot be read is no identity."""
    body = b"<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code></Error></ErrorResponse>"
    stub = _role_stub(start_stub, Answer(400, body, {"Content-Type": "text/xml"}))
    identity |= {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token")}
    unread = _test(stub.url, credentials={}, use_iam_role=True, ambient_allowed=True)
    assert _failing(unread) == ("authenticate", "missing_credentials")
    assert stub.asked == []
    (tmp_path / "token").write_text("the-clusters-token")
    result = _test(stub.url, credentials={}, use_iam_role=True, ambient_allowed=True)
    assert _failing(result) == ("authenticate", "invalid_credentials")
    assert "trust" in _hint(result)


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, ("169.254.169.254", 80)),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1"}, ("169.254.170.2", 80)),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://[fd00:ec2::23]/v1/credentials"}, ("fd00:ec2::23", 80)),
        ({"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}, None),
    ],
    ids=["instance", "task", "pod", "service account"],
)
def test_where_the_role_is_asked_for(variables: dict[str, str], asked: tuple[str, int] | None) -> None:
    """Nothing is sent, only where to is looked at."""
    assert s3_identity.endpoint(variables) == asked


# Roles.

ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIAASSUMED000000000</AccessKeyId><SecretAccessKey>assumed-secret</SecretAccessKey>
<SessionToken>assumed-token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/reader/headwater</Arn>
<AssumedRoleId>X:headwater</AssumedRoleId></AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"""


def _role_stub(start_stub: StartStub, sts: Answer) -> Stub:
    return start_stub(lambda asked: sts if asked.method == "POST" else _listing())


@pytest.mark.usefixtures("ambient")
def test_a_role_is_assumed_with_the_given_key(start_stub: StartStub) -> None:
    """The key asks for the role with the external id, the role's own key asks for the files."""
    stub = _role_stub(start_stub, Answer(200, ASSUMED.encode(), {"Content-Type": "text/xml"}))
    assert _failing(_test(stub.url, role_arn=ROLE, external_id="ours-42")) is None
    assume, listing = stub.asked
    assert f"Credential={KEYS['access_key_id']}/" in assume.headers["authorization"]
    assert b"ExternalId=ours-42" in assume.body
    assert "Credential=ASIAASSUMED000000000/" in listing.headers["authorization"]
    assert listing.headers["x-amz-security-token"] == "assumed-token"


def test_a_role_that_may_not_be_assumed_fails_at_authenticate(start_stub: StartStub) -> None:
    """Whatever STS answers is about the identity, not about the bucket."""
    body = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code></Error></ErrorResponse>"
    stub = _role_stub(start_stub, Answer(403, body.encode(), {"Content-Type": "text/xml"}))
    assert _failing(_test(stub.url, role_arn=ROLE)) == ("authenticate", "permission_denied")
    assert [asked.method for asked in stub.asked] == ["POST"]


def test_a_listing_with_a_role_that_fails_is_an_error_of_ours(start_stub: StartStub) -> None:
    """STS's errors go through the same table when a listing is what needs the role."""
    body = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code></Error></ErrorResponse>"
    stub = _role_stub(start_stub, Answer(403, body.encode(), {"Content-Type": "text/xml"}))
    with pytest.raises(Permanent) as caught:
        _list(stub.url, role_arn=ROLE)
    assert caught.value.code == "invalid_credentials"


# Amazon itself: nothing is sent, only where to is looked at.


@pytest.mark.parametrize(
    ("endpoint_url", "asked"),
    [
        (None, None),
        ("https://s3.eu-central-1.amazonaws.com", None),
        ("https://bucket.vpce-1a-2b.s3.eu-central-1.vpce.amazonaws.com", None),
        ("https://minio.example.com", "https://minio.example.com"),
    ],
)
def test_roles_are_asked_for_where_the_store_has_them(endpoint_url: str | None, asked: str | None) -> None:
    """Another store's are at its own origin, Amazon's at none that a source names."""
    with Proxy(Policy()) as proxy, S3Connector(_opening(endpoint_url, proxy)) as connector:
        assert connector._sts_settings().endpoint_url == asked


@pytest.mark.usefixtures("ambient")
@pytest.mark.parametrize(
    ("name", "region", "host"),
    [
        ("my-bucket", "eu-central-1", "my-bucket.s3.eu-central-1.amazonaws.com"),
        ("my-bucket", "us-east-1", "my-bucket.s3.us-east-1.amazonaws.com"),
        ("my.bucket", "eu-central-1", "s3.eu-central-1.amazonaws.com"),
        ("my-bucket", "cn-north-1", "my-bucket.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_amazons_hosts_are_those_of_the_region(name: str, region: str, host: str) -> None:
    """The ladder looks at the host that the requests will go to."""
    with Proxy(Policy()) as proxy:
        opening = _opening("", proxy, bucket=name, region=region, endpoint_url=None)
        with S3Connector(opening) as connector:
            origin = connector._origin()
        assert (origin.host, origin.port) == (host, 443)
