"""Table 3: RetinaNet from ImageNet weights, from scratch, and with DropBlock.

    python -m experiments.table3 --config.data.dir DIR --rows scratch block5 --seeds 0
    python -m experiments.table3 --dataset voc_xml --config.data.dir DIR --rows scratch block3
    python -m experiments.table3 --config.data.dir DIR --rows finetune --init_from r50.safetensors

Writes table3.csv, table3.json and table3.md into the workdir, with AP@<n> for each further number
of --config.detection.max_detections. The paper's numbers are docs/paper.md section 5's, of COCO.
Other data sets have the row `finetune` with --init_from alone, and as long as the others.
"""

import sys

from experiments import finetune
from experiments.runner import Row, Run, make_runs, parse, parser, run_all
from experiments.tables import write_table

METRICS = ("AP", "AP50", "AP75")
PAPER = {
    "finetune": (36.5, 55.0, 39.1),
    "scratch": (36.8, 54.6, 39.4),
    "block1": (37.9, 56.1, 40.6),
    "block3": (38.3, 56.4, 41.2),
    "block5": (38.4, 56.4, 41.2),
    "block7": (38.2, 56.0, 40.9),
}
NOTE = "from ImageNet weights, 28 epochs to the others' 150"


def make_rows(coco: bool, init_from: str | None = None) -> list[Row]:
    """The rows in the paper's order, with its numbers if the data is COCO; see `finetune`."""
    papers = {
        name: {metric: (number, None) for metric, number in zip(METRICS, numbers, strict=True)}
        for name, numbers in PAPER.items()
    }
    return finetune.make_rows(papers, NOTE, papers_data=coco, init_from=init_from)


def metrics_of(runs: list[Run]) -> tuple[str, ...]:
    """The paper's three, then AP by the other limits of detections that all runs have."""
    found = [set(result["best"]) for run in runs if (result := run.result()) is not None]
    limits = [name for name in set.intersection(*found or [set()]) if name.startswith("AP@")]
    return METRICS + tuple(sorted(limits, key=lambda name: int(name.removeprefix("AP@"))))


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, "runs/table3", model="retinanet")
    options.set_defaults(dataset="coco")
    finetune.add_option(options)
    arguments = parse(options, argv)
    rows = make_rows(arguments.config.stem == "coco_retinanet", arguments.init_from)
    runs = make_runs(rows, arguments)
    code = 0 if arguments.collect else run_all(runs, arguments.shard)
    write_table("table3", runs, metrics_of(runs), arguments, reference="scratch", data="COCO")
    return code


if __name__ == "__main__":
    sys.exit(main())
