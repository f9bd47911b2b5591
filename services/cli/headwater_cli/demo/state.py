"""What the demo's servers keep between two starts: ports and keys, so that a data source made once stays valid."""

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from headwater_cli.demo.bucket import BUCKET, EMPTY_BUCKET, REGION, User, new_user
from headwater_cli.files import read_json, write_json
from headwater_cli.ports import LOOPBACK

_ACCOUNT: Final = "demo@headwater-demo.iam.gserviceaccount.com"
_GCS_KEY_BITS: Final = 2048
_AZURE_KEY_BYTES: Final = 64


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where each of the demo's servers listens on loopback."""

    bucket: int
    api: int
    gcs: int
    azure: int


@dataclass(frozen=True, kw_only=True)
class State:
    """Where the demo's servers are, and the keys for them.

    Of the S3 server there are two: one that reads, one without any rights. URLs are origins.
    """

    endpoint_url: str
    region: str
    bucket: str
    empty_bucket: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    restricted_access_key_id: str
    restricted_secret_access_key: str = field(repr=False)
    api_url: str
    api_token: str = field(repr=False)
    gcs_url: str
    gcs_bucket: str
    gcs_account: str
    gcs_private_key: str = field(repr=False)
    azure_url: str
    azure_account: str
    azure_container: str
    azure_key: str = field(repr=False)
    files: str

    def users(self) -> tuple[User, User]:
        """The users that the S3 server has to know."""
        return (
            User(
                name="reader",
                access_key_id=self.access_key_id,
                secret_access_key=self.secret_access_key,
            ),
            User(
                name="stranger",
                access_key_id=self.restricted_access_key_id,
                secret_access_key=self.restricted_secret_access_key,
                actions=(),
            ),
        )

    def ports(self) -> dict[str, int | None]:
        """The ports of the URLs, by the names of `Ports`."""
        urls = {"bucket": self.endpoint_url, "api": self.api_url, "gcs": self.gcs_url, "azure": self.azure_url}
        return {name: urlsplit(url).port for name, url in urls.items()}

    def service_account(self) -> str:
        """The key file of the account that reads the Google bucket."""
        content = {"type": "service_account", "client_email": self.gcs_account, "private_key": self.gcs_private_key}
        return json.dumps(content)


def find(path: Path) -> State | None:
    """The state in `path`, or None when this version of the demo never ran."""
    known = read_json(path)
    return State(**known) if known is not None and {entry.name for entry in fields(State)} == known.keys() else None


def ensure(path: Path, *, ports: Ports, files: Path) -> State:
    """The state in `path` with the keys it has, or new ones, and the servers on `ports`; mode 0600."""
    known: Mapping[str, Any] = read_json(path) or {}
    places = {
        "endpoint_url": _origin(ports.bucket),
        "api_url": _origin(ports.api),
        "gcs_url": _origin(ports.gcs),
        "azure_url": _origin(ports.azure),
        "files": str(files),
    }
    whole = find(path)
    # What an earlier version wrote lacks some; its keys stay.
    state = State(**{**(_new() if whole is None else asdict(whole)), **known, **places})
    write_json(path, asdict(state))
    return state


def _origin(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def _new() -> dict[str, str]:
    reader, stranger = new_user("reader"), new_user("stranger", actions=())
    return {
        "region": REGION,
        "bucket": BUCKET,
        "empty_bucket": EMPTY_BUCKET,
        "access_key_id": reader.access_key_id,
        "secret_access_key": reader.secret_access_key,
        "restricted_access_key_id": stranger.access_key_id,
        "restricted_secret_access_key": stranger.secret_access_key,
        "api_token": secrets.token_urlsafe(24),
        "gcs_bucket": BUCKET,
        "gcs_account": _ACCOUNT,
        "gcs_private_key": _new_private_key(),
        "azure_account": "headwaterdemo",
        "azure_container": BUCKET,
        "azure_key": base64.b64encode(secrets.token_bytes(_AZURE_KEY_BYTES)).decode(),
    }


def _new_private_key() -> str:
    """In PEM, as a service account's key file has it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_GCS_KEY_BITS)
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded.decode()
