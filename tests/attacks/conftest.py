"""The whole product as real processes, on a machine full of other people's settings, with canaries around a store."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import making
import pytest

from . import attacks, stub
from .besieged import Besieged
from .stub import Field

_SEAM = Path(__file__).parent / "seam"
_PLUGINS = Path(__file__).parents[1] / "plugins"


def _machine(field: Field, home: Path) -> dict[str, str]:
    """Variables that SDKs read, and files that they look for in a home: all lead to canaries."""
    url, keys = f"http://{stub.DENIED}:{field.port}", "aws_access_key_id=AKIAAMBIENT\naws_secret_access_key=ambient\n"
    (home / ".aws").mkdir()
    (home / ".aws" / "credentials").write_text(f"[default]\n{keys}")
    (home / ".aws" / "config").write_text(f"[default]\n{keys}endpoint_url={url}\nca_bundle=/nowhere\n")
    (home / ".boto").write_text(f"[Credentials]\n{keys}\n[Boto]\nproxy={stub.DENIED}\nproxy_port={field.port}\n")
    (home / ".netrc").write_text(f"machine {stub.ALLOWED} login ambient password ambient\n")
    gcloud = home / ".config" / "gcloud"
    gcloud.mkdir(parents=True)
    file = json.dumps({"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"})
    (gcloud / "application_default_credentials.json").write_text(file)
    proxies = {f"{name}_PROXY": url for name in ("HTTP", "HTTPS", "ALL", "FTP")}
    authorities = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return {
        **proxies,
        **{name.lower(): value for name, value in proxies.items()},
        **dict.fromkeys(authorities, "/nowhere"),
        "HOME": str(home),
        "NETRC": str(home / ".netrc"),
        "BOTO_CONFIG": str(home / ".boto"),
        "AWS_PROFILE": "default",
        "AWS_SHARED_CREDENTIALS_FILE": str(home / ".aws" / "credentials"),
        "AWS_CONFIG_FILE": str(home / ".aws" / "config"),
        "AWS_ACCESS_KEY_ID": "AKIAAMBIENT",
        "AWS_SECRET_ACCESS_KEY": "ambient",
        "AWS_SESSION_TOKEN": "ambient",
        "AWS_ENDPOINT_URL": url,
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": url,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": url,
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/etc/passwd",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/ambient",
        "GOOGLE_APPLICATION_CREDENTIALS": str(gcloud / "application_default_credentials.json"),
        "GOOGLE_CLOUD_PROJECT": "ambient",
        "GOOGLE_CLOUD_UNIVERSE_DOMAIN": "evil.example",
        "GOOGLE_API_USE_CLIENT_CERTIFICATE": "true",
        "CLOUDSDK_CONFIG": str(gcloud),
        "STORAGE_EMULATOR_HOST": url,
        "GCE_METADATA_HOST": f"{stub.DENIED}:{field.port}",
        "AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={url}/a;AccountName=a;AccountKey=a2V5",
        "AZURE_CLIENT_ID": "ambient",
        "AZURE_CLIENT_SECRET": "ambient",
        "AZURE_TENANT_ID": "ambient",
        "AZURE_AUTHORITY_HOST": url,
        "IDENTITY_ENDPOINT": url,
        "IDENTITY_HEADER": "ambient",
        "MSI_ENDPOINT": url,
    }


@pytest.fixture
def besieged(
    make_engine: Callable[..., Any],
    fresh_database: Callable[[], AbstractContextManager[str]],
    pepper_file: Path,
    master_key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Besieged]:
    """What is attacked; its processes start when they are first needed."""
    folder, home = tmp_path_factory.mktemp("besieged"), tmp_path_factory.mktemp("home")
    dialled = folder / "dialled"
    dialled.touch()
    with fresh_database() as database, stub.running() as field:
        organization = making.make_organization(database, pepper_file, master_key_file)
        settings = {
            **_machine(field, home),
            "PYTHONPATH": os.pathsep.join([str(_SEAM), str(_PLUGINS)]),
            "HEADWATER_ATTACKS_NAMES": json.dumps(attacks.NAMES),
            "HEADWATER_ATTACKS_DIALLED": str(dialled),
            "HEADWATER_EGRESS_ALLOW": attacks.OPERATORS_LIST,
            "HEADWATER_GCS_TOKEN_URL": f"{field.origin}/token",
            "HEADWATER_LOG_LEVEL": "debug",
            "HEADWATER_LEASE_SECONDS": "30",
        }
        with make_engine(database=database, organization=organization, folder=folder, **settings) as engine:
            engine.connection.execute(
                "update organization set live_job_limit = 100000, data_source_limit = 100000, running_limit = 100,"
                " webhook_limit = 100000"
            )
            yield Besieged(engine, field, dialled)
