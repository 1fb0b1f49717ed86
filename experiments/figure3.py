"""Figure 3: accuracy against keep_prob, of three ways to drop, and with and without schedule.

    python -m experiments.figure3 --dataset fashion_mnist --config.data.dir DIR

All drop in groups 3 and 4. With --config.data.eval_split "train[50000:]" and a training split that
leaves these out, this is the search for keep_prob. Writes figure3.csv, figure3.json and figure3.png
into the workdir, and figure3_differences.csv: scheduled less constant. The paper's points are
docs/paper.md section 3.5's, digitised. With --metric loss the same of the loss, in figure3_loss.*.
"""

import dataclasses
import sys

from experiments.plots import Panel, Series, add_metric, rows_of, write_panels
from experiments.runner import Row, make_runs, parse, parser, run_all

# Top-1 by keep_prob; that at 1 is the network without dropping.
PAPER = {
    "DropBlock": {
        0.75: 76.30,
        0.8: 77.19,
        0.85: 77.86,
        0.9: 78.08,
        0.95: 77.94,
        0.97: 77.45,
        0.99: 76.93,
        1.0: 76.36,
    },
    "SpatialDropout": {
        0.5: 75.69,
        0.6: 76.21,
        0.7: 76.71,
        0.75: 76.96,
        0.8: 77.19,
        0.85: 77.36,
        0.9: 77.41,
        0.95: 77.36,
        0.97: 77.12,
        0.99: 76.62,
        1.0: 76.36,
    },
    "dropout": {
        0.5: 76.45,
        0.6: 76.71,
        0.7: 76.80,
        0.75: 76.78,
        0.8: 76.74,
        0.85: 76.67,
        0.9: 76.62,
        0.95: 76.59,
        0.97: 76.49,
        0.99: 76.43,
        1.0: 76.36,
    },
    "DropBlock, unscheduled": {
        0.75: 75.6,
        0.8: 76.44,
        0.85: 77.23,
        0.9: 77.86,
        0.95: 77.78,
        0.97: 77.76,
        0.99: 77.06,
    },
}
VARIANTS = {
    "DropBlock": ("dropblock", {}),
    "SpatialDropout": ("spatial_dropout", {}),
    "dropout": ("dropout", {}),
    "DropBlock, unscheduled": ("dropblock", {"drop.schedule": "constant"}),
}


def series(label: str, keep_probs: list[float] | None) -> Series:
    """A curve over `keep_probs`, by default the paper's."""
    variant, overrides = VARIANTS[label]
    name = "_".join([variant, *overrides.values()])
    rows = {}
    for keep_prob in keep_probs or PAPER[label]:
        if keep_prob == 1:
            rows[keep_prob] = Row("baseline", "baseline")
        else:
            own = overrides | {"drop.keep_prob": keep_prob}
            rows[keep_prob] = Row(f"{name}_{keep_prob:g}", variant, own)
    return Series(label, rows, PAPER[label])


def make_panels(keep_probs: list[float] | None = None) -> list[Panel]:
    """The paper's two panels."""
    curves = {label: series(label, keep_probs) for label in PAPER}
    scheduled = dataclasses.replace(curves["DropBlock"], label="DropBlock, scheduled")
    return [
        Panel("(a)", [curves[label] for label in ("DropBlock", "SpatialDropout", "dropout")]),
        Panel("(b)", [scheduled, curves["DropBlock, unscheduled"]]),
    ]


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, "runs/figure3")
    options.add_argument("--keep_probs", type=float, nargs="+", help="default: the paper's")
    add_metric(options)
    arguments = parse(options, argv)
    panels = make_panels(arguments.keep_probs)
    runs = make_runs(rows_of(panels), arguments)
    code = 0 if arguments.collect else run_all(runs, arguments.shard)
    scheduled, constant = panels[1].series
    pairs = [(scheduled, constant)]
    write_panels("figure3", panels, pairs, runs, arguments, xlabel="keep_prob", columns=2)
    return code


if __name__ == "__main__":
    sys.exit(main())
