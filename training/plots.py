"""Curves of a run, from its metrics."""

import math
import pathlib
import re
from typing import TYPE_CHECKING

from training.files import writing

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure

_NO_CURVES = ("examples", "skipped", "positives", "grad_norm")
_CLASSES = 10  # of more, the curves are not told apart
_COLUMNS = 3


def save_figure(figure: "matplotlib.figure.Figure", path: pathlib.Path):
    """Writes a figure as PNG.

    Raises:
      WriteError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)


def curves(records: list[dict], best_metric: str) -> "matplotlib.figure.Figure":
    """Losses, what the task measures, learning rate and kept fractions by epoch, each in its panel.

    The best evaluation is marked. Counts and norms, and single classes where there are many, are in
    metrics.jsonl and TensorBoard alone.

    Args:
      records: of metrics.jsonl.
      best_metric: the evaluation metric whose highest value is best.
    """
    import matplotlib
    import matplotlib.figure

    name = f"eval/{best_metric}"
    evaluated = [r for r in records if math.isfinite(r.get(name, math.nan))]
    # The last of equals, which is the one whose checkpoint is kept.
    best = max(evaluated[::-1], key=lambda record: record[name]) if evaluated else None
    panels = _panels(sorted({name for record in records for name in record}), best_metric)
    rows = -(-len(panels) // _COLUMNS)
    figure = matplotlib.figure.Figure((5 * _COLUMNS, 3 * rows))
    # Beside each panel is room for its legend.
    edges = {"bottom": 0.5 / (3 * rows), "top": 1 - 0.35 / (3 * rows)}
    figure.subplots_adjust(left=0.05, right=0.885, **edges, wspace=0.75, hspace=0.4)
    colors = matplotlib.color_sequences["petroff10"]
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).flat
    for (title, lines), axis in zip(panels.items(), axes, strict=False):
        metrics = list(dict.fromkeys(_split(line)[1] for line in lines))
        values = []
        for line, label in zip(lines, _labels(lines), strict=True):
            part, metric = _split(line)
            x, y = zip(*((r["epoch"], r[line]) for r in records if line in r), strict=True)
            axis.plot(
                x,
                y,
                linestyle="--" if part == "expected_kept" else "-",
                linewidth=1.0 if part == "train" else 1.8,
                marker="o" if part == "eval" or len(x) == 1 else None,
                markersize=3.5,
                alpha=0.7 if part == "train" else 1.0,
                color=colors[metrics.index(metric) % len(colors)],
                label=label if len(label) <= 18 else f"{label[:17]}…",
            )
            values += [value for value in y if math.isfinite(value)]
        axis.ticklabel_format(axis="y", scilimits=(-3, 4))  # short ones, for which there is room
        if title == "loss" and values and 0 < 20 * min(values) < max(values):
            axis.set_yscale("log")
        if best is not None:
            axis.axvline(best["epoch"], color="gray", linestyle=":", linewidth=1)
        if title == best_metric and best is not None:
            title = f"{title}: best {best[name]:.2f} at step {best['step']}"
            axis.plot(best["epoch"], best[name], "*", color="black", markersize=9, zorder=3)
        axis.set_title(title, parse_math=False)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        if len(lines) > 1:
            place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.02)}
            legend = axis.legend(**place, fontsize=8, frameon=False)
            for text in legend.get_texts():
                text.set_parse_math(False)
    for axis in axes:  # of the last row, where no panel is left
        axis.remove()
    return figure


def _panels(names: list[str], best_metric: str) -> dict[str, list[str]]:
    """The names of the curves of each panel, by its title, in the order of the panels."""
    by_class = [name for name in names if name.count("/") == 2]
    panels = {"loss": [], best_metric: []}
    others: dict[str, list[str]] = {}
    for name in names:
        part, metric = _split(name)
        if part not in ("train", "eval") or metric in _NO_CURVES or name in by_class:
            continue
        if metric.endswith("loss"):
            panels["loss"].append(name)
        elif metric == best_metric:
            panels[best_metric].append(name)
        else:  # AP50, APs and AP@500 are of one kind, top5 and mIoU of others
            kind = re.match("[A-Z]+|[^A-Z0-9]+", metric)
            others.setdefault(kind.group() if kind else metric, []).append(name)
    for kind, found in others.items():
        metrics = {_split(name)[1] for name in found}
        panels[metrics.pop() if len(metrics) == 1 else f"{kind} in detail"] = found
    kinds = {_split(name)[1].split("/")[0] for name in by_class}
    for kind in sorted(kinds):
        found = [name for name in by_class if _split(name)[1].startswith(f"{kind}/")]
        if len(found) <= _CLASSES:
            panels[f"{kind} of classes"] = found
    panels["learning rate"] = [name for name in names if name == "sched/learning_rate"]
    panels["kept fraction (dashed: expected)"] = [
        name for name in names if "kept/" in name or name == "sched/keep_prob"
    ]
    return {title: found for title, found in panels.items() if found}


def _labels(lines: list[str]) -> list[str]:
    """What tells the curves of a panel apart: split, metric, or both."""
    parts, metrics = zip(*map(_split, lines), strict=True)
    if len({*metrics}) == 1:
        return list(parts)
    if len({*parts}) == 1:
        return [metric.split("/")[-1] for metric in metrics]
    shown = {"expected_kept": "expected ", "train": "train ", "eval": "eval "}
    return [shown.get(part, "") + metric for part, metric in zip(parts, metrics, strict=True)]


def _split(name: str) -> tuple[str, str]:
    """Where a metric was taken, and which it is."""
    part, _, metric = name.partition("/")
    return part, metric
