"""Sealing and opening."""

from pathlib import Path

import making
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater import ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.errors import CannotUnseal, KeyUnavailable
from headwater.vault import keys, suites
from headwater.vault.providers import KeyFile, create_key_file
from headwater.vault.seal import Binding, seal
from headwater.vault.unseal import unseal

PAIR = suites.generate()
BINDING = Binding(ids.new(), ids.new(), "password", b"t" * 32)


def sealed(secret: str) -> bytes:
    return seal(secret, suite=suites.DEFAULT, public_key=PAIR.public, binding=BINDING)


def opened(ciphertext: bytes, binding: Binding = BINDING, private_key: bytes = PAIR.private) -> str:
    return unseal(ciphertext, suite=suites.DEFAULT, private_key=private_key, binding=binding)


@given(st.text())
def test_what_was_sealed_opens(secret: str) -> None:
    """Any text comes back as it was."""
    assert opened(sealed(secret)) == secret


@pytest.mark.parametrize(
    "elsewhere",
    [
        Binding(ids.new(), BINDING.subject_id, BINDING.field, BINDING.target),
        Binding(BINDING.organization_id, ids.new(), BINDING.field, BINDING.target),
        Binding(BINDING.organization_id, BINDING.subject_id, "token", BINDING.target),
        Binding(BINDING.organization_id, BINDING.subject_id, BINDING.field, b"u" * 32),
    ],
    ids=["organization", "source", "field", "target"],
)
def test_it_opens_nowhere_else(elsewhere: Binding) -> None:
    """Copied to another row, or with the source pointed elsewhere, it stays shut."""
    ciphertext = sealed("s3cret")
    with pytest.raises(CannotUnseal):
        opened(ciphertext, elsewhere)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_cut_ciphertext_does_not_open(cut: int) -> None:
    """Truncated, it is refused with our error."""
    with pytest.raises(CannotUnseal):
        opened(sealed("s3cret")[:cut])


def test_another_key_does_not_open() -> None:
    """Nor does a pair of the same suite."""
    with pytest.raises(CannotUnseal):
        opened(sealed("s3cret"), private_key=suites.generate().private)


def test_fields_of_different_length_never_share_an_info() -> None:
    """Length prefixes keep `ab`+`c` and `a`+`bc` apart."""
    assert (
        Binding(BINDING.organization_id, BINDING.subject_id, "a", b"bc").info()
        != Binding(BINDING.organization_id, BINDING.subject_id, "ab", b"c").info()
    )


def test_a_wrapped_key_unwraps_only_in_its_context(tmp_path: Path) -> None:
    """The key file binds the context; a rewrap keeps the key."""
    create_key_file(tmp_path / "master")
    provider = KeyFile(tmp_path / "master")
    wrapped = provider.wrap(b"key", b"here")
    assert provider.unwrap(provider.rewrap(wrapped, b"here"), b"here") == b"key"
    with pytest.raises(CannotUnseal):
        provider.unwrap(wrapped, b"there")


def test_a_missing_or_short_key_file_is_said(tmp_path: Path) -> None:
    """Never a fall-back to something weaker."""
    with pytest.raises(KeyUnavailable):
        KeyFile(tmp_path / "none").wrap(b"key", b"")
    (tmp_path / "short").write_text("c2hvcnQ=")
    with pytest.raises(KeyUnavailable):
        KeyFile(tmp_path / "short").wrap(b"key", b"")


def test_a_key_file_is_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    """Mode 0600; a second creation keeps the first key."""
    create_key_file(tmp_path / "master")
    first = (tmp_path / "master").read_bytes()
    create_key_file(tmp_path / "master")
    assert ((tmp_path / "master").stat().st_mode & 0o777, (tmp_path / "master").read_bytes()) == (0o600, first)


def test_a_source_repointed_in_the_database_gets_no_secret(
    connection: Connection, organization: CreatedOrganization, master_key_file: Path
) -> None:
    """Opened with its own target the stored row gives the secret; with another it does not open."""
    row = connection.execute("select id, public_key from organization_key").fetchone()
    assert row is not None
    subject_id = ids.new()
    ciphertext = seal(
        "s3cret",
        suite=suites.DEFAULT,
        public_key=row["public_key"],
        binding=Binding(organization.organization_id, subject_id, "password", b"t" * 32),
    )
    connection.execute(
        """
        insert into sealed_credential (subject_id, field, organization_id, ciphertext, suite, key_id)
        values (%s, 'password', %s, %s, %s, %s)
        """,
        (subject_id, organization.organization_id, ciphertext, suites.DEFAULT, row["id"]),
    )

    def open_for(target: bytes) -> dict[str, str]:
        found: dict[str, str] = making.opened(
            connection,
            master_key_file,
            organization_id=organization.organization_id,
            subject_id=subject_id,
            target=target,
        )
        return found

    assert open_for(b"t" * 32) == {"password": "s3cret"}
    with pytest.raises(CannotUnseal):
        open_for(b"u" * 32)


def test_a_credential_whose_key_is_gone_is_not_taken_for_none(
    connection: Connection, organization: CreatedOrganization, master_key_file: Path
) -> None:
    """The source has a secret that cannot be opened: that is another thing than having none."""
    public_key_id, subject_id = ids.new(), ids.new()
    connection.execute(
        "insert into organization_key (id, organization_id, suite, public_key) values (%s, %s, %s, %s)",
        (public_key_id, organization.organization_id, suites.DEFAULT, PAIR.public),
    )
    connection.execute(
        """
        insert into sealed_credential (subject_id, field, organization_id, ciphertext, suite, key_id)
        values (%s, 'password', %s, %s, %s, %s)
        """,
        (subject_id, organization.organization_id, sealed("s3cret"), suites.DEFAULT, public_key_id),
    )
    with pytest.raises(CannotUnseal):
        making.opened(
            connection,
            master_key_file,
            organization_id=organization.organization_id,
            subject_id=subject_id,
            target=b"t" * 32,
        )


def test_a_private_key_is_bound_to_its_organization(
    connection: Connection, organization: CreatedOrganization, master_key_file: Path
) -> None:
    """A wrapped key copied to another organization's row does not unwrap there."""
    row = connection.execute("select * from organization_private_key").fetchone()
    assert row is not None
    provider = KeyFile(master_key_file)
    assert provider.unwrap(keys.wrapped(row), keys.wrap_context(organization.organization_id, row["key_id"]))
    with pytest.raises(CannotUnseal):
        provider.unwrap(keys.wrapped(row), keys.wrap_context(ids.new(), row["key_id"]))
