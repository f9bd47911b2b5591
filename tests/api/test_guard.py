"""What is decided before a route sees a body."""

import socket
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

SUSPECT = r'{"name": "a\u0000b"}'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32"])
def test_text_that_cannot_be_stored_is_refused_in_any_encoding(client: httpx2.Client, encoding: str) -> None:
    """JSON is UTF-8 (RFC 8259): in another encoding a body is a 400, and slips no U+0000 past the guard."""
    headers = {"Content-Type": "application/json"}
    answer = client.post("projects", content=SUSPECT.encode(encoding), headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "invalid_request"
    assert [field["code"] for field in answer.json()["errors"]] in (["json_invalid"], ["not_storable"])


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(api: Any, organization: Any) -> None:
    """413 by `Content-Length` alone: nobody is asked, by `100 Continue`, to send what will be refused."""
    server = urlsplit(api.url)
    head = (
        f"POST {server.path}/projects HTTP/1.1\r\nHost: {server.netloc}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {organization.api_key}\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection((server.hostname or "", server.port or 0), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")


def test_a_slash_too_many_is_an_unknown_route(client: httpx2.Client) -> None:
    """404 as a problem, and no redirect to whatever host the request claims."""
    answer = client.get("projects/", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert "Location" not in answer.headers


def test_a_body_that_is_no_json_is_refused_at_the_root(client: httpx2.Client) -> None:
    """The pointer is a JSON Pointer into the body, never an offset in its text."""
    answer = client.post("projects", content=b"{bad", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert [(field["pointer"], field["code"]) for field in answer.json()["errors"]] == [("", "json_invalid")]
