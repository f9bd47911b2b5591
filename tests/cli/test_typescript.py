"""`./dev client`: types that the TypeScript compiler accepts."""

import json
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from headwater_cli import typescript
from headwater_cli.errors import Failure


class _Job(BaseModel):
    id: str
    done: bool
    error: str | None


def _document() -> bytes:
    app = FastAPI()

    @app.get("/jobs/{job_id}")
    def read_job(job_id: str) -> _Job:
        raise NotImplementedError

    return json.dumps(app.openapi()).encode()


def test_the_types_compile_and_hold_callers_to_the_contract(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A right use passes tsc, a wrong one does not."""
    cache = tmp_path_factory.getbasetemp() / "npm"
    (tmp_path / "api.ts").write_text(typescript.types(_document(), cache=cache))
    use = 'import type { components } from "./api";\nexport const job: components["schemas"]["_Job"] = '
    (tmp_path / "right.ts").write_text(use + '{ id: "a", done: true, error: null };\n')
    (tmp_path / "wrong.ts").write_text(use + '{ id: "a", done: "yes", error: null };\n')
    packages = typescript.installed_packages(cache)
    tsc = (str(packages / "node_modules/typescript/bin/tsc"), "--noEmit", "--strict", "--skipLibCheck")
    assert typescript.node(*tsc, "right.ts", directory=tmp_path) == ""
    with pytest.raises(Failure, match="tsc failed"):
        typescript.node(*tsc, "wrong.ts", directory=tmp_path)
