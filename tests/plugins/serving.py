"""The API as it is deployed, in a thread of the test process: uvicorn on a free port, real HTTP."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx2
import pytest
import structlog

from headwater.settings import ApiSettings
from headwater_api import admission, denials
from headwater_api import server as servers
from headwater_api.main import create_app

# As in production, where a traceback shows no locals: drawn with them, one takes seconds, and half a minute where
# the machine is busy.
_PLAIN: Final = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)

NOWHERE = "redis://127.0.0.1:1/0"


@dataclass(frozen=True)
class Api:
    """A running API. `url` ends in `/api/v1`."""

    url: str

    def client(self, key: str | None) -> httpx2.Client:
        """A client that holds `key`, or none."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url + "/", headers=headers, timeout=30, trust_env=False)


@contextmanager
def api(*, guesses: int = 1_000_000, **settings: str) -> Iterator[Api]:
    """An API with these settings (`HEADWATER_...`), without Redis unless they name one.

    They are in the environment while it starts and no longer: another one beside it has its own. `guesses` is how many
    keys may be tried in vain at once: all tests come from one address.
    """
    if not structlog.is_configured():
        structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _PLAIN])
    with pytest.MonkeyPatch.context() as while_it_runs:
        while_it_runs.setattr(denials, "MINUTE_SECONDS", 0.1)
        while_it_runs.setattr(admission, "GUESSES_AT_ONCE", guesses)
        with pytest.MonkeyPatch.context() as environment:
            for name, value in {"HEADWATER_REDIS_URL": NOWHERE, **settings}.items():
                environment.setenv(name, value)
            server = servers.make(create_app(), ApiSettings(api_port=0))
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            while not server.started:
                assert thread.is_alive(), "the API did not start"
                time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Api(f"http://127.0.0.1:{port}/api/v1")
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive(), "the API did not stop"
