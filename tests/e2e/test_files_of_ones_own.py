"""Files without a store: uploaded ones, and those on the worker's machine."""

import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the operator allows."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def own_stack(start_stack: Callable[..., Any], shared: Path, request: pytest.FixtureRequest) -> Any:
    """A stack whose workers may read `shared`."""
    major = os.environ.get("HEADWATER_TEST_POSTGRES_MAJOR", "18")
    own = {} if major == "18" else {"HEADWATER_DATABASE_URL": request.getfixturevalue("postgres")}
    return start_stack(HEADWATER_LOCAL_FILES_ROOTS=f"/nowhere:{shared}", **own)


def _source(stack: Any, name: str, type_: str, **config: Any) -> str:
    project = stack.project(name)
    body = {"name": name, "type": type_, "config": config}
    return f"{project}/data-sources/" + str(stack.call("POST", f"{project}/data-sources", 201, json=body)["id"])


def _answered(stack: Any, method: str, path: str, **options: Any) -> httpx2.Response:
    """The answer, once there is an API again."""
    deadline = time.monotonic() + 30
    while True:
        try:
            answer: httpx2.Response = stack.client.request(method, path, **options)
            return answer
        except httpx2.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _items(stack: Any, source: str) -> list[Any]:
    return [item["data"] for item in stack.every(f"{source}/items")]


def test_an_uploaded_file_is_tested_and_synced(own_stack: Any) -> None:
    """Sent, listed, tested, brought in; replaced, and brought in again."""
    source = _source(own_stack, "by hand", "file_upload", allowed_extensions=["csv"])
    body = b"id,name\n1,Ada\n2,Bob\n"
    sent = own_stack.call("POST", f"{source}/uploads", 201, params={"name": "people.csv"}, content=body)
    assert sent["sha256"] == hashlib.sha256(body).hexdigest()
    test = own_stack.ended(own_stack.call("POST", f"{source}/test", 202))
    assert test["result"]["success"] is True, test
    assert own_stack.ended(own_stack.call("POST", f"{source}/sync", 202))["status"] == "succeeded"
    assert _items(own_stack, source) == [{"id": "1", "name": "Ada"}, {"id": "2", "name": "Bob"}]
    own_stack.call("POST", f"{source}/uploads", 201, params={"name": "people.csv"}, content=b"id,name\n3,Cy\n")
    assert own_stack.ended(own_stack.call("POST", f"{source}/sync", 202))["counters"]["changed"] == 1
    assert _items(own_stack, source) == [{"id": "3", "name": "Cy"}]


def test_an_upload_goes_on_after_the_api_was_killed(own_stack: Any) -> None:
    """Parts that were answered are there; the next one goes on where they end."""
    source = _source(own_stack, "in parts", "file_upload")
    body = b"".join(b"%d\n" % number for number in range(200_000))
    half, url = len(body) // 2, f"{source}/uploads/numbers.csv"
    first = {"Content-Range": f"bytes 0-{half - 1}/{len(body)}"}
    own_stack.call("PUT", url, 202, content=body[:half], headers=first)
    (api,) = own_stack.pids("api")
    os.kill(api, signal.SIGKILL)
    asked = _answered(own_stack, "PUT", url, headers={"Content-Range": f"bytes */{len(body)}"})
    assert asked.headers["Upload-Offset"] == str(half)
    rest = {"Content-Range": f"bytes {half}-{len(body) - 1}/{len(body)}"}
    done = own_stack.call("PUT", url, 201, content=body[half:], headers=rest)
    assert done["sha256"] == hashlib.sha256(body).hexdigest()


def test_a_folder_of_the_workers_machine_is_synced(own_stack: Any, shared: Path) -> None:
    """What is below the root is brought in; links out, hidden files and other folders are not."""
    (shared / "orders").mkdir()
    (shared / "orders" / "a.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    (shared / "orders" / "passwd").symlink_to("/etc/passwd")
    (shared / "orders" / ".hidden.jsonl").write_text('{"id": 3}\n')
    source = _source(own_stack, "folder", "local_files", path=str(shared / "orders"))
    test = own_stack.ended(own_stack.call("POST", f"{source}/test", 202))
    assert test["result"]["success"] is True, test
    sync = own_stack.ended(own_stack.call("POST", f"{source}/sync", 202))
    assert sync["counters"]["skipped_by"] == {"hidden": 1, "link_out": 1}
    assert _items(own_stack, source) == [{"id": 1}, {"id": 2}]
    outside = _source(own_stack, "outside", "local_files", path="/etc")
    refused = own_stack.ended(own_stack.call("POST", f"{outside}/test", 202))["result"]
    failed = next(check for check in refused["checks"] if check["status"] == "failed")
    assert (failed["name"], failed["code"]) == ("config", "blocked_target")
    assert "HEADWATER_LOCAL_FILES_ROOTS" in failed["hint"]
