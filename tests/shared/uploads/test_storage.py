"""What both kinds of storage promise."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from headwater import ids
from headwater.errors import ObjectMissing, StorageError
from headwater.settings import UploadSettings
from headwater.uploads import configured
from headwater.uploads.bucket import Bucket
from headwater.uploads.folder import Folder
from headwater.uploads.storage import Storage

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [0, 5, 40 * MIB])
def test_what_was_put_is_what_is_opened(storage: Storage, size: int) -> None:
    """Written in pieces, read in pieces, deleted, gone."""
    key, body = ids.new(), os.urandom(size)
    writer = storage.put(key)
    for start in range(0, size, MIB):
        writer.write(body[start : start + MIB])
    writer.keep()
    writer.drop()
    reader = storage.open(key)
    pieces = []
    while piece := reader.read(3 * MIB):
        assert len(piece) <= 3 * MIB
        pieces.append(piece)
    reader.close()
    assert b"".join(pieces) == body
    storage.delete(key)
    with pytest.raises(ObjectMissing):
        storage.open(key)


def test_nothing_is_seen_of_an_object_before_it_is_kept(storage: Storage) -> None:
    """Dropped is as never begun."""
    key = ids.new()
    writer = storage.put(key)
    writer.write(b"x" * (20 * MIB))
    with pytest.raises(ObjectMissing):
        storage.open(key)
    writer.drop()
    writer.drop()
    with pytest.raises(ObjectMissing):
        storage.open(key)


def test_deleting_what_is_not_there_is_fine(storage: Storage) -> None:
    """Pruning does it twice."""
    storage.delete(ids.new())
    assert storage is not None


def test_a_folder_deletes_what_a_crash_left_half_written(tmp_path: Path) -> None:
    """The key is enough to find it."""
    key, storage = ids.new(), Folder(tmp_path)
    storage.put(key).write(b"half")
    storage.delete(key)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    """Ours, with the system's own chained for the log."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught:
        Folder(tmp_path / "file").put(ids.new())
    assert isinstance(caught.value.__cause__, OSError)


def test_a_bucket_that_does_not_answer_is_a_storage_error() -> None:
    """Ours, never botocore's."""
    settings = UploadSettings(
        uploads_bucket="b-b-b",
        uploads_endpoint_url="http://127.0.0.1:1",
        uploads_access_key_id="AKIAEXAMPLE",
        uploads_secret_access_key=SecretStr("secret"),
    )
    with pytest.raises(StorageError):
        Bucket(settings).open(ids.new())


def test_the_settings_choose(tmp_path: Path) -> None:
    """Nothing, a folder, a bucket; a bucket without keys is refused at the start."""
    assert configured.storage(UploadSettings()) is None
    assert isinstance(configured.storage(UploadSettings(uploads_dir=tmp_path)), Folder)
    both = UploadSettings(
        uploads_dir=tmp_path,
        uploads_bucket="b-b-b",
        uploads_access_key_id="k",
        uploads_secret_access_key=SecretStr("s"),
    )
    assert isinstance(configured.storage(both), Bucket)
    with pytest.raises(ValidationError):
        UploadSettings(uploads_bucket="b-b-b")
