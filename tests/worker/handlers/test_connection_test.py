"""The handler of connection tests: what it says about a source, and what becomes of the source's status."""

import json
from dataclasses import replace
from uuid import UUID

import pytest

from headwater.errors import CancelRequested, JobError
from headwater.jobs.outcome import Outcome, Succeeded
from headwater_worker.context import JobContext
from headwater_worker.handlers import connection_test

from .conftest import Bench


def _result(outcome: Outcome) -> dict[str, object]:
    assert isinstance(outcome, Succeeded)
    return outcome.result


def _failed(outcome: Outcome) -> list[tuple[str, str]]:
    assert isinstance(outcome, Succeeded)
    return [(check["name"], check["code"]) for check in outcome.result["checks"] if check["status"] == "failed"]


def _run(bench: Bench, source_id: UUID) -> tuple[JobContext, Outcome]:
    context = bench.claim(source_id, "connection_test")
    return context, connection_test.run(context)


def _status(bench: Bench, source_id: UUID) -> tuple[str | None, bool | None]:
    row = bench.connection.execute(
        "select status, last_test_success from data_source_totals where data_source_id = %s", (source_id,)
    ).fetchone()
    assert row is not None
    return row["status"], row["last_test_success"]


def test_a_working_source_becomes_ready(bench: Bench) -> None:
    """All checks pass, the job succeeds, the source is ready."""
    bench.put("a.json")
    source_id = bench.source()
    context, outcome = _run(bench, source_id)
    assert _result(outcome)["success"] is True
    assert _failed(outcome) == []
    assert bench.record(context, outcome) == "succeeded"
    assert _status(bench, source_id) == ("ready", True)


def test_a_broken_source_is_a_job_that_succeeded(bench: Bench) -> None:
    """The job did its work; the result says what is wrong, and the source is failing."""
    source_id = bench.source(bucket="no-such-bucket")
    context, outcome = _run(bench, source_id)
    assert _failed(outcome) == [("target", "bucket_not_found")]
    assert bench.record(context, outcome) == "succeeded"
    assert _status(bench, source_id) == ("failing", False)


def test_missing_credentials_fail_the_config_check(bench: Bench) -> None:
    """Nothing is dialled without them."""
    outcome = _run(bench, bench.source(user=None))[1]
    assert _failed(outcome) == [("config", "missing_credentials")]
    checks = _result(outcome)["checks"]
    assert isinstance(checks, list)
    assert [check["status"] for check in checks] == ["failed"] + ["skipped"] * 8


def test_credentials_sealed_for_another_target_fail_the_config_check(bench: Bench) -> None:
    """A source that was pointed elsewhere behind the API's back opens nothing."""
    source_id = bench.source()
    bench.connection.execute("alter table data_source_version disable trigger user")
    bench.connection.execute(
        'update data_source_version set config = config || \'{"bucket": "another"}\' where data_source_id = %s',
        (source_id,),
    )
    bench.connection.execute("alter table data_source_version enable trigger user")
    assert _failed(_run(bench, source_id)[1]) == [("config", "cannot_unseal")]


def test_a_config_that_is_no_longer_valid_fails_the_config_check(bench: Bench) -> None:
    """A field that this version does not know."""
    source_id = bench.source(user=None)
    context = bench.claim(source_id, "connection_test")
    claim = replace(context.claim, config={**context.claim.config, "colour": "red"})
    assert _failed(connection_test.run(replace(context, claim=claim))) == [("config", "config_invalid")]


def test_a_source_pointed_elsewhere_since_the_submit_fails_the_job(bench: Bench) -> None:
    """`config_changed`: that says nothing about the connection."""
    context = bench.claim(bench.source(), "connection_test")
    elsewhere = {**context.claim.config, "bucket": "another"}
    claim = replace(context.claim, current_config=elsewhere)
    with pytest.raises(JobError) as caught:
        connection_test.run(replace(context, claim=claim))
    assert caught.value.code == "config_changed"


def test_wrong_rights_are_told_without_a_secret(bench: Bench) -> None:
    """The result names the check and no key."""
    bench.put("a.json")
    outcome = _run(bench, bench.source(user="stranger"))[1]
    assert _failed(outcome) == [("list", "permission_denied")]
    stranger = bench.server.users["stranger"]
    text = json.dumps(_result(outcome))
    assert stranger.access_key_id not in text
    assert stranger.secret_access_key not in text


def test_a_cancel_stops_the_test(bench: Bench) -> None:
    """What `checkpoint` raises is let through."""
    context = bench.claim(bench.source(), "connection_test")

    def interrupt() -> None:
        raise CancelRequested

    with pytest.raises(CancelRequested):
        connection_test.run(replace(context, interrupt=interrupt))
