"""Where the worker's own identity may be sent: to the cloud that it is of. Who receives its token can use it."""

from typing import Any

import pytest
from pydantic import ValidationError

from headwater.connectors import registry

CONFIGS: dict[str, dict[str, Any]] = {
    "s3": {"bucket": "the-bucket", "region": "eu-central-1", "use_iam_role": True},
    "gcs": {"bucket": "the-bucket", "use_workload_identity": True},
    "azure_blob": {"container": "the-container", "account": "account1", "use_managed_identity": True},
}
CHINA = "https://account1.blob.core.chinacloudapi.cn"


def _validate(type_: str, endpoint_url: str | None) -> Any:
    return registry.specs()[type_].config.model_validate(CONFIGS[type_] | {"endpoint_url": endpoint_url})


@pytest.mark.parametrize(
    ("type_", "endpoint_url"),
    [
        ("s3", "https://evil.example"),
        ("s3", "https://x.execute-api.eu-central-1.amazonaws.com"),
        ("s3", "http://s3.eu-central-1.amazonaws.com"),
        ("s3", "https://bucket.vpce-0a1b2c3d.s3.eu-central-1.vpce.amazonaws.com.evil.example"),
        ("gcs", "https://evil.example"),
        ("gcs", "https://storage.googleapis.com.evil.example"),
        ("azure_blob", "https://evil.example"),
        ("azure_blob", "https://account1.blob.core.evil.example"),
        ("azure_blob", "https://account1.blob.core.windows.net.evil.example"),
        ("azure_blob", "http://account1.blob.core.windows.net"),
        ("azure_blob", "https://account1.blob.core.windows.net:8443"),
    ],
)
def test_it_goes_to_nobody_elses_endpoint(type_: str, endpoint_url: str) -> None:
    """A user who names the host would read the worker's token there."""
    with pytest.raises(ValidationError, match="own endpoint"):
        _validate(type_, endpoint_url)


@pytest.mark.parametrize(
    ("type_", "endpoint_url"),
    [
        ("s3", None),
        ("s3", "https://s3.eu-central-1.amazonaws.com"),
        ("s3", "https://bucket.vpce-0a1b2c3d-5e6f.s3.eu-central-1.vpce.amazonaws.com"),
        ("gcs", None),
        ("azure_blob", None),
        ("azure_blob", CHINA),
        ("azure_blob", "https://account1.z10.blob.storage.azure.net"),
    ],
)
def test_it_goes_to_its_own_cloud(type_: str, endpoint_url: str | None) -> None:
    """Azure's has several; Amazon's has some for each region, also inside of private networks."""
    assert _validate(type_, endpoint_url).endpoint_url == endpoint_url
