"""Rotating keys: whatever happens in between, every secret opens, and in the end the old keys are gone."""

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import making
import psycopg
import pytest
import scripted_source.spec

from headwater import db, ids
from headwater.access.organizations import CreatedOrganization
from headwater.audit.acts import Act
from headwater.db import Connection
from headwater.errors import CannotUnseal, KeyUnavailable
from headwater.vault import keys, unseal
from headwater.vault.keyring import Keyring
from headwater.vault.providers import KeyFile, Wrapped, create_key_file
from headwater.vault.seal import Binding
from headwater.webhooks import signing
from headwater_cli import master_keys, rotation
from headwater_cli.errors import Failure
from headwater_cli.opening import Opener

SPEC = scripted_source.spec.SPEC
TARGET = SPEC.target_fingerprint(SPEC.config())
MANY = 230  # more than two batches


@dataclass
class Holder:
    """An organization with secrets, the operator's connection to them, and what each secret is."""

    connection: Connection
    operating: Connection
    url: str
    organization: CreatedOrganization
    project_id: UUID
    master: Path
    secrets: dict[Binding, str] = field(default_factory=dict)

    @property
    def id(self) -> UUID:
        return self.organization.organization_id

    @property
    def opener(self) -> Opener:
        """What the operator opens with."""
        return Opener(self.operating, self.id, Keyring(KeyFile(self.master)))

    def source(self, secret: str, **config: Any) -> Binding:
        """A source with this password."""
        source_id = making.make_source(self.connection, self.id, self.project_id, config)
        binding = Binding(self.id, source_id, "password", SPEC.target_fingerprint(SPEC.config(**config)))
        making.put_secret(self.connection, secret, binding)
        self.secrets[binding] = secret
        return binding

    def webhook(self, secret: str) -> Binding:
        """A webhook with this secret."""
        binding = signing.binding(self.id, making.make_webhook(self.connection, self.id, secret=secret), 1)
        self.secrets[binding] = secret
        return binding

    def unsaved_test(self, secret: str) -> Binding:
        """A queued test of a source that is not saved."""
        draft = {"type": "scripted", "config": {"type": "scripted"}}
        answer = making.submit(
            self.connection, self.organization, self.project_id, ids.new(), data_source_id=None, draft=draft
        )
        binding = Binding(self.id, UUID(answer["job"]["id"]), "password", TARGET)
        making.put_secret(self.connection, secret, binding)
        self.secrets[binding] = secret
        return binding

    def replace(self, binding: Binding, secret: str) -> None:
        """As the API does."""
        self.connection.execute("delete from sealed_credential where subject_id = %s", (binding.subject_id,))
        making.put_secret(self.connection, secret, binding)
        self.secrets[binding] = secret

    def opened(self) -> dict[Binding, str]:
        """Everything as a worker opens it now."""
        found = {}
        for binding in self.secrets:
            sealed = unseal.fetch(self.connection, organization_id=self.id, subject_id=binding.subject_id)
            opened = unseal.unseal_all(sealed, provider=KeyFile(self.master), target=binding.target)
            if opened:
                found[binding] = opened[binding.field]
        return found

    def key_ids(self) -> list[UUID]:
        """The organization's, the oldest first."""
        rows = self.connection.execute(
            "select id from organization_key where organization_id = %s order by created_at, id", (self.id,)
        )
        return [row["id"] for row in rows]

    def used(self) -> set[UUID]:
        """The keys that something is sealed to."""
        rows = self.connection.execute(
            "select distinct key_id from sealed_credential where organization_id = %s", (self.id,)
        )
        return {row["key_id"] for row in rows}

    def audited(self) -> list[str]:
        """What was done to its keys, in order."""
        rows = self.connection.execute(
            "select act from audit_entry where organization_id = %s and act like 'organization_key.%%' order by number",
            (self.id,),
        )
        return [row["act"] for row in rows]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The master keys of this module's organizations: tests put others behind the first."""
    path = tmp_path_factory.mktemp("keys") / "master"
    create_key_file(path)
    return path


@pytest.fixture
def operating(owner: str) -> Iterator[Connection]:
    """The operator's connection, as the owner of the tables and no superuser."""
    with db.connect(owner, application="tests") as connection:
        yield connection


