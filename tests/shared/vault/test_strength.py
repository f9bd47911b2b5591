"""Keys that somebody could guess are refused, wherever they stand."""

import base64
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from headwater.access import api_keys
from headwater.errors import KeyUnavailable, WeakKey
from headwater.settings import VaultSettings
from headwater.vault import keyring, strength
from headwater.vault.providers import KeyFile, KeyVariable, create_key_file

RANDOM = bytes.fromhex("9f1c7a3be05d8246f7b0413e6ad92c85130fe8746bbd590ac2713fde48a6951b")


def encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


WEAK = {
    "nothing": "",
    "short": encoded(os.urandom(16)),
    "long": encoded(os.urandom(33)),
    "no base64": "correct horse battery staple!!!!",
    "changeme": "changeme",
    "zeros": encoded(bytes(32)),
    "one byte": encoded(b"\xa7" * 32),
    "a word again and again": encoded(b"changeme" * 4),
    "text": encoded(b"a very long passphrase, but text"),
    "counting": encoded(bytes(range(32))),
    "counting down by three": encoded(bytes(range(255, 159, -3))),
    "half of it twice": encoded(RANDOM[:16] * 2),
    "a short pattern": encoded(b"\x00\xff\x80\x11" * 8),
    "a good one and a weak one": encoded(RANDOM) + "\n" + encoded(bytes(32)),
}


@pytest.mark.parametrize("text", WEAK.values(), ids=WEAK.keys())
def test_a_weak_key_is_refused_and_the_way_to_a_good_one_is_said(text: str) -> None:
    """The refusal names the setting and never shows the key."""
    with pytest.raises(WeakKey) as refused:
        strength.parse(text, "HEADWATER_MASTER_KEY")
    assert refused.value.message.startswith("HEADWATER_MASTER_KEY holds no key")
    assert "headwater admin create-keys" in (refused.value.hint or "")
    assert not text or text not in refused.value.message


def test_random_keys_are_taken() -> None:
    """However many: a good key is never refused."""
    keys = [os.urandom(32) for _ in range(2000)]
    assert strength.parse("\n".join(["", *map(encoded, keys), ""]), "x") == keys


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o640, False), (0o604, True), (0o622, True)])
def test_a_file_that_everybody_can_read_is_refused(tmp_path: Path, mode: int, refused: bool) -> None:
    """The master key and the pepper alike; a group may be let in."""
    path = tmp_path / "key"
    create_key_file(path)
    path.chmod(mode)
    for read in (
        lambda: keyring.require_strong(VaultSettings(master_key_file=path)),
        lambda: api_keys.read_pepper(path),
    ):
        if refused:
            with pytest.raises(WeakKey):
                read()
        else:
            read()


def test_a_file_that_is_not_there_yet_stops_no_start(tmp_path: Path) -> None:
    """It may still be mounted; until then nothing is opened."""
    path = tmp_path / "none"
    keyring.require_strong(VaultSettings(master_key_file=path))
    with pytest.raises(KeyUnavailable) as refused:
        KeyFile(path).wrap(b"key", b"")
    assert not isinstance(refused.value, WeakKey)


def test_a_key_that_became_weak_is_not_used(tmp_path: Path) -> None:
    """The file is read each time; what is put there later is looked at as well."""
    path = tmp_path / "key"
    create_key_file(path)
    wrapped = KeyFile(path).wrap(b"key", b"")
    path.write_text(encoded(bytes(32)))
    with pytest.raises(WeakKey):
        KeyFile(path).unwrap(wrapped, b"")


def test_a_provider_without_its_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the variable, and shows no key."""
    monkeypatch.setenv("HEADWATER_KEY_PROVIDER", "file")
    monkeypatch.setenv("HEADWATER_MASTER_KEY", encoded(RANDOM))
    with pytest.raises(ValueError, match="HEADWATER_MASTER_KEY_FILE") as refused:
        VaultSettings()
    assert encoded(RANDOM) not in str(refused.value)


def test_keys_come_from_the_environment_too() -> None:
    """The newest last; each of them unwraps."""
    first, both = encoded(RANDOM), f"{encoded(RANDOM)} {encoded(os.urandom(32))}"
    wrapped = KeyVariable(SecretStr(first)).wrap(b"key", b"here")
    provider = KeyVariable(SecretStr(both))
    assert provider.unwrap(wrapped, b"here") == b"key"
    assert provider.rewrap(wrapped, b"here").master_key != wrapped.master_key


def test_another_provider_takes_over(tmp_path: Path) -> None:
    """What the file wrapped is still read, and moves with a rewrap; without the file's setting it waits."""
    create_key_file(tmp_path / "key")
    before = keyring.configured(VaultSettings(master_key_file=tmp_path / "key")).wrap(b"key", b"here")
    settings = VaultSettings(key_provider="environment", master_key=SecretStr(encoded(RANDOM)))
    with pytest.raises(KeyUnavailable, match="not available"):
        keyring.configured(settings).unwrap(before, b"here")
    both = keyring.configured(settings.model_copy(update={"master_key_file": tmp_path / "key"}))
    after = both.rewrap(before, b"here")
    assert (before.provider, after.provider) == ("file", "environment")
    assert both.unwrap(before, b"here") == both.unwrap(after, b"here") == b"key"
    assert keyring.configured(settings).unwrap(after, b"here") == b"key"
