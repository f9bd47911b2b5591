"""The storage that the operator configured."""

from headwater.settings import UploadSettings
from headwater.uploads.bucket import Bucket
from headwater.uploads.folder import Folder
from headwater.uploads.storage import Storage


def storage(settings: UploadSettings) -> Storage | None:
    """A bucket wins over a folder; None where neither is set."""
    if settings.uploads_bucket is not None:
        return Bucket(settings)
    return None if settings.uploads_dir is None else Folder(settings.uploads_dir)
