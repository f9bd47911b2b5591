"""Local files: the suite that all share on a real folder, then what only a file system can do to us."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from headwater.connectors.local_files import SPEC, LocalFilesConfig
from headwater.connectors.spec import ConnectorConfig
from headwater.errors import ConnectorError, Permanent, Transient
from headwater_worker.connectors import ladder
from headwater_worker.connectors.base import FileEntry, Opening
from headwater_worker.connectors.conformance import LOOPBACK, Access, FileSourceConformance, FileStore
from headwater_worker.connectors.local_files import LocalFilesConnector
from headwater_worker.egress import Policy, Proxy

NO_NETWORK = frozenset({"resolve", "egress", "connect", "tls", "authenticate"})
NOBODY = 65534


class FolderStore(FileStore):
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def access(self) -> Access:
        return Access({"path": str(self._folder)})

    def put(self, path: str, body: bytes) -> None:
        if "//" in path:
            pytest.skip("a file system has no empty names")
        place = self._folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)

    def delete(self, path: str) -> None:
        (self._folder / path).unlink()


class TestLocalFilesConformance(FileSourceConformance):
    """What every source of files must do."""

    spec = SPEC
    runtime = LocalFilesConnector
    inapplicable = NO_NETWORK

    @pytest.fixture
    def store(self, root: Path) -> FolderStore:
        (root / "source").mkdir()
        return FolderStore(root / "source")

    def opening(self, config: ConnectorConfig, access: Access, policy: Policy, proxy: Proxy) -> Opening:
        roots = [str(Path(access.config["path"]).parent)]
        return Opening(config, {}, policy, proxy, local_files_roots=roots)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root that the operator allows; beside it lies what nobody may see."""
    (tmp_path / "secret.json").write_text('{"secret": true}')
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key.json").write_text('{"secret": true}')
    place = tmp_path / "root"
    place.mkdir()
    return place


def _opening(path: Path | str, roots: list[str], **config: Any) -> Opening:
    made = LocalFilesConfig.model_validate({"path": str(path), **config})
    return Opening(made, {}, LOOPBACK, Proxy(LOOPBACK), local_files_roots=roots)


def _listed(path: Path, root: Path) -> dict[str, str | None]:
    """{path: why it was skipped}."""
    with LocalFilesConnector(_opening(path, [str(root)])) as connector:
        return {entry.path: entry.skipped for page in connector.list_files() for entry in page}


def _tested(path: Path | str, roots: list[str], **config: Any) -> tuple[str, str, str | None] | None:
    """(step, code, hint) of what failed or warned in a test, None if nothing did."""
    with LocalFilesConnector(_opening(path, roots, **config)) as connector:
        checks = ladder.run(connector)["checks"]
    odd = [check for check in checks if check["status"] in ("failed", "warning")]
    return (odd[0]["name"], odd[0]["code"], odd[0]["hint"]) if odd else None


def _read(path: str, place: Path, root: Path) -> bytes:
    with LocalFilesConnector(_opening(place, [str(root)])) as connector, connector.open_file(path) as file:
        return file.stream.read()


def _refusal(path: str, place: Path, root: Path) -> str:
    with (
        LocalFilesConnector(_opening(place, [str(root)])) as connector,
        pytest.raises(ConnectorError) as caught,
    ):
        connector.open_file(path)
    return caught.value.code


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Root may read everything; then this thread's effective user is `nobody`."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "path", ["data", "", "/data/../etc", "/data\x00", "/a\nb", "/" + "a" * 5000, "\ud800", "./data"]
)
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    """Absolute, without `..`, without control characters."""
    with pytest.raises(ValidationError):
        LocalFilesConfig.model_validate({"path": path})


def test_a_path_outside_the_roots_is_blocked_and_the_hint_names_the_setting(root: Path) -> None:
    """Nobody allowed it: the test ends before the file system is asked."""
    beside = str(root) + "-beside"
    Path(beside).mkdir()
    for place, roots in ((beside, [str(root)]), (str(root), []), ("/etc", [str(root)])):
        failed = _tested(place, roots)
        assert failed is not None
        assert failed[:2] == ("config", "blocked_target")
        assert "HEADWATER_LOCAL_FILES_ROOTS" in str(failed[2])
    error = _listing_error(Path("/etc"), root)
    assert (type(error), error.code) == (Permanent, "blocked_target")


