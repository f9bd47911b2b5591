"""Signatures after Standard Webhooks."""

import base64

from headwater.webhooks import signing


def test_a_message_is_signed_as_the_specification_shows() -> None:
    """Its own example: the libraries of https://www.standardwebhooks.com verify it."""
    headers = signing.headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_two_secrets_give_two_signatures() -> None:
    """Separated by a blank, each good by itself."""
    first, second = signing.new_secret(), signing.new_secret()

    def signed_with(*secrets: str) -> str:
        return signing.headers("dlv_1", 1, b"{}", secrets)["webhook-signature"]

    assert signed_with(second, first) == f"{signed_with(second)} {signed_with(first)}"
    assert signed_with(first) != signed_with(second)


def test_a_new_secret_is_what_the_specification_asks_for() -> None:
    """24 to 64 random bytes behind the prefix; another one each time."""
    made = {signing.new_secret() for _ in range(10)}
    assert len(made) == 10
    for secret in made:
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
