"""The corpus: public data sets that ship with the package `bokeh_sampledata`, in many formats.

Pure functions of what is installed: two builds give the same bytes, so a restarted server shows the
same etags and a second sync finds everything unchanged. The package itself is never imported, because
it would bring pandas along.
"""

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from headwater_cli.demo import broken
from headwater_cli.demo.files import DemoFile, Format, archived, compressed

_PACKAGE = "bokeh_sampledata"

_RAW_CSV = (
    "airports",
    "anscombe",
    "antibiotics",
    "auto-mpg",
    "auto-mpg2",
    "browsers_nov_2013",
    "cows",
    "elements",
    "forensic_glass",
    "gapminder_regions",
    "iris",
    "lincoln_weather",
    "numberly",
    "obiszow_mtb_xcm",
    "penguins",
    "percent-bachelors-degrees-women-usa",
    "probly",
    "titanic_all",
    "unemployment1948",
    "us_marriages_divorces",
)
_GZ_CSV = (
    "CGM",
    "SampleSuperstore",
    "cycling",
    "emissions",
    "gapminder",
    "routes",
    "sea_surface_temperature",
    "stocks",
    "world_cities",
)
# One object each, so one record each.
_RAW_JSON = ("airports.json", "les_mis.json", "olympics2014.json")
_PLAIN = {
    "calendar/us_holidays.ics": "USHolidays.ics",
    "xml/haarcascade_frontalface_default.xml": "haarcascade_frontalface_default.xml",
    "text/commits.txt.gz": "commits.txt.gz",
    "geo/nhs_area_teams.geojson": "sample_geojson.geojson",
    "images/chrome.png": "icons/chrome_32x32.png",
    "images/firefox.png": "icons/firefox_32x32.png",
    "images/internet_explorer.png": "icons/ie_32x32.png",
    "images/opera.png": "icons/opera_32x32.png",
    "images/safari.png": "icons/safari_32x32.png",
}
_JSON_ARRAYS = ("penguins", "iris", "airports", "auto-mpg")
_JSONL = ("titanic_all", "lincoln_weather", "elements")
_JSONL_GZ = ("gapminder", "emissions")
_PARQUET = ("penguins", "iris", "titanic_all", "sea_surface_temperature", "routes")
# The whole table has 346,332 rows; these years keep the demo's first sync short.
_POPULATION_YEARS = (1950, 1975, 2000, 2025)


def corpus() -> tuple[DemoFile, ...]:
    """All files of the demo's bucket, sorted by path: about 150 files, 330,000 records, 6 MB, two seconds."""
    files = [*_shipped(), *_json(), *_parquet(), *_packed(), *_partitioned(), *broken.files(), *_notices()]
    return tuple(sorted(files, key=lambda file: file.path))


def _shipped() -> Iterator[DemoFile]:
    """Files byte for byte as the package has them."""
    for name in _RAW_CSV:
        body = _read(f"{name}.csv")
        yield _file(f"raw/{name}.csv", "csv", body, _count_csv(body))
    for name in _GZ_CSV:
        body = _read(f"{name}.csv.gz")
        yield _file(f"gz/{name}.csv.gz", "csv", body, _count_csv(gzip.decompress(body)))
    for name in _RAW_JSON:
        yield _file(f"raw/{name}", "json", _read(name), 1)
    for path, name in _PLAIN.items():
        yield _file(path, "plain", _read(name), 1)


def _json() -> Iterator[DemoFile]:
    for name in _JSON_ARRAYS:
        records = _records(name)
        yield _file(f"json/{name}.json", "json", _dump(records), len(records))
    cities = _city_records()
    yield _file("json/us_cities.json.gz", "json", compressed(_dump(cities)), len(cities))
    medals = json.loads(_read("olympics2014.json"))["data"]
    yield _file("json/olympics2014.json", "json", _dump(medals), len(medals))
    for name in _JSONL:
        records = _records(name)
        yield _file(f"jsonl/{name}.jsonl", "jsonl", _dump_lines(records), len(records))
    for name in _JSONL_GZ:
        records = _records(name)
        yield _file(f"jsonl/{name}.jsonl.gz", "jsonl", compressed(_dump_lines(records)), len(records))


def _parquet() -> Iterator[DemoFile]:
    for name in _PARQUET:
        yield _parquet_file(f"parquet/{name}.parquet", _table(name))
    yield _parquet_file("parquet/types.parquet", _table_of_types())


def _packed() -> Iterator[DemoFile]:
    """In the compressed forms beside gzip, and an archive with a member that is no data."""
    airports = _csv_bytes("airports")
    yield _file("packed/airports.csv.bz2", "csv", bz2.compress(airports), _count_csv(airports))
    lines = _dump_lines(_records("auto-mpg"))
    zstd = pa.Codec("zstd", compression_level=9).compress(lines, asbytes=True)
    yield _file("packed/auto-mpg.jsonl.zst", "jsonl", zstd, lines.count(b"\n"))
    penguins, iris = _csv_bytes("penguins"), _dump_lines(_records("iris"))
    members = {"iris.jsonl": iris, "penguins.csv": penguins, "readme.txt": b"Flowers and birds.\n"}
    yield _file("packed/flowers_and_birds.zip", "zip", archived(members), iris.count(b"\n") + _count_csv(penguins))


