"""What a reference may be, and whose secrets it reaches."""

import pytest

from headwater import ids
from headwater.settings import ReferenceSettings
from headwater.vault import references
from headwater.vault.references import NotAllowed

OURS, THEIRS = ids.new(), ids.new()
SETTINGS = ReferenceSettings(reference_vault_mount="secret", reference_variables={OURS: ["WAREHOUSE"]})


@pytest.mark.parametrize(
    "text",
    [
        "vault://", "vault://a", "vault://a#", "vault:///a#b", "vault://a//b#c", "vault://a/#c", "vault://../theirs#c",
        "vault://a/../../theirs#c", "vault://a/./b#c", "vault://.hidden#c", "vault://a%2f..%2ftheirs#c",
        "vault://a?version=1#c", "vault://a b#c", "vault://a#b#c", "vault://a#b/c", "vault://ä#b", "vault://a\n#b",
        "vault://a#b\n", f"vault://{'a' * 600}#b", "env://", "env://warehouse", "env://PATH", "env://WAREHOUSE\n",
        "env://WAREHOUSE ", "env://1",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    """No way out of the folder, no other name, nothing that would have to be escaped."""
    assert references.is_reference(text)
    with pytest.raises(NotAllowed):
        references.allowed(text, OURS, SETTINGS)


def test_a_path_is_below_the_organizations_own_folder() -> None:
    """The same reference of two organizations names two secrets, in either version of the engine."""
    found = references.allowed("vault://warehouse/orders.v2#password", OURS, SETTINGS)
    folder = f"headwater/{ids.encode('org', OURS)}/warehouse/orders.v2"
    assert references.vault_path(found, OURS, SETTINGS) == f"secret/data/{folder}"
    older = SETTINGS.model_copy(update={"reference_vault_kv": 1})
    assert references.vault_path(found, OURS, older) == f"secret/{folder}"
    assert references.vault_path(found, THEIRS, SETTINGS) != references.vault_path(found, OURS, SETTINGS)


def test_a_name_is_for_the_organizations_that_the_operator_lists_it_for() -> None:
    """Another one is refused it, and so is everybody where nothing is set."""
    assert references.allowed("env://WAREHOUSE", OURS, SETTINGS).name == "WAREHOUSE"
    for organization_id, settings in ((THEIRS, SETTINGS), (OURS, ReferenceSettings())):
        with pytest.raises(NotAllowed):
            references.allowed("env://WAREHOUSE", organization_id, settings)


def test_without_a_mount_there_are_none() -> None:
    """Off is the default."""
    with pytest.raises(NotAllowed, match="switched off"):
        references.allowed("vault://a#b", OURS, ReferenceSettings())


@pytest.mark.parametrize("path", ["headwater", "{organization}x", "../{organization}", "a//{organization}", "{other}"])
def test_a_folder_without_the_organization_is_no_folder(path: str) -> None:
    """A setting that would let all read the same stops the start."""
    with pytest.raises(ValueError, match="reference_vault_path"):
        ReferenceSettings(reference_vault_path=path)
