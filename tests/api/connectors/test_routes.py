"""Data source types over HTTP."""

import httpx2
import jsonschema_rs


def test_every_type_comes_with_schemas_that_hold(client: httpx2.Client) -> None:
    """The config's schema takes a good config and refuses an unknown field; secrets are marked write-only."""
    types = {entry["type"]: entry for entry in client.get("data-source-types").json()["data"]}
    s3 = types["s3"]
    config = jsonschema_rs.validator_for(s3["config_schema"])
    assert config.is_valid({"bucket": "my-bucket", "region": "eu-central-1"})
    assert not config.is_valid({"bucket": "my-bucket", "region": "eu-central-1", "nonsense": 1})
    assert "writeOnly" in str(s3["credentials_schema"]["properties"]["secret_access_key"])
    assert s3["capabilities"] == ["files", "sync", "test"]
    assert client.get("data-source-types/s3").json() == s3


def test_an_unknown_type_is_not_there(client: httpx2.Client) -> None:
    """404."""
    assert client.get("data-source-types/nonsense").status_code == 404
