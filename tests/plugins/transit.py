"""A transit engine as HashiCorp Vault has it, as strict as that one: real AES-GCM, versions, a token, a namespace."""

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headwater_cli.demo import serving
from headwater_cli.demo.serving import Answer, Request


@dataclass
class Engine:
    """`status` other than 200 is answered to everything; `secrets` is what its KV engine holds: path to fields."""

    token: str = "hvs.token"
    namespace: str = "team"
    mount: str = "transit"
    key: str = "headwater"
    status: int = 200
    keys: list[bytes] = field(default_factory=lambda: [os.urandom(32)])
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def rotate(self) -> None:
        """Add a version."""
        self.keys.append(os.urandom(32))

    def answer(self, request: Request) -> Answer:
        """As Vault does."""
        self.asked.append(f"{request.method} {request.target}")
        if self.status != 200:
            return serving.as_json({"errors": ["told to"]}, self.status)
        if request.headers.get("x-vault-request") != "true":
            return serving.as_json({"errors": ["missing X-Vault-Request"]}, 412)
        if (request.headers.get("x-vault-token"), request.headers.get("x-vault-namespace")) != (
            self.token,
            self.namespace,
        ):
            return serving.as_json({"errors": ["permission denied"]}, 403)
        if request.method == "GET":
            found = self.secrets.get(request.target.removeprefix("/v1/"))
            return serving.as_json({"data": found} if found is not None else {"errors": []}, 200 if found else 404)
        operations = {
            f"/v1/{self.mount}/{name}/{self.key}": act
            for name, act in (("encrypt", self._seal), ("decrypt", self._open))
        }
        if request.target not in operations:
            return serving.as_json({"errors": ["no handler for route"]}, 404)
        try:
            return serving.as_json({"data": operations[request.target](**json.loads(request.body))})
        except (InvalidTag, ValueError, TypeError, KeyError, IndexError):
            return serving.as_json({"errors": ["cipher: message authentication failed"]}, 400)

    def _seal(self, *, plaintext: str, associated_data: str) -> dict[str, Any]:
        nonce, bound = os.urandom(12), base64.b64decode(associated_data, validate=True)
        sealed = nonce + AESGCM(self.keys[-1]).encrypt(nonce, base64.b64decode(plaintext, validate=True), bound)
        version = len(self.keys)
        return {"ciphertext": f"vault:v{version}:{base64.b64encode(sealed).decode()}", "key_version": version}

    def _open(self, *, ciphertext: str, associated_data: str) -> dict[str, Any]:
        vault, version, text = ciphertext.split(":")
        sealed = base64.b64decode(text, validate=True)
        if vault != "vault" or not version.startswith("v"):
            raise ValueError
        key = self.keys[int(version[1:]) - 1]
        plaintext = AESGCM(key).decrypt(sealed[:12], sealed[12:], base64.b64decode(associated_data, validate=True))
        return {"plaintext": base64.b64encode(plaintext).decode()}


@contextmanager
def serve() -> Iterator[Engine]:
    """One on loopback."""
    engine = Engine()
    with serving.serve(0, engine.answer) as engine.url:
        yield engine
