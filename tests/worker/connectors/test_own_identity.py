"""The worker's own identity, found by processes that have cleaned their environment as a worker's do."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headwater import clock

from .conftest import Answer, Asked, StartStub, Stub

_PROGRAM = Path(__file__).with_name("identified.py")
_ROLE = "arn:aws:iam::123456789012:role/worker"
_CONFIGS = {
    "s3": {"bucket": "the-bucket", "region": "eu-central-1", "use_iam_role": True},
    "gcs": {"bucket": "the-bucket", "use_workload_identity": True},
    "azure_blob": {"container": "the-container", "account": "account1", "use_managed_identity": True},
}
_SHORT_SECONDS, _LONG_SECONDS = 60, 6 * 3600
# Keys that somebody left on the machine: nobody's identity.
_STATIC = {"AWS_ACCESS_KEY_ID": "AKIASTATIC", "AWS_SECRET_ACCESS_KEY": "static", "AZURE_CLIENT_SECRET": "static"}


@dataclass
class Platform:
    """What gives tokens. Each has a number; the first does not live long enough to be kept.

    A cluster's own token, in `file`, is replaced each time that it was used.
    """

    say: Callable[[str, int], Mapping[str, Any] | str]
    file: Path
    given: int = field(default=0, init=False)

    def __call__(self, _asked: Asked) -> Answer:
        """Answer, whatever the path is."""
        self.given += 1
        self.file.write_text(f"cluster-token-{self.given + 1}")
        said = self.say(f"own-{self.given}", _SHORT_SECONDS if self.given == 1 else _LONG_SECONDS)
        return Answer(200, (said if isinstance(said, str) else json.dumps(said)).encode())


def _ends(seconds: int) -> str:
    return (clock.now() + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _keys(name: str, seconds: int) -> dict[str, str]:
    return {"AccessKeyId": name, "SecretAccessKey": "secret", "Token": "session", "Expiration": _ends(seconds)}


def _of_sts(name: str, seconds: int) -> str:
    members = {"SessionToken" if key == "Token" else key: text for key, text in _keys(name, seconds).items()}
    inner = "".join(f"<{key}>{text}</{key}>" for key, text in members.items())
    return (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<AssumeRoleWithWebIdentityResult><Credentials>{inner}</Credentials></AssumeRoleWithWebIdentityResult>"
        "</AssumeRoleWithWebIdentityResponse>"
    )


def _ending(name: str, seconds: int) -> dict[str, str]:
    return {"access_token": name, "expires_on": str(int(clock.now().timestamp()) + seconds)}


def _living(name: str, seconds: int) -> dict[str, Any]:
    return {"access_token": name, "expires_in": seconds}


def _found(type_: str, variables: Mapping[str, str], urls: Mapping[str, str] | None = None, **config: Any) -> Any:
    """What a process finds that is started with `variables`."""
    named = _CONFIGS[type_] | config
    done = subprocess.run(
        [sys.executable, str(_PROGRAM), type_, json.dumps(named), json.dumps(urls or {})],
        env={"PATH": os.environ["PATH"], **_STATIC, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    told = {name for name in found["environment"] if name.startswith(("AWS_", "AZURE_", "IDENTITY_"))}
    assert told == {"AWS_EC2_METADATA_DISABLED", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
    return found


_ALLOWED = {"HEADWATER_ALLOW_AMBIENT_CREDENTIALS": "true"}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("cluster-token-1")
    return path


@pytest.fixture
def start_platform(start_stub: StartStub, token_file: Path) -> Callable[..., Stub]:
    """Start one that says what it is asked for in a cloud's way."""
    return lambda say: start_stub(Platform(say, token_file))


