"""Curves of a run, from its metrics."""

import pathlib
import re
from typing import TYPE_CHECKING

from training.files import writing

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure

_NO_PERCENTAGES = ("/examples", "/skipped", "/positives", "/grad_norm")


def save_figure(figure: "matplotlib.figure.Figure", path: pathlib.Path):
    """Writes a figure as PNG.

    Raises:
      WriteError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)


def curves(records: list[dict]) -> "matplotlib.figure.Figure":
    """Losses, accuracy (or what the task measures), learning rate and kept fractions by epoch.

    The second panel is of percentages: counts and norms, and a class's own, which there may be
    many of, are in metrics.jsonl and TensorBoard alone.
    """
    import matplotlib.figure

    names = sorted({name for record in records for name in record})
    panels = [
        ("loss", [name for name in names if name.endswith("loss")]),
        (
            "metrics",
            [
                name
                for name in names
                if re.fullmatch("(train|eval)/[^/]+", name)
                and not name.endswith(("loss", *_NO_PERCENTAGES))
            ],
        ),
        ("learning rate", [name for name in names if name == "sched/learning_rate"]),
        (
            "kept fraction (dashed: expected)",
            [name for name in names if "kept/" in name or name == "sched/keep_prob"],
        ),
    ]
    figure = matplotlib.figure.Figure((10, 7))
    figure.subplots_adjust(0.07, 0.07, 0.98, 0.95, wspace=0.18, hspace=0.3)
    for axis, (title, lines) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for name in lines:
            points = [(r["epoch"], r[name]) for r in records if name in r]
            style = "--" if name.startswith("expected") else "-"
            marker = "o" if name.startswith("eval/") else None
            axis.plot(*zip(*points, strict=True), style, marker=marker, ms=3, label=name)
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        if lines:
            axis.legend(fontsize=8)
    return figure
