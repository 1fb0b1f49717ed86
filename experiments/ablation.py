"""What implementations of DropBlock disagree on, one choice at a time.

    python -m experiments.ablation --dataset fashion_mnist --config.data.dir DIR

Differences are to `dropblock`, the paper's choices. Writes ablation.csv, ablation.json and
ablation.md into the workdir. The paper has no numbers for these, but says that a mask for each
channel is better than a shared one (docs/paper.md section 1.1).
"""

import sys
from collections.abc import Mapping

from experiments.runner import Row, make_runs, parse, parser, run_all
from experiments.tables import write_table
from training.config import ConfigError, from_words

ROWS = [
    Row("dropblock", "dropblock", note="the paper's choices"),
    Row("baseline", "baseline", note="nothing dropped"),
    Row("shared_mask", "dropblock", {"drop.shared_mask": True}, note="one mask for all channels"),
    Row("exact_gamma", "dropblock", {"drop.gamma_rule": "exact"}, note="keeps keep_prob, no more"),
    Row("sample_scale", "dropblock", {"drop.normalize": "sample"}, note="scale of each example"),
    Row("map_scale", "dropblock", {"drop.normalize": "map"}, note="scale of each map"),
    Row("no_scale", "dropblock", {"drop.normalize": "none"}, note="kept values stay as they are"),
]


def make_rows(places: Mapping[str, float]) -> list[Row]:
    """ROWS, and one without group factors.

    Args:
      places: the config's `drop.places`; those with a factor between 0 and 1 get 1.
    """
    lower = [name for name, factor in places.items() if 0 < factor < 1]
    if not lower:
        return ROWS
    factors = {f"drop.places.{name}": 1.0 for name in lower}
    note = f"factor 1 in {' and '.join(lower)}"
    return [*ROWS, Row("no_group_factor", "dropblock", factors, note=note)]


def main(argv: list[str] | None = None) -> int:
    arguments = parse(parser(__doc__, "runs/ablation"), argv)
    try:
        config = from_words([f"--config={arguments.config}:dropblock", *arguments.flags])
    except ConfigError as error:
        sys.exit(f"error: {error}")
    runs = make_runs(make_rows(config.drop.places), arguments)
    code = 0 if arguments.collect else run_all(runs, arguments.shard)
    write_table("ablation", runs, ("top1",), arguments, reference="dropblock")
    return code


if __name__ == "__main__":
    sys.exit(main())
