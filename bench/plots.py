"""The saved figures as pictures: for each table, how far each goal was met; and how what was measured grows with size.

Written beside the JSON as SVG: `<table>.svg` for the goals, `<table>-growth.svg` for its series.
"""

import json
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")
# The same figures give the same file.
mpl.rcParams["svg.hashsalt"] = "headwater"
mpl.rcParams["svg.fonttype"] = "none"

from matplotlib import pyplot as plt  # noqa: E402 - after the choice of what draws

_MET: Final = "#2a7f62"
_MISSED: Final = "#c0392b"
_WIDEST: Final = 4.0
_INCHES: Final = 8.0


def draw(folder: Path) -> None:
    """Draw every table that was saved in `folder`."""
    for path in sorted(folder.glob("*.json")):
        saved = json.loads(path.read_text())
        for name, picture in (("", _goals(saved)), ("-growth", _growth(saved))):
            if picture is not None:
                target = path.with_name(f"{path.stem}{name}.svg")
                picture.savefig(target, metadata={"Date": None}, bbox_inches="tight")
                plt.close(picture)
                print(target.name)


def _goals(saved: dict[str, Any]) -> Any:
    """A bar for each goal: 1 is the goal, longer is better, whichever way the goal points."""
    figures = [figure for figure in saved["figures"] if figure["goal"] is not None]
    if not figures:
        return None
    figures.reverse()  # the first at the top
    picture, axes = plt.subplots(figsize=(_INCHES, 0.6 + 0.36 * len(figures)))
    lengths = [_margin(figure) for figure in figures]
    axes.barh(
        range(len(figures)),  # not the names: two figures of one work would share a bar
        [min(length, _WIDEST) for length in lengths],
        color=[_MET if figure["met"] else _MISSED for figure in figures],
        height=0.6,
    )
    names = [f"{figure['work']}, {figure['unit']}\nbeside {figure['beside']}" for figure in figures]
    axes.set_yticks(range(len(figures)), names)
    for place, (figure, length) in enumerate(zip(figures, lengths, strict=True)):
        sign = ">=" if figure["goal"]["bound"] == "at least" else "<="
        text = f" {figure['ratio']:.3g} ({sign} {figure['goal']['ratio']:g})"
        axes.text(min(length, _WIDEST), place, text, va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlim(0, _WIDEST + 1)
    axes.margins(y=0.01)
    axes.set_xlabel(f"times the goal; 1 is the goal, beyond {_WIDEST:g} is cut off")
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{saved['table']}, {saved['measured_at']}", fontsize=10)
    return picture


def _margin(figure: dict[str, Any]) -> float:
    goal, ratio = figure["goal"]["ratio"], figure["ratio"]
    return float(ratio / goal if figure["goal"]["bound"] == "at least" else goal / ratio)


def _growth(saved: dict[str, Any]) -> Any:
    """A line for each series, both axes in powers of ten. Series with one unit (`name [unit]`) share a picture."""
    units: dict[str, list[str]] = {}
    for name in saved["series"]:
        units.setdefault(name.partition("[")[2].rstrip("]"), []).append(name)
    if not units:
        return None
    picture, all_axes = plt.subplots(1, len(units), figsize=(_INCHES, 3.2), squeeze=False, layout="constrained")
    for axes, (unit, names) in zip(all_axes[0], units.items(), strict=True):
        for name in names:
            points = saved["series"][name]
            axes.plot(
                [point["x"] for point in points],
                [point["y"] for point in points],
                marker="o",
                label=name.partition("[")[0].strip(),
            )
        axes.set_xscale("log")
        measured = sorted({int(point["x"]) for name in names for point in saved["series"][name]})
        axes.set_xticks(measured, [f"{size:,}" for size in measured])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_ylabel(unit, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7, frameon=False)
        axes.grid(visible=True, linewidth=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    picture.suptitle(f"{saved['table']}, {saved['measured_at']}", fontsize=10)
    return picture
