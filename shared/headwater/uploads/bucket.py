"""Uploads in a bucket of the operator's, for API and workers on many machines."""

import functools
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from headwater import aws
from headwater.errors import ObjectMissing, StorageError
from headwater.settings import UploadSettings
from headwater.uploads.storage import ObjectReader, ObjectWriter, Storage

# S3 takes at most 10,000 parts: enough for the largest file that a source can allow.
_PART_BYTES: Final = 16 * 1024 * 1024
_CONNECT_SECONDS: Final = 10
_READ_SECONDS: Final = 60
_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchUpload", "404"})


class Bucket(Storage):
    """Objects in `HEADWATER_UPLOADS_BUCKET`, under `HEADWATER_UPLOADS_PREFIX` and their keys."""

    def __init__(self, settings: UploadSettings) -> None:
        assert settings.uploads_bucket is not None
        aws.require("HEADWATER_UPLOADS_BUCKET")
        self._settings = settings
        self._bucket = settings.uploads_bucket

    def put(self, key: UUID) -> ObjectWriter:
        return _Writer(self._client, self._bucket, self._name(key))

    def open(self, key: UUID) -> ObjectReader:
        with _Translated():
            return _Reader(self._client.get_object(Bucket=self._bucket, Key=self._name(key))["Body"])

    def delete(self, key: UUID) -> None:
        # Parts of uploads that a crash left unfinished are for the bucket's own lifecycle rule.
        with suppress(ObjectMissing), _Translated():
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def _name(self, key: UUID) -> str:
        return f"{self._settings.uploads_prefix}{key.hex}"

    @functools.cached_property
    def _client(self) -> Any:
        # Loaded where there is a bucket, and nowhere else.
        from botocore.config import Config  # noqa: PLC0415

        settings = self._settings
        assert settings.uploads_secret_access_key is not None, "the settings are checked as a whole"
        return aws.session().create_client(
            "s3",
            region_name=settings.uploads_region,
            endpoint_url=settings.uploads_endpoint_url,
            aws_access_key_id=settings.uploads_access_key_id,
            aws_secret_access_key=settings.uploads_secret_access_key.get_secret_value(),
            config=Config(
                signature_version="s3v4",
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": 4},
                max_pool_connections=32,
                proxies={},
                ignore_configured_endpoint_urls=True,  # type: ignore[call-arg] # the stubs lag behind
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path" if settings.uploads_endpoint_url else "auto"},
            ),
        )


class _Writer:
    """One request for a small object, a multipart upload for any other; a part is what it holds in memory."""

    def __init__(self, client: Any, bucket: str, name: str) -> None:
        self._client = client
        self._place = {"Bucket": bucket, "Key": name}
        self._part = bytearray()
        self._upload_id: str | None = None
        self._parts: list[dict[str, Any]] = []

    def write(self, data: bytes, /) -> None:
        self._part += data
        while len(self._part) >= _PART_BYTES:
            part = bytes(self._part[:_PART_BYTES])
            del self._part[:_PART_BYTES]
            self._send(part)

    def keep(self) -> None:
        rest, self._part = bytes(self._part), bytearray()
        with _Translated():
            if self._upload_id is None:
                self._client.put_object(**self._place, Body=rest)
                return
            if rest:
                self._send(rest)
            self._client.complete_multipart_upload(
                **self._place, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts}
            )
            self._upload_id = None

    def drop(self) -> None:
        self._part = bytearray()
        if self._upload_id is not None:
            with suppress(StorageError), _Translated():
                self._client.abort_multipart_upload(**self._place, UploadId=self._upload_id)
            self._upload_id = None

    def _send(self, part: bytes) -> None:
        with _Translated():
            if self._upload_id is None:
                self._upload_id = self._client.create_multipart_upload(**self._place)["UploadId"]
            number = len(self._parts) + 1
            answer = self._client.upload_part(**self._place, UploadId=self._upload_id, PartNumber=number, Body=part)
            self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})


class _Reader:
    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, size: int = -1, /) -> bytes:
        with _Translated():
            data: bytes = self._body.read(None if size < 0 else size)
            return data

    def close(self) -> None:
        self._body.close()


class _Translated:
    """botocore's errors become ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is None or isinstance(error, StorageError):
            return
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # noqa: PLC0415

        if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in _ABSENT:
            raise ObjectMissing from error
        if isinstance(error, BotoCoreError | ClientError | HTTPClientError):
            raise StorageError from error
