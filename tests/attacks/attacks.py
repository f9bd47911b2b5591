"""What attackers write, and beside it what honest people write that looks like it."""

import json
from collections.abc import Iterator
from typing import Any

from .stub import ALLOWED, DENIED

NAMES = {
    "denied.example": [[DENIED]],
    "mixed.example": [[ALLOWED, DENIED]],
    "mixed6.example": [[ALLOWED, "::1"]],
    "rebind.example": [[ALLOWED], [DENIED]],
    "late.example": [[ALLOWED], [ALLOWED], [ALLOWED], [DENIED]],
    "metadata.google.internal": [["169.254.169.254"]],
    "nat64.example": [["64:ff9b::7f00:2"]],
    "honest.example": [[ALLOWED]],
    "xn--bcher-kva.example": [[ALLOWED]],
}
"""What the suite's processes find when they look names up, in turn."""

OPERATORS_LIST = "127.0.0.1/32,169.254.0.0/16,100.64.0.0/10,168.63.129.16/32,192.0.0.0/24,fd00::/8,fe80::/10"
"""An operator who allows the store, and every network that a metadata service is in."""

_METADATA = (
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    "[fd00:ec2::254]", "[fd20:ce::254]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "metadata.google.internal",
)  # fmt: skip


def authorities(port: int) -> Iterator[str]:
    """Hosts and ports that are not allowed, or that no parser should have to read."""
    for host in (
        DENIED, "2130706434", "0x7f000002", "0x7f.0.0.0x2", "0177.0.0.2", "017700000002", "127.2", "127.0.2",
        "127.0.0.2.", "0", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.2]", "[::ffff:7f00:2]", "[::127.0.0.2]",
        "[::ffff:0:7f00:2]", "[64:ff9b::7f00:2]", "[64:ff9b:1::7f00:2]", "[2002:7f00:2::]", "[2001:0:7f00:2::]",
        "[2a00::5efe:7f00:2]", "[fe80::1%25lo]", "[fe80::1%lo]", "[::1%lo]", "127.0.0.2%00", "127.0.0.2\0",
        "127.0.0.2\t", "127.0.0.2\n", "127\u30020\u30020\u30022", "\uff11\uff12\uff17.0.0.2",
        "\u2460\u2461\u2466.0.0.2", "127.0.0.2\u3000", "127.0.0.2\u200b", "denied.example", "DENIED.example.",
        "d\u0435nied.example", "mixed.example", "mixed6.example", "nat64.example", "rebind.example", "late.example",
    ):  # fmt: skip
        yield f"{host}:{port}"
    yield from _METADATA
    allowed, denied = f"{ALLOWED}:{port}", f"{DENIED}:{port}"
    tricks = ("@", "#@", "\\@", "?@", "%23@", "%2f@", "/@", ":x@", "\t@", "\r\n@", " ", "\\", "%00.", "&@", "//", ";@")
    for trick in tricks:
        yield f"{allowed}{trick}{denied}"
        yield f"{denied}{trick}{allowed}"


def urls(port: int) -> Iterator[str]:
    """Each of `authorities` behind every scheme that somebody may follow."""
    for authority in authorities(port):
        yield f"http://{authority}"
    denied = f"{DENIED}:{port}"
    for scheme in ("https", "HTTP", "HtTpS", "ftp", "file", "gopher", "ldap", "unix", "jar:http", "http+unix", "data"):
        yield f"{scheme}://{denied}"
    yield from (f"//{denied}", f"http:{denied}", f"http:/{denied}", f"http:///{denied}", f" http://{denied}", denied)
    yield from (f"http://{denied}/", f"http://{denied}/x?y#z", f"http:\\\\{denied}", f"ht\ntp://{denied}")


def texts(port: int) -> Iterator[str]:
    """What somebody may take for more than a text: headers, paths, connection strings, key files."""
    denied = f"{DENIED}:{port}"
    yield from (
        "x\r\nX-Evil: 1", "x\r\n X-Evil: 1", "x\nX-Evil: 1", "x\rX-Evil: 1", "x\0", "x%0d%0aX-Evil:%201",
        "x\u2028X-Evil: 1", "x\u010d\u010aX-Evil: 1", "x\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n",
        "../../../evil", "..%2f..%2fevil", "%2e%2e/%2e%2e/evil", "..\\..\\evil", "/../evil", "?evil=1", "&evil=1",
        "#evil", ";evil=1", "a&comp=acl", "*", "$root", f"x.{DENIED}", f"x@{denied}", f".{denied}/", f"x:{denied}",
        f"eu-central-1.{denied}/", f"eu-central-1@{denied}#", f"{DENIED}/x?x.amazonaws.com", "denied.example#",
        f"http://{denied}/", f"https://{denied}", f"//{denied}/", denied, f"postgresql://u:p@{denied}/x",
        f"host={DENIED} port={port} dbname=x", f"mysql://{denied}?local_infile=1",
        f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint=http://{denied}/a",
        f"UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://{denied}", "${jndi:ldap://127.0.0.2/x}",
        "file:///etc/passwd", "/etc/passwd", "/proc/self/environ", f"arn:aws:s3:::{denied}",
        "arn:aws:s3:eu-central-1:123456789012:accesspoint/evil", f"arn:aws:iam::123456789012:role/x@{denied}",
        "\u212aey", "\u017fhop", "\ud800", "x" * 100_000, " ", "", "\u202eevil",
    )  # fmt: skip
    for file in key_files(port):
        yield json.dumps(file)


def key_files(port: int) -> Iterator[dict[str, Any]]:
    """Google's credential files that name where to go."""
    url = f"http://{DENIED}:{port}/"
    yield {"type": "external_account", "audience": "a", "subject_token_type": "b", "token_url": url,
           "credential_source": {"url": url}}  # fmt: skip
    yield {"type": "external_account", "credential_source": {"executable": {"command": "/bin/true"}}}
    yield {"type": "external_account", "credential_source": {"file": "/etc/passwd"}}
    yield {"type": "authorized_user", "token_uri": url, "client_id": "a", "client_secret": "b", "refresh_token": "c"}
    yield {"type": "impersonated_service_account", "service_account_impersonation_url": url}
    yield {"type": "gdch_service_account", "token_uri": url}
