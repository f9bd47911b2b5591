"""Which addresses the worker may connect to.

The default is public unicast and nothing else, by tables of our own: `ipaddress.is_global` moves between
Python versions and calls several tunnels into private networks global. Sources: the IANA special-purpose
registries for IPv4 and IPv6, RFC 4291, 6052, 3056, 4380, 5214, 8215.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to loopback
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112 anycast
        "192.52.193.0/24",  # AMT relays
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112 anycast
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
    )
)

# Everything that IANA has handed out as global unicast lies in here: loopback, unique local, link-local,
# site-local, multicast and the discard prefix lie outside.
_UNICAST_V6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2620:4f:8000::/48",  # AS112 anycast
        "3ffe::/16",  # the former 6bone
        "3fff::/20",  # documentation
    )
)

# What hands out a machine's identity. Compared after decoding, and stronger than any allowed network.
_METADATA: Final = frozenset(
    ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's wire server
        "169.254.0.23",  # Tencent
        "169.254.42.42",  # Scaleway
        "169.254.169.250",  # Rancher
        "169.254.169.252",  # Google Kubernetes Engine
        "169.254.169.254",  # Amazon, Google, Azure, Oracle, DigitalOcean, OpenStack, ...
        "169.254.170.2",  # Amazon ECS
        "169.254.170.23",  # Amazon EKS
        "192.0.0.192",  # Oracle, classic
        "fd00:42::42",  # Scaleway
        "fd00:a9fe:a9fe::1",  # Akamai
        "fd00:ec2::23",  # Amazon EKS
        "fd00:ec2::254",  # Amazon
        "fd20:ce::254",  # Google
        "fe80::a9fe:a9fe",  # OpenStack
    )
)

_COMPATIBLE: Final = IPv6Network("::/96")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
# Prefixes that only carry an IPv4 address, in the last 32 bits.
_CARRIERS: Final = (
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped: the kernel connects over IPv4
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated
    IPv6Network("64:ff9b::/96"),  # NAT64
)
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
# Where a NAT64 prefix of /96, /64, /56, /48, /40 or /32 puts the four bytes: RFC 6052, 2.2, with a hole for byte 8.
_NAT64_BYTES: Final = ((12, 13, 14, 15), (9, 10, 11, 12), (7, 9, 10, 11), (6, 7, 9, 10), (5, 6, 7, 9), (4, 5, 6, 7))


@dataclass(frozen=True)
class Policy:
    """Public addresses, and the networks in `allow` beside them."""

    allow: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The policy of `HEADWATER_EGRESS_ALLOW`: CIDRs or addresses, separated by commas; blank allows none.

        Raises `ValueError` that names the entry.
        """
        return cls(tuple(_network(entry.strip()) for entry in text.split(",") if entry.strip()))

    def permits(self, address: Address) -> bool:
        """Whether the worker may connect to `address`, and to every IPv4 address that it leads to."""
        deciding = _deciding(address)
        hidden = _metadata_behind_nat64(address)
        return not (hidden or _METADATA.intersection(deciding)) and all(self._permits_plain(each) for each in deciding)

    def is_operators(self, address: Address) -> bool:
        """Whether `address`, and every IPv4 address that it leads to, lies in one of the networks in `allow`."""
        return all(any(each in network for network in self.allow) for each in _deciding(address))

    def _permits_plain(self, address: Address) -> bool:
        return _is_public(address) or any(address in network for network in self.allow)


def _network(entry: str) -> Network:
    try:
        network = ip_network(entry)
    except ValueError as error:
        raise ValueError(f"{entry!r} is not a network such as 10.0.0.0/8: {error}") from None
    if isinstance(network, IPv6Network) and any(network.subnet_of(carrier) for carrier in _CARRIERS):
        raise ValueError(f"{entry!r} is an IPv4 network in IPv6 form: write it as IPv4")
    return network


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _UNICAST_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def _metadata_behind_nat64(address: Address) -> bool:
    """Whether `address` is that of a metadata service behind some NAT64: every network can have a prefix of its own."""
    if isinstance(address, IPv4Address):
        return False
    octets = address.packed
    return any(IPv4Address(bytes(octets[place] for place in places)) in _METADATA for places in _NAT64_BYTES)


def _deciding(address: Address) -> Sequence[Address]:
    """The addresses that all must be permitted: what `address` embeds, or itself, or both."""
    if isinstance(address, IPv4Address):
        return (address,)
    # Without its zone: `fe80::1%eth0` is equal to no address in a table.
    number = int(address)
    plain = IPv6Address(number)
    last = IPv4Address(number & 0xFFFFFFFF)
    if any(plain in carrier for carrier in _CARRIERS):
        return (last,)
    if plain in _COMPATIBLE and number > 1:
        return (last,)
    if plain in _SIX_TO_FOUR:
        return (IPv4Address(number >> 80 & 0xFFFFFFFF),)
    if plain in _TEREDO:
        return (IPv4Address(number >> 64 & 0xFFFFFFFF), IPv4Address(~number & 0xFFFFFFFF))
    if plain in _LOCAL_NAT64 or number >> 32 & 0xFFFFFFFF in _ISATAP:
        return (plain, last)
    return (plain,)