def _partitioned() -> Iterator[DemoFile]:
    """The same kind of table in many files, under Hive-style keys."""
    for (symbol, year), rows in _grouped(_rows("stocks"), lambda row: (row["Ticker"], row["Date"][:4])):
        path = f"partitioned/stocks/symbol={symbol}/year={year}/prices.csv"
        yield _file(path, "csv", _dump_csv(rows), len(rows))
    population = _table("population")
    for census in _POPULATION_YEARS:
        table = population.filter(pc.equal(population["Year"], census))
        yield _parquet_file(f"partitioned/population/year={census}/part-0.parquet", table)


def _notices() -> Iterator[DemoFile]:
    """Who made the data and under which terms: the package's own texts, and a page that leads to them."""
    distribution = metadata.distribution(_PACKAGE)
    texts = {
        Path(str(path)).name: path.read_text(encoding="utf-8")
        for path in distribution.files or ()
        if ".dist-info/licenses/" in str(path) and path.suffix == ".txt"
    }
    for name, text in texts.items():
        yield _file(f"licenses/{name}", "plain", text.encode(), 1)
    inventory = json.loads(distribution.read_text("licenses/licenses/datasets.json") or "{}")
    yield _file("README.md", "plain", _readme(distribution.version, inventory["datasets"]).encode(), 1)


def _readme(version: str, inventory: list[dict[str, Any]]) -> str:
    rows = [
        f"| {', '.join(entry['files'])} | {entry['license_expression'] or entry['recorded_license']} "
        f"| {entry['attribution']} |"
        for entry in inventory
        if entry["files"]
    ]
    return "\n".join(
        [
            "# The demo's data",
            "",
            f"Public data sets from the Python package `{_PACKAGE}` {version}. `raw/`, `gz/`, `calendar/`,",
            "`geo/`, `images/`, `text/` and `xml/` hold files as shipped. `json/`, `jsonl/`, `packed/`,",
            "`parquet/` and `partitioned/` hold the same data converted to other formats, some of it as an",
            "extract. `broken/` and `odd/` were written for this demo: the first holds what no sync can bring in",
            "as a whole, the second what looks wrong and is not. The license texts are in `licenses/`.",
            "",
            "| file in the package | terms | attribution |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _table_of_types() -> pa.Table:
    """One column for each kind of value that JSON has no word for, with nulls, and nested ones."""
    columns = {
        "day": pa.array([0, 19000, None], pa.date32()),
        "at": pa.array([0, 1_700_000_000_000_000, None], pa.timestamp("us", tz="UTC")),
        "price": pa.array(["1.10", "-99999999.99", None], pa.string()).cast(pa.decimal128(12, 2)),
        "large": pa.array([2**63 - 1, -(2**63), None], pa.int64()),
        "flag": pa.array([True, False, None]),
        "tags": pa.array([["a", "b"], [], None], pa.list_(pa.string())),
        "place": pa.array([{"lat": 47.4, "lng": 8.5}, {"lat": None, "lng": 0.0}, None]),
    }
    return pa.table(columns)


def _read(name: str) -> bytes:
    data = metadata.distribution(_PACKAGE).locate_file(f"{_PACKAGE}/_data")
    return Path(str(data), name).read_bytes()


def _csv_bytes(name: str) -> bytes:
    return _read(f"{name}.csv") if name in _RAW_CSV else gzip.decompress(_read(f"{name}.csv.gz"))


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(_csv_bytes(name).decode(), newline="")))


def _table(name: str) -> pa.Table:
    """The CSV with the types Arrow sees in it; empty cells are null."""
    options = pa.csv.ConvertOptions(strings_can_be_null=True)
    # One thread: the order of row groups, and so the bytes, must not depend on the machine.
    read = pa.csv.ReadOptions(use_threads=False)
    return pa.csv.read_csv(pa.BufferReader(_csv_bytes(name)), read_options=read, convert_options=options)


def _records(name: str) -> list[dict[str, Any]]:
    """The CSV as typed records; an unnamed column is called `row`, a date is ISO text."""
    table = _table(name)
    table = table.rename_columns([column or "row" for column in table.column_names])
    records: list[dict[str, Any]] = table.to_pylist()
    return records


def _city_records() -> list[dict[str, float]]:
    columns = json.loads(gzip.decompress(_read("us_cities.json.gz")))
    return [{"lat": lat, "lon": lon} for lat, lon in zip(columns["lat"], columns["lon"], strict=True)]


def _grouped(
    rows: list[dict[str, str]], key: Callable[[dict[str, str]], tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], list[dict[str, str]]]]:
    for group, members in groupby(sorted(rows, key=key), key=key):
        yield group, list(members)


def _dump(records: list[dict[str, Any]]) -> bytes:
    return json.dumps(records, ensure_ascii=False, indent=1, default=str, allow_nan=False).encode()


def _dump_lines(records: Iterable[dict[str, Any]]) -> bytes:
    lines = (json.dumps(record, ensure_ascii=False, default=str, allow_nan=False) for record in records)
    return "".join(f"{line}\n" for line in lines).encode()


def _dump_csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _count_csv(body: bytes) -> int:
    """Rows below the header."""
    return sum(1 for row in csv.reader(io.StringIO(body.decode(), newline="")) if row) - 1


def _parquet_file(path: str, table: pa.Table) -> DemoFile:
    buffer = io.BytesIO()
    pa.parquet.write_table(table, buffer, compression="snappy")
    return _file(path, "parquet", buffer.getvalue(), table.num_rows)


def _file(path: str, format: Format, body: bytes, records: int) -> DemoFile:  # noqa: A002 (the word of the domain)
    return DemoFile(path=path, format=format, body=body, records=records)
