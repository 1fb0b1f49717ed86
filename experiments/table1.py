"""Table 1: the regularisers side by side.

    python -m experiments.table1 --dataset fashion_mnist --config.data.dir DIR
    python -m experiments.table1 --dataset cifar10 --config.data.name=cifar10_subset \
        --config.data.dir DIR --config.epochs=80 --rows baseline dropblock --seeds 0 1 2 3 4 \
        --set dropblock:drop.keep_prob=0.8 --workdir runs/table1_cifar10

Writes table1.csv, table1.json and table1.md into the workdir. The paper's numbers are docs/paper.md
section 3.4's, of ImageNet.
"""

import ast
import sys

from configs.methods import VARIANTS
from experiments.runner import Row, make_runs, parse, parser, run_all
from experiments.tables import write_table

PAPER: dict[str, dict[str, tuple[float, float | None]]] = {
    "baseline": {"top1": (76.51, 0.07), "top5": (93.20, 0.05)},
    "dropout": {"top1": (76.80, 0.04), "top5": (93.41, 0.04)},
    "drop_path": {"top1": (77.10, 0.08), "top5": (93.50, 0.05)},
    "spatial_dropout": {"top1": (77.41, 0.04), "top5": (93.74, 0.02)},
    "cutout": {"top1": (76.52, 0.07), "top5": (93.21, 0.04)},
    "autoaugment": {"top1": (77.63, None), "top5": (93.82, None)},
    "label_smoothing": {"top1": (77.17, 0.05), "top5": (93.45, 0.03)},
    "dropblock": {"top1": (78.13, 0.05), "top5": (94.02, 0.02)},
    "dropblock_label_smoothing": {"top1": (78.35, 0.05), "top5": (94.15, 0.03)},
}
NOTES = {
    "autoaugment": "the paper's number is quoted from elsewhere, without an interval",
    "dropblock_label_smoothing": "trained 290/270 as long",
}


def make_rows(flags: list[str]) -> list[Row]:
    """The rows in the paper's order, then the other placements of DropPath that it tried.

    Args:
      flags: what every run is given; a length among it is longer in the last row.
    """
    longer = {"dropblock_label_smoothing": lengthened(flags)}
    others = [name for name in VARIANTS if name not in PAPER]
    return [
        Row(name, name, longer.get(name, {}), PAPER.get(name, {}), NOTES.get(name, ""))
        for name in [*PAPER, *others]
    ]


def lengthened(flags: list[str]) -> dict:
    """The lengths among `flags`, times 290/270: they replace those of the variant."""
    fields = dict(flag.removeprefix("--config.").split("=", 1) for flag in flags)
    longer = {}
    if "epochs" in fields:
        longer["epochs"] = float(fields["epochs"]) * 290 / 270
    if "steps" in fields:
        longer["steps"] = round(int(fields["steps"]) * 290 / 270)
    if "schedule.boundaries" in fields:
        boundaries = ast.literal_eval(fields["schedule.boundaries"])
        longer["schedule.boundaries"] = tuple(epoch * 290 / 270 for epoch in boundaries)
    return longer


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, "runs/table1")
    options.add_argument(
        "--reference",
        choices=list(VARIANTS),
        default="baseline",
        help="differences are to this row",
    )
    arguments = parse(options, argv)
    runs = make_runs(make_rows(arguments.flags), arguments)
    code = 0 if arguments.collect else run_all(runs, arguments.shard)
    write_table("table1", runs, ("top1", "top5"), arguments, reference=arguments.reference)
    return code


if __name__ == "__main__":
    sys.exit(main())
