"""Files that users upload."""

from typing import Final, Literal

from headwater.connectors.spec import Capability, ConnectorSpec, NoCredentials
from headwater.connectors.uploads import UploadsConfig


class FileUploadConfig(UploadsConfig):
    """Which files are taken."""

    type: Literal["file_upload"] = "file_upload"


SPEC: Final = ConnectorSpec(
    type="file_upload",
    title="File upload",
    description="Files that are uploaded through the REST API.",
    config=FileUploadConfig,
    credentials=NoCredentials,
    capabilities=frozenset({Capability.TEST, Capability.FILES, Capability.SYNC, Capability.UPLOADS}),
)