def test_a_missing_folder_fails_at_target(root: Path) -> None:
    """It is told from one that is not allowed."""
    failed = _tested(root / "nothing", [str(root)])
    assert failed is not None
    assert failed[:2] == ("target", "path_not_found")
    assert _listing_error(root / "nothing", root).code == "path_not_found"


def test_a_path_that_leads_out_by_a_link_is_blocked(root: Path) -> None:
    """The folder itself, or one above it, is a link out of the root."""
    (root / "out").symlink_to(root.parent / "secrets")
    for place in (root / "out", root / "out" / "key.json"):
        failed = _tested(place, [str(root)])
        assert failed is not None
        assert failed[:2] == ("target", "blocked_target")


def test_a_root_that_is_a_link_itself_is_the_operators_choice(root: Path) -> None:
    """The operator's own links are followed."""
    (root / "a.json").write_text("{}")
    link = root.parent / "link"
    link.symlink_to(root)
    assert _tested(link, [str(link)]) is None
    assert _read("a.json", link, link) == b"{}"


def test_one_file_can_be_the_source(root: Path) -> None:
    """Its path is its name; nothing beside it is seen."""
    (root / "a.json").write_text("{}")
    (root / "b.json").write_text("[]")
    assert _tested(root / "a.json", [str(root)]) is None
    assert _listed(root / "a.json", root) == {"a.json": None}
    assert _read("a.json", root / "a.json", root) == b"{}"
    assert _refusal("b.json", root / "a.json", root) == "file_not_found"
    with LocalFilesConnector(_opening(root / "a.json", [str(root)])) as connector:
        assert connector.uri("a.json") == f"file://{root}/a.json"


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_a_fifo_or_socket_is_no_target(root: Path, kind: str) -> None:
    """It is refused without being opened: opening a FIFO would wait for its writer."""
    if kind == "fifo":
        os.mkfifo(root / "odd")
    else:
        _make_socket(root / "odd")
    failed = _tested(root / "odd", [str(root)])
    assert failed is not None
    assert failed[:2] == ("target", "path_not_found")


def test_what_is_no_file_is_skipped_by_reason(root: Path) -> None:
    """Hidden files, links out, FIFOs, sockets, broken links and odd names are there, and are not brought in."""
    (root / "a.json").write_text("{}")
    (root / ".hidden.json").write_text("{}")
    (root / ".git").mkdir()
    (root / ".git" / "config.json").write_text("{}")
    (root / "file_out.json").symlink_to(root.parent / "secret.json")
    (root / "folder_out").symlink_to(root.parent / "secrets")
    (root / "dotted_out.json").symlink_to("../secret.json")
    (root / "broken.json").symlink_to("nothing.json")
    (root / "circle.json").symlink_to("circle.json")
    os.mkfifo(root / "fifo.json")
    _make_socket(root / "socket.json")
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.json")).write_text("{}")
    assert _listed(root, root) == {
        "a.json": None,
        ".hidden.json": "hidden",
        ".git": "hidden",
        "file_out.json": "link_out",
        "folder_out": "link_out",
        "dotted_out.json": "link_out",
        "broken.json": "broken_link",
        "circle.json": "broken_link",
        "fifo.json": "not_a_file",
        "socket.json": "not_a_file",
        "caf\ufffd.json": "not_utf8",
    }


def test_a_link_that_stays_within_the_root_is_followed(root: Path) -> None:
    """To a file, by whatever way; a linked folder is not walked: it is listed under its own name, if at all."""
    (root / "source").mkdir()
    (root / "shared").mkdir()
    (root / "shared" / "b.json").write_text("[2]")
    (root / "source" / "relative.json").symlink_to("../shared/b.json")
    (root / "source" / "absolute.json").symlink_to(root / "shared" / "b.json")
    (root / "source" / "folder").symlink_to("../shared")
    (root / "source" / "through.json").symlink_to("folder/b.json")
    (root / "source" / "self").symlink_to(".")
    assert _listed(root / "source", root) == {
        "relative.json": None,
        "absolute.json": None,
        "through.json": None,
        "folder": "linked_directory",
        "self": "linked_directory",
    }
    for name in ("relative.json", "absolute.json", "through.json"):
        assert _read(name, root / "source", root) == b"[2]"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.json",
        "a/../../secret.json",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a//b.json",
        "a/./b.json",
        "x\0y",
        "\ud800",
    ],
)
def test_a_path_that_is_no_path_of_a_listing_is_not_found(root: Path, path: str) -> None:
    """Whatever is asked for, nothing outside answers."""
    (root / "a").mkdir()
    (root / "a" / "b.json").write_text("{}")
    assert _refusal(path, root, root) == "file_not_found"


