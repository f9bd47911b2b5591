"""The API connector against a real HTTP server: every kind of pagination and authentication, and every way to fail."""

import gzip
import json
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import api_stub
import pytest
from api_stub import AUTH, PAGINATION, ApiStub, Asked, Reply

from headwater.connectors.api import SPEC
from headwater.errors import ConnectorError, Permanent, Transient
from headwater_worker.connectors import api_client, ladder
from headwater_worker.connectors.api import ApiConnector
from headwater_worker.connectors.base import Opening
from headwater_worker.connectors.conformance import (
    LOOPBACK,
    Access,
    FileConnectorConformance,
    Store,
    black_hole,
    closed_port,
)
from headwater_worker.egress import Proxy
from headwater_worker.sync.judging import HEAD, Judged
from headwater_worker.sync.pages import Pages

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def api() -> Iterator[ApiStub]:
    """An API with seven records, all in one array."""
    with api_stub.running() as stub:
        stub.records = [{"id": number, "name": f"n{number}"} for number in range(7)]
        yield stub


@contextmanager
def opened(config: dict[str, Any], credentials: dict[str, str] | None = None) -> Iterator[ApiConnector]:
    """The connector as a job has it."""
    with (
        Proxy(LOOPBACK) as proxy,
        ApiConnector(Opening(SPEC.config.model_validate(config), credentials or {}, LOOPBACK, proxy)) as connector,
    ):
        yield connector


def walked(connector: ApiConnector, **options: Any) -> list[Any]:
    """The values of all records of a walk, read as a sync does."""
    return [json.loads(text) for text in texts(connector, **options)]


def texts(connector: ApiConnector, **options: Any) -> list[bytes]:
    """The records as they came; each is good."""
    with closing(Pages(connector)) as pages:
        judged: list[Judged] = [part for page in connector.pages(**options) for part in pages.read(page)]
    assert not [refusal for part in judged for refusal in part.refusals]
    return [row[HEAD.size :] for part in judged for row, _ in part.each()]


def failure(config: dict[str, Any], credentials: dict[str, str] | None = None) -> ConnectorError:
    """What a walk raises."""
    with opened(config, credentials) as connector, pytest.raises(ConnectorError) as caught:
        walked(connector)
    return caught.value


def failing(config: dict[str, Any], credentials: dict[str, str] | None = None) -> tuple[str, str] | None:
    """(step, code) of a connection test's failed check."""
    with opened(config, credentials) as connector:
        result = ladder.run(connector)
    failed = [(check["name"], check["code"]) for check in result["checks"] if check["status"] == "failed"]
    assert result["success"] is (not failed)
    return failed[0] if failed else None


def protected(api: ApiStub, wanted: dict[str, str]) -> None:
    """From now on the API answers 401 without these headers."""
    (name, value), *_ = wanted.items()
    usual = api.answer

    def answer(asked: Asked) -> Reply:
        if asked.headers.get(name) != value:
            return Reply(b'{"error": "who are you?"}', 401)
        return usual(asked) if usual else Reply(json.dumps(api.records).encode())

    api.answer = answer


class ApiStore(Store):
    """An API whose records are what the suite takes for files."""

    def __init__(self, stub: ApiStub) -> None:
        self._stub = stub
        stub.records = []
        protected(stub, AUTH["bearer"][2])
        usual = stub.answer
        assert usual is not None
        stub.answer = lambda asked: Reply(b"{}", 404) if "nowhere" in asked.path else self._narrowed(asked, usual)

    def _narrowed(self, asked: Asked, usual: Callable[[Asked], Reply]) -> Reply:
        reply = usual(asked)
        return Reply(b"[]") if reply.status == 200 and "prefix" in asked.query else reply

    def access(self, prefix: str = "") -> Access:
        query = "?prefix=x" if prefix else ""
        return self._access(self._stub.endpoint + query)

    def _access(self, endpoint: str, token: str = "t-3cr3t") -> Access:
        return Access({"type": "api", "endpoint": endpoint, "auth_type": "bearer"}, {"token": token})

    def put(self, path: str, body: bytes) -> None:  # noqa: ARG002 - a record has no body
        self._stub.records.append({"path": path})

    def delete(self, path: str) -> None:  # noqa: ARG002 - the tests delete what is alone
        self._stub.records.clear()

    def wrong_secret(self) -> Access:
        return self._access(self._stub.endpoint, "wr0ng")

    def no_rights(self) -> Access | None:
        return None

    def no_target(self) -> Access:
        return self._access(f"{self._stub.url}/nowhere")

    def elsewhere(self, host: str, port: int, *, tls: bool) -> Access:
        return self._access(f"{'https' if tls else 'http'}://{host}:{port}/v1/items")


