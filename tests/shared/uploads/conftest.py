"""Both kinds of storage, real: a folder, and a bucket of the demo's server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from headwater.settings import UploadSettings
from headwater.uploads.bucket import Bucket
from headwater.uploads.folder import Folder
from headwater.uploads.storage import Storage
from headwater_cli.demo import bucket


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """An empty storage."""
    if request.param == "folder":
        yield Folder(tmp_path / "uploads")
        return
    owner = bucket.new_user("owner", actions=("s3:*",))
    with bucket.serve(users=[owner], buckets={"uploads-of-all": {}}) as server:
        yield Bucket(
            UploadSettings(
                uploads_bucket="uploads-of-all",
                uploads_prefix="files/",
                uploads_region=server.region,
                uploads_endpoint_url=server.endpoint_url,
                uploads_access_key_id=owner.access_key_id,
                uploads_secret_access_key=SecretStr(owner.secret_access_key),
            )
        )
