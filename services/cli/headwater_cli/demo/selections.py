"""Which files of the corpus lie where beside the S3 bucket, which has them all."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from headwater_cli.demo.files import DemoFile

GCS: Final = (
    "gz/world_cities.csv.gz",
    "jsonl/elements.jsonl",
    "parquet/iris.parquet",
    "parquet/penguins.parquet",
    "raw/gapminder_regions.csv",
)
AZURE: Final = (
    "json/auto-mpg.json",
    "jsonl/lincoln_weather.jsonl",
    "parquet/types.parquet",
    "raw/airports.csv",
    "raw/us_marriages_divorces.csv",
)
FOLDER: Final = (
    "json/iris.json",
    "jsonl/elements.jsonl",
    "raw/antibiotics.csv",
    "raw/browsers_nov_2013.csv",
    "raw/cows.csv",
)
UPLOADS: Final = ("json/iris.json", "raw/antibiotics.csv")
"""Some of `FOLDER`: they are read there."""

API: Final = "jsonl/titanic_all.jsonl"

_WRITTEN_AT: Final = 1_767_225_600  # 2026-01-01, as in the bucket: written again, a file has not changed


def chosen(corpus: Iterable[DemoFile], paths: Iterable[str]) -> dict[str, bytes]:
    """{path: body} of the files at `paths`."""
    bodies = {file.path: file.body for file in corpus}
    return {path: bodies[path] for path in paths}


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Write `files` below `folder`, where they differ from what is there."""
    for path, body in files.items():
        file = folder / path
        if file.is_file() and file.read_bytes() == body:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        os.utime(file, (_WRITTEN_AT, _WRITTEN_AT))