class TestConformance(FileConnectorConformance):
    """The suite of all connectors, as far as it is about the way, the identity and the target."""

    spec = SPEC
    runtime = ApiConnector  # type: ignore[assignment]

    # An API is one file, always there, and read as a walk through pages.
    test_a_listing_shows_every_file_once = None
    test_a_listed_file_says_size_and_time = None
    test_an_etag_changes_with_the_content_alone = None
    test_a_listing_can_be_asked_for_a_prefix = None
    test_a_prefix_narrows_a_listing = None
    test_folders_are_in_the_path = None
    test_a_target_without_files_lists_nothing = None
    test_odd_paths_are_listed_and_opened_as_they_are = None
    test_an_opened_file_is_what_was_listed = None
    test_a_file_is_read_in_parts = None
    test_a_file_can_be_let_go_before_its_end = None
    test_a_file_that_is_gone_says_so = None
    test_files_are_opened_by_several_threads_at_once = None

    @pytest.fixture
    def store(self, api: ApiStub) -> ApiStore:
        """The API as a store."""
        return ApiStore(api)


class TestPagination:
    """Every record once, in order."""

    def test_one_answer_holds_everything(self, api: ApiStub) -> None:
        """Without pagination there is one request."""
        with opened(api_stub.config(api)) as connector:
            assert walked(connector) == api.records
        assert len(api.asked) == 1

    @pytest.mark.parametrize("kind", PAGINATION)
    @pytest.mark.parametrize("count", [0, 1, 3, 7])
    def test_every_kind_gives_every_record_once(self, api: ApiStub, kind: str, count: int) -> None:
        """Also where the last page is full, and where there is nothing."""
        api.records = api.records[:count]
        api.answer = api_stub.paged(api, kind)
        with opened(api_stub.config(api, kind)) as connector:
            assert walked(connector) == api.records

    def test_an_offset_goes_on_by_what_came(self, api: ApiStub) -> None:
        """An API that gives fewer than asked for loses nothing."""
        api.answer = api_stub.paged(api, "offset")
        api.page_size = 2
        pagination = {"type": "offset", "limit": 100}
        with opened(api_stub.config(api, "offset", pagination=pagination)) as connector:
            assert walked(connector) == api.records
        assert [asked.query["offset"] for asked in api.asked] == ["0", "2", "4", "6", "7"]

    def test_the_page_size_and_the_endpoints_own_query_are_sent_with_every_page(self, api: ApiStub) -> None:
        """What the user wrote stays; parameters are added."""
        api.answer = api_stub.paged(api, "page")
        pagination = {"type": "page", "size_parameter": "per_page", "size": 3}
        endpoint = f"{api.endpoint}?state=a%20b"
        with opened(api_stub.config(api, "page", endpoint=endpoint, pagination=pagination)) as connector:
            walked(connector)
        assert [asked.query["page"] for asked in api.asked] == ["1", "2", "3", "4"]
        assert {(asked.query["state"], asked.query["per_page"]) for asked in api.asked} == {("a b", "3")}

    def test_a_walk_since_sends_the_value(self, api: ApiStub) -> None:
        """As it came, in the named parameter."""
        incremental = {"parameter": "since", "cursor_path": "at"}
        config = api_stub.config(api, record_key="id", incremental=incremental)
        with opened(config) as connector:
            walked(connector, since="2026-01-01T00:00:00+00:00")
        assert api.asked[0].query == {"since": "2026-01-01T00:00:00+00:00"}

    def test_a_cursor_that_comes_again_ends_the_walk(self, api: ApiStub) -> None:
        """An API whose pages run in circles is named as such, not followed forever."""
        api.answer = lambda _: Reply(b'{"data": {"items": [1]}, "meta": {"next_cursor": "same"}}')
        assert failure(api_stub.config(api, "cursor")).code == "pagination_loop"
        assert len(api.asked) == 2

    def test_a_link_that_leads_back_ends_the_walk(self, api: ApiStub) -> None:
        """Also over two pages."""

        def answer(asked: Asked) -> Reply:
            following = "b" if asked.query.get("at") == "a" else "a"
            return Reply(b"[1]", headers=JSON | {"Link": f"<?at={following}>; rel=next"})

        api.answer = answer
        assert failure(api_stub.config(api, "link_header")).code == "pagination_loop"
        assert len(api.asked) == 3

    @pytest.mark.parametrize("kind", ["page", "offset"])
    def test_an_api_that_ignores_the_page_is_found_out(self, api: ApiStub, kind: str) -> None:
        """The same records twice are no second page."""
        api.answer = lambda _: Reply(b'{"data": {"items": [1, 2]}}')
        assert failure(api_stub.config(api, kind)).code == "pagination_loop"
        assert len(api.asked) == 2

    def test_empty_pages_are_passed_but_not_without_end(self, api: ApiStub) -> None:
        """A filtered page may be empty; hundreds in a row lead nowhere."""
        api.answer = lambda asked: Reply(
            json.dumps({"data": {"items": []}, "meta": {"next_cursor": int(asked.query.get("cursor", 0)) + 1}}).encode()
        )
        assert failure(api_stub.config(api, "cursor")).code == "pagination_loop"
        assert len(api.asked) == 101


