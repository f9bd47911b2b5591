"""Whose word counts about where a request came from."""

from collections.abc import Callable

import pytest
from serving import Api

from headwater import ids
from headwater.access.organizations import CreatedOrganization

CLIENT = "203.0.113.7"
FORGED = "198.51.100.9"


def address_told(api: Api, organization: CreatedOrganization, *forwarded_for: str) -> str:
    """The address in the audit log for a request with these `X-Forwarded-For` fields."""
    with api.client(organization.api_key) as client:
        headers = [("X-Forwarded-For", value) for value in forwarded_for]
        project = client.post("projects", json={"name": ids.new().hex}, headers=headers).json()
        [entry] = client.get("audit-log", params={"subject": project["id"]}).json()["data"]
        address: str = entry["address"]
        return address


@pytest.fixture(scope="module")
def behind_proxies(start_api: Callable[..., Api]) -> Api:
    """Two proxies in a row: one in 10.1.0.0/16, before it one on this machine."""
    return start_api(HEADWATER_TRUSTED_PROXIES="10.1.0.0/16, 127.0.0.1, fd00::/8")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([CLIENT], CLIENT),
        ([f"{CLIENT}, 10.1.2.3"], CLIENT),
        ([f"{FORGED}, {CLIENT}, 10.1.2.3"], CLIENT),
        ([FORGED, f"{CLIENT}, fd00::1"], CLIENT),
        ([f"{FORGED}, {CLIENT}:4711, [fd00::1]:80"], CLIENT),
        (["2001:db8::7, 10.1.2.3"], "2001:db8::7"),
        (["10.1.9.9, 10.1.2.3"], "10.1.9.9"),
        ([], "127.0.0.1"),
        ([""], "127.0.0.1"),
    ],
    ids=["one hop", "two hops", "a forged one", "two fields", "ports", "IPv6", "a client among them", "none", "empty"],
)
def test_the_client_is_the_last_who_is_no_proxy(
    behind_proxies: Api, organization: CreatedOrganization, fields: list[str], expected: str
) -> None:
    """What a client wrote into the header itself stands before what the first proxy added."""
    assert address_told(behind_proxies, organization, *fields) == expected


@pytest.mark.parametrize("trusted", ["", "192.0.2.0/24,::1"])
def test_nobody_else_is_believed(
    start_api: Callable[..., Api], organization: CreatedOrganization, monkeypatch: pytest.MonkeyPatch, trusted: str
) -> None:
    """Neither by default, nor where others are named; the generic variable is not read."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    api = start_api(HEADWATER_TRUSTED_PROXIES=trusted)
    assert address_told(api, organization, FORGED) == "127.0.0.1"
