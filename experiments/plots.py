"""Figures of one number against another, in panels as the paper draws them."""

import argparse
import dataclasses
import json

import matplotlib.figure

from experiments.runner import Row, Run
from experiments.tables import collect, heading, provenance, to_csv
from training.config import write
from training.plots import save_figure


@dataclasses.dataclass(frozen=True)
class Series:
    """A curve: its name, and the row at each place of the x axis."""

    label: str
    rows: dict[float, Row]


@dataclasses.dataclass(frozen=True)
class Panel:
    """A part of a figure."""

    title: str
    series: list[Series]


def rows_of(panels: list[Panel]) -> list[Row]:
    """Each row once; curves share their ends."""
    rows = [row for panel in panels for series in panel.series for row in series.rows.values()]
    return list({row.name: row for row in rows}.values())


def points_of(panels: list[Panel], runs: list[Run]) -> list[dict]:
    """A point for each row of each curve: the best top-1 of its runs, see `tables.collect`."""
    records = {record["row"]: record for record in collect(runs, ("top1",))}
    return [
        {"panel": panel.title, "series": series.label, "x": x} | records[row.name]
        for panel in panels
        for series in panel.series
        for x, row in sorted(series.rows.items())
        if row.name in records
    ]


def write_figure(
    name: str,
    points: list[dict],
    runs: list[Run],
    arguments: argparse.Namespace,
    *,
    xlabel: str,
    columns: int,
):
    """Writes `<name>.csv`, `.json` and `.png` into the workdir.

    Args:
      name: of the files.
      points: `panel`, `series`, `x`, `top1`, `top1_interval`, `top1_paper` and what else is known.
      runs: that they were measured on.
      arguments: the experiment's.
      xlabel: says what `x` is.
      columns: panels beside each other.
    """
    folder = arguments.workdir
    write(folder / f"{name}.csv", to_csv(points))
    content = {"what": heading(name, runs), "points": points} | provenance(runs)
    write(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    save_figure(draw(points, xlabel, columns), folder / f"{name}.png")
    print(f"{heading(name, runs)}\n{folder / name}.csv, .json, .png")


def draw(points: list[dict], xlabel: str, columns: int) -> matplotlib.figure.Figure:
    """Our means with 95 % t-intervals; below, the paper's numbers, where there are any.

    They are of another data set, so they have an axis of their own. An interval of two seeds is
    left out: with one degree of freedom it is twelve standard errors, and hides the curves.
    """
    panels = list(dict.fromkeys(point["panel"] for point in points))
    lines = -(-len(panels) // columns)
    shown = [("top1", "measured")]
    if any(point["top1_paper"] is not None for point in points):
        shown.append(("top1_paper", "the paper, ImageNet"))
    figure = matplotlib.figure.Figure(
        (4.6 * columns, 3.2 * lines * len(shown)), layout="constrained"
    )
    parts = figure.subfigures(len(shown), 1, squeeze=False)[:, 0]
    for part, (field, title) in zip(parts, shown, strict=True):
        part.suptitle(title)
        axes = part.subplots(lines, columns, squeeze=False, sharey=True).flat
        for axis, panel in zip(axes, panels, strict=False):
            own = [p for p in points if p["panel"] == panel and p[field] is not None]
            labels = list(dict.fromkeys(point["series"] for point in own))
            for label in labels:
                curve = [point for point in own if point["series"] == label]
                halves = [point["top1_interval"] if point["seeds"] > 2 else 0 for point in curve]
                axis.errorbar(
                    [point["x"] for point in curve],
                    [point[field] for point in curve],
                    halves if field == "top1" else None,
                    marker="o",
                    ms=4,
                    capsize=3,
                    label=label,
                )
            axis.set_title(panel, fontsize=10)
            axis.set(xlabel=xlabel, ylabel="top-1, %")
            axis.grid(alpha=0.3)
            if len(labels) > 1:
                axis.legend(fontsize=8)
    return figure