class TestAnswers:
    """JSON, NDJSON and CSV, by what the API says they are."""

    @pytest.mark.parametrize(
        ("media", "body", "records"),
        [
            ("application/json", b' [ {"a": 1},\n {"a": 2} ] ', [{"a": 1}, {"a": 2}]),
            ("application/vnd.shop+json; charset=utf-8", b"\xef\xbb\xbf[1]", [1]),
            ("application/json; charset=iso-8859-1", '["ü"]'.encode("latin-1"), ["ü"]),
            ("application/json", b'{"one": "object"}', [{"one": "object"}]),
            ("application/json", b"null", []),
            ("application/x-ndjson", b'{"a": 1}\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
            ("text/csv", b"a,b\n1,x\n", [{"a": "1", "b": "x"}]),
            ("text/plain", b"[1]", [1]),
        ],
    )
    def test_a_body_is_read_by_its_type(self, api: ApiStub, media: str, body: bytes, records: list[Any]) -> None:
        """The records are the same, whatever they came in."""
        api.answer = lambda _: Reply(body, headers={"Content-Type": media})
        with opened(api_stub.config(api)) as connector:
            assert walked(connector) == records

    def test_a_named_format_wins(self, api: ApiStub) -> None:
        """What the user says about reading, not what the API says about itself."""
        api.answer = lambda _: Reply(b"1\n2\n", headers={"Content-Type": "application/octet-stream"})
        with opened(api_stub.config(api)) as connector:
            assert walked(connector, named="jsonl") == [1, 2]

    def test_records_keep_their_digits(self, api: ApiStub) -> None:
        """Records are cut out of the answer and not written anew."""
        api.answer = lambda _: Reply(b'{"n": "]", "data": {"x": {"items": 1}, "items": [ 12345678901234567890.10 ]}}')
        with opened(api_stub.config(api, records_path="data.items")) as connector:
            assert texts(connector) == [b"12345678901234567890.10"]

    def test_gzip_is_decompressed(self, api: ApiStub) -> None:
        """What the client offers, it takes."""
        body = gzip.compress(json.dumps(api.records).encode())
        api.answer = lambda _: Reply(body, headers=JSON | {"Content-Encoding": "gzip"})
        with opened(api_stub.config(api)) as connector:
            assert walked(connector) == api.records

    def test_gzip_in_several_members_is_one_answer(self, api: ApiStub) -> None:
        """What stands behind the first member (RFC 1952, 2.2) is not lost."""
        body = b"".join(gzip.compress(b'{"id": %d}\n' % number) for number in range(3))
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
        api.answer = lambda _: Reply(body, headers=headers)
        with opened(api_stub.config(api)) as connector:
            assert walked(connector) == [{"id": 0}, {"id": 1}, {"id": 2}]

    def test_gzip_that_breaks_off_ends_the_walk(self, api: ApiStub) -> None:
        """Half an answer is not taken for a whole one, even where it ends with a line."""
        whole = gzip.compress(b"".join(b'{"id": %d}\n' % number for number in range(3)))
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
        api.answer = lambda _: Reply(whole[:-8], headers=headers)
        assert failure(api_stub.config(api)).code == "invalid_answer"

    def test_deflate_is_decompressed_too(self, api: ApiStub) -> None:
        """Nobody asked for it; some send it all the same."""
        body = zlib.compress(json.dumps(api.records).encode())
        api.answer = lambda _: Reply(body, headers=JSON | {"Content-Encoding": "deflate"})
        with opened(api_stub.config(api)) as connector:
            assert walked(connector) == api.records

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b'{"data": {"items": [1]', "invalid_answer"),
            (b"<html>", "invalid_answer"),
            (b'{"data": {"items": [1]}} x', "invalid_answer"),
            (b'{"data": {"other": [1]}}', "records_path_not_found"),
            (b'{"data": [1]}', "records_path_not_found"),
            (b'{"data": {"items": {"0": 1}}}', "records_path_not_found"),
            (b"", "invalid_answer"),
        ],
    )
    def test_an_answer_that_holds_no_list_ends_the_walk(self, api: ApiStub, body: bytes, code: str) -> None:
        """For good, with the reason; nothing of the body is repeated."""
        api.answer = lambda _: Reply(body)
        error = failure(api_stub.config(api, records_path="data.items"))
        assert (type(error), error.code) == (Permanent, code)

    def test_an_object_is_not_taken_for_a_page(self, api: ApiStub) -> None:
        """With pagination, an answer without `records_path` must be a list."""
        api.answer = lambda _: Reply(b'{"items": [1]}')
        assert failure(api_stub.config(api, "page", records_path=None)).code == "records_path_not_found"

    def test_a_web_page_is_no_data(self, api: ApiStub) -> None:
        """A login page with status 200 is named as what it is not."""
        api.answer = lambda _: Reply(b"<html></html>", headers={"Content-Type": "text/html"})
        assert failure(api_stub.config(api)).code == "unsupported_content_type"

    def test_a_page_beyond_the_limit_is_refused(self, api: ApiStub, monkeypatch: pytest.MonkeyPatch) -> None:
        """JSON is held in memory, so that it has a limit."""
        monkeypatch.setattr("headwater_worker.connectors.api_answers.LARGEST_JSON_BYTES", 1000)
        api.answer = lambda _: Reply(json.dumps(["x" * 100] * 20).encode())
        assert failure(api_stub.config(api)).code == "page_too_large"

    def test_a_body_that_breaks_off_is_transient(self, api: ApiStub) -> None:
        """Half an answer is no answer."""

        def half() -> Iterator[bytes]:
            yield b"[1,"
            raise ConnectionError

        api.answer = lambda _: Reply(half())
        error = failure(api_stub.config(api))
        assert (type(error), error.code) == (Transient, "network")


