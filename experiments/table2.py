"""Table 2: AmoebaNet-B without and with DropBlock, and ScheduledDropPath beside it.

    python -m experiments.table2 --config.data.dir DIR
    python -m experiments.table2 --dataset cifar10 --config.data.name=cifar10_subset \
        --config.data.dir DIR --workdir runs/table2_cifar10

Writes table2.csv, table2.json and table2.md into the workdir. The paper's numbers are docs/paper.md
section 4's, of ImageNet.
"""

import sys

from configs.amoebanet import VARIANTS
from experiments.runner import Row, make_runs, parse, parser, run_all
from experiments.tables import write_table

PAPER: dict[str, dict[str, tuple[float, float | None]]] = {
    "baseline": {"top1": (82.25, None), "top5": (95.88, None)},
    "dropblock": {"top1": (82.52, None), "top5": (96.07, None)},
}
NOTES = {"drop_path": "ScheduledDropPath; not in the paper's table"}


def make_rows() -> list[Row]:
    """The rows in the paper's order, then ScheduledDropPath."""
    return [
        Row(name, name, paper=PAPER.get(name, {}), note=NOTES.get(name, "")) for name in VARIANTS
    ]


def main(argv: list[str] | None = None) -> int:
    arguments = parse(parser(__doc__, "runs/table2", model="amoebanet"), argv)
    runs = make_runs(make_rows(), arguments)
    code = 0 if arguments.collect else run_all(runs, arguments.shard)
    write_table("table2", runs, ("top1", "top5"), arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
