"""Register the demo's data sources and bring their data in, as any client of the REST API would."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx2

from headwater_cli.demo.sources import DemoSource
from headwater_cli.errors import Failure
from headwater_cli.ports import LOOPBACK

_WAIT_SECONDS: Final = 5  # of one long poll; each gives a line of progress
_ANSWER_SECONDS: Final = 30  # for any answer, the time of a long poll included
_JOB_SECONDS: Final = 600  # the whole corpus takes well under a minute; this is for a stack that hangs
# What of a config says, beside its address, that a source is the demo's.
_PLACES: Final = frozenset({"bucket", "container", "account", "path"})

Json = dict[str, Any]
Report = Callable[[str], None]


def fill(
    api_url: str,
    api_key: str,
    project_id: str,
    sources: Iterable[DemoSource],
    *,
    failed: Callable[[str, Failure], None],
    report: Report = lambda _: None,
) -> None:
    """Create each data source in the project, then test, list and sync it, waiting for each.

    Does nothing about one that is there and was synced, but for pointing it at the present port if it
    stands on a former one. A source that was never synced is taken up again: that run was stopped.
    A source of that name which a user made or pointed elsewhere is left alone.
    `api_url` ends in `/api/v1`; `report` gets one line of progress at a time. `failed` gets the name of a source and
    why it is not filled: the API refuses a request, cannot be reached, or a job fails. The next one is tried then.
    """
    with httpx2.Client(
        base_url=f"{api_url.rstrip('/')}/",
        headers={"Authorization": f"Bearer {api_key}"},
        timeout=_ANSWER_SECONDS,
        trust_env=False,
    ) as client:
        for source in sources:
            try:
                _Filling(client, project_id, source, report).run()
            except Failure as failure:
                failed(source.name, failure)


class _Filling:
    """The filling of one source: the client, and what each of its requests needs."""

    def __init__(self, client: httpx2.Client, project_id: str, wanted: DemoSource, report: Report) -> None:
        self._client = client
        self._sources = f"projects/{project_id}/data-sources"
        self._wanted = wanted
        self._told = report

    def run(self) -> None:
        """Bring the source to where it should be. Raises Failure."""
        source = self._find() or self._create()
        if not self._is_ours(source):
            return
        path = f"{self._sources}/{source['id']}"
        if source["last_sync_at"] is None:
            self._bring_in(path)
        elif not self._is_here(source):
            self._report(f"pointing it at {self._wanted.config[self._wanted.address or '']}")
            self._point(path)
            self._test(path)

    def _report(self, text: str) -> None:
        self._told(f"{self._wanted.name}: {text}")

    def _find(self) -> Json | None:
        """The source of that name in the project, or None."""
        return next((source for source in self._all_sources() if source["name"] == self._wanted.name), None)

    def _create(self) -> Json:
        """The source, new, without credentials."""
        wanted = self._wanted
        body = {
            "name": wanted.name,
            "type": wanted.type,
            "description": wanted.description,
            "tags": ["demo"],
            "config": wanted.config,
        }
        return self._call("POST", self._sources, json=body)

    def _bring_in(self, path: str) -> None:
        """Point, upload, test, list and sync. Raises Failure at the first job that does not succeed."""
        # Also for a source that was there: an earlier run may have been stopped before it put the credentials,
        # and may have used another port.
        self._point(path)
        for name, file in self._wanted.uploads.items():
            self._upload(path, name, file)
        self._test(path)
        listing = self._run("listing", f"{path}/files")
        self._report(f"found {_count(listing['result']['file_count'], 'file')}")
        counts = self._run("bringing the data in", f"{path}/sync")["result"]
        items, records = _count(counts["item_count"], "item"), _count(counts["error_count"], "record")
        self._report(f"brought in {items}, refused {records}")

    def _is_ours(self, source: Json) -> bool:
        """True at any port of loopback; what a user made or pointed elsewhere is theirs."""
        wanted, config = self._wanted, source["config"]
        address = wanted.address
        if source["type"] != wanted.type:
            return False
        if address is not None and not (config.get(address) or "").startswith(f"http://{LOOPBACK}:"):
            return False
        return all(config.get(name) == value for name, value in wanted.config.items() if name in _PLACES)

    def _is_here(self, source: Json) -> bool:
        address = self._wanted.address
        return address is None or bool(source["config"].get(address) == self._wanted.config[address])

    def _point(self, path: str) -> None:
        found = self._send("GET", path)
        address = self._wanted.address
        if address is not None and not self._is_here(found.json()):
            config = {address: self._wanted.config[address]}
            self._call("PATCH", path, json={"config": config}, headers={"If-Match": found.headers["ETag"]})
        if self._wanted.credentials:
            # After the target, because a change of target clears the credentials.
            self._call("PUT", f"{path}/credentials", json=dict(self._wanted.credentials))

    def _upload(self, path: str, name: str, file: Path) -> None:
        self._report(f"uploading {name}")
        try:
            body = file.read_bytes()
        except OSError as error:
            raise Failure(f"{file} cannot be read: {error.strerror}.") from error
        self._call("POST", f"{path}/uploads", params={"name": name}, content=body)

    def _test(self, path: str) -> None:
        result = self._run("testing the connection", f"{path}/test")["result"]
        if not result["success"]:
            raise Failure(f"It failed its connection test: {result['message']}")

    def _all_sources(self) -> Iterator[Json]:
        parameters = {"page_size": "200"}
        while True:
            page = self._call("GET", self._sources, params=parameters)
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            parameters["cursor"] = page["next_cursor"]

    def _run(self, title: str, path: str) -> Json:
        """Start a job and wait for its end: `succeeded`, or `partially_succeeded` (files were refused)."""
        job = self._call("POST", path, json={})
        limit = time.monotonic() + _JOB_SECONDS
        while not job["done"]:
            if time.monotonic() > limit:
                raise Failure(f"{title}: not done after {_JOB_SECONDS} seconds.", hint=f"See job {job['id']}.")
            job = self._call("GET", f"jobs/{job['id']}", params={"wait": str(_WAIT_SECONDS)})
            if not job["done"]:
                self._report(_progress(title, job))
        if job["status"] not in ("succeeded", "partially_succeeded"):
            error = job["error"] or {"message": f"the job ended as {job['status']}", "hint": None}
            raise Failure(f"{title}: {error['message']}", hint=error["hint"] or "")
        return job

    def _call(self, method: str, path: str, **request: Any) -> Json:
        answer: Json = self._send(method, path, **request).json()
        return answer

    def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        headers = dict(request.pop("headers", {}))
        if method == "POST":
            headers["Idempotency-Key"] = str(uuid.uuid4())
        try:
            response = self._client.request(method, path, headers=headers, **request)
        except httpx2.TransportError as error:
            raise Failure("The API does not answer.", hint="See the API's log.") from error
        if response.is_error:
            raise Failure(f"The API refused {method} /{path} ({response.status_code}): {_detail(response)}")
        return response


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _progress(title: str, job: Json) -> str:
    progress = job["progress"]
    if not progress or progress["current"] is None:
        return f"{title}: {job['status']}"
    total = "" if progress["total"] is None else f" of {progress['total']:,}"
    return f"{title}: {progress['phase']}, {progress['current']:,}{total} {progress['unit'] or ''}".rstrip()


def _detail(response: httpx2.Response) -> str:
    """Our API's own words (RFC 9457); anything else is not ours, and is not shown."""
    if response.headers.get("Content-Type", "").partition(";")[0] != "application/problem+json":
        return "no further word"
    problem: Json = response.json()
    return str(problem.get("detail") or problem.get("title"))
