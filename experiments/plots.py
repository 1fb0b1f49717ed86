"""Figures of one number against another, in panels as the paper draws them."""

import argparse
import dataclasses
import itertools
import json
import math
import pathlib

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker

from experiments.runner import Row, Run
from experiments.tables import (
    best,
    collect,
    heading,
    paired,
    provenance,
    summary,
    to_csv,
    warn,
)
from training.files import write
from training.plots import save_figure

METRICS = {"top1": "top-1, %", "loss": "loss, nats"}


def add_metric(options: argparse.ArgumentParser):
    """`--metric`: which of METRICS a figure is of."""
    options.add_argument("--metric", choices=list(METRICS), default="top1")


@dataclasses.dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
      label: its name.
      rows: what is run at each place of the x axis.
      paper: the paper's top-1, at its own places.
    """

    label: str
    rows: dict[float, Row]
    paper: dict[float, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Panel:
    """A part of a figure."""

    title: str
    series: list[Series]


def rows_of(panels: list[Panel]) -> list[Row]:
    """Each row once; curves share their ends."""
    rows = [row for panel in panels for series in panel.series for row in series.rows.values()]
    return list({row.name: row for row in rows}.values())


def points_of(panels: list[Panel], runs: list[Run], metric: str = "top1") -> list[dict]:
    """A point for each row of each curve: what its runs have at best, see `tables.collect`."""
    records = {record["row"]: record for record in collect(runs, (metric,))}
    return [
        {"panel": panel.title, "series": series.label, "x": x}
        | records[row.name]
        | ({"top1_paper": series.paper.get(x)} if metric == "top1" else {})
        for panel in panels
        for series in panel.series
        for x, row in sorted(series.rows.items())
        if row.name in records
    ]


def paper_of(panels: list[Panel]) -> list[dict]:
    """The paper's curves whole, whatever part of them is run: `panel`, `series`, `x`, `top1`."""
    return [
        {"panel": panel.title, "series": series.label, "x": x, "top1": top1}
        for panel in panels
        for series in panel.series
        for x, top1 in series.paper.items()
    ]


