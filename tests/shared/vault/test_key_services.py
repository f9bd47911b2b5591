"""Every key provider keeps the same contract, and says in our words what went wrong."""

import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import transit as engines
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from headwater.errors import CannotUnseal, KeyRefused, KeyUnavailable
from headwater.settings import VaultSettings
from headwater.vault import keyring
from headwater.vault.keyring import Keyring
from headwater.vault.providers import KeyProvider, Wrapped, create_key_file
from headwater_cli.demo import serving
from headwater_cli.demo.serving import Answer, Request

REGION = "eu-central-1"


@dataclass
class Service:
    """A provider, and `rotate`: its operator makes a new master key; gives the provider from then on."""

    provider: KeyProvider
    rotate: Callable[[], KeyProvider]


def of_kms(url: str, key: str, **changes: Any) -> Keyring:
    """KMS as it is configured."""
    given = {"kms_access_key_id": "AKIAEXAMPLE", "kms_secret_access_key": SecretStr("secret")} | changes
    return keyring.configured(
        VaultSettings(key_provider="aws_kms", kms_key=key, kms_region=REGION, kms_endpoint_url=url, **given)
    )


def of_transit(url: str, token_file: Path) -> Keyring:
    """Vault as it is configured."""
    return keyring.configured(
        VaultSettings(
            key_provider="transit", hashicorp_url=url, hashicorp_token_file=token_file, hashicorp_namespace="team",
            transit_key="headwater",
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def kms() -> Iterator[str]:
    """moto's KMS, which encrypts for real and checks the context."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """Where an agent of Vault puts the token."""
    (tmp_path / "token").write_text("hvs.token\n")
    return tmp_path / "token"


@pytest.fixture(params=["file", "environment", "aws_kms", "transit"])
def service(
    request: pytest.FixtureRequest, tmp_path: Path, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """Each kind of provider."""
    # The demo's bucket has moto ask for rights, of users that are its own.
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", float("inf"))
    match request.param:
        case "file":
            create_key_file(tmp_path / "key")
            made = keyring.configured(VaultSettings(master_key_file=tmp_path / "key"))

            def append() -> KeyProvider:
                with (tmp_path / "key").open("a") as file:
                    file.write(_random())
                return made

            yield Service(made, append)
        case "environment":
            first = _random()
            yield Service(_of_environment(first), lambda: _of_environment(f"{first} {_random()}"))
        case "aws_kms":
            url = request.getfixturevalue("kms")
            yield Service(of_kms(url, _new_kms_key(url)), lambda: of_kms(url, _new_kms_key(url)))
        case "transit":
            with engines.serve() as engine:
                made = of_transit(engine.url, token_file)

                def rotate() -> KeyProvider:
                    engine.rotate()
                    return made

                yield Service(made, rotate)


def _random() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def _of_environment(keys: str) -> Keyring:
    return keyring.configured(VaultSettings(key_provider="environment", master_key=SecretStr(keys)))


def _new_kms_key(url: str) -> str:
    client = boto3.client("kms", region_name=REGION, endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b")
    arn: str = client.create_key()["KeyMetadata"]["Arn"]
    return arn


def test_what_was_wrapped_unwraps_in_its_context_alone(service: Service) -> None:
    """And unchanged alone: cut off or with a bit flipped it is refused."""
    key, context = os.urandom(96), os.urandom(48)
    wrapped = service.provider.wrap(key, context)
    assert service.provider.unwrap(wrapped, context) == key
    assert key not in wrapped.blob
    flipped = wrapped.blob[:-3] + bytes([wrapped.blob[-3] ^ 1]) + wrapped.blob[-2:]
    for blob, bound in ((wrapped.blob, b"elsewhere"), (wrapped.blob[:-4], context), (flipped, context)):
        with pytest.raises(CannotUnseal):
            service.provider.unwrap(replace(wrapped, blob=blob), bound)
    with pytest.raises(CannotUnseal):
        service.provider.rewrap(wrapped, b"elsewhere")


def test_a_new_master_key_takes_over(service: Service) -> None:
    """Both unwrap meanwhile; the new one is told from the old by its name."""
    wrapped = service.provider.wrap(b"key", b"here")
    provider = service.rotate()
    rewrapped = provider.rewrap(wrapped, b"here")
    assert (provider.unwrap(wrapped, b"here"), provider.unwrap(rewrapped, b"here")) == (b"key", b"key")
    assert rewrapped.master_key not in (None, wrapped.master_key)
    assert provider.wrap(b"other", b"there").master_key == rewrapped.master_key


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, KeyRefused), (404, KeyRefused), (429, KeyUnavailable), (500, KeyUnavailable), (503, KeyUnavailable)],
)
def test_what_vault_answers_is_told_apart(token_file: Path, status: int, error: type[Exception]) -> None:
    """Sealed, standing by or overloaded is a wait; forbidden is not."""
    with engines.serve() as engine:
        provider = of_transit(engine.url, token_file)
        wrapped = provider.wrap(b"key", b"here")
        engine.status = status
        for call in (lambda: provider.wrap(b"key", b"here"), lambda: provider.unwrap(wrapped, b"here")):
            with pytest.raises(error) as refused:
                call()
            assert str(status) in (refused.value.hint or "")


def test_another_token_is_refused_and_the_file_is_read_each_time(token_file: Path) -> None:
    """An agent may put a new one there."""
    with engines.serve() as engine:
        provider = of_transit(engine.url, token_file)
        token_file.write_text("hvs.other")
        with pytest.raises(KeyRefused):
            provider.wrap(b"key", b"here")
        engine.token = "hvs.other"
        assert provider.unwrap(provider.wrap(b"key", b"here"), b"here") == b"key"


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "AccessDeniedException", KeyRefused),
        (400, "DisabledException", KeyRefused),
        (400, "NotFoundException", KeyRefused),
        (400, "KMSInvalidStateException", KeyRefused),
        (400, "ThrottlingException", KeyUnavailable),
        (500, "KMSInternalException", KeyUnavailable),
        (503, "ServiceUnavailable", KeyUnavailable),
        (400, "InvalidCiphertextException", CannotUnseal),
        (400, "IncorrectKeyException", CannotUnseal),
    ],
)
def test_what_kms_answers_is_told_apart(status: int, code: str, error: type[Exception]) -> None:
    """By its code; the request names key and context, and is signed with the key of the settings."""
    with _answering(status, code) as (url, requests), pytest.raises(error):
        of_kms(url, "alias/headwater").unwrap(Wrapped("aws_kms", "arn", b"blob"), b"here")
    asked = json.loads(requests[0].body)
    assert requests[0].headers["x-amz-target"] == "TrentService.Decrypt"
    assert "Credential=AKIAEXAMPLE/" in requests[0].headers["authorization"]
    assert asked["EncryptionContext"] == {"headwater": base64.b64encode(b"here").decode()}
    assert asked["KeyId"] == "arn"


@pytest.mark.parametrize("kind", ["aws_kms", "transit"])
def test_nobody_there_is_a_wait(kind: str, token_file: Path) -> None:
    """A connection that is refused, and no plain text instead."""
    with serving.serve(0, lambda _: Answer(200, {}, b"")) as url:
        pass
    provider = of_kms(url, "alias/headwater") if kind == "aws_kms" else of_transit(url, token_file)
    with pytest.raises(KeyUnavailable):
        provider.wrap(b"key", b"here")


def test_the_machines_own_settings_have_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither AWS_* nor a profile: requests carry the key that the operator set for this."""
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIAMACHINE", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
    with _answering(400, "DisabledException") as (url, requests), pytest.raises(KeyRefused):
        of_kms(url, "alias/headwater").wrap(b"key", b"here")
    assert "AKIAEXAMPLE" in requests[0].headers["authorization"]


@contextmanager
def _answering(status: int, code: str) -> Iterator[tuple[str, list[Request]]]:
    requests: list[Request] = []

    def answer(request: Request) -> Answer:
        requests.append(request)
        return serving.as_json({"__type": code, "message": "no"}, status)

    with serving.serve(0, answer) as url:
        yield url, requests
