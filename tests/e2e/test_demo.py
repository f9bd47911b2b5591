"""The demo project, as a newcomer finds it."""

import time
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

_SECONDS = 420  # npm may take five minutes to bring Azure's emulator; after that it is left out
_WITHOUT_NPM = {"s3", "gcs", "api", "file_upload", "local_files"}


@pytest.mark.timeout(_SECONDS + 120)
def test_the_demo_project_holds_one_ready_source_of_each_type(stack: Any) -> None:
    """Each is tested and synced without anybody's doing; Azure's only where npm brings its emulator."""
    path = f"/projects/{stack.facts['project_id']}/data-sources"
    deadline = time.monotonic() + _SECONDS
    while True:
        log = (stack.home / "up.log").read_text()
        left_out = [line for line in log.splitlines() if line.split()[:3] == ["demo_azure", "left", "out"]]
        wanted = _WITHOUT_NPM if left_out else _WITHOUT_NPM | {"azure_blob"}
        sources = list(stack.every(path))
        synced = {source["type"] for source in sources if source["last_sync_at"] is not None}
        if synced >= wanted:
            break
        assert time.monotonic() < deadline, log
        time.sleep(0.5)
    print(*left_out)

    shown = {source["type"]: (source["status"], source["item_count"] > 0) for source in sources}
    assert {type_: shown[type_] for type_ in wanted} == dict.fromkeys(wanted, ("ready", True))
    assert len(sources) == len(shown)
    assert "not filled" not in log
