"""Following references: fetched by the worker, below the organization's own folder, and checked like what is sent."""

from collections.abc import Iterator
from typing import Any

import pytest
import transit
from transit import Engine

from headwater import ids
from headwater.connectors import registry
from headwater.errors import ConnectorError, HeadwaterError, KeyUnavailable
from headwater_worker.connectors import references

OURS, THEIRS = ids.new(), ids.new()


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A Vault with secrets of two organizations, and a worker that is told of it."""
    with transit.serve() as engine:
        for organization_id, key in ((OURS, "AKIAOURS"), (THEIRS, "AKIATHEIRS")):
            path = f"secret/data/headwater/{ids.encode('org', organization_id)}/orders"
            engine.secrets[path] = {"data": {"id": key, "number": 7, "long": "x" * 2000}, "metadata": {"version": 1}}
        for name, value in {
            "REFERENCE_VAULT_MOUNT": "secret", "HASHICORP_URL": engine.url, "HASHICORP_TOKEN": engine.token,
            "HASHICORP_NAMESPACE": engine.namespace, "SECRET_WAREHOUSE": "from the environment", "SECRET_OTHER": "no",
            "REFERENCE_VARIABLES": f'{{"{ids.encode("org", OURS)}": ["WAREHOUSE", "MISSING"]}}',
        }.items():  # fmt: skip
            monkeypatch.setenv(f"HEADWATER_{name}", value)
        yield engine


def follow(organization_id: Any = OURS, type_: str = "s3", **secrets: str) -> dict[str, str]:
    return references.follow(registry.get_spec(type_), organization_id, secrets)


def refusal(organization_id: Any = OURS, type_: str = "s3", **secrets: str) -> HeadwaterError:
    with pytest.raises((ConnectorError, KeyUnavailable)) as refused:
        follow(organization_id, type_, **secrets)
    return refused.value


def test_each_organization_reads_its_own(vault: Engine) -> None:
    """The same reference, two secrets; what is no reference stays as it is."""
    sent = {"access_key_id": "vault://orders#id", "secret_access_key": "plain"}
    assert follow(**sent) == {"access_key_id": "AKIAOURS", "secret_access_key": "plain"}
    assert follow(THEIRS, **sent)["access_key_id"] == "AKIATHEIRS"
    assert follow(secret_access_key="env://WAREHOUSE") == {"secret_access_key": "from the environment"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("vault://nothing#id", "reference_not_found"),
        ("vault://orders#nothing", "reference_not_found"),
        ("vault://orders#number", "reference_not_found"),
        ("vault://orders#long", "reference_refused"),
        ("vault://../orders#id", "reference_refused"),
        ("env://MISSING", "reference_not_found"),
        ("env://OTHER", "reference_refused"),
    ],
)
def test_what_cannot_be_followed_names_the_field(vault: Engine, text: str, code: str) -> None:
    """And never shows what is kept there: the field's own rules hold for it."""
    refused = refusal(access_key_id=text)
    assert (refused.code, "access_key_id" in refused.message) == (code, True)
    assert "xxx" not in f"{refused.message} {refused.hint} {refused.__cause__!r}"


def test_a_key_file_in_vault_is_checked_like_one_that_is_sent(vault: Engine) -> None:
    """It must be one of Google's."""
    path = f"secret/data/headwater/{ids.encode('org', OURS)}/orders"
    vault.secrets[path]["data"]["key"] = '{"type": "service_account", "private_key": "/etc/passwd"}'
    assert refusal(type_="gcs", service_account_json="vault://orders#key").code == "reference_refused"


@pytest.mark.parametrize(
    ("status", "code"), [(403, "reference_refused"), (503, "reference_unavailable"), (429, "reference_unavailable")]
)
def test_what_vault_answers_is_told_apart(vault: Engine, status: int, code: str) -> None:
    """Sealed is a wait that uses up no attempt; forbidden is not."""
    vault.status = status
    refused = refusal(access_key_id="vault://orders#id")
    assert (refused.code, isinstance(refused, KeyUnavailable)) == (code, code == "reference_unavailable")


def test_switched_off_nothing_is_asked(vault: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for what was stored while it was on."""
    monkeypatch.delenv("HEADWATER_REFERENCE_VAULT_MOUNT")
    assert refusal(access_key_id="vault://orders#id").code == "reference_refused"
    assert vault.asked == []
