"""Figure 4: accuracy against the block size, by place, by site, and with schedule.

    python -m experiments.figure4 --dataset fashion_mnist --config.data.dir DIR --blocks4 1 2 3 \
        --blocks34 1 2 3 5 7

First row: group 4 alone; second row: groups 3 and 4; third row, of --blocks234 alone: where the
config says, such as group 2 too, for small images, whose last maps leave no room for a block
(--config.drop.places.group2=0.0625). `--blocks4` or `--blocks34` without a value leaves its row
out. Columns: after convolutions and unscheduled; skips too; skips too and scheduled. A block larger
than a map is cut to it (docs/paper.md section 1.2). Writes figure4.csv, figure4.json and
figure4.png into the workdir, and figure4_differences.csv: what each column has over the one before.
The paper's points are docs/paper.md section 3.6's, digitised. With --metric loss the same of the
loss, in figure4_loss.*.
"""

import itertools
import sys

from experiments.plots import Panel, Series, add_metric, rows_of, write_panels
from experiments.runner import Row, make_runs, parse, parser, run_all

PLACES = {
    "group4": {"drop.places.group2": 0.0, "drop.places.group3": 0.0},
    "groups34": {"drop.places.group2": 0.0},
    "groups234": {},
}
COLUMNS = {
    "conv": {"drop.sites": ("conv",), "drop.schedule": "constant"},
    "conv_skip": {"drop.schedule": "constant"},
    "conv_skip_scheduled": {},
}
TITLES = {
    "group4": "group 4",
    "groups34": "groups 3 and 4",
    "groups234": "the config's groups",
    "conv": "convolutions",
    "conv_skip": "convolutions and skips",
    "conv_skip_scheduled": "convolutions and skips, scheduled",
}
BLOCKS = {
    "group4": (1, 2, 3, 4, 5, 6, 7),
    "groups34": (1, 3, 5, 7, 8, 10, 12, 14),
    "groups234": (),
}
PAPER = {
    ("group4", "conv"): (76.64, 76.76, 76.85, 77.06, 77.07, 77.08, 77.21),
    ("group4", "conv_skip"): (76.77, 76.97, 77.10, 77.25, 77.22, 77.36, 77.29),
    ("group4", "conv_skip_scheduled"): (76.90, 77.22, 77.34, 77.61, 77.77, 77.92, 77.99),
    ("groups34", "conv"): (76.73, 77.09, 77.33, 77.31, 77.43, 77.52, 77.47, 77.42),
    ("groups34", "conv_skip"): (76.71, 77.23, 77.60, 77.68, 77.56, 77.43, 77.51, 77.60),
    ("groups34", "conv_skip_scheduled"): (76.97, 77.65, 77.74, 78.16, 78.12, 78.06, 78.05, 77.93),
}


def make_panels(blocks: dict[str, tuple[int, ...]] = BLOCKS) -> list[Panel]:
    """The paper's six panels, and three where there are blocks for them, row by row."""
    panels = []
    for place, column in itertools.product(PLACES, COLUMNS):
        if not blocks.get(place):
            continue
        paper = dict(zip(BLOCKS[place], PAPER.get((place, column), ()), strict=True))
        rows: dict[float, Row] = {
            block: Row(
                f"{place}_{column}_{block}",
                "dropblock",
                PLACES[place] | COLUMNS[column] | {"drop.block_size": block},
            )
            for block in blocks[place]
        }
        title = f"{TITLES[place]}: {TITLES[column]}"
        panels.append(Panel(title, [Series(title, rows, paper)]))
    return panels


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, "runs/figure4")
    options.add_argument("--blocks4", type=int, nargs="*", default=BLOCKS["group4"])
    options.add_argument("--blocks34", type=int, nargs="*", default=BLOCKS["groups34"])
    options.add_argument("--blocks234", type=int, nargs="*", default=BLOCKS["groups234"])
    add_metric(options)
    arguments = parse(options, argv)
    panels = make_panels(
        {
            "group4": arguments.blocks4,
            "groups34": arguments.blocks34,
            "groups234": arguments.blocks234,
        }
    )
    if not panels:
        options.error("nothing to draw: --blocks4, --blocks34 and --blocks234 are all empty")
    runs = make_runs(rows_of(panels), arguments)
    code = 0 if arguments.collect else run_all(runs, arguments.shard)
    curves = [panel.series[0] for panel in panels]
    pairs = [(curves[i], curves[i - 1]) for i in range(len(curves)) if i % len(COLUMNS)]
    write_panels("figure4", panels, pairs, runs, arguments, xlabel="block size", columns=3)
    return code


if __name__ == "__main__":
    sys.exit(main())
