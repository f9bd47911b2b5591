"""The origins that configs name: one spelling, and nothing that two parsers read differently."""

import pytest

from headwater.connectors.origins import check_endpoint_url


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://minio.example.com", "https://minio.example.com"),
        ("https://minio.example.com/", "https://minio.example.com"),
        ("https://minio.example.com:8443", "https://minio.example.com:8443"),
        ("HTTPS://MinIO.example.com.", "https://minio.example.com."),
        ("http://minio", "http://minio"),
        ("http://my_service-1:9000", "http://my_service-1:9000"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("http://10.0.0.1:9000", "http://10.0.0.1:9000"),
        ("http://[2001:DB8::1]:9000", "http://[2001:db8::1]:9000"),
        ("https://1.example", "https://1.example"),
    ],
)
def test_an_origin_has_one_spelling(text: str, origin: str) -> None:
    """So that `https` is `https` to whoever looks at it later."""
    assert check_endpoint_url(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "", "minio", "ftp://minio", "http:/minio", "http:minio", "http://", "https://:9000", "//minio",
        "http://minio:", "http://minio:0", "http://minio:65536", "http://minio:9000/path", "http://minio?x", "http://minio#x",
        "http://ada@minio", "http://ada:pw@minio", "http://minio\\@evil", "http://minio#@evil", "http://minio%2f@evil",
        "http://mi nio", "http://mi\tnio", "http://minio\n", "http://mi\0nio", "http://mi\u3000nio", "http://minio\u2028",
        "http://a,b", "http://a;b", "http://*", "http://a..b", "http://.a", "http://" + "a." * 200 + "b",
        "http://bücher.example", "http://faß.example", "http://\u017fhop.example", "http://\uff11\uff12\uff17.0.0.1", "http://127\u30020\u30020\u30021",
        "http://127.1", "http://2130706433", "http://0x7f000001", "http://0x7f.1", "http://0177.0.0.1", "http://1.2.3.4.5",
        "http://127.0.0.1.", "http://256.1.1.1", "http://[::1", "http://::1", "http://[fe80::1%25lo]", "http://[localhost]",
        "http://[::1.2.3]", "http://[v1.x]",
    ],
)  # fmt: skip
def test_what_parsers_could_read_differently_is_refused(text: str) -> None:
    """Users, blanks, other alphabets, and addresses in a spelling that only some take for one."""
    with pytest.raises(ValueError, match="must"):
        check_endpoint_url(text)
