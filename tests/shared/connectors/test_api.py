"""What an API source takes: an endpoint, one way to authenticate, and nothing secret in the open."""

from typing import Any

import pytest
from pydantic import ValidationError

from headwater.connectors.api import CREDENTIALS_OF, SPEC, ApiConfig, ApiCredentials


def _config(**changes: Any) -> ApiConfig:
    return ApiConfig.model_validate({"endpoint": "https://api.example.com/v1/items"} | changes)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://api.example.com",
        "http://10.0.0.1:8080/v1/items/",
        "https://api.example.com/v1/items?state=a%20b&page_size=3",
        "https://api.example.com/v1/$metadata?$filter=x",
    ],
)
def test_an_endpoint_is_a_url(endpoint: str) -> None:
    """With its path and query as they are."""
    assert _config(endpoint=endpoint).endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "api.example.com/v1",
        "ftp://api.example.com/v1",
        "https://ada:pw@api.example.com/v1",
        "https://api.example.com/v1#top",
        "https://api.example.com/a b",
        "https://api.example.com/\nv1",
        "https:///v1",
        "https://api.example.com:0/v1",
        "https://api.example.com/v1?api_key=x",
        "https://api.example.com/v1?access_token=x",
        "https://api.example.com/" + "x" * 2048,
    ],
)
def test_an_endpoint_names_no_user_no_key_and_no_other_scheme(endpoint: str) -> None:
    """Refused when it is saved."""
    with pytest.raises(ValidationError):
        _config(endpoint=endpoint)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "authorization", "X-Authorization", "Cookie", "Set-Cookie", "Host", "Proxy-Authorization",
        "Proxy-Anything", "Connection", "Transfer-Encoding", "Content-Length", "TE", "Upgrade", "X-Forwarded-Host",
        "Forwarded", "X-Api-Key", "apikey", "X-Key", "Ocp-Apim-Subscription-Key", "Private-Token", "X-Auth-Token",
        "Client-Secret", "X-Password", "X-Session-Id", "X-Amz-Signature", "X Y", "X:Y", "X\r\nY", "", "x" * 101,
    ],
)  # fmt: skip
def test_headers_carry_no_credentials(name: str) -> None:
    """Nor what is the connection's own, nor what is no header."""
    with pytest.raises(ValidationError):
        _config(headers={name: "x"})


@pytest.mark.parametrize("value", ["", " x", "a\r\nB: c", "ü", "x" * 1025])
def test_a_headers_value_is_visible_text(value: str) -> None:
    """No line ends, and a bound."""
    with pytest.raises(ValidationError):
        _config(headers={"X-Tenant": value})


@pytest.mark.parametrize("name", ["Accept", "X-Tenant", "X-Monkey", "Keyboard-Layout", "User-Agent", "X-Api-Version"])
def test_other_headers_are_the_users(name: str) -> None:
    """A name that only sounds a little alike is fine."""
    assert _config(headers={name: "a b"}).headers == {name: "a b"}


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"X-A": "1", "x-a": "2"}},
        {"headers": {f"X-{number}": "1" for number in range(21)}},
        {"auth_type": "bearer", "header_name": "X-Token"},
        {"auth_type": "api_key", "header_name": "Cookie"},
        {"auth_type": "api_key", "header_name": "Host"},
        {"auth_type": "api_key", "header_name": "X-Shop", "headers": {"x-shop": "1"}},
        {"auth_type": "oauth"},
        {"incremental": {"parameter": "since", "cursor_path": "at"}},
        {"record_key": "id", "incremental": {"parameter": "a&b", "cursor_path": "at"}},
        {"record_key": "id", "incremental": {"parameter": "since", "cursor_path": "at", "format": "dd.mm.yyyy"}},
        {"record_key": "a..b"},
        {"record_key": ""},
        {"records_path": ".".join("x" * 11)},
        {"pagination": {"type": "unknown"}},
        {"pagination": {"type": "page", "cursor_path": "x"}},
        {"pagination": {"type": "page", "size": 10}},
        {"pagination": {"type": "offset", "limit": 0}},
        {"pagination": {"type": "none", "parameter": "page"}},
        {"method": "POST"},
    ],
)
def test_a_config_is_closed_and_makes_sense(changes: dict[str, Any]) -> None:
    """Fields that do not go together are refused when they are saved, not when they fail."""
    with pytest.raises(ValidationError):
        _config(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": "https://other.example.com/v1/items"},
        {"endpoint": "https://api.example.com/v2/items"},
        {"auth_type": "bearer"},
        {"header_name": "X-Other"},
    ],
)
def test_the_target_is_where_and_how_a_secret_is_sent(changes: dict[str, Any]) -> None:
    """Changing it drops the secrets."""
    before = _config(auth_type="api_key", header_name="X-Shop")
    after = before.model_copy(update=changes)
    assert SPEC.target_fingerprint(after) != SPEC.target_fingerprint(before)


def test_how_it_is_read_is_no_target() -> None:
    """A new page size costs nobody a password."""
    changed = _config(records_path="data", pagination={"type": "page"}, headers={"X-Tenant": "acme"})
    assert SPEC.target_fingerprint(changed) == SPEC.target_fingerprint(_config())


@pytest.mark.parametrize("auth_type", CREDENTIALS_OF)
def test_each_auth_type_misses_its_own_credentials(auth_type: str) -> None:
    """All of them, and none when they are there."""
    needed = CREDENTIALS_OF[auth_type]
    config = _config(auth_type=auth_type)
    assert SPEC.missing_credentials(config, frozenset()) == needed
    assert SPEC.missing_credentials(config, frozenset(needed)) == ()


@pytest.mark.parametrize(
    "credentials",
    [
        {"token": "a\r\nB: c"},
        {"api_key": "ü"},
        {"username": "a:b"},
        {"password": "a\nb"},
        {"token": ""},
        {"secret": "x"},
    ],
)
def test_credentials_fit_their_header(credentials: dict[str, str]) -> None:
    """What cannot be sent as it is is refused, and not repeated."""
    with pytest.raises(ValidationError) as caught:
        ApiCredentials.model_validate(credentials)
    assert "input_value" not in str(caught.value)
