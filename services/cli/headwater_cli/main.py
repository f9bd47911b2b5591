"""The command line: which verb stands where, and how its failures end.

A verb's module is imported only when the verb is used: `./dev api` is answered in a fraction of the time that all
of them take to import.
"""

import importlib
import os
import sys
from typing import Final, NoReturn

from headwater_cli import terminal
from headwater_cli.errors import Failure

_STACK: Final = "headwater_cli.verbs.stack"
_RUNNING: Final = "headwater_cli.verbs.running"
_REST: Final = "headwater_cli.verbs.rest"
_DEVELOPMENT: Final = "headwater_cli.verbs.development"
_ADMIN: Final = "headwater_cli.admin"

# verb: (module with a typer `app`, what it does)
VERBS: Final = {
    "up": (_STACK, "start everything here and keep it running until Ctrl-C"),
    "down": (_RUNNING, "stop a stack that runs in another terminal"),
    "status": (_RUNNING, "what runs, and where"),
    "logs": (_RUNNING, "the log of a service, or of all; -f follows"),
    "reset": (_STACK, "delete the local data"),
    "env": (_RUNNING, 'exports for a shell: eval "$(./dev env)"'),
    "api": (_REST, "one request: api GET /data-sources, api POST /projects '{...}'"),
    "client": (_REST, "TypeScript types from the OpenAPI document"),
    "test": (_DEVELOPMENT, "the tests; arguments go to pytest"),
    "check": (_DEVELOPMENT, "format, lint, imports, types, lock files"),
    "faults": (_DEVELOPMENT, "the long run of the job engine under faults; also: faults matrix, mutants, drills"),
    "bench": (_DEVELOPMENT, "the benchmarks"),
    "fmt": (_DEVELOPMENT, "format the code"),
    "migrate": (_DEVELOPMENT, "bring the database to the schema of this code"),
    "lock": (_DEVELOPMENT, "compile the lock files anew"),
    "admin": (_ADMIN, "operators' commands, on the database itself"),
}
# What other programs read from the environment and Headwater does not: a client library in here must not either.
_GENERIC: Final = ("DATABASE_URL", "REDIS_URL", "CELERY_", "AWS_", "PG")


def run() -> NoReturn:
    """Run the verb of the command line and exit."""
    for name in tuple(os.environ):
        if name.startswith(_GENERIC):
            del os.environ[name]
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        terminal.verbs({verb: what for verb, (_, what) in VERBS.items()})
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        terminal.failure(Failure(f"There is no verb {verb!r}.", hint="./dev shows them all."))
        return 2
    try:
        importlib.import_module(VERBS[verb][0]).app(arguments, prog_name="./dev")
    except Failure as failure:
        terminal.failure(failure)
        return 1
    return 0
