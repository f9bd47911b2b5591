"""Lock files name no host: they are as good on a machine with a mirror as on one without."""

from pathlib import Path

import pytest

from headwater_cli import home, locks


def test_no_lock_file_of_this_checkout_names_a_host() -> None:
    """A lock that does would send others to indexes that they may not reach or trust."""
    assert locks.hosts(home.checkout()) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("requirements.lock", "--extra-index-url file:///opt/wheels"),
        ("services/api/requirements.lock", "--find-links /opt/wheels"),
        ("requirements-test.txt", "a @ https://example.org/a.whl"),
        ("uv.lock", 'source = { registry = "https://example.org/simple" }'),
        ("ui/package-lock.json", '      "resolved": "https://example.org/a.tgz",'),
        ("ui/package-lock.json", '        "url": "https://example.org/donate"'),
    ],
)
def test_a_host_in_any_lock_file_is_found(tmp_path: Path, name: str, line: str) -> None:
    """With file and line, so that it can be mended."""
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"a==1\n{line}\n")
    assert locks.hosts(tmp_path) == [f"{name}:2: {line.strip()}"]


def test_installed_packages_are_not_looked_at(tmp_path: Path) -> None:
    """They bring lock files of their own."""
    for folder in (".venv", "node_modules"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "uv.lock").write_text("https://example.org")
    assert locks.hosts(tmp_path) == []