class TestFaults:
    """The ten ways that a source is, and where a test says so. The suite has the rest."""

    @pytest.mark.parametrize("auth_type", AUTH)
    def test_right_credentials_work(self, api: ApiStub, auth_type: str) -> None:
        """Each kind in the header where the API wants it."""
        config, credentials, wanted = AUTH[auth_type]
        protected(api, wanted)
        with opened(api_stub.config(api, **config), credentials) as connector:
            assert ladder.run(connector)["message"] == "The connection works."
            assert walked(connector) == api.records

    @pytest.mark.parametrize("auth_type", AUTH)
    def test_a_wrong_secret_fails_at_authenticate(self, api: ApiStub, auth_type: str) -> None:
        """401, whatever the kind."""
        config, credentials, wanted = AUTH[auth_type]
        protected(api, wanted)
        wrong = dict.fromkeys(credentials, "wrong")
        assert failing(api_stub.config(api, **config), wrong) == ("authenticate", "invalid_credentials")

    def test_an_unknown_principal_fails_at_authenticate(self, api: ApiStub) -> None:
        """No credentials where some are wanted."""
        protected(api, {"authorization": "x"})
        assert failing(api_stub.config(api)) == ("authenticate", "invalid_credentials")

    def test_missing_rights_fail_at_authenticate(self, api: ApiStub) -> None:
        """403 is not 401: known, and may not."""
        api.answer = lambda _: Reply(b"", 403)
        assert failing(api_stub.config(api)) == ("authenticate", "permission_denied")

    @pytest.mark.parametrize("status", [404, 410])
    def test_a_missing_path_fails_at_target(self, api: ApiStub, status: int) -> None:
        """The API is there, the endpoint is not."""
        api.answer = lambda _: Reply(b"", status)
        assert failing(api_stub.config(api)) == ("target", "endpoint_not_found")

    def test_a_missing_list_fails_at_list(self, api: ApiStub) -> None:
        """The answer is fine, `records_path` is not."""
        assert failing(api_stub.config(api, records_path="data")) == ("list", "records_path_not_found")

    def test_a_key_that_is_not_there_is_a_warning(self, api: ApiStub) -> None:
        """It works, and would refuse each record."""
        with opened(api_stub.config(api, record_key="uuid")) as connector:
            result = ladder.run(connector)
        assert result["success"] is True
        assert result["checks"][-1]["code"] == "field_not_found"

    def test_a_certificate_that_nobody_signed_fails_at_tls(self, certificate: Path) -> None:
        """The name is right, the trust is missing; also for a walk."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with api_stub.running(
            lambda plain: context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        ) as api:
            assert failing(api_stub.config(api)) == ("tls", "tls_invalid")
            error = failure(api_stub.config(api))
        assert (type(error), error.code) == (Permanent, "tls_invalid")

    def test_tls_works_with_a_trusted_certificate(self, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Through the proxy, with the real name."""
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with api_stub.running(
            lambda plain: context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        ) as api:
            api.records = [1, 2]
            with opened(api_stub.config(api)) as connector:
                result = ladder.run(connector)
                assert walked(connector) == [1, 2]
        assert {check["status"] for check in result["checks"]} == {"passed"}

    def test_a_closed_port_is_transient(self) -> None:
        """It may be open again later."""
        error = failure({"type": "api", "endpoint": f"http://127.0.0.1:{closed_port()}/"})
        assert (type(error), error.code) == (Transient, "connection_refused")

    def test_a_black_hole_ends_a_walk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Packets that are swallowed end in `timeout`."""
        monkeypatch.setattr(api_client, "_BACKOFF_SECONDS", 0)
        with ExitStack() as stack:
            port = black_hole(stack)
            with Proxy(LOOPBACK, connect_seconds=0.5) as proxy:
                config = SPEC.config.model_validate({"type": "api", "endpoint": f"http://127.0.0.1:{port}/"})
                connector = stack.enter_context(ApiConnector(Opening(config, {}, LOOPBACK, proxy)))
                with pytest.raises(Transient) as caught:
                    walked(connector)
        assert caught.value.code == "timeout"

    def test_a_body_that_drips_ends_the_test_in_time(self, api: ApiStub) -> None:
        """A byte now and then keeps a connection alive, and no test waiting."""
        stop = threading.Event()

        def drip() -> Iterator[bytes]:
            yield b"["
            while not stop.wait(0.2):
                yield b" "

        api.answer = lambda _: Reply(drip())
        began = time.monotonic()
        try:
            assert failing(api_stub.config(api)) == ("list", "timeout")
        finally:
            stop.set()
        assert time.monotonic() - began < 10


class TestPatience:
    """What passes is waited for."""

    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_is_honoured(self, api: ApiStub, status: int) -> None:
        """The same page is asked for again, after the time that the API names."""
        times: list[float] = []

        def answer(_: Asked) -> Reply:
            times.append(time.monotonic())
            return Reply(b"[1]") if len(times) > 1 else Reply(b"", status, {"Retry-After": "1"})

        api.answer = answer
        with opened(api_stub.config(api)) as connector:
            assert walked(connector) == [1]
        assert times[1] - times[0] >= 1

    def test_a_long_retry_after_is_left_to_the_scheduler(self, api: ApiStub) -> None:
        """A job that waits holds its place; its next attempt comes when the API wants it."""
        api.answer = lambda _: Reply(b"", 429, {"Retry-After": "600"})
        error = failure(api_stub.config(api))
        assert isinstance(error, Transient)
        assert (error.code, error.retry_after_seconds) == ("throttled", 600)

    def test_a_retry_after_may_be_a_date(self, api: ApiStub) -> None:
        """A date that is over means now."""
        answers = [Reply(b"", 503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), Reply(b"[1]")]
        api.answer = lambda _: answers.pop(0)
        with opened(api_stub.config(api)) as connector:
            assert walked(connector) == [1]

    def test_a_broken_server_is_transient_in_the_end(self, api: ApiStub, monkeypatch: pytest.MonkeyPatch) -> None:
        """Four attempts, then the job's own."""
        monkeypatch.setattr(api_client, "_BACKOFF_SECONDS", 0)
        api.answer = lambda _: Reply(b"Traceback: password=hunter2", 500)
        error = failure(api_stub.config(api))
        assert (type(error), error.code, len(api.asked)) == (Transient, "source_error", 4)
        assert "hunter2" not in f"{error.message}{error.hint}"

    @pytest.mark.parametrize("status", [400, 405, 422])
    def test_a_refused_request_is_not_repeated(self, api: ApiStub, status: int) -> None:
        """The API's last word."""
        api.answer = lambda _: Reply(b"", status)
        error = failure(api_stub.config(api))
        assert (type(error), error.code, len(api.asked)) == (Permanent, "source_error", 1)

    def test_closing_wakes_who_waits_to_ask_again(self, api: ApiStub) -> None:
        """A cancelled job does not sit out the API's pause."""
        asked = threading.Event()

        def answer(_: Asked) -> Reply:
            asked.set()
            return Reply(b"", 429, {"Retry-After": "30"})

        api.answer = answer
        with opened(api_stub.config(api)) as connector:
            thread = threading.Thread(target=lambda: failure_of(connector))
            began = time.monotonic()
            thread.start()
            asked.wait(5)
            connector.close()
            thread.join(10)
        assert time.monotonic() - began < 10


