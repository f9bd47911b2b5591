"""The whole stack, started as a newcomer starts it and driven through HTTP alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from headwater_cli.demo import state as demo_state

ROOT = Path(__file__).parents[2]
POSTGRES_MAJOR = os.environ.get("HEADWATER_TEST_POSTGRES_MAJOR", "18")
FINAL = ("succeeded", "partially_succeeded", "failed", "cancelled")
_START_SECONDS = 90


@dataclass
class Stack:
    """A running stack. `facts` is its stack.json."""

    home: Path
    process: subprocess.Popen[bytes]
    client: httpx2.Client

    @property
    def facts(self) -> dict[str, Any]:
        """stack.json as it is now; a restarted service has another pid."""
        facts: dict[str, Any] = json.loads((self.home / "stack.json").read_text())
        return facts

    @property
    def bucket(self) -> demo_state.State:
        """The demo's S3 server."""
        found = demo_state.find(self.home / "data" / "demo.json")
        assert found is not None
        return found

    def pids(self, service: str) -> list[int]:
        """The processes of a service."""
        pids = self.facts["pids"][service]
        return pids if isinstance(pids, list) else [pids]

    def get(self, path: str, /, **query: Any) -> Any:
        """GET, 200, JSON."""
        return self.call("GET", path, 200, params=query)

    def call(self, method: str, path: str, status: int, **options: Any) -> Any:
        """One request that must answer `status`; its JSON, None for 204."""
        response = self.client.request(method, path, **options)
        assert response.status_code == status, (method, path, response.status_code, response.text[:2000])
        return response.json() if response.content else None

    def project(self, name: str) -> str:
        """A new project's path."""
        return "/projects/" + str(self.call("POST", "/projects", 201, json={"name": name})["id"])

    def bucket_source(self, project: str, name: str, **changes: Any) -> str:
        """A data source on the demo's bucket with its credentials; its path."""
        bucket = self.bucket
        config = {"bucket": bucket.bucket, "region": bucket.region, "endpoint_url": bucket.endpoint_url}
        body = {"name": name, "type": "s3", "config": config | changes.pop("config", {}), **changes}
        source = self.call("POST", f"{project}/data-sources", 201, json=body)
        path = f"{project}/data-sources/{source['id']}"
        credentials = {"access_key_id": bucket.access_key_id, "secret_access_key": bucket.secret_access_key}
        self.call("PUT", f"{path}/credentials", 200, json=credentials)
        return path

    def ended(self, job: Mapping[str, Any], seconds: float = 90) -> dict[str, Any]:
        """Wait for the job's end through the API; the job."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            now: dict[str, Any] = self.get(f"/jobs/{job['id']}", wait=10)
            if now["done"]:
                return now
        raise AssertionError(f"job not done within {seconds} s: {self.get('/jobs/' + job['id'])}")

    def every(self, path: str, /, **query: Any) -> Iterator[dict[str, Any]]:
        """Every row of a list, page by page."""
        page = self.get(path, page_size=200, **query)
        yield from page["data"]
        while page["has_more"]:
            page = self.get(path, page_size=200, cursor=page["next_cursor"], **query)
            yield from page["data"]


def _share_packages(home: Path) -> None:
    """All stacks have one cache: what npm has brought for one of them is not brought again for each."""
    shared = ROOT / ".headwater" / "cache"
    shared.mkdir(parents=True, exist_ok=True)
    if not (home / "cache").exists():
        (home / "cache").symlink_to(shared)


@pytest.fixture(scope="module")
def start_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Start stacks, each in a home of its own, with the demo or without; all are stopped at the end."""
    stacks: list[Stack] = []

    def start(home: Path | None = None, *, demo: bool = True, **settings: str) -> Stack:
        home = home or tmp_path_factory.mktemp("home")
        _share_packages(home)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "HEADWATER_HOME": str(home),
            **settings,
        }
        argv = [sys.executable, "-m", "headwater_cli", "up", *(() if demo else ("--no-demo",))]
        with (home / "up.log").open("wb") as log:
            process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not (home / "stack.json").exists():
            assert process.poll() is None, (home / "up.log").read_text()
            assert time.monotonic() < deadline, (home / "up.log").read_text()
            time.sleep(0.1)
        facts = json.loads((home / "stack.json").read_text())
        client = httpx2.Client(
            base_url=facts["api_url"], headers={"Authorization": f"Bearer {facts['api_key']}"}, timeout=40
        )
        stacks.append(Stack(home, process, client))
        return stacks[-1]

    yield start
    for stack in stacks:
        stack.client.close()
        if stack.process.poll() is None:
            stack.process.send_signal(signal.SIGTERM)
            assert stack.process.wait(30) == 0, (stack.home / "up.log").read_text()


@pytest.fixture(scope="module")
def stack(start_stack: Callable[..., Stack], request: pytest.FixtureRequest) -> Stack:
    """One stack for the tests of a module, its leases short enough to see one lost.

    On the default major it runs its embedded Postgres; on another, it is given that one's URL as an operator would.
    """
    own = {} if POSTGRES_MAJOR == "18" else {"HEADWATER_DATABASE_URL": request.getfixturevalue("postgres")}
    return start_stack(
        HEADWATER_LEASE_SECONDS="4", HEADWATER_HEARTBEAT_SECONDS="1", HEADWATER_RETRY_BASE_SECONDS="0.2", **own
    )
