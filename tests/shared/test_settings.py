"""What settings refuse at the start, before anybody signs in by a mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from headwater import ids
from headwater.settings import ApiSettings, OidcSettings, is_https_or_loopback

ISSUER = {"HEADWATER_OIDC_ISSUER": "https://id.example/realms/acme", "HEADWATER_OIDC_AUDIENCE": "headwater"}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds the group from these variables."""

    def build(**variables: str) -> OidcSettings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return OidcSettings()

    return build


def test_without_an_issuer_it_is_off(settings: Any) -> None:
    """An empty variable is as none, as a .env file may have it."""
    assert settings().oidc_issuer is None
    assert settings(HEADWATER_OIDC_ISSUER="", HEADWATER_OIDC_AUDIENCE="").oidc_issuer is None


def test_maps_come_as_json(settings: Any) -> None:
    """From the provider's words to ids and roles."""
    organization_id = ids.new()
    found = settings(
        **ISSUER,
        HEADWATER_OIDC_ORGANIZATIONS=json.dumps({"acme": ids.encode("org", organization_id)}),
        HEADWATER_OIDC_ROLE_CLAIM="groups",
        HEADWATER_OIDC_ROLES='{"owners": "admin"}',
        HEADWATER_OIDC_ALGORITHMS="ES256, PS512",
    )
    assert found.oidc_organizations == {"acme": organization_id}
    assert found.oidc_roles == {"owners": "admin"}
    assert found.algorithms == {"ES256", "PS512"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ISSUER", "http://id.example", "must be an https:// URL"),
        ("ISSUER", "http://127.0.0.1.example", "must be an https:// URL"),
        ("ISSUER", "id.example", "must be an https:// URL"),
        ("ISSUER", "https://", "must be an https:// URL"),
        ("ISSUER", "https://[", "must be an https:// URL"),
        ("ISSUER", "https://user@id.example", "must be an https:// URL"),
        ("ISSUER", "https://id.example?a=b", "must be an https:// URL"),
        ("ISSUER", "https://id.example#a", "must be an https:// URL"),
        ("AUDIENCE", "", "HEADWATER_OIDC_AUDIENCE"),
        ("ALGORITHMS", "RS256,HS256", "HS256"),
        ("ALGORITHMS", "none", "none"),
        ("ALGORITHMS", "rs256", "rs256"),
        ("ALGORITHMS", "RS256,", "each must be one of"),
        ("ALGORITHMS", "ES256K", "ES256K"),
        ("ORGANIZATIONS", "acme", "must be a JSON object"),
        ("ORGANIZATIONS", '["acme"]', "must be a JSON object"),
        ("ORGANIZATIONS", '{"acme": "org_1"}', "must be the id of an organization"),
        ("ORGANIZATIONS", '{"acme": 1}', "UUID"),
        ("ROLES", '{"owners": "admin"}', "HEADWATER_OIDC_ROLE_CLAIM"),
        ("ROLES", '{"owners": "owner"}', "'admin', 'operator' or 'viewer'"),
    ],
)
def test_a_mistake_stops_the_start(settings: Any, name: str, value: str, expected: str) -> None:
    """With a sentence that says what is wrong."""
    with pytest.raises(ValidationError) as caught:
        settings(**ISSUER | {f"HEADWATER_OIDC_{name}": value})
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://id.example", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:8080/realms/a", True),
        ("http://localhost", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example", False),
        ("ftp://127.0.0.1", False),
        ("https://id.example:99999", False),
        ("https://id.example:x", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
def test_only_tls_or_this_machine_is_trusted(url: str, expected: bool) -> None:
    """What comes from elsewhere in the clear may be anybody's."""
    assert is_https_or_loopback(url) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.1.0.0/16 , fd00::/8,192.0.2.1,", "10.1.0.0/16,fd00::/8,192.0.2.1/32"),
        ("10.1.0.0", "10.1.0.0/32"),
        ("", ""),
        (" ", ""),
    ],
)
def test_trusted_proxies_are_networks(value: str, expected: str) -> None:
    """An address is a network of one."""
    assert ApiSettings(pepper_file=Path("pepper"), trusted_proxies=value).trusted_proxies == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.1.0.1/16", "10.1.0.1/16: each must be"),
        ("proxy.internal", "proxy.internal: each must be"),
        ("*", "*: each must be"),
        ("10.1.0.0/16;10.2.0.0/16", "each must be"),
        ("10.1.0.0/33", "each must be"),
        ("10.1.0.0/16,0.0.0.0/0", "0.0.0.0/0: that is everybody"),
        ("::/0", "::/0: that is everybody"),
    ],
)
def test_a_mistake_in_the_trusted_proxies_stops_the_start(value: str, expected: str) -> None:
    """A proxy that is passed over, or a network too many, would show only in wrong addresses."""
    with pytest.raises(ValidationError) as caught:
        ApiSettings(pepper_file=Path("pepper"), trusted_proxies=value)
    assert expected in str(caught.value)
