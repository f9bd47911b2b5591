"""A process of a worker, cut down to one question: who signs for a source that uses the worker's own identity?

`python identified.py TYPE CONFIG URLS`, the last two in JSON: config that may name hosts no user can name, and what
stands in for addresses that no test can have, by `module:name`. Prints one JSON object.
"""

import importlib
import json
import os
import sys
from typing import Any

from headwater.connectors import registry
from headwater.errors import ConnectorError
from headwater.settings import EgressSettings
from headwater_worker import environment
from headwater_worker.connectors import opening
from headwater_worker.connectors.base import Opening
from headwater_worker.egress import Policy, Proxy, second_line


def _signer(connector: Any) -> str:
    """The key's id, or the token."""
    connector._check_config()
    if connector.type == "s3":
        return str(connector._credentials.get_frozen_credentials().access_key)
    if connector.type == "azure_blob":
        return str(connector._credential.get_token().token)
    connector._prove_identity()
    return str(connector._credentials.token)


def _signers(type_: str, config: dict[str, Any]) -> list[str]:
    """Of two requests, or the code of why there are none."""
    egress = EgressSettings()
    policy = Policy.parse(egress.egress_allow)
    second_line.install(policy)
    with Proxy(policy) as proxy:
        made = registry.get_spec(type_).config.model_construct(**config)
        given = Opening(made, {}, policy, proxy, egress.allow_ambient_credentials)
        with opening._runtime(type_)(given) as connector:
            try:
                return [_signer(connector), _signer(connector)]
            except ConnectorError as error:
                return [error.code]


def main() -> None:
    """Clean as a worker does, then find out."""
    type_, config, urls = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    environment.clean()
    for place, url in urls.items():
        module, name = place.split(":")
        setattr(importlib.import_module(module), name, url)
    signers = _signers(type_, config)
    print(json.dumps({"signers": signers, "kept": sorted(environment.identity()), "environment": dict(os.environ)}))


if __name__ == "__main__":
    main()
