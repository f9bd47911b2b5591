"""The demo's S3 server answers as S3 does, above all to those it must refuse."""

import socket
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError

from headwater_cli.demo import bucket
from headwater_cli.demo.files import DemoFile

from .conftest import Connect


@pytest.fixture
def reader(server: bucket.Server, connect: Connect) -> Any:
    """A client with the key that reads."""
    user = server.users["reader"]
    return connect(server.endpoint_url, user.access_key_id, user.secret_access_key)


def _refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def test_wrong_secret_is_refused_as_a_wrong_signature(server: bucket.Server, connect: Connect) -> None:
    """A known key with another secret: 403 SignatureDoesNotMatch."""
    client = connect(server.endpoint_url, server.users["reader"].access_key_id, "x" * 40)

    with pytest.raises(ClientError) as error:
        client.list_objects_v2(Bucket=bucket.BUCKET)

    assert _refusal(error) == (403, "SignatureDoesNotMatch")


def test_unknown_key_is_refused(server: bucket.Server, connect: Connect) -> None:
    """A key that nobody has: 403 InvalidAccessKeyId."""
    unknown = bucket.new_user("nobody")
    client = connect(server.endpoint_url, unknown.access_key_id, unknown.secret_access_key)

    with pytest.raises(ClientError) as error:
        client.list_objects_v2(Bucket=bucket.BUCKET)

    assert _refusal(error) == (403, "InvalidAccessKeyId")


def test_user_without_rights_is_denied(server: bucket.Server, connect: Connect) -> None:
    """A good signature of somebody who may do nothing: 403 AccessDenied."""
    user = server.users["stranger"]
    client = connect(server.endpoint_url, user.access_key_id, user.secret_access_key)

    with pytest.raises(ClientError) as error:
        client.list_objects_v2(Bucket=bucket.BUCKET)

    assert _refusal(error) == (403, "AccessDenied")


def test_reader_may_not_write(reader: Any) -> None:
    """The demo's key reads and does nothing else."""
    with pytest.raises(ClientError) as error:
        reader.put_object(Bucket=bucket.BUCKET, Key="mine.txt", Body=b"mine")

    assert _refusal(error) == (403, "AccessDenied")


def test_missing_bucket_is_said(reader: Any) -> None:
    """404 NoSuchBucket, for somebody who may list."""
    with pytest.raises(ClientError) as error:
        reader.list_objects_v2(Bucket="no-such-bucket-here")

    assert _refusal(error) == (404, "NoSuchBucket")


@pytest.mark.parametrize("path", ["/", f"/{bucket.BUCKET}", f"/{bucket.BUCKET}/README.md", "/moto-api/reset"])
def test_unsigned_requests_are_denied(server: bucket.Server, path: str) -> None:
    """Nobody reads without a signature, and the emulator's control routes are not there."""
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(server.endpoint_url + path, method="POST"))

    with error.value:
        assert error.value.code == 403
        assert b"<Code>AccessDenied</Code>" in error.value.read()


def test_one_key_can_be_listed(reader: Any, corpus: tuple[DemoFile, ...]) -> None:
    """MaxKeys=1 gives the first path, and says that there is more."""
    page = reader.list_objects_v2(Bucket=bucket.BUCKET, MaxKeys=1)

    assert [entry["Key"] for entry in page["Contents"]] == [min(file.path for file in corpus)]
    assert page["IsTruncated"] is True


def test_pages_add_up_to_the_corpus(reader: Any, corpus: tuple[DemoFile, ...]) -> None:
    """Each object exactly once over many pages, with its size."""
    pages = reader.get_paginator("list_objects_v2").paginate(Bucket=bucket.BUCKET, PaginationConfig={"PageSize": 7})

    listed = [(entry["Key"], entry["Size"]) for page in pages for entry in page["Contents"]]

    assert sorted(listed) == sorted((file.path, len(file.body)) for file in corpus)


def test_empty_bucket_lists_nothing(reader: Any) -> None:
    """The second bucket exists and holds no object."""
    assert reader.list_objects_v2(Bucket=bucket.EMPTY_BUCKET)["KeyCount"] == 0


def test_every_object_reads_back(reader: Any, corpus: tuple[DemoFile, ...]) -> None:
    """Byte for byte, for keys with spaces, percent signs and other alphabets too."""
    for file in corpus:
        assert reader.get_object(Bucket=bucket.BUCKET, Key=file.path)["Body"].read() == file.body, file.path


def test_range_gives_the_part(reader: Any, corpus: tuple[DemoFile, ...]) -> None:
    """A range request answers with that part alone."""
    (file,) = [file for file in corpus if file.path == "raw/iris.csv"]

    answer = reader.get_object(Bucket=bucket.BUCKET, Key=file.path, Range="bytes=10-29")

    assert answer["Body"].read() == file.body[10:30]
    assert answer["ContentRange"] == f"bytes 10-29/{len(file.body)}"


def test_own_buckets_and_users_replace_the_demos(connect: Connect) -> None:
    """A test may bring its own objects, and a user who writes; both sides see the changes."""
    writer = bucket.new_user("writer", actions=bucket.WRITE)
    with bucket.serve(users=[writer], buckets={"small": {"a.txt": b"a"}}) as server:
        client = connect(server.endpoint_url, writer.access_key_id, writer.secret_access_key)
        client.put_object(Bucket="small", Key="b.txt", Body=b"b")
        server.put("small", "c.txt", b"c")
        server.delete("small", "a.txt")

        listed = [entry["Key"] for entry in client.list_objects_v2(Bucket="small")["Contents"]]

    assert listed == ["b.txt", "c.txt"]


def test_closed_server_leaves_nothing_behind() -> None:
    """The same buckets and users can be served again in the same process."""
    user = bucket.new_user("again")
    for _ in range(2):
        bucket.serve(users=[user], buckets={"again": {"a.txt": b"a"}}).close()

    with bucket.serve(users=[user], buckets={"again": {}}) as server:
        assert list(server.users) == ["again"]


def test_taken_port_is_an_error_of_the_caller() -> None:
    """OSError, not the end of the process."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        bucket.serve(taken.getsockname()[1], users=[], buckets={})
