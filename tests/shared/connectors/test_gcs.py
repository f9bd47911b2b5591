"""What a GCS source takes: only keys of service accounts, and of those only what matters."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr, ValidationError

from headwater.connectors.gcs import SPEC, GcsConfig, GcsCredentials


@pytest.fixture(scope="module")
def private_key() -> str:
    """A key in PEM."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


@pytest.fixture
def key_file(private_key: str) -> dict[str, Any]:
    """A key file as Google hands it out."""
    return {
        "type": "service_account",
        "project_id": "project-1",
        "private_key_id": "0123abcd",
        "private_key": private_key,
        "client_email": "reader@project-1.iam.gserviceaccount.com",
        "client_id": "123",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/reader",
        "universe_domain": "googleapis.com",
    }


def _sealed(text: str) -> dict[str, Any]:
    credentials = GcsCredentials(service_account_json=SecretStr(text))
    content: dict[str, Any] = json.loads(credentials.secrets()["service_account_json"] or "")
    return content


def _refusal(content: Any) -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(ValidationError) as caught:
        _sealed(text)
    return str(caught.value)


def test_a_key_file_is_rebuilt_from_what_matters(key_file: dict[str, Any]) -> None:
    """What is sealed names no address, whatever the file named."""
    sealed = _sealed(json.dumps(key_file))
    kept = {"type", "project_id", "private_key_id", "private_key", "client_email"}
    assert sealed == {name: value for name, value in key_file.items() if name in kept}


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/token",
        "http://oauth2.googleapis.com/token",
        "https://oauth2.googleapis.com.evil.example/token",
        "http://169.254.169.254/",
        "",
        7,
        ["https://oauth2.googleapis.com/token"],
        {},
    ],
)
def test_another_token_endpoint_is_refused(key_file: dict[str, Any], url: Any) -> None:
    """A key file is not where the worker learns whom to talk to, and the refusal does not repeat it."""
    refusal = _refusal(key_file | {"token_uri": url})
    assert "HEADWATER_GCS_TOKEN_URL" in refusal
    assert not url or str(url) not in refusal


def test_the_operators_token_endpoint_is_accepted(key_file: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is set, a key file may name it."""
    monkeypatch.setenv("HEADWATER_GCS_TOKEN_URL", "http://127.0.0.1:1/token")
    assert "token_uri" not in _sealed(json.dumps(key_file | {"token_uri": "http://127.0.0.1:1/token"}))


def test_a_key_file_without_a_token_endpoint_is_accepted(key_file: dict[str, Any]) -> None:
    """It would be passed over anyway."""
    del key_file["token_uri"]
    assert _sealed(json.dumps(key_file))["client_email"] == key_file["client_email"]


@pytest.mark.parametrize(
    "change",
    [
        {"type": "external_account"},
        {"type": "authorized_user"},
        {"type": None},
        {"universe_domain": "evil.example"},
        {"client_email": "nobody"},
        {"client_email": 'a@b"\n'},
        {"client_email": None},
        {"private_key": None},
        {"private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
        {"private_key": "/etc/passwd"},
        {"private_key_id": ["a"]},
        {"project_id": "../.."},
    ],
)
def test_what_is_no_key_of_a_service_account_is_refused(key_file: dict[str, Any], change: dict[str, Any]) -> None:
    """One wrong field is enough, and no refusal repeats the key."""
    assert key_file["private_key"][40:80] not in _refusal(key_file | change)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "[" * 10_000])
def test_what_is_no_key_file_is_refused(text: str) -> None:
    """Text that is not JSON, and JSON that is no object."""
    assert _refusal(text)


def test_a_key_that_is_cut_is_refused(key_file: dict[str, Any]) -> None:
    """A PEM without its end."""
    assert _refusal(key_file | {"private_key": key_file["private_key"][:-30]})


def test_credentials_are_missing_unless_the_workers_own_are_meant() -> None:
    """Exactly one way to sign."""
    own = GcsConfig(bucket="the-bucket", use_workload_identity=True)
    assert SPEC.missing_credentials(GcsConfig(bucket="the-bucket"), frozenset()) == ("service_account_json",)
    assert SPEC.missing_credentials(own, frozenset()) == ()


@pytest.mark.parametrize("change", [{"bucket": "other-bucket"}, {"endpoint_url": "https://a.example"}])
def test_a_key_is_bound_to_where_it_is_sent(change: dict[str, Any]) -> None:
    """Another bucket or endpoint is another target; another prefix is not."""
    before = GcsConfig(bucket="the-bucket")
    assert SPEC.target_fingerprint(before) != SPEC.target_fingerprint(before.model_copy(update=change))
    assert SPEC.target_fingerprint(before) == SPEC.target_fingerprint(before.model_copy(update={"prefix": "a/"}))


@pytest.mark.parametrize(
    "config",
    [
        {"bucket": "UPPER"},
        {"bucket": "a"},
        {"bucket": "a/b"},
        {"bucket": "the-bucket", "endpoint_url": "https://user@a.example"},
        {"bucket": "the-bucket", "endpoint_url": "file:///etc/passwd"},
        {"bucket": "the-bucket", "token_uri": "https://evil.example"},
    ],
)
def test_a_config_is_closed(config: dict[str, Any]) -> None:
    """Neither other names of buckets nor other fields."""
    with pytest.raises(ValidationError):
        GcsConfig.model_validate(config)
