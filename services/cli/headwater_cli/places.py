"""Where a store runs and as whom.

Postgres refuses to run as root, so root's stores run as `nobody` (or as the owner of data that is there already).
Below a folder that this account cannot enter, such as a home with mode 0700, a copy of the programs and the data
live in a neutral folder instead. It is recorded beside the place where the data would have been, and found again.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headwater_cli import files
from headwater_cli.errors import Failure

_NEUTRAL_PARENTS: Final = (Path("/var/lib"), Path("/var/tmp"))  # noqa: S108 (mkdtemp makes a private name there)


@dataclass(frozen=True)
class Kit:
    """Programs that a wheel carries.

    Attributes:
        root: the folder that `members` and `program` are relative to.
        members: what has to be copied for `program` to run elsewhere.
    """

    root: Path
    members: tuple[str, ...]
    program: str


@dataclass(frozen=True)
class Account:
    """The account that a store runs as; both None: the caller's own."""

    user: int | None
    group: int | None

    def own(self, path: Path) -> None:
        """Give `path` to this account."""
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)


@dataclass(frozen=True)
class Place:
    """Where a store's program and data are, and who runs it."""

    program: Path
    data: Path
    account: Account


def record_of(data_dir: Path) -> Path:
    """The file beside `data_dir` (0600) with the store's passwords and, if there is one, its neutral folder."""
    return data_dir.with_name(f"{data_dir.name}.json")


def find(kit: Kit, data_dir: Path) -> Place:
    """Where the store of `data_dir` runs. Makes the data folder (0700) and, where needed, the neutral one.

    Raises:
        Failure: there is no account to run as, or the folder belongs to somebody else.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = files.read_json(record_of(data_dir)) or {}
    neutral = Path(record["neutral"]) if "neutral" in record else None
    if neutral is not None and neutral.is_dir():
        data, account = neutral / "data", _account(neutral / "data")
        return Place(_copied(kit, neutral), _made(data, account), account)
    account = _account(data_dir)
    place = Place(kit.root / kit.program, _made(data_dir, account), account)
    if account.user is None or _reachable(place):
        return place
    neutral = _neutral_folder()
    files.write_json(record_of(data_dir), {**record, "neutral": str(neutral)})
    data = neutral / "data"
    shutil.move(data_dir, data)
    for path in (data, *data.rglob("*")):
        account.own(path)
    return Place(_copied(kit, neutral), data, account)


def forget(data_dir: Path) -> None:
    """Delete the store of `data_dir`: data, neutral folder and record."""
    record: dict[str, Any] = files.read_json(record_of(data_dir)) or {}
    if "neutral" in record:
        shutil.rmtree(record["neutral"], ignore_errors=True)
    shutil.rmtree(data_dir, ignore_errors=True)
    record_of(data_dir).unlink(missing_ok=True)


def _account(data: Path) -> Account:
    """As whom: root takes the owner of existing data, else `nobody`; everybody else stays who they are."""
    if os.geteuid() != 0:
        return Account(None, None)
    if data.is_dir() and any(data.iterdir()) and data.stat().st_uid != 0:
        return Account(data.stat().st_uid, data.stat().st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise Failure(
            "The embedded stores cannot run as root, and this machine has no account `nobody`.",
            hint="Run ./dev as another user, or set HEADWATER_DATABASE_URL and HEADWATER_REDIS_URL.",
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid)


def _made(data: Path, account: Account) -> Path:
    data.mkdir(mode=0o700, exist_ok=True)
    if account.user is not None and data.stat().st_uid == 0:
        account.own(data)
    if account.user is None and data.stat().st_uid != os.geteuid():
        raise Failure(
            f"{data} belongs to another user: the stack ran here as somebody else, perhaps as root.",
            hint="Run it as that user, delete the folder, or choose another HEADWATER_HOME.",
        )
    return data


def _reachable(place: Place) -> bool:
    """Can the account enter the data folder and run the program? Asked of the kernel, by doing it."""
    probe = subprocess.run(
        ("/bin/sh", "-c", 'cd "$1" && exec "$2" --version', "sh", str(place.data), str(place.program)),
        user=place.account.user,
        group=place.account.group,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.defpath},
        capture_output=True,
        check=False,
    )
    return probe.returncode == 0


def _neutral_folder() -> Path:
    for parent in (*_NEUTRAL_PARENTS, Path(tempfile.gettempdir())):
        if os.access(parent, os.W_OK | os.X_OK):
            folder = Path(tempfile.mkdtemp(prefix="headwater-", dir=parent))
            folder.chmod(0o755)
            return folder
    raise Failure("No folder is left in which the embedded stores could live.", hint="Free /var/lib or /var/tmp.")


def _copied(kit: Kit, neutral: Path) -> Path:
    """The program of `kit` inside `neutral`, copied anew when the wheel's is another one."""
    original, copy = kit.root / kit.program, neutral / "programs" / kit.program
    if not _same(original, copy):
        shutil.rmtree(neutral / "programs", ignore_errors=True)
        for member in kit.members:
            source, target = kit.root / member, neutral / "programs" / member
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            elif source.exists():
                shutil.copy2(source, target)
    return copy


def _same(original: Path, copy: Path) -> bool:
    if not copy.exists():
        return False
    one, other = original.stat(), copy.stat()
    return (one.st_size, int(one.st_mtime)) == (other.st_size, int(other.st_mtime))
