"""`python -m headwater_cli.demo --bucket-port N ... --state FILE --files FOLDER`: the demo's servers as a process.

Writes the state file and the folder, prints the line `ready` once all servers answer, and serves until SIGTERM or
SIGINT. Exits with 1 and a sentence on stderr when a port is taken.
"""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from headwater_cli.demo import api, bucket, datasets, gcs, selections, signals, state
from headwater_cli.demo.files import DemoFile
from headwater_cli.demo.state import Ports, State

Servers = dict[str, tuple[int, Callable[[], AbstractContextManager[Any]]]]


def main() -> int:
    """Serve until told to stop; 0 after a clean stop, 1 when a port is taken."""
    arguments = _arguments()
    ports = Ports(
        bucket=arguments.bucket_port, api=arguments.api_port, gcs=arguments.gcs_port, azure=arguments.azure_port
    )
    with signals.told_to_stop() as told, ExitStack() as stack:
        known = state.ensure(arguments.state, ports=ports, files=arguments.files)
        corpus = datasets.corpus()
        selections.write(arguments.files, selections.chosen(corpus, selections.FOLDER))
        for what, (port, serve) in _servers(ports, known, corpus).items():
            try:
                stack.enter_context(serve())
            except OSError as error:
                why = os.strerror(error.errno or 0)
                sys.stderr.write(f"The demo's {what} cannot listen on port {port}: {why}.\n")
                return 1
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        told.recv(1)
    return 0


def _servers(ports: Ports, known: State, corpus: tuple[DemoFile, ...]) -> Servers:
    rows = api.records(selections.chosen(corpus, [selections.API])[selections.API])
    return {
        "bucket": (
            ports.bucket,
            lambda: bucket.serve(ports.bucket, users=known.users(), buckets=bucket.demo_buckets(corpus)),
        ),
        "API": (ports.api, lambda: api.serve(ports.api, token=known.api_token, rows=rows)),
        "Google Cloud Storage": (
            ports.gcs,
            lambda: gcs.serve(
                ports.gcs,
                account=known.gcs_account,
                private_key=known.gcs_private_key,
                bucket=known.gcs_bucket,
                files=selections.chosen(corpus, selections.GCS),
            ),
        ),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m headwater_cli.demo", description="The demo's servers.")
    for name, what in (("bucket", "the S3 server"), ("api", "the API"), ("gcs", "Google Cloud Storage")):
        parser.add_argument(f"--{name}-port", type=int, required=True, help=f"loopback port of {what}")
    parser.add_argument("--azure-port", type=int, required=True, help="where headwater_cli.demo.azure will listen")
    parser.add_argument("--state", type=Path, required=True, help="JSON file that keeps the keys (mode 0600)")
    parser.add_argument("--files", type=Path, required=True, help="folder for the files of the machine")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
