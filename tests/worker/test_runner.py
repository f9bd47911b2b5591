"""The runner in real workers: what it logs, and what a child is that could not be hardened."""

from typing import Any
from uuid import UUID

import scripted_source.spec

from headwater import db
from headwater.connectors.spec import ConnectorSpec
from headwater.vault import seal
from headwater.vault.seal import Binding

_SECRET = "Correct-Horse-Battery"
_SPEC: ConnectorSpec = scripted_source.spec.SPEC


def test_a_secret_in_a_foreign_error_is_masked_in_the_log(engine: Any) -> None:
    """The traceback of a fault is logged when the connector is closed already; its secrets are masked still."""
    engine.scheduler()
    engine.worker()
    source_id = engine.source(fail="fault")
    _put_password(engine, source_id)
    row = engine.ended(engine.submit(source_id, kind="file_listing"))
    assert row["error"]["code"] == "internal_error"
    assert _SECRET not in engine.log()
    assert "ZeroDivisionError: [masked]" in engine.log()


def test_a_job_whose_error_cannot_be_stored_ends_all_the_same(engine: Any) -> None:
    """Postgres keeps no U+0000. The job fails once, with an error of ours, instead of losing its lease twice."""
    engine.scheduler()
    engine.worker()
    row = engine.ended(engine.submit(engine.source(fail="mumble"), kind="file_listing"))
    assert (row["status"], row["error"]["code"], row["attempt"]) == ("failed", "internal_error", 1)


def test_a_child_that_could_not_be_set_up_claims_nothing(engine: Any) -> None:
    """A worker without its egress rules leaves the jobs to others, and its log says so."""
    engine.settings["HEADWATER_EGRESS_ALLOW"] = "not a network"
    engine.scheduler()
    engine.worker()
    job_id = engine.submit(engine.source())
    engine.until(lambda: "could not be set up" in engine.log())
    assert engine.status(job_id) == "queued"


def _put_password(engine: Any, source_id: UUID) -> None:
    organization_id = engine.organization.organization_id
    key = db.run(engine.connection, seal.sealing_key(organization_id)).fetchone()
    config = _SPEC.config.model_validate({"type": "scripted", "fail": "fault"})
    binding = Binding(organization_id, source_id, "password", _SPEC.target_fingerprint(config))
    ciphertext = seal.seal(_SECRET, suite=key["suite"], public_key=key["public_key"], binding=binding)
    engine.connection.execute(
        """
        insert into sealed_credential (subject_id, field, organization_id, ciphertext, suite, key_id)
        values (%s, 'password', %s, %s, %s, %s)
        """,
        (source_id, organization_id, ciphertext, key["suite"], key["id"]),
    )
