"""The demo's data sources, as requests to the REST API: one of each type."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from headwater_cli.demo import api, selections
from headwater_cli.demo.state import State

S3: Final = "Demo bucket"


@dataclass(frozen=True, kw_only=True)
class DemoSource:
    """One data source.

    `address` names the field of `config` with the port that a restart may change; None if there is none.
    `uploads` are sent to it before its first sync: {name: file}.
    """

    name: str
    type: str
    description: str
    config: Mapping[str, Any]
    address: str | None = None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    uploads: Mapping[str, Path] = field(default_factory=dict)


def without_azure(state: State) -> tuple[DemoSource, ...]:
    """All that are there once the demo's servers are ready, the small ones first."""
    return (_api(state), _gcs(state), _uploads(state), _local_files(state), _s3(state))


def azure(state: State) -> DemoSource:
    """The container; there once Azurite is."""
    return DemoSource(
        name="Demo container in Azure",
        type="azure_blob",
        description="A few public data sets in a container of an emulated Azure Blob Storage.",
        config={
            "container": state.azure_container,
            "account": state.azure_account,
            "endpoint_url": state.azure_url,
            "use_managed_identity": False,
        },
        address="endpoint_url",
        credentials={"account_key": state.azure_key},
    )


def _s3(state: State) -> DemoSource:
    return DemoSource(
        name=S3,
        type="s3",
        description="Public data sets in many formats, some files of them broken on purpose.",
        config={
            "bucket": state.bucket,
            "region": state.region,
            "endpoint_url": state.endpoint_url,
            "use_iam_role": False,
        },
        address="endpoint_url",
        credentials={"access_key_id": state.access_key_id, "secret_access_key": state.secret_access_key},
    )


def _gcs(state: State) -> DemoSource:
    return DemoSource(
        name="Demo bucket in Google Cloud",
        type="gcs",
        description="A few public data sets in a bucket of an emulated Google Cloud Storage.",
        config={"bucket": state.gcs_bucket, "endpoint_url": state.gcs_url, "use_workload_identity": False},
        address="endpoint_url",
        credentials={"service_account_json": state.service_account()},
    )


def _api(state: State) -> DemoSource:
    pages = {"type": "cursor", "parameter": "cursor", "cursor_path": "next_cursor"}
    return DemoSource(
        name="Demo API",
        type="api",
        description="The passengers of the Titanic, from an HTTP API that answers in pages.",
        config={
            "endpoint": f"{state.api_url}{api.PATH}",
            "auth_type": "bearer",
            "records_path": "data",
            "record_key": "id",
            "pagination": {**pages, "size_parameter": "limit", "size": api.PAGE_SIZE},
        },
        address="endpoint",
        credentials={"token": state.api_token},
    )


def _uploads(state: State) -> DemoSource:
    files = [Path(state.files, path) for path in selections.UPLOADS]
    return DemoSource(
        name="Demo uploads",
        type="file_upload",
        description="Two public data sets, uploaded through the REST API.",
        config={"allowed_extensions": ["csv", "json"], "max_file_size_mb": 100},
        uploads={file.name: file for file in files},
    )


def _local_files(state: State) -> DemoSource:
    return DemoSource(
        name="Demo folder",
        type="local_files",
        description="A few public data sets in a folder of this machine.",
        config={"path": state.files},
    )
