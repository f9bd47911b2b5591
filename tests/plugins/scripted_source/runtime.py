"""How the scripted source behaves."""

import io
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from headwater.errors import Permanent, Transient
from headwater_worker.connectors.base import FileConnector, FileEntry, OpenFile, Opening, Step
from scripted_source import shouting

_PAGE = 1000


class ScriptedConnector(FileConnector):
    """Files `0000000.jsonl` onwards, each with `records` lines `{"file": i, "n": j}`, then `broken` others."""

    type = "scripted"

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        if opening.config.fail == "hang_opening":
            time.sleep(3600)  # on the job's own thread, which then heeds nothing

    def steps(self) -> Sequence[Step]:
        return [Step("config", None), Step("list", self._list)]

    def _list(self) -> None:
        self._misbehave()

    def list_files(self, prefix: str = "") -> Iterator[Sequence[FileEntry]]:
        config = self.opening.config
        self._misbehave()
        for start in range(0, config.files, _PAGE):
            time.sleep(config.pause_seconds)
            stop = min(config.files, start + _PAGE)
            page = [self._entry(number) for number in range(start, stop)]
            yield [entry for entry in page if entry.path.startswith(prefix)]

    def open_file(self, path: str) -> OpenFile:
        time.sleep(self.opening.config.pause_seconds)
        number = int(path.removesuffix(".jsonl"))
        return OpenFile(self._entry(number), "application/x-ndjson", io.BytesIO(self._body(number)))

    def uri(self, path: str) -> str:
        return f"scripted://{self.opening.config.host}/{path}"

    def _entry(self, number: int) -> FileEntry:
        size = len(self._body(number))
        return FileEntry(path=f"{number:07}.jsonl", size=size, etag=f"e{size}", modified_at=None)

    def _body(self, number: int) -> bytes:
        lines = (b'{"file": %d, "n": %d}\n' % (number, n) for n in range(self.opening.config.records))
        return b"".join(lines) + b"{broken\n" * self.opening.config.broken

    def _misbehave(self) -> None:
        config = self.opening.config
        if config.fail_until_attempt_file and Path(config.fail_until_attempt_file).exists():
            return
        match config.fail:
            case "transient":
                raise Transient("The scripted source is busy.", code="throttled", retry_after_seconds=0.1)
            case "permanent":
                raise Permanent("The scripted source refuses.", code="permission_denied")
            case "fault":
                raise ZeroDivisionError(self.opening.credentials.get("password", ""))
            case "mumble":
                raise Permanent("The scripted source says \0.", code="permission_denied")
            case "shout" | "shout_ours" | "shout_panic" as manner:
                secret = self.opening.credentials["password"]
                shouting.shout(secret)
                {"shout": shouting.fail, "shout_ours": shouting.refuse, "shout_panic": shouting.panic}[manner](secret)
            case "surroundings":
                print("surroundings:", dict(os.environ))
            case "hang":
                time.sleep(3600)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
