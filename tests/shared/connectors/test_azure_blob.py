"""What an Azure source takes: an account by its name, and one way to sign."""

from typing import Any

import pytest
from pydantic import ValidationError

from headwater.connectors.azure_blob import SPEC, AzureBlobConfig, AzureBlobCredentials

SAS = "sv=2026-01-01&sr=c&sp=rl&se=2026-12-01T00%3A00%3A00Z&sig=abc%2Bdef%3D"


def _config(**changes: Any) -> AzureBlobConfig:
    return AzureBlobConfig.model_validate({"container": "the-container", "account": "account1"} | changes)


@pytest.mark.parametrize(
    ("endpoint_url", "account_url"),
    [
        (None, "https://account1.blob.core.windows.net"),
        ("https://account1.blob.core.chinacloudapi.cn/", "https://account1.blob.core.chinacloudapi.cn"),
        ("https://account1.privatelink.blob.core.windows.net", "https://account1.privatelink.blob.core.windows.net"),
        ("http://127.0.0.1:10000", "http://127.0.0.1:10000/account1"),
        ("http://azurite:10000", "http://azurite:10000/account1"),
    ],
)
def test_an_account_has_a_host_or_a_path(endpoint_url: str | None, account_url: str) -> None:
    """A host whose first part is the account is its own; elsewhere the account is in the path, as at an emulator."""
    assert _config(endpoint_url=endpoint_url).account_url == account_url


@pytest.mark.parametrize(
    "changes",
    [
        {"account": "Account"},
        {"account": "a.evil"},
        {"account": "ab"},
        {"container": "a"},
        {"container": "two--hyphens"},
        {"container": "a/b"},
        {"container": "x" * 64},
        {"endpoint_url": "https://other.blob.core.windows.net"},
        {"endpoint_url": "https://account1.blob.core.windows.net/path"},
        {"connection_string": "BlobEndpoint=https://evil.example"},
    ],
)
def test_a_config_is_closed(changes: dict[str, Any]) -> None:
    """Neither other names nor other fields, and no endpoint of another account."""
    with pytest.raises(ValidationError):
        _config(**changes)


@pytest.mark.parametrize("container", ["abc", "$root", "$web", "a-b-c", "x" * 63])
def test_containers_are_named_as_azure_names_them(container: str) -> None:
    """3 to 63 lower-case letters, digits and single hyphens, and the two special ones."""
    assert _config(container=container).container == container


@pytest.mark.parametrize(
    "credentials",
    [
        {"account_key": "not base64!"},
        {"sas_token": "https://account1.blob.core.windows.net/c?sig=a&sv=b"},
        {"sas_token": "sv=2026-01-01"},
        {"sas_token": "sv=1&sig=a\nb"},
        {"sas_token": "sv=1&sig=a&restype=service"},
        {"sas_token": "sv=1&sig=a&comp"},
        {"sas_token": "sv=1&sig=a&snapshot=2026-01-01"},
        {"account_key": "a2V5", "sas_token": SAS},
    ],
)
def test_credentials_have_the_form_of_what_they_are(credentials: dict[str, str]) -> None:
    """A key in base64 or a token with its signature, not both; no refusal repeats a secret."""
    with pytest.raises(ValidationError) as caught:
        AzureBlobCredentials.model_validate(credentials)
    assert not [secret for secret in credentials.values() if secret in str(caught.value)]


@pytest.mark.parametrize(
    "text",
    [
        "sv=2026-01-01&ss=b&srt=sco&sp=rl&st=2026-01-01T00:00:00Z&se=2026-02-01T00%3A00%3A00Z&spr=https&sip=1.1.1.1&sig=a",
        "skoid=a&sktid=b&skt=c&ske=d&sks=b&skv=2026&saoid=e&suoid=f&scid=g&sdd=2&sr=d&si=policy&ses=h&sv=1&sig=a%2Bb%3D",
        "sv=1&sig=a&rscc=no-cache&rscd=inline&rsce=gzip&rscl=de&rsct=text%2Fcsv&sduoid=x&skdutid=y",
    ],
)
def test_every_field_of_a_signature_is_taken(text: str) -> None:
    """Of an account, of a user's delegation, of a service."""
    assert AzureBlobCredentials.model_validate({"sas_token": text}).secrets() == {"sas_token": text}


@pytest.mark.parametrize("text", [SAS, f"?{SAS}"])
def test_a_token_is_kept_without_its_question_mark(text: str) -> None:
    """The portal shows it with one."""
    assert AzureBlobCredentials.model_validate({"sas_token": text}).secrets() == {"sas_token": SAS}


@pytest.mark.parametrize(
    ("changes", "set_fields", "missing"),
    [
        ({}, set(), ("account_key or sas_token",)),
        ({}, {"account_key"}, ()),
        ({}, {"sas_token"}, ()),
        ({"use_managed_identity": True}, set(), ()),
    ],
)
def test_one_way_to_sign_is_needed(changes: dict[str, Any], set_fields: set[str], missing: tuple[str, ...]) -> None:
    """A key, a token, or the worker's own identity."""
    assert SPEC.missing_credentials(_config(**changes), frozenset(set_fields)) == missing


@pytest.mark.parametrize("changes", [{"account": "account2"}, {"container": "other"}, {"use_managed_identity": True}])
def test_a_key_is_bound_to_where_it_is_sent(changes: dict[str, Any]) -> None:
    """Another account or container is another target; another prefix is not."""
    assert SPEC.target_fingerprint(_config()) != SPEC.target_fingerprint(_config(**changes))
    assert SPEC.target_fingerprint(_config()) == SPEC.target_fingerprint(_config(prefix="a/"))
