"""The logins of the services: each belongs to the role whose rights the migrations name, and to nothing else.

headwater (owner)      migrations and `headwater admin`
<login>  in  headwater_api | headwater_worker | headwater_scheduler
"""

from collections.abc import Mapping
from typing import Final, Literal, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from headwater.settings import LoginSettings
from headwater_cli import outside
from headwater_cli.errors import Failure

Service = Literal["api", "worker", "scheduler"]

SERVICES: Final[tuple[Service, ...]] = ("api", "worker", "scheduler")


def variable(service: Service) -> str:
    """The setting that tells `headwater admin migrate` with which URL a service will come."""
    return f"HEADWATER_{service.upper()}_DATABASE_URL"


def role(service: Service) -> str:
    """The role whose rights the service has."""
    return f"headwater_{service}"


def from_environment() -> dict[Service, str]:
    """The URLs that the environment names."""
    settings = LoginSettings()
    named: dict[Service, str | None] = {
        "api": settings.api_database_url,
        "worker": settings.worker_database_url,
        "scheduler": settings.scheduler_database_url,
    }
    return {service: url for service, url in named.items() if url}


def url_for(owner_url: str, name: str, password: str) -> str:
    """`owner_url` with another login. Neither part needs escaping: letters, digits, - and _ only."""
    parts = urlsplit(owner_url)
    server = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{name}:{password}@{server}"))


def ensure(owner_url: str, urls: Mapping[Service, str]) -> None:
    """Make the logins that `urls` name, or give them these passwords. The database is migrated already.

    Raises:
        Failure: a URL names no login of its own, or the owner may not make logins.
    """
    with psycopg.connect(owner_url, autocommit=True) as connection:
        for service, url in urls.items():
            parts = urlsplit(url)
            name, password = unquote(parts.username or ""), unquote(parts.password or "")
            if not name or not password or name == connection.info.user:
                raise Failure(
                    f"{variable(service)} needs a user and a password of its own.",
                    hint="The owner of the database is for migrations and `headwater admin` alone.",
                )
            try:
                _ensure(connection, service, name, password)
            except psycopg.errors.InsufficientPrivilege:
                raise Failure(
                    f"The owner of {outside.address(owner_url)} may not make the login {name}.",
                    hint=f"As a superuser: create role {name} login password '...' in role {role(service)}; or give "
                    "the owner CREATEROLE.",
                ) from None


def _ensure(connection: psycopg.Connection, service: Service, name: str, password: str) -> None:
    known = connection.execute("select 1 from pg_roles where rolname = %s", (name,)).fetchone() is not None
    if known and _opens(connection, service, name, password):
        return
    # As a verifier: the server's log may show statements.
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256")
    as_login = sql.SQL("{} login password {}").format(sql.Identifier(name), sql.Literal(verifier.decode()))
    try:
        connection.execute(sql.SQL("create role ") + as_login)
    except psycopg.errors.DuplicateObject:
        connection.execute(sql.SQL("alter role ") + as_login)
    connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(role(service)), sql.Identifier(name)))
    connect = sql.SQL("grant connect on database {} to {}")
    connection.execute(connect.format(sql.Identifier(connection.info.dbname), sql.Identifier(name)))


def _opens(connection: psycopg.Connection, service: Service, name: str, password: str) -> bool:
    """Whether nothing is to be done: whoever keeps the roles by hand need not let us change them."""
    member = "select pg_has_role(%s, %s, 'usage')"
    belongs = cast(tuple[bool], connection.execute(member, (name, role(service))).fetchone())[0]
    try:
        psycopg.connect(connection.info.dsn, user=name, password=password, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return belongs