@pytest.mark.parametrize("path", ["out.json", "folder/key.json", "fifo.json", "a"])
def test_a_link_out_or_a_device_is_never_opened(root: Path, path: str) -> None:
    """Also if somebody asks for it by its name."""
    (root / "a").mkdir()
    (root / "out.json").symlink_to(root.parent / "secret.json")
    (root / "folder").symlink_to(root.parent / "secrets")
    os.mkfifo(root / "fifo.json")
    assert _refusal(path, root, root) == "file_not_found"


_SWAP = """
import os, sys
os.chdir(sys.argv[1])
print("swapping", flush=True)
while True:
    # A folder and a link to another one change places; so do a file and a link to another one.
    os.rename("folder", "aside"); os.rename("link", "folder"); os.rename("folder", "link"); os.rename("aside", "folder")
    os.symlink("../secret.json", "new"); os.replace("new", "file.json")
    os.link("harmless", "new"); os.replace("new", "file.json")
"""


def test_what_becomes_a_link_in_the_race_never_leads_out(root: Path) -> None:
    """While somebody swaps folders and files for links out and back, reads give the file or nothing."""
    (root / "folder").mkdir()
    (root / "folder" / "key.json").write_bytes(b"harmless")
    (root / "link").symlink_to(root.parent / "secrets")
    (root / "harmless").write_bytes(b"harmless")
    seen: set[bytes] = set()
    with (
        subprocess.Popen([sys.executable, "-c", _SWAP, str(root)], stdout=subprocess.PIPE) as swapper,
        LocalFilesConnector(_opening(root, [str(root)])) as connector,
    ):
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"swapping\n"
        try:
            for _ in range(3000):
                for path in ("folder/key.json", "file.json"):
                    with suppress(ConnectorError), connector.open_file(path) as file:
                        seen.add(file.stream.read())
            for _ in range(200):
                with suppress(ConnectorError):
                    listed = {entry.size for page in connector.list_files() for entry in page if not entry.skipped}
                    assert listed <= {len(b"harmless")}
        finally:
            swapper.kill()
    assert seen == {b"harmless"}


@pytest.mark.parametrize(("swapped", "target"), [("folder", "secrets"), ("file.json", "secret.json")])
def test_a_link_that_takes_a_place_between_look_and_open_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch, swapped: str, target: str
) -> None:
    """The race at its worst moment: what was looked at is a link out by the time it is opened."""
    (root / "folder").mkdir()
    (root / "folder" / "key.json").write_bytes(b"harmless")
    (root / "file.json").write_bytes(b"harmless")
    really_open = os.open

    def swap_and_open(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == swapped and not (root / swapped).is_symlink():
            (root / swapped).rename(root / ".aside")
            (root / swapped).symlink_to(root.parent / target)
        return really_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap_and_open)
    path = "folder/key.json" if swapped == "folder" else swapped
    assert _refusal(path, root, root) == "file_not_found"
    (root / swapped).unlink()
    (root / ".aside").rename(root / swapped)
    with LocalFilesConnector(_opening(root, [str(root)])) as connector:
        seen = {entry.size for page in connector.list_files() for entry in page if not entry.skipped}
    assert seen == {len(b"harmless")}


def test_a_folder_that_may_not_be_read_fails_the_listing() -> None:
    """Passing over it in silence would make its files look deleted."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "closed").mkdir()
        (place / "closed" / "a.json").write_text("{}")
        (place / "closed").chmod(0)
        try:
            with _as_nobody():
                error = _listing_error(place, place)
        finally:
            (place / "closed").chmod(0o700)
    assert (type(error), error.code) == (Permanent, "permission_denied")


def test_a_file_that_may_not_be_read_is_skipped() -> None:
    """It is there, and is no reason to fail."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "closed.json").write_text("{}")
        (place / "closed.json").chmod(0)
        (place / "open.json").write_text("{}")
        (place / "open.json").chmod(0o644)
        with _as_nobody():
            assert _listed(place, place) == {"closed.json": "unreadable", "open.json": None}


