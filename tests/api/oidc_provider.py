"""The npm package `oidc-provider` on the wheel's own node: a certified provider with keys that the tests hold too."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import AllowedPrivateKeys

from headwater_cli import home, ports, processes, typescript

AUDIENCE = "https://headwater.example/api"


@dataclass(frozen=True)
class SigningKey:
    """A private key with its id and its algorithm."""

    id: str
    algorithm: str
    private: AllowedPrivateKeys

    @property
    def _named(self) -> dict[str, str]:
        return {"kid": self.id, "alg": self.algorithm, "use": "sig"}

    @property
    def jwk(self) -> dict[str, Any]:
        """The whole key, for the provider alone."""
        return self._jwk(self.private) | self._named

    @property
    def public_jwk(self) -> dict[str, Any]:
        """What a provider publishes of it."""
        return self._jwk(self.private.public_key()) | self._named

    def _jwk(self, key: Any) -> dict[str, Any]:
        return cast(dict[str, Any], jwt.get_algorithm_by_name(self.algorithm).to_jwk(key, as_dict=True))

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        """A token with these claims; `header` is beside, or in place of, what a token of this key has."""
        return jwt.encode(dict(claims), self.private, self.algorithm, headers={"kid": self.id, **header})


def make_key(key_id: str, algorithm: str = "RS256") -> SigningKey:
    """A fresh key."""
    made: dict[str, Any] = {
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }
    return SigningKey(key_id, algorithm, made[algorithm]())


class Provider:
    """One provider on one port, which it keeps. Stopped, it can be started again, with other keys."""

    def __init__(self) -> None:
        self._port = ports.free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def issuer(self) -> str:
        """What its tokens call it."""
        return f"http://127.0.0.1:{self._port}"

    def start(self, *keys: SigningKey) -> None:
        """Run it with these keys; it signs with the first one. Its packages are installed once.

        Raises:
            Failure: node or npm's packages cannot be had.
        """
        locked = home.checkout() / typescript.OIDC_PROVIDER
        packages = typescript.installed_packages(home.find().cache, locked)
        package = packages / "node_modules/oidc-provider/lib/index.js"
        self._process = subprocess.Popen(
            (str(typescript.program_path()), str(locked / "provider.mjs"), package.as_uri()),
            env={**processes.base_environment(), "NODE_NO_WARNINGS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        configuration = {
            "port": self._port,
            "jwks": {"keys": [key.jwk for key in keys]},
            "algorithm": keys[0].algorithm,
            "audience": AUDIENCE,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdin.write(json.dumps(configuration).encode())
        self._process.stdin.close()
        said = self._process.stdout.readline()
        assert said, self._process.stderr.read().decode(errors="replace")
        self._port = json.loads(said)["port"]

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdout, self._process.stderr):
                assert stream is not None
                stream.close()
            self._process = None

    def token(self, **claims: Any) -> str:
        """A token as a client gets it, with these claims beside the provider's own."""
        body = {
            "grant_type": "client_credentials",
            "client_id": "tests",
            "client_secret": "a secret of the tests",
            "claims": json.dumps(claims),
        }
        answer = httpx2.post(f"{self.issuer}/token", data=body, trust_env=False)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def requests(self) -> dict[str, int]:
        """{path: how often it was asked for} since it was started."""
        found: dict[str, int] = httpx2.get(f"{self.issuer}/requests", trust_env=False).json()
        return found
