"""Memory is bounded by batch, not by file: a large stream runs in the space of a small one."""

import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent

# A process of its own, because the peak that the kernel keeps is of the whole process.
_SCRIPT = """
import importlib.util, resource, sys
from pathlib import Path
from uuid import UUID

here, plugins, database, organization_id, member_id, key_file = sys.argv[1:]
sys.path.insert(0, plugins)
spec = importlib.util.spec_from_file_location("sync_conftest", Path(here) / "conftest.py")
sys.modules["sync_conftest"] = conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)

import making
from headwater import db
from headwater.access.organizations import CreatedOrganization
from headwater_worker.connectors.base import FileEntry

LINE = b'{"id": 12345678, "name": "a name of some length", "note": "' + b"x" * 400 + b'"}\\n'


class Stream:
    def __init__(self, size):
        self.left = size // len(LINE)

    def read(self, size=-1, /):
        lines = min(max(1, size // len(LINE)), self.left)
        self.left -= lines
        return LINE * lines

    def close(self):
        pass


def sync(connection, working, organization, project_id, megabytes):
    source = next(conftest.new_source(database, connection, working, organization, project_id, Path(key_file)))
    size = megabytes * 1_000_000
    source.shelf.files = {"large.jsonl": b""}
    source.shelf.entry = lambda path: FileEntry(path, size, "etag", None)
    source.shelf.streams = {"large.jsonl": lambda: Stream(size)}
    ended = source.sync()
    assert ended.status == "succeeded", ended
    assert ended.counters["landed"] == size // len(LINE), ended.counters
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


organization = CreatedOrganization(UUID(organization_id), UUID(member_id), "")
worker = making.as_service(database, "worker")
with db.connect(database, application="tests") as connection, db.connect(worker, application="tests") as working:
    project_id = making.make_project(connection, organization.organization_id)
    small = sync(connection, working, organization, project_id, 30)
    large = sync(connection, working, organization, project_id, 300)
print((large - small) // 1024)
"""


def test_a_300_mb_stream_runs_in_the_space_of_a_30_mb_one(database, organization, master_key_file):
    """Ten times the bytes add less than two chunks to the process's peak."""
    arguments = [
        str(_HERE),
        str(_HERE.parent.parent / "plugins"),
        database,
        str(organization.organization_id),
        str(organization.member_id),
        str(master_key_file),
    ]
    done = subprocess.run([sys.executable, "-c", _SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16
