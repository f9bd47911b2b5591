"""From a claim to an open connector: config validated, credentials unsealed and audited, the way out built."""

import functools
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from pydantic import ValidationError

from headwater import db, masking
from headwater.audit import log as audit_log
from headwater.audit.acts import Act
from headwater.connectors import registry
from headwater.connectors.spec import Capability, ConnectorConfig, ConnectorSpec
from headwater.errors import JobError, Permanent
from headwater.uploads.reading import SourceUploads
from headwater.vault import unseal
from headwater.vault.unseal import Sealed
from headwater_worker.connectors import references
from headwater_worker.connectors.base import Connector, Opening
from headwater_worker.context import JobContext
from headwater_worker.egress import Policy, Proxy

RUNTIMES_GROUP: Final = "headwater.connector_runtimes"


@contextmanager
def open_connector(context: JobContext) -> Iterator[Connector]:
    """The source of the job, ready to talk to; its secrets are masked in all logs of this process meanwhile.

    Raises:
        Permanent: `config_invalid`, `missing_credentials`, `uploads_not_configured`, `reference_refused`,
            `reference_not_found`.
        JobError: `connector_missing`; `config_changed`, when the job is pinned to a version with another target than
            the one that counts.
        VaultError: the credentials cannot be opened.
    """
    spec = registry.specs().get(context.claim.type)
    if spec is None:
        raise _not_installed(context.claim.type)
    config = _config(spec, context)
    policy = Policy.parse(context.egress.egress_allow)
    secrets = _credentials(spec, config, context)
    runtime = _runtime(spec.type)
    with masking.mask_for(secrets.values()), _uploads(spec, context) as uploads, Proxy(policy) as proxy:
        opening = Opening(
            config=config,
            credentials=secrets,
            policy=policy,
            proxy=proxy,
            ambient_allowed=context.egress.allow_ambient_credentials,
            local_files_roots=[root for root in context.egress.local_files_roots.split(":") if root],
            uploads=uploads,
            gcs_token_url=context.egress.gcs_token_url,
        )
        with runtime(opening) as connector:
            yield connector


def _config(spec: ConnectorSpec, context: JobContext) -> ConnectorConfig:
    try:
        config = spec.config.model_validate(context.claim.config)
        current = context.claim.current_config
        if current is not None:
            counts = spec.target_fingerprint(spec.config.model_validate(current))
            if counts != spec.target_fingerprint(config):
                raise JobError(
                    "The source was pointed elsewhere after this job was submitted.",
                    code="config_changed",
                    hint="Submit the job again.",
                )
    except ValidationError as error:
        raise Permanent(
            "The stored config is not valid for this version of Headwater.",
            code="config_invalid",
            hint="Read the data source and save its config again.",
        ) from error
    return config


def _credentials(spec: ConnectorSpec, config: ConnectorConfig, context: JobContext) -> dict[str, str]:
    sealed = _sealed(context)
    opened = unseal.unseal_all(sealed, provider=context.vault, target=spec.target_fingerprint(config))
    secrets = references.follow(spec, context.claim.organization_id, opened)
    missing = spec.missing_credentials(config, frozenset(secrets))
    if missing:
        raise Permanent(
            f"Credentials are missing: {', '.join(missing)}.",
            code="missing_credentials",
            hint="Put them with PUT .../credentials.",
        )
    return secrets


def _sealed(context: JobContext) -> Sealed:
    """The job's ciphertexts. If there are any, the audit log says that they are opened before somebody can."""
    claim = context.claim
    sealed = unseal.fetch(context.connection, organization_id=claim.organization_id, subject_id=claim.subject_id)
    if sealed.rows:
        entry = audit_log.entry(
            organization_id=claim.organization_id,
            actor_id=claim.created_by,
            act=Act.CREDENTIALS_UNSEAL,
            subject_id=claim.subject_id,
            request_id=claim.request_id,
            fields=sealed.fields,
            details={"job_id": str(claim.job_id), "key_ids": sorted(map(str, sealed.key_ids))},
        )
        db.run(context.connection, entry)
    return sealed


@contextmanager
def _uploads(spec: ConnectorSpec, context: JobContext) -> Iterator[SourceUploads | None]:
    if Capability.UPLOADS not in spec.capabilities or context.claim.data_source_id is None:
        yield None
        return
    if context.uploads is None:
        raise Permanent(
            "This worker has no place for uploads.",
            code="uploads_not_configured",
            hint="An operator sets HEADWATER_UPLOADS_DIR or HEADWATER_UPLOADS_BUCKET, for API and workers alike.",
        )
    with closing(context.uploads.of(context.claim.organization_id, context.claim.data_source_id)) as uploads:
        yield uploads


def _runtime(type_: str) -> type[Connector]:
    found = runtimes().get(type_)
    if found is None:
        raise _not_installed(type_)
    runtime: type[Connector] = found.load()
    return runtime


@functools.cache
def runtimes() -> Mapping[str, EntryPoint]:
    """Where the runtime of each type is. To find out, the metadata of every installed package are read."""
    return {entry.name: entry for entry in entry_points(group=RUNTIMES_GROUP)}


def _not_installed(type_: str) -> JobError:
    return JobError(
        f"This worker has no connector for `{type_}`.",
        code="connector_missing",
        hint="Install the connector's package on every worker.",
    )
