"""An operator's limit on all files of an organization."""

from collections.abc import Iterator

import httpx2
import pytest

QUOTA = 1000


@pytest.fixture(scope="module", autouse=True)
def _quota() -> Iterator[None]:
    """Before the API starts."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HEADWATER_QUOTA_UPLOAD_BYTES", str(QUOTA))
        yield


def test_what_would_be_more_than_the_quota_is_refused(client: httpx2.Client, uploads: str) -> None:
    """429 by the length, by the bytes, by the size of a file in parts; replacing a file counts it once."""

    def send(name: str, size: int, **options: object) -> tuple[int, str | None]:
        answer = client.post(uploads, params={"name": name}, content=options.get("content", b"x" * size))
        return answer.status_code, answer.json().get("code")

    refused = (429, "quota_exceeded")
    assert send("a.bin", 900) == (201, None)
    assert send("a.bin", 950) == (201, None)
    assert send("b.bin", 200) == refused
    assert send("b.bin", 200, content=iter([b"x" * 200])) == refused
    part = client.put(f"{uploads}/b.bin", content=b"x", headers={"Content-Range": "bytes 0-0/200"})
    assert (part.status_code, part.json()["code"]) == refused
    assert [entry["name"] for entry in client.get(uploads).json()["data"]] == ["a.bin"]
    assert client.delete(f"{uploads}/a.bin").status_code == 204
    assert send("b.bin", 200) == (201, None)
