"""What every file connector must do, as tests that ship with the package: an outside connector proves itself with them.

Subclass `FileConnectorConformance` in a test module (`FileSourceConformance` for files that no network and no
credentials stand before), give it a `store` fixture, and pytest collects the rest. The store must be a real one or an
emulator that checks credentials; only loopback is dialled. Needs pytest, which nothing else in this package imports.
docs/connectors.md builds a connector and its suite from nothing.

With `HEADWATER_CONFORMANCE_REPORT` set to a path, what each fault comes to is appended there as a line of JSON:
`{"source", "fault", "check", "code"}`, an empty `check` where no connection test is asked.
"""

import json
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from headwater.connectors.spec import Capability, ConnectorConfig, ConnectorSpec
from headwater.errors import ConnectorError, Permanent, Transient
from headwater_worker.connectors import ladder
from headwater_worker.connectors.base import FileConnector, FileEntry, Opening
from headwater_worker.egress import Policy, Proxy

LOOPBACK: Final = Policy.parse("127.0.0.0/8")

CHECK_KEYS: Final = {"name", "status", "code", "message", "hint", "duration_ms"}
STATUSES: Final = {"passed", "failed", "warning", "skipped"}

_REPORT: Final = "HEADWATER_CONFORMANCE_REPORT"


@dataclass(frozen=True)
class Access:
    """A config as a user writes it, and the credentials that go with it."""

    config: Mapping[str, Any]
    credentials: Mapping[str, str] = field(repr=False, default_factory=dict)


class FileStore(ABC):
    """A place of files under test, filled by the tests. What it cannot hold, `put` skips the test for."""

    @abstractmethod
    def access(self) -> Access:
        """What works, and sees every file."""

    @abstractmethod
    def put(self, path: str, body: bytes) -> None:
        """Write a file; a second time replaces it."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a file."""


class Store(FileStore):
    """A store that is reached over a network, with credentials."""

    @abstractmethod
    def access(self, prefix: str = "") -> Access:
        """What works, seeing only paths that start with `prefix`."""

    @abstractmethod
    def wrong_secret(self) -> Access:
        """A known identity with a secret that is not its own."""

    @abstractmethod
    def no_rights(self) -> Access | None:
        """An identity that is known and may not list; None where the store has no such thing."""

    @abstractmethod
    def no_target(self) -> Access:
        """A bucket or container that does not exist."""

    @abstractmethod
    def elsewhere(self, host: str, port: int, *, tls: bool) -> Access:
        """The same at another origin."""


def silent_port(stack: ExitStack) -> int:
    """A port where connections are accepted by the kernel and nobody ever says a word."""
    return _port(stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=16)))