def test_what_is_appended_while_a_file_is_read_comes_with_the_next_sync(root: Path) -> None:
    """A reader gets the bytes that the file had when it was opened: a log that grows can be read."""
    (root / "log.jsonl").write_bytes(b'{"n": 1}\n')
    with LocalFilesConnector(_opening(root, [str(root)])) as connector, connector.open_file("log.jsonl") as file:
        with (root / "log.jsonl").open("ab") as log:
            log.write(b'{"n": 2}\n')
        assert file.stream.read() == b'{"n": 1}\n'
        assert file.stream.read(10) == b""
        with connector.open_file("log.jsonl") as grown:
            assert grown.entry.etag != file.entry.etag


def test_a_file_that_is_cut_while_it_is_read_is_tried_again(root: Path) -> None:
    """Half a file is no file: `file_changed`, and worth another attempt."""
    (root / "a.json").write_bytes(b"x" * 5000)
    with LocalFilesConnector(_opening(root, [str(root)])) as connector, connector.open_file("a.json") as file:
        file.stream.read(10)
        os.truncate(root / "a.json", 100)
        with pytest.raises(Transient) as caught:
            file.stream.read()
    assert caught.value.code == "file_changed"


def test_a_replaced_file_has_another_etag(root: Path) -> None:
    """Even with the same size and the same time: another file took its place."""
    (root / "a.json").write_bytes(b"one")
    before = _one_entry(root)
    times = (before.modified_at.timestamp(), before.modified_at.timestamp()) if before.modified_at else (0, 0)
    (root / "b.tmp").write_bytes(b"two")
    os.utime(root / "b.tmp", times)
    (root / "b.tmp").rename(root / "a.json")
    assert _one_entry(root).etag != before.etag


def test_a_deep_tree_ends_with_a_reason(root: Path) -> None:
    """Deeper than a hundred folders is passed over, and no descriptor is left open."""
    place = root
    for _ in range(130):
        place = place / "d"
        place.mkdir()
    (place / "deep.json").write_text("{}")
    (root / "a.json").write_text("{}")
    before = _open_descriptors()
    listed = _listed(root, root)
    assert sorted(reason or "" for reason in listed.values()) == ["", "too_deep"]
    assert _open_descriptors() == before


def test_a_listing_that_is_not_finished_leaves_no_descriptor_open(root: Path) -> None:
    """Closing the listing early closes its folders."""
    for number in range(30):
        (root / f"folder{number}").mkdir()
        for inner in range(60):
            (root / f"folder{number}" / f"{inner}.json").touch()
    before = _open_descriptors()
    with LocalFilesConnector(_opening(root, [str(root)])) as connector:
        pages = connector.list_files()
        assert len(next(pages)) == 1000
        pages.close()  # type: ignore[attr-defined]
    assert _open_descriptors() == before


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"id,name\n1,Ada\n", None),
        (b"id;name;id\n1;Ada;2\n", ("read", "odd_header")),
        (b"id,,name\n1,2,Ada\n", ("read", "odd_header")),
        (b"id,name\n1,2,3\n4,5,6\n", ("read", "invalid_csv")),
        (b"id,na\x00me\n1,2\n", ("read", "invalid_csv")),
        (b"", None),
    ],
)
def test_the_header_of_a_csv_is_looked_at(root: Path, body: bytes, expected: tuple[str, str] | None) -> None:
    """Where the config says `csv`, a header that no sync can use fails the test, an odd one is a warning."""
    (root / "data").write_bytes(body)
    found = _tested(root, [str(root)], format="csv")
    assert (found and found[:2]) == expected


def _one_entry(root: Path) -> FileEntry:
    with LocalFilesConnector(_opening(root, [str(root)])) as connector:
        return next(entry for page in connector.list_files() for entry in page if entry.path == "a.json")


def _listing_error(path: Path, root: Path) -> ConnectorError:
    with (
        LocalFilesConnector(_opening(path, [str(root)])) as connector,
        pytest.raises(ConnectorError) as caught,
    ):
        list(connector.list_files())
    return caught.value


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        # The name of a socket is short; pytest's folders are not.
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)
    assert stat.S_ISSOCK(path.stat().st_mode)
