"""What implementations of DropBlock disagree on, one choice at a time.

    python -m experiments.ablation --dataset fashion_mnist --config.data.dir DIR

Differences are to `dropblock`, the paper's choices. Writes ablation.csv, ablation.json and
ablation.md into the workdir. The paper has no numbers for these, but says that a mask for each
channel is better than a shared one (docs/paper.md section 1.1).
"""

import sys

from experiments.runner import Row, make_runs, parse, parser, run_all
from experiments.tables import write_table

ROWS = [
    Row("dropblock", "dropblock", note="the paper's choices"),
    Row("baseline", "baseline", note="nothing dropped"),
    Row("shared_mask", "dropblock", {"drop.shared_mask": True}, note="one mask for all channels"),
    Row("exact_gamma", "dropblock", {"drop.gamma_rule": "exact"}, note="keeps keep_prob, no more"),
    Row("sample_scale", "dropblock", {"drop.normalize": "sample"}, note="scale of each example"),
    Row("map_scale", "dropblock", {"drop.normalize": "map"}, note="scale of each map"),
    Row("no_scale", "dropblock", {"drop.normalize": "none"}, note="kept values stay as they are"),
    Row(
        "no_group_factor",
        "dropblock",
        {"drop.places.group3": 1.0},
        note="group 3 drops as much as group 4, not a quarter",
    ),
]


def main(argv: list[str] | None = None) -> int:
    arguments = parse(parser(__doc__, "runs/ablation"), argv)
    runs = make_runs(ROWS, arguments)
    code = 0 if arguments.collect else run_all(runs, arguments.shard)
    write_table("ablation", runs, ("top1",), arguments, reference="dropblock")
    return code


if __name__ == "__main__":
    sys.exit(main())
