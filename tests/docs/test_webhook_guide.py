"""docs/webhooks.md: what it says about signatures is code, and the code is right."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from headwater.webhooks import messages, signing, statements
from headwater_cli import home

PAGE = (home.checkout() / "docs/webhooks.md").read_text(encoding="utf-8")
BODY = b'{"type": "webhook.test"}'


@pytest.fixture(scope="module")
def is_genuine() -> Callable[..., bool]:
    """The function on the page."""
    (source,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    found: dict[str, Any] = {}
    exec(source, found)
    checked: Callable[..., bool] = found["is_genuine"]
    return checked


def test_a_message_of_ours_is_genuine(is_genuine: Callable[..., bool]) -> None:
    """To either secret while both sign; to another one it is not."""
    first, second, other = (signing.new_secret() for _ in range(3))
    headers = signing.headers("dlv_1", int(time.time()), BODY, [second, first])
    assert [is_genuine(secret, headers, BODY) for secret in (first, second, other)] == [True, True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "dlv_2"},
        {"webhook-timestamp": str(int(time.time()) - 1)},
        {"webhook-signature": "v1,Zm9yZ2Vk"},
        {"webhook-signature": "ü"},
    ],
)
def test_what_was_changed_is_not_genuine(is_genuine: Callable[..., bool], change: dict[str, str]) -> None:
    """Id, time, signature; nor is another body."""
    secret = signing.new_secret()
    headers = signing.headers("dlv_1", int(time.time()), BODY, [secret])
    assert not is_genuine(secret, headers | change, BODY)
    assert not is_genuine(secret, headers, BODY + b" ")


def test_what_was_recorded_long_ago_is_not_genuine(is_genuine: Callable[..., bool]) -> None:
    """However good its signature is."""
    secret = signing.new_secret()
    headers = signing.headers("dlv_1", int(time.time()) - 301, BODY, [secret])
    assert not is_genuine(secret, headers, BODY)
    assert is_genuine(secret, headers, BODY, tolerance_seconds=600)


def test_the_page_names_what_the_code_does() -> None:
    """Every event, and the pauses between tries."""
    units = {5: "5 s", 30: "30 s", 120: "2 min", 600: "10 min", 3_600: "1 h"}
    pauses = [units.get(each, f"{each // 3_600} h") for each in statements.RETRY_SECONDS]
    assert f"{', '.join(pauses[:-1])} and {pauses[-1]}" in PAGE
    assert [each for each in messages.JOB_EVENTS if f"`{each}`" not in PAGE] == []