def black_hole(stack: ExitStack) -> int:
    """A port that answers no connection attempt: its backlog is full, and Linux drops what comes then."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(4):
        filler = stack.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", _port(listener)))
    return _port(listener)


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return _port(listener)


def _port(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


class FileSourceConformance:
    """The part that every source of files passes, wherever its files are.

    Subclasses set `spec` and `runtime` and define a fixture `store` that gives a fresh `FileStore`. `inapplicable`
    names the checks that may be `skipped` although the source works.
    """

    spec: ClassVar[ConnectorSpec]
    runtime: ClassVar[type[FileConnector]]
    inapplicable: ClassVar[frozenset[str]] = frozenset()
    many_files: ClassVar[int] = 2_100

    def opening(self, config: ConnectorConfig, access: Access, policy: Policy, proxy: Proxy) -> Opening:
        """What the runtime is opened with; a suite adds what its type needs beside."""
        return Opening(config, dict(access.credentials), policy, proxy)

    @contextmanager
    def opened(self, access: Access, policy: Policy = LOOPBACK) -> Iterator[FileConnector]:
        """The connector as a job has it."""
        config: ConnectorConfig = self.spec.config.model_validate(dict(access.config))
        with (
            Proxy(policy) as proxy,
            self.runtime(self.opening(config, access, policy, proxy)) as connector,
        ):
            yield connector

    def result_of(self, access: Access, policy: Policy = LOOPBACK) -> dict[str, Any]:
        """The result of a connection test."""
        with self.opened(access, policy) as connector:
            return ladder.run(connector)

    def observed(self, fault: str, code: str, check: str = "") -> None:
        """Report what `fault`, a few words for people, came to; a suite may add faults of its own."""
        if _REPORT in os.environ:
            line = {"source": self.spec.type, "fault": fault, "check": check, "code": code}
            # One short write at the end of the file: suites in other processes write there too.
            with Path(os.environ[_REPORT]).open("a", encoding="utf-8") as report:
                report.write(json.dumps(line) + "\n")

    def observed_in(self, result: Mapping[str, Any], fault: str) -> None:
        """Report what `fault` came to in the result of a connection test."""
        check = next(check for check in result["checks"] if check["status"] in ("failed", "warning"))
        self.observed(fault, check["code"], check["name"])

    def listed(self, access: Access, prefix: str = "") -> list[FileEntry]:
        """Every file of a listing."""
        with self.opened(access) as connector:
            return _flat(connector, prefix)

    # The spec.

    def test_the_spec_says_what_the_runtime_can_do(self) -> None:
        """The types agree, and a source of files says so."""
        assert self.runtime.type == self.spec.type
        assert {Capability.TEST, Capability.FILES} <= self.spec.capabilities

    # The ladder.

    def test_a_working_source_passes_every_check(self, store: FileStore) -> None:
        """Every check passes, but for those that do not apply."""
        store.put("a.json", b"{}")
        result = self.result_of(store.access())
        assert result["success"] is True
        others = [check for check in result["checks"] if check["status"] != "passed"]
        assert {check["name"] for check in others} <= self.inapplicable
        assert {check["status"] for check in others} <= {"skipped"}
        assert result["latency_ms"] >= 0

    def test_checks_have_the_shape_and_the_order_of_the_contract(self, store: FileStore) -> None:
        """The names come in order, each with all its fields."""
        store.put("a.json", b"{}")
        checks = self.result_of(store.access())["checks"]
        positions = [ladder.STEP_NAMES.index(check["name"]) for check in checks]
        assert positions == sorted(set(positions))
        assert all(set(check) == CHECK_KEYS and check["status"] in STATUSES for check in checks)

    def test_a_place_without_files_is_a_warning(self, store: FileStore) -> None:
        """It works, and says that there is nothing to see."""
        result = self.result_of(store.access())
        assert result["success"] is True
        assert (_check(result, "list")["status"], _check(result, "list")["code"]) == ("warning", "empty_scope")
        assert _check(result, "read")["status"] == "skipped"

    def test_an_empty_file_can_be_the_sample(self, store: FileStore) -> None:
        """A file without bytes has no range to read, and is no reason to fail."""
        store.put("empty.json", b"")
        assert _check(self.result_of(store.access()), "read")["status"] == "passed"

    # Listing.

    def test_a_listing_shows_every_file_once(self, store: FileStore) -> None:
        """More than one page, no gaps, no doubles."""
        expected = {f"many-{number:05}.json" for number in range(self.many_files)}
        for path in expected:
            store.put(path, b"{}")
        paths = [entry.path for entry in self.listed(store.access())]
        assert len(paths) == len(expected)
        assert set(paths) == expected

    def test_a_listed_file_says_size_and_time(self, store: FileStore) -> None:
        """Sizes in bytes; times know their zone."""
        store.put("a.json", b"12345")
        (entry,) = self.listed(store.access())
        assert (entry.path, entry.size) == ("a.json", 5)
        assert entry.modified_at is not None
        assert entry.modified_at.utcoffset() == timedelta(0)

    def test_an_etag_changes_with_the_content_alone(self, store: FileStore) -> None:
        """The same bytes keep it, other bytes of the same size do not."""
        store.put("a.json", b"one")
        before = self.listed(store.access())[0].etag
        assert before
        assert self.listed(store.access())[0].etag == before
        store.put("a.json", b"two")
        assert self.listed(store.access())[0].etag != before

    def test_a_listing_can_be_asked_for_a_prefix(self, store: FileStore) -> None:
        """Paths that start with it, and no others; it is no pattern."""
        for path in ("a%.json", "a1.json", "ab.json", "b.json"):
            store.put(path, b"{}")
        assert _paths(self.listed(store.access(), "a")) == {"a%.json", "a1.json", "ab.json"}
        assert _paths(self.listed(store.access(), "a%")) == {"a%.json"}
        assert _paths(self.listed(store.access(), "c")) == set()

    def test_folders_are_in_the_path(self, store: FileStore) -> None:
        """A file in a folder is listed, found by a prefix and opened by its whole path."""
        for path in ("a/1.json", "a/b/2.json", "ab/3.json"):
            store.put(path, path.encode())
        assert _paths(self.listed(store.access())) == {"a/1.json", "a/b/2.json", "ab/3.json"}
        assert _paths(self.listed(store.access(), "a/")) == {"a/1.json", "a/b/2.json"}
        assert _paths(self.listed(store.access(), "a/b")) == {"a/b/2.json"}
        with self.opened(store.access()) as connector, connector.open_file("a/b/2.json") as file:
            assert file.stream.read() == b"a/b/2.json"

    def test_a_target_without_files_lists_nothing(self, store: FileStore) -> None:
        """Not an error."""
        assert self.listed(store.access()) == []

    @pytest.mark.parametrize(
        "path",
        [
            "with space.json",
            "pl+us&amp;.json",
            "100%25.json",
            "ünï/日本.json",
            "quo\"te'.json",
            "<a>.json",
            "a//b.json",
        ],
    )
    def test_odd_paths_are_listed_and_opened_as_they_are(self, store: FileStore, path: str) -> None:
        """What stands in a listing can be opened by that name."""
        store.put(path, b"odd")
        assert _paths(self.listed(store.access())) == {path}
        with self.opened(store.access()) as connector, connector.open_file(path) as file:
            assert file.stream.read() == b"odd"

    # Reading.

    def test_an_opened_file_is_what_was_listed(self, store: FileStore) -> None:
        """Path, size and etag agree, so that an unchanged file is known as such."""
        store.put("a.json", b'{"a": 1}')
        (listed,) = self.listed(store.access())
        with self.opened(store.access()) as connector, connector.open_file("a.json") as file:
            assert (file.entry.path, file.entry.size, file.entry.etag) == (listed.path, listed.size, listed.etag)
            assert file.stream.read() == b'{"a": 1}'

    def test_a_file_is_read_in_parts(self, store: FileStore) -> None:
        """The parts put together are the file, and then comes nothing."""
        body = bytes(range(256)) * 1000
        store.put("a.bin", body)
        with self.opened(store.access()) as connector, connector.open_file("a.bin") as file:
            parts = []
            while part := file.stream.read(10_000):
                assert len(part) <= 10_000
                parts.append(part)
            assert b"".join(parts) == body
            assert file.stream.read(10_000) == b""

    def test_a_file_can_be_let_go_before_its_end(self, store: FileStore) -> None:
        """Closing early is no error, and the connector goes on."""
        store.put("a.bin", b"x" * 1_000_000)
        with self.opened(store.access()) as connector:
            with connector.open_file("a.bin") as file:
                assert file.stream.read(10) == b"x" * 10
            with connector.open_file("a.bin") as file:
                assert len(file.stream.read()) == 1_000_000

    def test_a_file_that_is_gone_says_so(self, store: FileStore) -> None:
        """`file_not_found`, for good."""
        store.put("a.json", b"{}")
        store.delete("a.json")
        with self.opened(store.access()) as connector, pytest.raises(Permanent) as caught:
            connector.open_file("a.json")
        assert caught.value.code == "file_not_found"
        self.observed("file that is gone", caught.value.code)

    def test_files_are_opened_by_several_threads_at_once(self, store: FileStore) -> None:
        """Each thread reads its own file."""
        bodies = {f"{number}.txt": str(number).encode() * 5000 for number in range(8)}
        for path, body in bodies.items():
            store.put(path, body)
        read: dict[str, bytes] = {}

        def take(connector: FileConnector, path: str) -> None:
            with connector.open_file(path) as file:
                read[path] = file.stream.read()

        with self.opened(store.access()) as connector:
            threads = [threading.Thread(target=take, args=(connector, path)) for path in bodies]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert read == bodies

    def test_a_uri_names_the_file_and_no_secret(self, store: FileStore) -> None:
        """For people and programs, without credentials."""
        access = store.access()
        with self.opened(access) as connector:
            uri = connector.uri("a/b.json")
        assert uri.endswith("a/b.json")
        assert "://" in uri
        assert not [secret for secret in access.credentials.values() if secret in uri]

    def test_closing_twice_is_harmless(self, store: FileStore) -> None:
        """Also of a connector that was used."""
        with self.opened(store.access()) as connector:
            _flat(connector)
            connector.close()


class FileConnectorConformance(FileSourceConformance):
    """The whole suite, for stores that are reached over a network with credentials.

    Subclasses set `spec` and `runtime` and define a fixture `store` that gives a fresh `Store`.
    """

    inapplicable: ClassVar[frozenset[str]] = frozenset({"tls"})
    longest_failure_seconds: ClassVar[float] = 22.0

    def failure_of_listing(self, access: Access, policy: Policy = LOOPBACK) -> ConnectorError:
        """What a listing raises."""
        with self.opened(access, policy) as connector, pytest.raises(ConnectorError) as caught:
            _flat(connector)
        return caught.value

    def test_an_empty_scope_is_a_warning(self, store: Store) -> None:
        """It works, and says that there is nothing to see."""
        store.put("here/a.json", b"{}")
        result = self.result_of(store.access(prefix="nothing-starts-like-this/"))
        assert result["success"] is True
        assert _failing(result) is None
        assert _check(result, "list")["status"] == "warning"
        assert _check(result, "list")["code"] == "empty_scope"
        assert _check(result, "read")["status"] == "skipped"
        self.observed_in(result, "no file in the scope")

    def test_a_wrong_secret_fails_at_authenticate(self, store: Store) -> None:
        """Everything up to the identity passes, and nothing is tried behind it."""
        store.put("a.json", b"{}")
        result = self.result_of(store.wrong_secret())
        assert _failing(result) == ("authenticate", "invalid_credentials")
        assert _all_behind_are_skipped(result, "authenticate")
        self.observed_in(result, "wrong secret")

    def test_a_wrong_secret_ends_a_listing_for_good(self, store: Store) -> None:
        """Trying again cannot help."""
        error = self.failure_of_listing(store.wrong_secret())
        assert (type(error), error.code) == (Permanent, "invalid_credentials")

    def test_missing_rights_fail_at_list(self, store: Store) -> None:
        """The identity is accepted, the listing is not."""
        access = store.no_rights()
        if access is None:
            pytest.skip("this store knows no identity without rights")
        store.put("a.json", b"{}")
        result = self.result_of(access)
        assert _failing(result) == ("list", "permission_denied")
        self.observed_in(result, "no right to list")
        error = self.failure_of_listing(access)
        assert (type(error), error.code) == (Permanent, "permission_denied")

    def test_a_missing_target_fails_at_target(self, store: Store) -> None:
        """A bucket that is not there is told from one that may not be read."""
        result = self.result_of(store.no_target())
        failing = _failing(result)
        assert failing is not None
        assert failing[0] == "target"
        assert failing[1].endswith("_not_found")
        self.observed_in(result, "target that does not exist")
        error = self.failure_of_listing(store.no_target())
        assert (type(error), error.code) == (Permanent, failing[1])

    def test_a_closed_port_fails_at_connect(self, store: Store) -> None:
        """The host is there, nobody listens; a job may try again later."""
        access = store.elsewhere("127.0.0.1", closed_port(), tls=False)
        result = self.result_of(access)
        assert _failing(result) == ("connect", "connection_refused")
        assert _all_behind_are_skipped(result, "connect")
        self.observed_in(result, "closed port")
        error = self.failure_of_listing(access)
        assert (type(error), error.code) == (Transient, "connection_refused")

    def test_a_black_hole_fails_at_connect_within_six_seconds(self, store: Store) -> None:
        """Packets that are swallowed end in `timeout`, soon enough for somebody who waits."""
        with ExitStack() as stack:
            port = black_hole(stack)
            began = time.monotonic()
            result = self.result_of(store.elsewhere("127.0.0.1", port, tls=False))
            assert time.monotonic() - began < 6.0
        assert _failing(result) == ("connect", "timeout")
        self.observed_in(result, "host that swallows packets")

    def test_a_server_that_never_answers_fails_within_the_deadline(self, store: Store) -> None:
        """Connected is not served: the test ends all the same."""
        with ExitStack() as stack:
            port = silent_port(stack)
            began = time.monotonic()
            result = self.result_of(store.elsewhere("127.0.0.1", port, tls=False))
            assert time.monotonic() - began < self.longest_failure_seconds
        assert _failing(result) == ("authenticate", "timeout")
        self.observed_in(result, "server that never answers")

    def test_a_stalled_handshake_fails_at_tls(self, store: Store) -> None:
        """A server that takes the hello and says nothing is a timeout of `tls`."""
        with ExitStack() as stack:
            result = self.result_of(store.elsewhere("127.0.0.1", silent_port(stack), tls=True))
        assert _failing(result) == ("tls", "timeout")
        self.observed_in(result, "TLS handshake that stalls")

    def test_a_port_without_tls_fails_at_tls(self, store: Store) -> None:
        """Plain HTTP where TLS is meant is named as such."""
        with ExitStack() as stack:
            port = _plain_server(stack)
            result = self.result_of(store.elsewhere("127.0.0.1", port, tls=True))
        assert _failing(result) == ("tls", "tls_invalid")
        self.observed_in(result, "plain HTTP where TLS is meant")

    def test_an_unknown_host_fails_at_resolve(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name that no name server knows."""
        monkeypatch.setattr(socket, "getaddrinfo", _nobody_knows)
        result = self.result_of(store.elsewhere("store.example", 443, tls=True))
        assert _failing(result) == ("resolve", "dns_not_found")
        self.observed_in(result, "host name that does not exist")

    def test_a_blocked_target_fails_at_egress_and_is_never_dialled(self, store: Store) -> None:
        """What the operator does not allow is refused before any packet, in a test and in a listing."""
        with ExitStack() as stack:
            canary = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            access = store.elsewhere("127.0.0.1", _port(canary), tls=False)
            result = self.result_of(access, Policy())
            error = self.failure_of_listing(access, Policy())
            assert _connections(canary) == 0
        assert _failing(result) == ("egress", "blocked_target")
        self.observed_in(result, "address that is not allowed")
        assert (type(error), error.code) == (Permanent, "blocked_target")

    def test_the_environments_proxies_are_not_used(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """The job's own proxy is the only one, also where the environment says that no host needs any."""
        store.put("a.json", b"{}")
        with ExitStack() as stack:
            canary = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for name in ("http_proxy", "https_proxy", "all_proxy"):
                for spelling in (name, name.upper()):
                    monkeypatch.setenv(spelling, f"http://127.0.0.1:{_port(canary)}")
            assert self.result_of(store.access())["success"] is True
            for spelling in ("no_proxy", "NO_PROXY"):
                monkeypatch.setenv(spelling, "*")
            error = self.failure_of_listing(store.elsewhere("127.0.0.1", _port(canary), tls=False), Policy())
            assert _connections(canary) == 0
        assert error.code == "blocked_target"

    def test_no_secret_stands_in_a_result(self, store: Store) -> None:
        """Whatever fails, neither message nor hint repeats a credential."""
        for access in (store.wrong_secret(), store.no_target(), store.no_rights()):
            if access is not None:
                text = json.dumps(self.result_of(access))
                assert not [secret for secret in access.credentials.values() if secret in text]

    def test_a_prefix_narrows_a_listing(self, store: Store) -> None:
        """A prefix is of the full path, and only ever narrows what the config shows."""
        for path in ("a/1.json", "a/b/2.json", "ab/3.json", "c/4.json"):
            store.put(path, b"{}")
        assert _paths(self.listed(store.access(), "a/")) == {"a/1.json", "a/b/2.json"}
        assert _paths(self.listed(store.access(prefix="a/"))) == {"a/1.json", "a/b/2.json"}
        assert _paths(self.listed(store.access(prefix="a/"), "a/b/")) == {"a/b/2.json"}
        assert _paths(self.listed(store.access(prefix="a/b/"), "a/")) == {"a/b/2.json"}
        assert _paths(self.listed(store.access(prefix="a/"), "c/")) == set()


def _flat(connector: FileConnector, prefix: str = "") -> list[FileEntry]:
    return [entry for page in connector.list_files(prefix) for entry in page]


def _paths(entries: Sequence[FileEntry]) -> set[str]:
    return {entry.path for entry in entries}


def _check(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(check for check in result["checks"] if check["name"] == name)
    return found


def _failing(result: Mapping[str, Any]) -> tuple[str, str] | None:
    """(step, code) of the failed check. A result without one says success, and one with it does not."""
    failed = [(check["name"], check["code"]) for check in result["checks"] if check["status"] == "failed"]
    assert result["success"] is (not failed)
    assert len(failed) <= 1
    return failed[0] if failed else None


def _all_behind_are_skipped(result: Mapping[str, Any], name: str) -> bool:
    behind = result["checks"][[check["name"] for check in result["checks"]].index(name) + 1 :]
    return bool(behind) and all(check["status"] == "skipped" for check in behind)


def _connections(listener: socket.socket) -> int:
    """How many have connected: the kernel completes them, so that none is still on its way."""
    listener.setblocking(False)
    count = 0
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return count
        connection.close()
        count += 1


def _plain_server(stack: ExitStack) -> int:
    """A port that answers whatever comes with an HTTP error, as a web server without TLS does."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    stack.callback(thread.join)
    # `close` alone would not wake `accept`.
    stack.callback(listener.shutdown, socket.SHUT_RDWR)
    return _port(listener)


def _nobody_knows(*_: object, **__: object) -> list[Any]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