def write_figure(
    name: str,
    points: list[dict],
    paper: list[dict],
    runs: list[Run],
    arguments: argparse.Namespace,
    *,
    xlabel: str,
    columns: int,
    metric: str = "top1",
):
    """Writes `<name>.csv`, `.json` and `.png` into the workdir.

    Args:
      name: of the files.
      points: `panel`, `series`, `x`, `seeds`, the metric, its interval and what else is known.
      paper: the paper's own, of which `panel`, `series`, `x` and `top1` are known.
      runs: that they were measured on.
      arguments: the experiment's.
      xlabel: says what `x` is.
      columns: panels beside each other.
      metric: what is drawn, of METRICS; the paper has "top1".
    """
    folder = arguments.workdir
    write(folder / f"{name}.csv", to_csv(points))
    content = {"what": heading(name, runs), "points": points, "paper": paper} | provenance(runs)
    write(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    save_figure(draw(points, paper, xlabel, columns, metric), folder / f"{name}.png")
    print(f"{heading(name, runs)}\n{folder / name}.csv, .json, .png")
    warn(runs)


def write_panels(
    name: str,
    panels: list[Panel],
    pairs: list[tuple[Series, Series]],
    runs: list[Run],
    arguments: argparse.Namespace,
    *,
    xlabel: str,
    columns: int,
):
    """Writes the figure of these panels, and what the first curve of each pair has over the second.

    See `write_figure` and `write_differences`. With `--metric loss` it is `<name>_loss`, and
    without the paper's curves.
    """
    metric = arguments.metric
    points, paper = points_of(panels, runs, metric), paper_of(panels)
    if metric != "top1":
        name, paper = f"{name}_{metric}", []
    write_figure(
        name, points, paper, runs, arguments, xlabel=xlabel, columns=columns, metric=metric
    )
    write_differences(name, pairs, runs, arguments.workdir, metric)


def write_differences(
    name: str,
    pairs: list[tuple[Series, Series]],
    runs: list[Run],
    folder: pathlib.Path,
    metric: str = "top1",
):
    """Writes `<name>_differences.csv`, see `differences`, and prints it, if any two are run."""
    records = differences(pairs, runs, metric)
    if not records:
        return
    text = to_csv(records)
    write(folder / f"{name}_differences.csv", text)
    print(f"differences in {METRICS[metric]}, by seed:\n{text}", end="")


def differences(
    pairs: list[tuple[Series, Series]], runs: list[Run], metric: str = "top1"
) -> list[dict]:
    """What the first curve of each pair has over the second, by pairs of runs of one seed.

    Returns:
      A record for each place of the x axis where both are run, of different rows, then one whose
      `x` is "mean": of the mean over these places.
    """
    values = best(runs, metric)
    records = []
    for curve, reference in pairs:
        places: dict[float | str, dict[int, float]] = {
            x: paired(values[row.name], values[reference.rows[x].name])
            for x, row in sorted(curve.rows.items())
            if x in reference.rows
            and row != reference.rows[x]
            and {row.name, reference.rows[x].name} <= values.keys()
        }
        if not places:
            continue
        seeds = set.intersection(*map(set, places.values()))
        means = {s: math.fsum(p[s] for p in places.values()) / len(places) for s in sorted(seeds)}
        records += [
            {"curve": curve.label, "reference": reference.label, "x": x, "seeds": len(own)}
            | summary("difference", own)
            for x, own in (places | {"mean": means}).items()
        ]
    return records


def draw(
    points: list[dict], paper: list[dict], xlabel: str, columns: int, metric: str = "top1"
) -> matplotlib.figure.Figure:
    """Our means with 95 % t-intervals; below, the paper's numbers, where there are any.

    They are of another data set, so they have an axis of their own. An interval of two seeds is
    left out: with one degree of freedom it is twelve standard errors, and hides the curves.
    """
    parts = {"measured": [point for point in points if point[metric] is not None]}
    if paper:
        parts["the paper, ImageNet"] = paper
    titles = {part: list(dict.fromkeys(p["panel"] for p in own)) for part, own in parts.items()}
    lines = {part: max(1, -(-len(panels) // columns)) for part, panels in titles.items()}
    figure = matplotlib.figure.Figure(
        (4.6 * columns, 3.2 * sum(lines.values())), layout="constrained"
    )
    subfigures = figure.subfigures(
        len(parts), 1, squeeze=False, height_ratios=list(lines.values())
    )[:, 0]
    for subfigure, (part, own) in zip(subfigures, parts.items(), strict=True):
        subfigure.suptitle(part)
        axes = subfigure.subplots(lines[part], columns, squeeze=False, sharey=True).flat
        for axis, panel in itertools.zip_longest(axes, titles[part]):
            if panel is None:
                axis.remove()
                continue
            _draw_panel(axis, [point for point in own if point["panel"] == panel], metric)
            axis.set_title(panel, fontsize=10)
            axis.set(xlabel=xlabel, ylabel=METRICS[metric])
            axis.grid(alpha=0.3)
    return figure


def _draw_panel(axis: matplotlib.axes.Axes, points: list[dict], metric: str):
    """Its curves, with their names if there are several."""
    labels = list(dict.fromkeys(point["series"] for point in points))
    for label in labels:
        curve = [point for point in points if point["series"] == label]
        axis.errorbar(
            [point["x"] for point in curve],
            [point[metric] for point in curve],
            [point[f"{metric}_interval"] if point.get("seeds", 0) > 2 else 0 for point in curve],
            marker="o",
            ms=4,
            capsize=3,
            label=label,
        )
    if len(labels) > 1:
        axis.legend(fontsize=8)
    if all(float(point["x"]).is_integer() for point in points):  # block sizes
        axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
