"""The table of faults: from reports into a page, and back."""

import json
from pathlib import Path

import pytest

from headwater_cli import faults
from headwater_cli.faults import Observation

CLOSED = Observation("s3", "closed port", "connect", "connection_refused")
WRONG = Observation("s3", "wrong secret", "authenticate", "invalid_credentials")
GONE = Observation("local_files", "file that is gone", "", "file_not_found")
PAGE = f"before\n{faults.BEGIN}{faults.END}after\n"


def report(folder: Path, *observations: Observation) -> Path:
    """A report of suites."""
    path = folder / "report"
    path.write_text("".join(json.dumps(each._asdict()) + "\n" for each in observations), encoding="utf-8")
    return path


def test_faults_stand_in_the_order_of_the_ladder() -> None:
    """What is none of its steps comes last; a source without the fault has an empty cell."""
    assert faults.table([GONE, WRONG, CLOSED]) == (
        "| fault | check | `local_files` | `s3` |\n"
        "| --- | --- | --- | --- |\n"
        "| closed port | `connect` |  | `connection_refused` |\n"
        "| wrong secret | `authenticate` |  | `invalid_credentials` |\n"
        "| file that is gone |  | `file_not_found` |  |\n"
    )


def test_a_page_says_what_was_written_into_it(tmp_path: Path) -> None:
    """Nothing is lost on the way, and nothing around the table changes."""
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    faults.main(report(tmp_path, CLOSED, WRONG, GONE, GONE), page)
    text = page.read_text(encoding="utf-8")
    assert faults.read_table(text) == {CLOSED, WRONG, GONE}
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_a_report_of_one_source_leaves_the_columns_of_others(tmp_path: Path) -> None:
    """Its own column is new as a whole."""
    page = faults.replaced(faults.replaced(PAGE, [CLOSED, GONE]), [WRONG])
    assert faults.read_table(page) == {WRONG, GONE}


def test_a_page_without_the_marks_is_left_alone_and_says_so(tmp_path: Path) -> None:
    """A table that was written nowhere would not be missed."""
    page = tmp_path / "page.md"
    page.write_text("no table", encoding="utf-8")
    with pytest.raises(ValueError, match="faults"):
        faults.main(report(tmp_path, CLOSED), page)
    assert page.read_text(encoding="utf-8") == "no table"


def test_without_a_page_the_table_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For the suite of an outside connector."""
    faults.main(report(tmp_path, CLOSED))
    assert capsys.readouterr().out == faults.table([CLOSED])
