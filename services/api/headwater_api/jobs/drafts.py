"""The test of a config that is not saved: checked as a saved one would be, its secrets sealed into the job."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from headwater import ids
from headwater.connectors import registry
from headwater.connectors.spec import Capability
from headwater.errors import Unavailable
from headwater.jobs.kinds import CONNECTION_TEST
from headwater.vault import seal
from headwater.vault.seal import Binding
from headwater_api.actor import Actor
from headwater_api.connectors import checking
from headwater_api.jobs.schemas import UnsavedTestStart
from headwater_api.jobs.submitting import Order, capability_missing
from headwater_api.services import Services


async def order(held: Services, actor: Actor, project_id: UUID, start: UnsavedTestStart) -> Order:
    """The job that tests `start`.

    Raises `InvalidRequest` naming each refused field, `Conflict` if sources of this type cannot be tested,
    `Unavailable` while the organization has no key to seal with.
    """
    spec = registry.get_spec(start.type)
    config = checking.config(spec, start.config)
    secrets = checking.secrets(spec, start.credentials or {}, organization_id=actor.organization_id)
    if Capability.TEST not in spec.capabilities:
        raise capability_missing()
    job_id = ids.new()
    return Order(
        id=job_id,
        kind=CONNECTION_TEST,
        project_id=project_id,
        data_source_id=None,
        params={},
        priority=start.priority,
        deadline_seconds=start.deadline_seconds,
        draft={"type": spec.type, "config": config.model_dump(mode="json")},
        sealed=await _sealed(held, actor, job_id, secrets, target=spec.target_fingerprint(config)),
    )


async def _sealed(
    held: Services, actor: Actor, job_id: UUID, secrets: Mapping[str, str | None], *, target: bytes
) -> list[dict[str, Any]]:
    """The secrets that were sent, as rows of `sealed_credential` for `jobs_submit`."""
    sent = {field: secret for field, secret in secrets.items() if secret is not None}
    if not sent:
        return []
    key = await held.lane(actor.organization_id).fetch(seal.sealing_key(actor.organization_id))
    if key is None:
        raise Unavailable("The organization has no key to seal with yet.", hint="Its operator makes one.")
    return [
        {
            "field": field,
            "ciphertext": seal.seal(
                secret,
                suite=key["suite"],
                public_key=key["public_key"],
                binding=Binding(actor.organization_id, job_id, field, target),
            ).hex(),
            "suite": key["suite"],
            "key_id": key["id"],
        }
        for field, secret in sent.items()
    ]