@pytest.mark.parametrize("given", ["in full", "relative"])
def test_a_container_in_aws(start_platform: Callable[..., Stub], given: str) -> None:
    """ECS gives a path or an address, and a token to show there."""
    platform = start_platform(_keys)
    variables = _ALLOWED | {"AWS_CONTAINER_AUTHORIZATION_TOKEN": "shown"}
    if given == "relative":
        urls = {"headwater_worker.connectors.s3_identity:_CONTAINER_URL": platform.url}
        found = _found("s3", variables | {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/own"}, urls)
    else:
        found = _found("s3", variables | {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{platform.url}/v2/own"})
    assert found["signers"] == ["own-1", "own-2"]
    assert [(asked.path, asked.headers["authorization"]) for asked in platform.asked] == [("/v2/own", "shown")] * 2


def test_a_pod_of_eks_with_an_agent(start_platform: Callable[..., Stub], token_file: Path) -> None:
    """The token that it shows is read anew each time."""
    platform = start_platform(_keys)
    variables = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{platform.url}/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token_file),
    }
    assert _found("s3", _ALLOWED | variables)["signers"] == ["own-1", "own-2"]
    assert [asked.headers["authorization"] for asked in platform.asked] == ["cluster-token-1", "cluster-token-2"]


def test_a_service_account_of_eks(start_platform: Callable[..., Stub], token_file: Path) -> None:
    """Its token, read anew each time, is exchanged through the job's proxy; nothing else signs the request."""
    platform = start_platform(_of_sts)
    variables = {"AWS_ROLE_ARN": _ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file), "AWS_REGION": "eu-west-1"}
    allowed = _ALLOWED | {"HEADWATER_EGRESS_ALLOW": "127.0.0.0/8"}
    assert _found("s3", allowed | variables, endpoint_url=platform.url)["signers"] == ["own-1", "own-2"]
    for number, asked in enumerate(platform.asked, start=1):
        assert f"WebIdentityToken=cluster-token-{number}".encode() in asked.body
        assert "authorization" not in asked.headers


def test_an_instance_of_ec2(start_stub: StartStub) -> None:
    """Its role is found without a variable, though the environment turns the look-up off for everybody else."""

    def answer(asked: Asked) -> Answer:
        if asked.path.endswith("/security-credentials/"):
            return Answer(200, b"the-role")
        known = json.dumps({"Code": "Success", **_keys("own", _LONG_SECONDS)}).encode()
        return Answer(200, known if asked.path.endswith("/the-role") else b"session")

    platform = start_stub(answer)
    found = _found("s3", _ALLOWED, {"headwater.aws:INSTANCE_METADATA_URL": f"{platform.url}/"})
    assert found["signers"] == ["own", "own"]


def test_a_machine_of_google(start_platform: Callable[..., Stub]) -> None:
    """Machines and GKE have the metadata server."""
    platform = start_platform(_living)
    found = _found("gcs", _ALLOWED, {"headwater_worker.connectors.gcs_identity:_URL": f"{platform.url}/token"})
    assert found["signers"] == ["own-1", "own-2"]
    assert {asked.headers["metadata-flavor"] for asked in platform.asked} == {"Google"}


def test_an_app_service_of_azure(start_platform: Callable[..., Stub]) -> None:
    """It gives an address and a header to show there; a client id says which of its identities is meant."""
    platform = start_platform(_ending)
    variables = {
        "IDENTITY_ENDPOINT": f"{platform.url}/token",
        "IDENTITY_HEADER": "shown",
        "AZURE_CLIENT_ID": "the-client",
    }
    found = _found("azure_blob", _ALLOWED | variables)
    assert found["signers"] == ["own-1", "own-2"]
    # Not the secret that somebody left on the machine.
    assert found["kept"] == sorted(variables)
    assert {asked.headers["x-identity-header"] for asked in platform.asked} == {"shown"}
    assert all("client_id=the-client" in asked.path for asked in platform.asked)


def test_a_machine_of_azure(start_platform: Callable[..., Stub]) -> None:
    """It is asked without a variable."""
    platform = start_platform(_ending)
    urls = {"headwater_worker.connectors.azure_identity:_MACHINE_URL": f"{platform.url}/token"}
    assert _found("azure_blob", _ALLOWED, urls)["signers"] == ["own-1", "own-2"]
    assert {asked.headers["metadata"] for asked in platform.asked} == {"true"}


def test_a_workload_of_aks(start_platform: Callable[..., Stub], token_file: Path) -> None:
    """Its token, read anew each time, is exchanged."""
    platform = start_platform(_living)
    variables = {
        "AZURE_AUTHORITY_HOST": f"{platform.url}/",
        "AZURE_TENANT_ID": "tenant",
        "AZURE_CLIENT_ID": "client",
        "AZURE_FEDERATED_TOKEN_FILE": str(token_file),
    }
    assert _found("azure_blob", _ALLOWED | variables)["signers"] == ["own-1", "own-2"]
    for number, asked in enumerate(platform.asked, start=1):
        assert asked.path == "/tenant/oauth2/v2.0/token"
        assert f"client_assertion=cluster-token-{number}".encode() in asked.body


def test_without_leave_nothing_is_kept(start_platform: Callable[..., Stub], token_file: Path) -> None:
    """A worker whose operator does not allow it does not know what its platform told it."""
    platform = start_platform(_keys)
    variables = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": platform.url,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token_file),
        "AWS_ROLE_ARN": _ROLE,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file),
        "AZURE_FEDERATED_TOKEN_FILE": str(token_file),
        "IDENTITY_ENDPOINT": platform.url,
        "IDENTITY_HEADER": "shown",
    }
    found = _found("s3", variables)
    assert (found["signers"], found["kept"]) == (["ambient_credentials_not_allowed"], [])
    assert platform.asked == []
