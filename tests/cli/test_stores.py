"""The embedded stores: real servers, killed for real."""

import os
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from headwater_cli import places, processes, stores
from headwater_cli.errors import Failure

_FAST = {"fsync": "off", "shared_buffers": "16MB"}


@pytest.mark.parametrize("major", [18, 16])
def test_each_major_serves_the_role_that_owns_its_database(major: int) -> None:
    """The product's role is no superuser, so row-level security can hold for it."""
    with stores.postgres(major=major, settings=_FAST) as store, psycopg.connect(store.url) as connection:
        row = connection.execute(
            "select current_setting('server_version_num')::int / 10000, current_user, rolsuper,"
            " pg_get_userbyid(datdba) from pg_roles, pg_database"
            " where rolname = current_user and datname = current_database()"
        ).fetchone()
    assert row == (major, "headwater", False, "headwater")


def test_a_wrong_password_is_refused() -> None:
    """SCRAM asks everybody, on loopback too."""
    with stores.postgres(settings=_FAST) as store:
        password = urlsplit(store.url).password or ""
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(store.url.replace(password, "wrong"))


def test_extra_settings_win() -> None:
    """The tests start Postgres with `fsync=off`."""
    with (
        stores.postgres(settings={**_FAST, "max_connections": "17"}) as store,
        psycopg.connect(store.url) as connection,
    ):
        row = connection.execute("select current_setting('fsync'), current_setting('max_connections')").fetchone()
    assert row == ("off", "17")


def test_a_committed_row_survives_kill_9(open_folder: Path) -> None:
    """Whoever kills the server finds at the next start what was committed."""
    store = stores.start_postgres(open_folder / "postgres")
    with psycopg.connect(store.url) as connection:
        connection.execute("create table kept as select 42 as answer")
    os.kill(store.pid, signal.SIGKILL)
    store.process.wait()
    again = stores.start_postgres(open_folder / "postgres")
    with psycopg.connect(again.url) as connection:
        row = connection.execute("select answer from kept").fetchone()
    assert again.stop() == 0
    assert row == (42,)


def test_a_server_left_behind_is_ended_before_the_next(open_folder: Path) -> None:
    """A second start on the same data takes them over from a server that nobody watches any more."""
    left = stores.start_postgres(open_folder / "postgres", settings=_FAST)
    again = stores.start_postgres(open_folder / "postgres", settings=_FAST)
    assert left.process.wait(timeout=10) == 0
    assert again.stop() == 0


def test_a_pid_file_with_a_pid_of_somebody_else_is_no_obstacle(open_folder: Path) -> None:
    """In a container a stale pid is soon another process's; that one is left alone."""
    store = stores.start_postgres(open_folder / "postgres", settings=_FAST)
    os.kill(store.pid, signal.SIGKILL)
    store.process.wait()
    neighbour = processes.spawn(
        processes.Command(
            ("sleep", "60"),
            processes.base_environment(),
            open_folder / "sleep.log",
            user=store.command.user,
            group=store.command.group,
        )
    )
    place = places.find(stores._postgres_kit(18), open_folder / "postgres")
    pid_file = place.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(neighbour.pid), *lines[1:]]))
    again = stores.start_postgres(open_folder / "postgres", settings=_FAST)
    assert again.stop() == 0
    assert neighbour.poll() is None
    neighbour.kill()
    neighbour.wait()


def test_data_of_another_major_are_refused(open_folder: Path) -> None:
    """Postgres cannot read them; the message says which version made them."""
    stores.start_postgres(open_folder / "postgres", major=16, settings=_FAST).stop()
    with pytest.raises(Failure, match="made by Postgres 16, and this is Postgres 18"):
        stores.prepare_postgres(open_folder / "postgres", major=18)


def test_the_passwords_stand_in_a_private_file_and_in_no_argument(open_folder: Path) -> None:
    """`ps` shows arguments to everybody on the machine."""
    database = stores.start_postgres(open_folder / "postgres", settings=_FAST)
    doorbell = stores.start_valkey(open_folder / "valkey")
    try:
        shown = processes.arguments(database.pid) + processes.arguments(doorbell.pid)
        modes = {(open_folder / name).stat().st_mode & 0o777 for name in ("postgres.json", "valkey.json")}
        assert not [url for url in (database.url, doorbell.url) if (urlsplit(url).password or "") in shown]
        assert modes == {0o600}
    finally:
        doorbell.stop()
        database.stop()


def test_valkey_keeps_its_data_over_kill_9(open_folder: Path) -> None:
    """The append-only file is written before the answer when it is told to sync always."""
    store = stores.start_valkey(open_folder / "valkey", settings={"appendfsync": "always"})
    with redis.Redis.from_url(store.url) as client:
        client.rpush("queue", *range(500))
    os.kill(store.pid, signal.SIGKILL)
    store.process.wait()
    again = stores.start_valkey(open_folder / "valkey")
    with redis.Redis.from_url(again.url) as client:
        length = client.llen("queue")
    assert again.stop() == 0
    assert length == 500


def test_valkey_asks_for_its_password_and_never_evicts() -> None:
    """A queue that forgets jobs under memory pressure would be worse than one that refuses them."""
    with stores.valkey() as store:
        with redis.Redis.from_url(store.url) as client:
            policy = client.config_get("maxmemory-policy")
        with redis.Redis(port=store.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    assert policy == {"maxmemory-policy": "noeviction"}


def test_the_stores_listen_on_loopback_alone_and_on_no_default_port() -> None:
    """A machine that runs its own Postgres and Redis notices nothing."""
    with stores.postgres(settings=_FAST) as database, stores.valkey() as doorbell:
        assert {database.port, doorbell.port}.isdisjoint({5432, 6379})
        for port in (database.port, doorbell.port):
            with socket.socket() as free_elsewhere:
                # Taken on all addresses, this would fail; another loopback address is free.
                free_elsewhere.bind(("127.0.0.2", port))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's stores run as another account")
def test_below_a_closed_folder_root_s_postgres_lives_in_a_neutral_one_and_is_found_again(open_folder: Path) -> None:
    """The closed folder stays closed, and the second start finds the rows of the first."""
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    data = closed / "postgres"
    first = stores.start_postgres(data)
    with psycopg.connect(first.url) as connection:
        connection.execute("create table kept as select 42 as answer")
    first.stop()
    second = stores.start_postgres(data)
    with psycopg.connect(second.url) as connection:
        row = connection.execute("select answer from kept").fetchone()
    second.stop()
    neutral = places.find(stores._postgres_kit(18), data).data.parent
    places.forget(data)
    assert row == (42,)
    assert closed.stat().st_mode & 0o777 == 0o700
    assert not neutral.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's stores run as another account")
def test_data_that_lose_their_way_in_are_moved_and_kept(open_folder: Path) -> None:
    """The folder above is closed after the first start: the rows are still there at the second."""
    home = open_folder / "home"
    home.mkdir(mode=0o755)
    first = stores.start_postgres(home / "postgres")
    with psycopg.connect(first.url) as connection:
        connection.execute("create table kept as select 42 as answer")
    first.stop()
    home.chmod(0o700)
    second = stores.start_postgres(home / "postgres")
    with psycopg.connect(second.url) as connection:
        row = connection.execute("select answer from kept").fetchone()
    second.stop()
    places.forget(home / "postgres")
    assert row == (42,)
