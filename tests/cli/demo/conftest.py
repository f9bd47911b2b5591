"""One server with the demo's corpus for all tests of the folder that only read."""

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from headwater_cli.demo import bucket, datasets
from headwater_cli.demo.files import DemoFile

Connect = Callable[..., Any]


@pytest.fixture(scope="session")
def corpus() -> tuple[DemoFile, ...]:
    """The demo's files."""
    return datasets.corpus()


@pytest.fixture(scope="module")
def server() -> Iterator[bucket.Server]:
    """A running server with the demo's two buckets and its two users."""
    with bucket.serve() as running:
        yield running


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes S3 clients that ask once; all are closed at the end."""
    clients = []

    def make(endpoint_url: str, access_key_id: str, secret_access_key: str) -> Any:
        client = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=bucket.REGION,
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=10),
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
