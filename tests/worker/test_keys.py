"""Keys that are away, and keys that are rotated, while real workers run jobs."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import making
from engines import CANARY

from headwater import ids
from headwater.vault.providers import create_key_file

LISTING = "file_listing"


def test_a_job_waits_for_its_key_and_runs_when_it_is_there(engine: Any, master_key_file: Path, tmp_path: Path) -> None:
    """However often it looked: no attempt is used up, and nothing was opened without the key."""
    engine.settings["HEADWATER_MASTER_KEY_FILE"] = str(tmp_path / "later")
    engine.scheduler()
    engine.worker()
    job_id = engine.submit(engine.source(password="secret"), LISTING, max_attempts=1)
    engine.until(lambda: len(engine.outcomes(job_id)) > 2)
    assert engine.status(job_id) in ("queued", "running")
    shutil.copy2(master_key_file, tmp_path / "draft")
    (tmp_path / "draft").rename(tmp_path / "later")  # whole from the first moment on
    row = engine.ended(job_id)
    assert (row["status"], row["attempt"] - row["interruptions"]) == ("succeeded", 1)


def test_keys_are_rotated_while_jobs_run(
    make_engine: Any, fresh_database: Any, pepper_file: Path, tmp_path: Path
) -> None:
    """Organization key and master key, both while jobs are submitted and run: none fails, and the old ones are gone."""
    master = tmp_path / "master"
    create_key_file(master)
    (tmp_path / "engine").mkdir()
    with (
        fresh_database() as database,
        make_engine(
            database=database,
            organization=(organization := making.make_organization(database, pepper_file, master)),
            folder=tmp_path / "engine",
            HEADWATER_MASTER_KEY_FILE=str(master),
        ) as engine,
    ):
        engine.scheduler()
        engine.worker()
        sources = [engine.source(password=f"secret {number}", files=1, records=1) for number in range(20)]
        (old,) = _keys(engine)
        jobs = [engine.submit(source) for source in sources[:2]]
        with master.open("ab") as file:
            file.write(base64.b64encode(os.urandom(32)) + b"\n")
        for arguments in (("rotate-keys", ids.encode("org", organization.organization_id)), ("rotate-master-key",)):
            with _admin(engine, *arguments) as process:
                while process.poll() is None:
                    jobs.append(engine.submit(sources[len(jobs) % len(sources)]))
                    engine.ended(jobs[-2])
            assert process.returncode == 0, (tmp_path / "engine/admin.log").read_text()
        # From here on the old master key is not there.
        shutil.copy2(master, tmp_path / "draft")
        (tmp_path / "draft").write_text(master.read_text().splitlines()[-1])
        (tmp_path / "draft").replace(master)
        jobs += [engine.submit(source) for source in sources]
        ended = [engine.ended(job_id) for job_id in jobs]
        assert {(row["status"], row["result"]["success"]) for row in ended} == {("succeeded", True)}
        assert old not in _keys(engine)
        with _admin(engine, "verify-keys", ids.encode("org", organization.organization_id)) as process:
            assert process.wait(60) == 0


def _keys(engine: Any) -> list[Any]:
    rows = engine.connection.execute(
        "select id from organization_key where organization_id = %s", (engine.organization.organization_id,)
    )
    return [row["id"] for row in rows]


def _admin(engine: Any, *arguments: str) -> subprocess.Popen[bytes]:
    with (engine.folder / "admin.log").open("ab") as log:
        return subprocess.Popen(
            (sys.executable, "-m", "headwater_cli.admin", *arguments),
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(Path(making.__file__).parent),
                "HEADWATER_DATABASE_URL": engine.database,
                "HEADWATER_MASTER_KEY_FILE": engine.settings["HEADWATER_MASTER_KEY_FILE"],
            },
            stdout=log,
            stderr=log,
        )


def test_what_a_reference_names_is_masked_like_a_secret(engine: Any) -> None:
    """It was never stored; the worker fetches it, and its log shows a mask."""
    organization_id = ids.encode("org", engine.organization.organization_id)
    engine.settings["HEADWATER_REFERENCE_VARIABLES"] = json.dumps({organization_id: ["WAREHOUSE"]})
    engine.settings["HEADWATER_SECRET_WAREHOUSE"] = CANARY
    engine.scheduler()
    engine.worker()
    row = engine.ended(engine.submit(engine.source(password="env://WAREHOUSE", fail="fault"), LISTING))
    assert row["error"]["code"] == "internal_error"
    assert "ZeroDivisionError: [masked]" in engine.log()
    assert CANARY[:10] not in engine.log()


def test_a_worker_with_a_weak_key_does_not_start(engine: Any, tmp_path: Path) -> None:
    """Exit code 2, and the log says how to make a good one."""
    weak = tmp_path / "weak"
    create_key_file(weak)
    weak.write_text(base64.b64encode(bytes(32)).decode())
    engine.settings["HEADWATER_MASTER_KEY_FILE"] = str(weak)
    for process in (engine.start("worker", "headwater_worker", "--queue", "bulk"), engine.deliverer()):
        assert process.popen.wait(60) == 2
        assert "headwater admin create-keys" in process.log.read_text()
