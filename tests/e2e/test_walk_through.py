"""The main job, end to end, on real input."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import psycopg
import pytest
import receiving
import redis

from headwater import ids
from headwater.webhooks import signing
from headwater_cli.demo import datasets
from headwater_cli.demo.files import totals

pytestmark = pytest.mark.e2e


def test_register_test_list_sync_and_read(stack: Any) -> None:
    """What a newcomer does: every step answers, and what came in is what lies in the bucket."""
    source = stack.bucket_source(stack.project("walk"), "walk")
    test = stack.ended(stack.call("POST", f"{source}/test", 202))
    assert test["result"]["success"] is True, test
    assert [check["status"] for check in test["result"]["checks"]].count("failed") == 0
    assert stack.get(source)["status"] == "ready"

    listing = stack.ended(stack.call("POST", f"{source}/files", 202))
    files = [file for file in datasets.corpus() if not file.path.endswith("/")]
    assert listing["result"]["file_count"] == len(files)

    sync = stack.ended(stack.call("POST", f"{source}/sync", 202))
    assert sync["status"] == "partially_succeeded", sync
    after = stack.get(source)
    counters = sync["counters"]
    assert after["item_count"] == counters["landed"] == sync["result"]["item_count"]
    assert after["error_count"] == counters["rejected"] == sync["result"]["error_count"]
    assert after["last_sync_at"] is not None
    assert counters["parsed"] == counters["valid"] + sum(
        1 for row in stack.every(f"{source}/rejects") if row["record_number"] is not None
    )

    whole = totals([file for file in files if not file.broken_file])
    assert counters["landed"] >= whole.records
    assert sum(1 for _ in stack.every(f"{source}/rejects")) == after["error_count"]


def test_items_of_a_file_are_its_records(stack: Any) -> None:
    """Paging through one file gives each record once, in order."""
    file = next(file for file in datasets.corpus() if file.path.endswith("airports.csv"))
    source = stack.bucket_source(stack.project("pages"), "pages", config={"prefix": file.path})
    sync = stack.ended(stack.call("POST", f"{source}/sync", 202))
    assert sync["status"] == "succeeded", sync
    items = list(stack.every(f"{source}/items", path=file.path))
    assert [item["record_number"] for item in items] == list(range(1, file.records + 1))
    assert len({item["id"] for item in items}) == file.records
    one = stack.get(f"{source}/items/{items[3]['id']}")
    assert one["data"] == items[3]["data"]
    lines = stack.client.get(f"{source}/items", headers={"Accept": "application/x-ndjson"}).text.splitlines()
    assert [json.loads(line)["data"] for line in lines] == [item["data"] for item in items]


def test_an_unchanged_bucket_is_not_read_again(stack: Any) -> None:
    """The second sync lists, compares, and reads nothing."""
    source = stack.bucket_source(stack.project("again"), "again", config={"prefix": "raw/"})
    first = stack.ended(stack.call("POST", f"{source}/sync", 202))
    second = stack.ended(stack.call("POST", f"{source}/sync", 202))
    assert second["counters"]["unchanged"] == first["counters"]["matched"]
    assert second["counters"].get("bytes_read", 0) == 0
    assert second["result"]["item_count"] == first["result"]["item_count"]


@pytest.mark.parametrize(
    ("credentials", "code"),
    [
        ({"secret_access_key": "wrong" * 8}, "invalid_credentials"),
        ({"access_key_id": "AKIAUNKNOWNUNKNOWN00"}, "invalid_credentials"),
        ({"secret_access_key": None}, "missing_credentials"),
    ],
)
def test_a_broken_connection_is_a_result_and_says_why(stack: Any, credentials: dict[str, Any], code: str) -> None:
    """The job succeeds, the test does not, and the source is `failing`."""
    source = stack.bucket_source(stack.project(f"broken {code} {sorted(credentials)}"), "broken")
    stack.call("PUT", f"{source}/credentials", 200, json=credentials)
    test = stack.ended(stack.call("POST", f"{source}/test", 202))
    assert (test["status"], test["result"]["success"]) == ("succeeded", False)
    assert [check["code"] for check in test["result"]["checks"] if check["status"] == "failed"] == [code]
    assert stack.get(source)["status"] == "failing"


def test_a_webhook_hears_of_a_job_that_has_ended(stack: Any) -> None:
    """Signed with the secret that was shown when it was made; the deliveries say that it arrived."""
    project = stack.project("told")
    source = stack.bucket_source(project, "told")
    with receiving.receiver() as receiver:
        limits = {"project_ids": [project.rpartition("/")[2]], "event_types": ["job.succeeded"]}
        webhook = stack.call("POST", "/webhooks", 201, json={"url": receiver.url, **limits})
        job = stack.ended(stack.call("POST", f"{source}/test", 202))
        received = receiver.next()
    message = json.loads(received.body)
    assert (message["type"], message["data"]["id"]) == ("job.succeeded", job["id"])
    sent = signing.headers(
        received.headers["webhook-id"], int(received.headers["webhook-timestamp"]), received.body, [webhook["secret"]]
    )
    assert received.headers["webhook-signature"] == sent["webhook-signature"]
    (delivery,) = stack.every(f"/webhooks/{webhook['id']}/deliveries", job_id=job["id"])
    assert delivery["id"] == received.headers["webhook-id"]
    stack.call("DELETE", f"/webhooks/{webhook['id']}", 204)


def test_a_killed_worker_neither_loses_nor_doubles_an_item(stack: Any) -> None:
    """SIGKILL in the middle of a sync: it succeeds in a second attempt, every item once, counters equal to rows."""
    source = stack.bucket_source(stack.project("kill"), "kill")
    job = stack.call("POST", f"{source}/sync", 202)
    while stack.get(f"/jobs/{job['id']}")["counters"].get("landed", 0) == 0:
        pass
    killed = stack.pids("worker_bulk")
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    ended = stack.ended(job)
    assert ended["status"] == "partially_succeeded", ended
    assert ended["attempt"] == 2
    assert stack.pids("worker_bulk") != killed

    twin = stack.bucket_source(stack.project("unharmed"), "unharmed")
    unharmed = stack.ended(stack.call("POST", f"{twin}/sync", 202))
    compared = ("matched", "parsed", "valid", "rejected", "landed")
    assert {name: ended["counters"].get(name) for name in compared} == {
        name: unharmed["counters"].get(name) for name in compared
    }
    items = [_key(line) for line in _lines(stack, source)]
    assert len(items) == len(set(items)) == stack.get(source)["item_count"] == ended["counters"]["landed"]
    assert sorted(items) == sorted(_key(line) for line in _lines(stack, twin))


def test_with_redis_frozen_submits_answer_and_jobs_run_when_it_is_back(stack: Any) -> None:
    """202 within 300 ms while Redis is stopped; every job ends within ten seconds of its return."""
    source = stack.bucket_source(stack.project("frozen"), "frozen")
    stack.call("POST", f"{source}/test", 202)
    (pid,) = stack.pids("valkey")
    os.kill(pid, signal.SIGSTOP)
    try:
        jobs, slowest = [], 0.0
        for _ in range(20):
            began = time.perf_counter()
            jobs.append(stack.call("POST", f"{source}/test", 202))
            slowest = max(slowest, time.perf_counter() - began)
    finally:
        os.kill(pid, signal.SIGCONT)
    began = time.monotonic()
    for job in jobs:
        assert stack.ended(job)["result"]["success"] is True
    assert slowest < 0.3
    assert time.monotonic() - began < 10


def test_with_redis_killed_jobs_run_when_it_is_back(stack: Any) -> None:
    """kill -9 of Redis: the supervisor brings it back, the jobs that were queued run."""
    source = stack.bucket_source(stack.project("killed"), "killed")
    os.kill(stack.pids("valkey")[0], signal.SIGKILL)
    jobs = [stack.call("POST", f"{source}/test", 202) for _ in range(10)]
    assert all(stack.ended(job)["status"] == "succeeded" for job in jobs)


def test_fifty_identical_submits_make_one_job(stack: Any) -> None:
    """With one Idempotency-Key, in parallel: fifty equal answers, one job."""
    source = stack.bucket_source(stack.project("once"), "once")

    def submit(_number: int) -> Any:
        return stack.call("POST", f"{source}/test", 202, headers={"Idempotency-Key": "walk-once"})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(submit, range(50)))
    assert len({json.dumps(answer, sort_keys=True) for answer in answers}) == 1
    source_id = source.rpartition("/")[2]
    assert len(stack.get("/jobs", data_source_id=source_id)["data"]) == 1


def test_a_secret_is_nowhere_but_sealed(stack: Any) -> None:
    """After good and failing jobs a canary is in no log, response, event, Redis key or file of the home."""
    canary = "cAnary\"%41%s'ü☃\\n7fQ"
    source = stack.bucket_source(stack.project("canary"), "canary")
    fit_for_a_header = canary.encode("ascii", "ignore").decode()
    secrets = {"secret_access_key": canary, "session_token": fit_for_a_header}
    stack.call("PUT", f"{source}/credentials", 200, json=secrets)
    texts = []
    for verb in ("test", "files", "sync"):
        job = stack.ended(stack.call("POST", f"{source}/{verb}", 202))
        texts += [json.dumps(job, ensure_ascii=False), json.dumps(stack.get(f"/jobs/{job['id']}/attempts"))]
    for path in (source, f"{source}/credentials", f"{source}/events"):
        texts.append(json.dumps(stack.get(path), ensure_ascii=False))
    refused = stack.client.put(f"{source}/credentials", json={"secret_access_key": [canary]})
    assert refused.status_code == 400
    texts.append(refused.text)
    with redis.Redis.from_url(stack.facts["redis_url"]) as client:
        texts += [str(client.dump(key)) for key in client.scan_iter()]
    texts += [path.read_text(errors="replace") for path in (stack.home / "logs").glob("*.log")]
    spellings = {
        canary,
        fit_for_a_header,
        json.dumps(canary)[1:-1],
        json.dumps(canary, ensure_ascii=False)[1:-1],
        repr(canary)[1:-1],
        canary[:6],
    }
    found = [spelling for spelling in spellings if any(spelling in text for text in texts)]
    assert found == []


def test_what_is_done_is_in_the_audit_log_and_sealed_within_five_seconds(stack: Any) -> None:
    """The submit, and the opening of the secrets by a worker under the same request; the chain holds."""
    source = stack.bucket_source(stack.project("audited"), "audited")
    answer = stack.client.post(f"{source}/test", headers={"X-Request-Id": "the-test"})
    job = stack.ended(answer.json())
    entries = [each for each in stack.get("/audit-log", page_size=200)["data"] if each["request_id"] == "the-test"]
    assert [entry["act"] for entry in entries] == ["credentials.unseal", "job.submit"]
    unseal = entries[0]
    assert (unseal["fields"], unseal["details"]["job_id"]) == (["access_key_id", "secret_access_key"], job["id"])
    deadline = time.monotonic() + 5
    while (seal := stack.get("/audit-log", subject=job["id"])["data"][0]["seal"]) is None:
        assert time.monotonic() < deadline, "not sealed within five seconds"
        time.sleep(0.1)
    ours = stack.get("/me")["organization"]["id"]
    verified = json.loads(_admin(stack, "verify-audit", ours).stdout)
    assert (verified["valid"], verified["sealed"] >= seal["seq"]) == (True, True)


def test_a_deleted_organizations_jobs_end_and_nothing_of_it_can_be_read(stack: Any) -> None:
    """In the middle of a sync: its key is dead, the job has stopped, the tables hold nothing; others go on."""
    made = json.loads(_admin(stack, "create-organization", "--name", "Leaving", "--email", "a@leaving.example").stdout)
    with httpx2.Client(base_url=stack.facts["api_url"], timeout=40) as client:
        client.headers["Authorization"] = f"Bearer {made['api_key']}"
        leaving = dataclasses.replace(stack, client=client)
        source = leaving.bucket_source(f"/projects/{made['project_id']}", "leaving")
        sync = leaving.call("POST", f"{source}/sync", 202)
        while leaving.get(f"/jobs/{sync['id']}")["counters"].get("landed", 0) == 0:
            time.sleep(0.05)
        done = _admin(stack, "delete-organization", "Leaving", "--confirm", "Leaving")
        assert done.returncode == 0, done.stderr
        gone = time.monotonic()
        while client.get("/me").status_code != 401:  # remembered for a moment
            assert time.monotonic() - gone < 5, "its key lives on"
            time.sleep(0.05)
    with psycopg.connect(stack.facts["database_url"], autocommit=True) as connection:
        connection.execute(
            "select set_config('headwater.organization', %s, false)",
            (str(ids.decode("org", made["organization_id"])),),
        )
        for table in ("api_key", "member", "project", "data_source", "job", "load", "file", "event"):
            row = connection.execute(
                f"select count(*) from {table} where organization_id = current_organization()"
            ).fetchone()
            assert row == (0,), table
    assert stack.get("/me")["organization"]["name"] == "Local"


def _admin(stack: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`headwater admin ...` as the local stack's operator runs it."""
    return subprocess.run(
        (sys.executable, "-m", "headwater_cli.admin", *arguments),
        env={"PATH": os.environ["PATH"], "HEADWATER_HOME": str(stack.home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _lines(stack: Any, source: str) -> list[dict[str, Any]]:
    with stack.client.stream("GET", f"{source}/items", headers={"Accept": "application/x-ndjson"}) as response:
        return [json.loads(line) for line in response.iter_lines()]


def _key(item: dict[str, Any]) -> tuple[str, int]:
    return item["path"], item["record_number"]