@pytest.fixture
def make_holder(
    connection: Connection, operating: Connection, owner: str, database: str, pepper_file: Path, master: Path
) -> Callable[[], Holder]:
    """Makes organizations without secrets."""

    def make() -> Holder:
        organization = making.make_organization(database, pepper_file, master, name=ids.new().hex)
        project_id = making.make_project(connection, organization.organization_id)
        return Holder(connection, operating, owner, organization, project_id, master)

    return make


@pytest.fixture
def holder(make_holder: Callable[[], Holder]) -> Holder:
    """An organization without secrets."""
    return make_holder()


def admin(holder: Holder, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """`headwater admin ...`, started."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(scripted_source.__file__).parents[1]),
        "HEADWATER_DATABASE_URL": holder.url,
        "HEADWATER_MASTER_KEY_FILE": str(holder.master),
        **settings,
    }
    return subprocess.Popen(
        (sys.executable, "-m", "headwater_cli.admin", *arguments),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def rotate(opener: Opener) -> rotation.Progress:
    """A whole rotation; how it ended."""
    rotation.begin(opener)
    *_, last = rotation.go_on(opener)
    return last


def add_master_key(holder: Holder) -> None:
    """As `openssl rand -base64 32 >> master.key` does."""
    with holder.master.open("ab") as file:
        file.write(base64.b64encode(os.urandom(32)) + b"\n")


def _copy(master: Path, folder: Path, *, lines: slice) -> Path:
    """Some of the master keys, in a file of their own."""
    path = folder / "copied"
    create_key_file(path)
    path.write_text("\n".join(master.read_text().splitlines()[lines]))
    return path


@pytest.mark.parametrize("as_superuser", [False, True])
def test_everything_is_sealed_anew_and_the_old_key_is_gone(
    make_holder: Callable[[], Holder], database: str, as_superuser: bool
) -> None:
    """Sources, webhooks and unsaved tests of one organization, and nothing of another, whoever the operator is."""
    holder, other = make_holder(), make_holder()
    for number in range(MANY if as_superuser else 1):
        holder.source(f"secret {number}", host=f"h{number}")
    holder.webhook("whsec_dGVzdHM=")
    holder.unsaved_test("unsaved")
    other.source("theirs")
    (old,), untouched = holder.key_ids(), other.key_ids()
    with db.connect(database if as_superuser else holder.url, application="tests") as holder.operating:
        progress = rotate(holder.opener)
    (new,) = holder.key_ids()
    assert (progress.resealed, progress.deleted, progress.unopened) == (len(holder.secrets), [old], [])
    assert (holder.used(), holder.opened()) == ({new}, holder.secrets)
    batches = 1 + (len(holder.secrets) - 1) // 100
    assert holder.audited() == [Act.KEY_CREATE, *[Act.KEY_RESEAL] * batches, Act.KEY_DELETE]
    assert (other.key_ids(), other.opened(), other.audited()) == (untouched, other.secrets, [])


def test_cut_off_after_any_step_it_goes_on(holder: Holder) -> None:
    """Each time everything opens; the same again ends it, with the one new key."""
    for number in range(MANY):
        holder.source(f"secret {number}")
    (old,) = holder.key_ids()
    begun = [rotation.begin(holder.opener) for _ in range(2)]
    (_, new), steps = holder.key_ids(), 0
    while old in holder.key_ids():
        next(rotation.go_on(holder.opener))
        steps += 1
        assert holder.opened() == holder.secrets
    assert (begun, steps, holder.key_ids(), holder.used()) == ([True, False], 4, [new], {new})


def test_killed_at_every_point_it_goes_on(holder: Holder, tmp_path: Path) -> None:
    """Real processes; each dies where the one before did not. Nothing is lost at any moment, and the last one ends."""
    for number in range(3):
        holder.source(f"secret {number}")
    (old,) = holder.key_ids()
    points = [f"rotation.{name}" for name in ("begun", "read", "written", "committed", "deleted")]
    died = []
    (tmp_path / "points").mkdir()
    settings = {
        "HEADWATER_FAILPOINTS": " ".join(f"{point}=die" for point in [*points, "rotation.rewrapped"]),
        "HEADWATER_FAILPOINTS_DIR": str(tmp_path / "points"),
    }
    name = ids.encode("org", holder.id)
    for arguments in (("rotate-keys", name), ("rotate-master-key",)):
        if arguments[0] == "rotate-master-key":
            add_master_key(holder)
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            process = admin(holder, *arguments, **settings)
            _, said = process.communicate(timeout=60)
            code = process.returncode
            died.append(code)
            assert holder.opened() == holder.secrets, said
            if old not in holder.key_ids() and arguments[0] == "rotate-keys":
                break  # the next would begin another rotation
        assert code in (0, -signal.SIGKILL), said
    assert {path.name.removesuffix(".1") for path in (tmp_path / "points").iterdir()} == {*points, "rotation.rewrapped"}
    assert len(holder.key_ids()) == 1
    assert died == [-signal.SIGKILL] * 6 + [0]


def test_whoever_changes_a_secret_meanwhile_wins(holder: Holder, tmp_path: Path) -> None:
    """Replaced, destroyed or sealed to the old key while the rotation holds what it read: all is as they left it."""
    kept, replaced, destroyed = (holder.source(name) for name in ("kept", "old", "destroyed"))
    (old,) = holder.key_ids()
    (tmp_path / "points").mkdir()
    process = admin(
        holder, "rotate-keys", ids.encode("org", holder.id),
        HEADWATER_FAILPOINTS="rotation.read=freeze", HEADWATER_FAILPOINTS_DIR=str(tmp_path / "points"),
    )  # fmt: skip
    os.waitpid(process.pid, os.WUNTRACED)
    holder.replace(replaced, "new")
    holder.connection.execute("delete from sealed_credential where subject_id = %s", (destroyed.subject_id,))
    del holder.secrets[destroyed]
    late = holder.source("late")
    # As a request does that read the key before the rotation began, and ends now.
    holder.connection.execute("delete from sealed_credential where subject_id = %s", (late.subject_id,))
    with db.connect(holder.url, application="tests") as api, api.transaction():
        db.set_organization(api, holder.id)
        making.put_secret(api, "late", late, key_id=old)
    process.send_signal(signal.SIGCONT)
    said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    (new,) = holder.key_ids()
    assert (holder.opened(), holder.used()) == ({kept: "kept", replaced: "new", late: "late"}, {new})


def test_a_row_that_is_being_changed_is_waited_for_and_never_locked_out(holder: Holder) -> None:
    """The rotation passes it over, and takes it when the transaction has ended."""
    busy, idle = holder.source("before"), holder.source("idle")
    rotation.begin(holder.opener)
    old, new = holder.key_ids()
    steps = rotation.go_on(holder.opener)
    with db.connect(holder.url, application="tests") as api, api.transaction():
        db.set_organization(api, holder.id)
        api.execute("select from sealed_credential where subject_id = %s for update", (busy.subject_id,))
        next(steps)
        assert holder.used() == {old, new}
        api.execute("delete from sealed_credential where subject_id = %s", (busy.subject_id,))
        making.put_secret(api, "after", busy)
    *_, last = steps
    assert (last.deleted, holder.used(), holder.opened()) == ([old], {new}, {busy: "after", idle: "idle"})


def test_a_row_that_is_held_for_a_whole_pass_is_taken_in_the_next(holder: Holder) -> None:
    """The rotation does not end while a secret is left that opens."""
    busy = holder.source("busy")
    rotation.begin(holder.opener)
    old, new = holder.key_ids()
    steps = rotation.go_on(holder.opener)
    with db.connect(holder.url, application="tests") as api, api.transaction():
        db.set_organization(api, holder.id)
        api.execute("select from sealed_credential where subject_id = %s for update", (busy.subject_id,))
        assert [step.resealed for step in (next(steps), next(steps))] == [0, 0]
    *_, last = steps
    assert (last.resealed, last.deleted, holder.used(), holder.opened()) == (1, [old], {new}, {busy: "busy"})


def test_nothing_can_be_sealed_to_a_key_that_is_gone(holder: Holder) -> None:
    """Whoever read it in time and writes too late is refused by the database."""
    (old,) = holder.key_ids()
    binding = holder.source("in time")
    rotate(holder.opener)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        holder.connection.execute(
            "update sealed_credential set key_id = %s where subject_id = %s", (old, binding.subject_id)
        )
    assert holder.opened() == holder.secrets


def test_what_does_not_open_keeps_its_key_and_is_named(holder: Holder) -> None:
    """A source that was pointed elsewhere behind our backs. Put again, the same command ends the rotation."""
    moved, fine = holder.source("secret"), holder.source("fine")
    (old,) = holder.key_ids()
    holder.connection.execute(
        """
        with moved as (update data_source set version = 2 where id = %s returning id, organization_id)
        insert into data_source_version (data_source_id, version, organization_id, config, validation, reading)
        select id, 2, organization_id, '{"type": "scripted", "host": "evil"}', '{}', '{}' from moved
        """,
        (moved.subject_id,),
    )
    progress = rotate(holder.opener)
    assert [(found.subject_id, found.field) for found in progress.unopened] == [(moved.subject_id, "password")]
    assert (progress.deleted, old in holder.key_ids(), holder.opened()[fine]) == ([], True, "fine")
    found = master_keys.verify(holder.opener)
    assert (found.retired, len(found.unopened), found.secrets) == ([old], 1, 2)
    elsewhere = Binding(holder.id, moved.subject_id, "password", SPEC.target_fingerprint(SPEC.config(host="evil")))
    del holder.secrets[moved]
    holder.replace(elsewhere, "again")
    assert (rotate(holder.opener).deleted, holder.opened()) == ([old], {elsewhere: "again", fine: "fine"})


def test_an_organization_that_is_deleted_gets_no_new_key(holder: Holder) -> None:
    """Its keys were destroyed; a rotation must not bring one back."""
    holder.connection.execute("update organization set deleted_at = now() where id = %s", (holder.id,))
    with pytest.raises(Failure):
        rotation.begin(holder.opener)
    assert len(holder.key_ids()) == 1


def test_the_master_key_is_replaced_and_the_old_one_is_not_needed_any_more(holder: Holder, tmp_path: Path) -> None:
    """Both open while the private keys move; then the old line can go, and everything opens without it."""
    holder.source("secret")
    before = master_keys.newest(holder.opener.provider)
    add_master_key(holder)
    newest = master_keys.newest(holder.opener.provider)
    assert holder.opened() == holder.secrets
    assert master_keys.verify(holder.opener).is_done(newest) is False
    assert (master_keys.rewrap(holder.opener, newest), master_keys.rewrap(holder.opener, newest)) == (1, 0)
    assert (master_keys.wrapped_by(holder.opener), before == newest) == ({newest: 1}, False)
    holder.master = _copy(holder.master, tmp_path, lines=slice(-1, None))
    assert (holder.opened(), master_keys.verify(holder.opener).is_done(newest)) == (holder.secrets, True)


def test_what_was_wrapped_before_master_keys_had_names_is_found_and_moved(holder: Holder) -> None:
    """By trying each key that is there."""
    holder.source("secret")
    holder.connection.execute("update organization_private_key set master_key = null")
    add_master_key(holder)
    newest = master_keys.newest(holder.opener.provider)
    assert holder.opened() == holder.secrets
    assert (master_keys.rewrap(holder.opener, newest), holder.opened()) == (1, holder.secrets)


def test_a_worker_without_the_new_master_key_waits_and_is_told_which(holder: Holder, tmp_path: Path) -> None:
    """It has the old file only: that is no broken secret."""
    binding = holder.source("secret")
    old = _copy(holder.master, tmp_path, lines=slice(None))
    add_master_key(holder)
    newest = master_keys.newest(holder.opener.provider)
    master_keys.rewrap(holder.opener, newest)
    sealed = unseal.fetch(holder.connection, organization_id=holder.id, subject_id=binding.subject_id)
    with pytest.raises(KeyUnavailable) as refused:
        unseal.unseal_all(sealed, provider=KeyFile(old), target=binding.target)
    assert newest.name in (refused.value.hint or "")


@pytest.mark.parametrize("part", ["field", "subject", "organization", "key", "wrapped key", "cut", "flipped"])
def test_what_was_rotated_opens_nowhere_else(make_holder: Callable[[], Holder], part: str) -> None:
    """Sealed anew and wrapped anew, a ciphertext still opens in its own place alone, whole and unchanged."""
    holder, other = make_holder(), make_holder()
    binding, another = holder.source("secret"), holder.source("another")
    for each in (holder, other):
        rotate(each.opener)
        add_master_key(each)
        master_keys.rewrap(each.opener, master_keys.newest(each.opener.provider))
    change = {
        "field": "update sealed_credential set field = 'token' where subject_id = %(subject)s",
        "subject": "update sealed_credential set ciphertext = (select ciphertext from sealed_credential"
        " where subject_id = %(another)s) where subject_id = %(subject)s",
        "organization": "update sealed_credential set organization_id = %(other)s, key_id = %(other_key)s"
        " where subject_id = %(subject)s",
        "key": "update sealed_credential set key_id = %(other_key)s where subject_id = %(subject)s",
        "wrapped key": "update organization_private_key set wrapped = (select wrapped from organization_private_key"
        " where key_id = %(other_key)s) where key_id = %(key)s",
        "cut": "update sealed_credential set ciphertext = substring(ciphertext from 2) where subject_id = %(subject)s",
        "flipped": "update sealed_credential set ciphertext = set_byte(ciphertext, length(ciphertext) - 1,"
        " get_byte(ciphertext, length(ciphertext) - 1) # 1) where subject_id = %(subject)s",
    }[part]
    holder.connection.execute(
        change,
        {
            "subject": binding.subject_id, "another": another.subject_id, "other": other.id,
            "key": holder.key_ids()[0], "other_key": other.key_ids()[0],
        },
    )  # fmt: skip
    reader = other if part == "organization" else holder
    sealed = unseal.fetch(holder.connection, organization_id=reader.id, subject_id=binding.subject_id)
    with pytest.raises(CannotUnseal):
        unseal.unseal_all(sealed, provider=KeyFile(holder.master), target=binding.target)


def test_verify_keys_says_what_is_broken(holder: Holder) -> None:
    """A private key that is not the public one's other half is no key."""
    holder.source("secret")
    newest = master_keys.newest(holder.opener.provider)
    assert master_keys.verify(holder.opener).is_done(newest) is True
    (key_id,) = holder.key_ids()
    made = keys.make(holder.id, holder.opener.provider)
    holder.connection.execute("update organization_key set public_key = %s where id = %s", (made.public, key_id))
    assert master_keys.verify(holder.opener).broken == [key_id]


def test_verify_keys_is_content_only_when_nothing_is_left_to_do(holder: Holder) -> None:
    """A key that is on its way out, one that does not unwrap, a secret that does not open: each alone is enough."""
    newest = master_keys.newest(holder.opener.provider)
    rotation.begin(holder.opener)
    assert (master_keys.verify(holder.opener).is_done(newest), rotate(holder.opener).unopened) == (False, [])
    assert master_keys.verify(holder.opener).is_done(newest) is True
    binding = holder.source("secret")
    holder.connection.execute(
        "update sealed_credential set ciphertext = substring(ciphertext from 2) where subject_id = %s",
        (binding.subject_id,),
    )
    assert master_keys.verify(holder.opener).is_done(newest) is False
    holder.replace(binding, "again")
    assert master_keys.verify(holder.opener).is_done(newest) is True
    (key_id,) = holder.key_ids()
    public = keys.make(holder.id, holder.opener.provider).public
    holder.connection.execute("delete from sealed_credential where subject_id = %s", (binding.subject_id,))
    holder.connection.execute("update organization_key set public_key = %s where id = %s", (public, key_id))
    assert master_keys.verify(holder.opener).is_done(newest) is False


class Overtaken(Keyring):
    """The operator's, who is overtaken by another one between reading a private key and writing it."""

    def __init__(self, key: KeyFile, overtake: Callable[[], object]) -> None:
        super().__init__(key)
        self._overtake = overtake

    def rewrap(self, wrapped: Wrapped, context: bytes) -> Wrapped:
        """As it does; then the other one is through before it returns."""
        rewrapped = super().rewrap(wrapped, context)
        self._overtake()
        return rewrapped


def test_of_two_who_wrap_a_key_anew_the_first_wins(holder: Holder) -> None:
    """What it wrote stays: the other one's is of what stood there before."""
    holder.source("secret")
    add_master_key(holder)
    newest, wrapped = master_keys.newest(holder.opener.provider), "select wrapped from organization_private_key"
    found: list[Any] = []

    def overtake() -> None:
        found.append(master_keys.rewrap(holder.opener, newest))
        found.append(holder.connection.execute(f"{wrapped} where key_id = %s", holder.key_ids()).fetchone())

    late = Opener(holder.operating, holder.id, Overtaken(KeyFile(holder.master), overtake))
    assert master_keys.rewrap(late, newest) == 0
    left = holder.connection.execute(f"{wrapped} where key_id = %s", holder.key_ids()).fetchone()
    assert (found, holder.audited()) == ([1, left], [Act.KEY_REWRAP])
    assert holder.opened() == holder.secrets