def failure_of(connector: ApiConnector) -> None:
    """Walk into an error."""
    with pytest.raises(ConnectorError):
        walked(connector)


class TestSecretsStay:
    """Credentials go to the endpoint's origin and nowhere else."""

    @pytest.fixture
    def canary(self) -> Iterator[ApiStub]:
        """Another origin, which must hear nothing."""
        with api_stub.running() as stub:
            yield stub

    def test_a_redirect_on_the_same_origin_is_followed(self, api: ApiStub) -> None:
        """With the credentials, and the query that the API wants."""
        protected(api, AUTH["bearer"][2])
        usual = api.answer
        assert usual is not None
        moved = Reply(b"", 307, {"Location": "/v2/items?x=1"})
        api.answer = lambda asked: moved if asked.path == "/v1/items" else usual(asked)
        with opened(api_stub.config(api, auth_type="bearer"), {"token": "t-3cr3t"}) as connector:
            assert walked(connector) == api.records
        assert api.asked[-1].query == {"x": "1"}

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirect_elsewhere_leaks_nothing(self, api: ApiStub, canary: ApiStub, status: int) -> None:
        """Refused before anybody is asked, in a test and in a walk."""
        api.answer = lambda _: Reply(b"", status, {"Location": f"{canary.url}/v1/items"})
        config = api_stub.config(api, auth_type="bearer", headers={"X-Tenant": "acme"})
        error = failure(config, {"token": "t-3cr3t"})
        assert (type(error), error.code) == (Permanent, "blocked_target")
        assert failing(config, {"token": "t-3cr3t"}) == ("authenticate", "blocked_target")
        assert canary.asked == []

    @pytest.mark.parametrize("kind", ["link_header", "next_url"])
    def test_a_next_link_elsewhere_leaks_nothing(self, api: ApiStub, canary: ApiStub, kind: str) -> None:
        """The first page may say what it likes."""
        link = f"{canary.url}/v1/items"
        body = {
            "link_header": b"[1]",
            "next_url": json.dumps({"data": {"items": [1]}, "meta": {"next": link}}).encode(),
        }
        api.answer = lambda _: Reply(body[kind], headers=JSON | {"Link": f'<{link}>; rel="next"'})
        error = failure(api_stub.config(api, kind, auth_type="bearer"), {"token": "t-3cr3t"})
        assert (type(error), error.code) == (Permanent, "blocked_target")
        assert canary.asked == []

    @pytest.mark.parametrize(
        "link",
        [
            "http://eve:x@{host}/v1/items",
            "https://{host}/v1/items",
            "//127.0.0.1:1/v1/items",
            "http://evil.example/",
            "file:///etc/passwd",
            "http://{host}@127.0.0.1:1/",
        ],
    )
    def test_no_link_gets_around_the_origin(self, api: ApiStub, link: str) -> None:
        """Neither users in URLs nor other schemes, hosts and ports."""
        target = link.format(host=api.url.partition("//")[2])
        api.answer = lambda _: Reply(b"[1]", headers=JSON | {"Link": f"<{target}>; rel=next"})
        assert failure(api_stub.config(api, "link_header")).code == "blocked_target"
        assert len(api.asked) == 1

    def test_redirects_end(self, api: ApiStub) -> None:
        """An API that sends round in circles is left after a few."""
        api.answer = lambda _: Reply(b"", 302, {"Location": "/v1/items"})
        assert failure(api_stub.config(api)).code == "source_error"
        assert len(api.asked) == 6

    def test_cookies_are_not_kept(self, api: ApiStub) -> None:
        """Every page is asked for alike."""
        usual = api_stub.paged(api, "page")

        def answer(asked: Asked) -> Reply:
            reply = usual(asked)
            return Reply(reply.body, headers=reply.headers | {"Set-Cookie": "id=1; Path=/"})

        api.answer = answer
        with opened(api_stub.config(api, "page")) as connector:
            walked(connector)
        assert not [asked for asked in api.asked if "cookie" in asked.headers]

    def test_the_machines_settings_are_not_read(
        self, api: ApiStub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Neither its proxies nor its netrc."""
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login eve password own-secret\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "*")
        with opened(api_stub.config(api)) as connector:
            assert walked(connector) == api.records
        assert "authorization" not in api.asked[0].headers


class TestListing:
    """One file: the endpoint's path."""

    def test_the_file_is_the_endpoints_path(self, api: ApiStub) -> None:
        """Without its query; a validator of the single answer is its etag."""
        api.answer = lambda _: Reply(b"[]", headers=JSON | {"ETag": '"v1"'})
        with opened(api_stub.config(api, endpoint=f"{api.endpoint}?x=1")) as connector:
            (page,) = connector.list_files()
            assert [(entry.path, entry.size, entry.etag) for entry in page] == [("/v1/items", None, '"v1"')]
            assert connector.uri("/v1/items") == api.endpoint
            assert list(connector.list_files("/v2")) == []

    def test_pages_have_no_etag(self, api: ApiStub) -> None:
        """The first page says nothing about the others."""
        api.answer = lambda _: Reply(b"[]", headers=JSON | {"ETag": '"v1"'})
        with opened(api_stub.config(api, "link_header")) as connector:
            ((entry,),) = connector.list_files()
        assert entry.etag is None

    def test_a_walk_begins_with_the_listings_answer(self, api: ApiStub) -> None:
        """The first page is asked for once."""
        with opened(api_stub.config(api)) as connector:
            list(connector.list_files())
            assert walked(connector) == api.records
        assert len(api.asked) == 1
