import dataclasses
from ipaddress import ip_address

import pytest

from headwater_worker.egress import Policy

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2606:4700::1111",
    "2a00:1450:4001::1",
]

NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.1.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "100::1",
    "2001:2::1",
    "2001:20::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]

METADATA = [
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.252",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "192.0.0.192",
    "fd00:ec2::23",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::a9fe:a9fe%eth0",
]

# Each carries an IPv4 address: 8.8.8.8, 127.0.0.1, 169.254.169.254.
CARRIERS = {
    "mapped": ("::ffff:8.8.8.8", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
    "compatible": ("::8.8.8.8", "::127.0.0.1", "::169.254.169.254"),
    "translated": ("::ffff:0:808:808", "::ffff:0:7f00:1", "::ffff:0:a9fe:a9fe"),
    "nat64": ("64:ff9b::8.8.8.8", "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254"),
    "6to4": ("2002:808:808::1", "2002:7f00:1::1", "2002:a9fe:a9fe::1"),
    "teredo": ("2001:0:808:808::f7f7:f7f7", "2001:0:808:808::80ff:fffe", "2001:0:808:808::5601:5601"),
    "isatap": (
        "2a00:1450::5efe:808:808",
        "2a00:1450::5efe:7f00:1",
        "2a00:1450::200:5efe:a9fe:a9fe",
    ),
}


@pytest.mark.parametrize("text", PUBLIC)
def test_public_unicast_is_permitted(text: str) -> None:
    """Without any setting the public internet can be reached."""
    assert Policy().permits(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_what_is_not_public_unicast_is_denied(text: str) -> None:
    """Without any setting nothing else can."""
    assert not Policy().permits(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_an_allowed_network_opens_what_it_covers(text: str) -> None:
    """Every denied address can be opened by the operator: the table is a default, not a wall."""
    assert Policy.parse("0.0.0.0/0,::/0").permits(ip_address(text))


@pytest.mark.parametrize("text", METADATA)
def test_metadata_is_denied_even_when_allowed(text: str) -> None:
    """No network in the setting, however wide or narrow, opens a cloud's metadata service."""
    bare = text.split("%")[0]
    assert not Policy.parse(f"0.0.0.0/0,::/0,{bare}").permits(ip_address(text))


@pytest.mark.parametrize("kind", CARRIERS)
def test_an_embedded_address_decides(kind: str) -> None:
    """An IPv6 address that leads to an IPv4 one is judged by that one."""
    public, loopback, metadata = map(ip_address, CARRIERS[kind])
    everything = Policy.parse("0.0.0.0/0,::/0")
    verdicts = [Policy().permits(public), Policy().permits(loopback), everything.permits(metadata)]
    assert verdicts == [True, False, False]


@pytest.mark.parametrize("kind", [kind for kind in CARRIERS if kind != "isatap"])
def test_an_allowed_ipv4_network_opens_its_carriers(kind: str) -> None:
    """Allowing loopback allows it in every form that leads there."""
    assert Policy.parse("127.0.0.0/8").permits(ip_address(CARRIERS[kind][1]))


@pytest.mark.parametrize("kind", CARRIERS)
def test_an_allowed_ipv6_network_does_not_open_what_is_embedded(kind: str) -> None:
    """`::/0` speaks of IPv6; it must not open the IPv4 loopback by the back door."""
    assert not Policy.parse("::/0").permits(ip_address(CARRIERS[kind][1]))


def test_a_tunnel_needs_its_server_permitted_too() -> None:
    """Teredo names two IPv4 addresses; a denied server denies a public client."""
    assert not Policy().permits(ip_address("2001:0:7f00:1::f7f7:f7f7"))


def test_local_nat64_needs_both_permitted() -> None:
    """The local NAT64 prefix is not public, and opening it does not open what lies behind."""
    address = ip_address("64:ff9b:1::7f00:1")
    opened = [Policy(), Policy.parse("64:ff9b:1::/48"), Policy.parse("64:ff9b:1::/48,127.0.0.0/8")]
    assert [policy.permits(address) for policy in opened] == [False, False, True]


@pytest.mark.parametrize(
    "text",
    [
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:a9fe:a9:fe00::",
        "64:ff9b:1:0:a9:fea9:fe00:0",
        "2a00:1450:64::a9fe:a9fe",
        "2a00:1450:64:0:a9:fea9:fe00:0",
        "2a00:1450:64:a9:fe:a9fe::",
        "2a00:1450:64:a9fe:a9:fe00::",
        "2a00:1450:a9:fea9:fe::",
        "2a00:1450:a9fe:a9fe::",
        "2a00:1450:64::100.100.100.200",
    ],
)
def test_no_nat64_prefix_leads_to_metadata(text: str) -> None:
    """Networks have prefixes of their own, of six lengths, that look like any public address (RFC 6052)."""
    assert not Policy.parse("0.0.0.0/0,::/0").permits(ip_address(text))


def test_parse_reads_networks_and_addresses() -> None:
    """Blanks and empty entries are ignored, an address is a network of one."""
    policy = Policy.parse(" 10.0.0.0/8, ,fd00:1::/32,127.0.0.1 ,")
    assert [str(network) for network in policy.allow] == ["10.0.0.0/8", "fd00:1::/32", "127.0.0.1/32"]


def test_parse_of_nothing_allows_nothing() -> None:
    """The default of the setting is an empty text."""
    assert Policy.parse("  ") == Policy()


@pytest.mark.parametrize(
    "entry", ["10.0.0.1/8", "10.0.0.0/33", "localhost", "10.0.0.0-10.1.0.0", "::ffff:10.0.0.0/104"]
)
def test_parse_names_the_bad_entry(entry: str) -> None:
    """A setting with an error is refused as a whole, and the message says which entry it is."""
    with pytest.raises(ValueError, match=entry.replace(".", r"\.")):
        Policy.parse(f"10.0.0.0/8,{entry}")


def test_a_policy_cannot_be_changed() -> None:
    """What was decided at start stays decided."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Policy().allow = ()  # type: ignore[misc]
