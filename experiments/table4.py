"""Table 4: segmentation from ImageNet weights, from scratch, and with DropBlock in the head.

    python -m experiments.table4 --config.data.dir DIR --rows scratch block16 --seeds 0
    python -m experiments.table4 --dataset mask_folder --config.data.dir DIR \
        --config.data.class_names background,nucleus --seeds 0 1 2
    python -m experiments.table4 --config.data.dir DIR --rows finetune --init_from r101.safetensors

After the paper's rows come those of the backbone in the head's place, by block size. Writes
table4.csv, table4.json and table4.md into the workdir. The paper's numbers are docs/paper.md
section 6's, of PASCAL VOC 2012. Other data sets have the row `finetune` with --init_from alone,
and as long as the others.
"""

import sys

from experiments import finetune
from experiments.runner import Row, make_runs, parse, parser, run_all
from experiments.tables import write_table

PAPER = {"finetune": 74.6, "scratch": 47.2, "block1": 51.0, "block4": 53.2, "block16": 53.4}
NOTE = "from ImageNet weights, 45 epochs to the others' 500"


def make_rows(voc: bool, init_from: str | None = None) -> list[Row]:
    """The rows in the paper's order, with its numbers if the data is VOC's, then the backbone's.

    Of `init_from` see `finetune`.
    """
    papers = {name: {"mIoU": (number, None)} for name, number in PAPER.items()}
    rows = finetune.make_rows(papers, NOTE, papers_data=voc, init_from=init_from)
    return rows + [
        Row(f"backbone_block{block}", "backbone", {"drop.block_size": block})
        for block in (1, 4, 16)
    ]


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, "runs/table4", model="fcn")
    options.set_defaults(dataset="voc")
    finetune.add_option(options)
    arguments = parse(options, argv)
    rows = make_rows(arguments.config.stem == "voc_fcn", arguments.init_from)
    runs = make_runs(rows, arguments)
    code = 0 if arguments.collect else run_all(runs, arguments.shard)
    write_table("table4", runs, ("mIoU",), arguments, reference="scratch", data="PASCAL VOC 2012")
    return code


if __name__ == "__main__":
    sys.exit(main())
