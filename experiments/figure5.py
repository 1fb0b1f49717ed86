"""Figure 5: DropBlock at inference, on networks trained without it, with block 1 and with block 7.

    python -m experiments.figure5 --dataset fashion_mnist --config.data.dir DIR --block 3

The best checkpoint of each is evaluated under dropping of block 1 and of the larger block, at its
own places, with BatchNorm in eval mode. Points that have been evaluated stand in each run's
inference.json, and are not evaluated again. Writes figure5.csv, figure5.json and figure5.png into
the workdir, and figure5_losses.csv: what dropping costs each of them. The paper's points are
docs/paper.md section 3.7's, digitised.
"""

import json
import sys

import numpy as np

from experiments import trained
from experiments.plots import write_figure
from experiments.runner import Run, make_runs, parse, parser, run_all, shard_of
from experiments.tables import compared, summary, to_csv
from training.evaluation import make_evaluate
from training.files import write

KEEP_PROBS = (0.75, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99, 1.0)
# Percent, by inference block and training; the figure also marks 0.99, which was not digitised.
_DIGITISED = (0.75, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92, 0.94, 0.96, 0.98, 1.0)
PAPER = {
    (1, "baseline"): (49.0, 62.5, 65.7, 67.8, 70.1, 71.7, 73.0, 74.0, 74.9, 75.4, 75.8, 76.2),
    (1, "block1"): (66.3, 71.0, 72.2, 73.1, 74.1, 74.4, 75.2, 75.6, 75.9, 76.2, 76.5, 76.7),
    (1, "block7"): (71.9, 74.7, 75.5, 76.0, 76.5, 76.9, 77.2, 77.4, 77.7, 78.0, 78.0, 78.2),
    (7, "baseline"): (11.0, 23.8, 30.0, 36.9, 43.6, 50.1, 56.4, 61.5, 66.6, 70.5, 73.8, 76.1),
    (7, "block1"): (32.6, 46.0, 51.1, 55.7, 59.4, 63.1, 66.1, 69.1, 71.4, 73.6, 75.2, 76.7),
    (7, "block7"): (53.8, 62.5, 65.4, 67.8, 69.9, 71.6, 73.1, 74.4, 75.8, 76.7, 77.5, 78.2),
}


def evaluate(run: Run, block: int, keep_probs: list[float]) -> dict[float, float]:
    """Top-1 of a finished run's best checkpoint at each keep_prob, dropping blocks of `block`."""
    path = run.workdir / "inference.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    missing = [keep_prob for keep_prob in keep_probs if f"{block} {keep_prob:g}" not in known]
    if missing:
        plan, variables = trained.load(run, kind="dropblock", block_size=block)
        evaluation = make_evaluate(plan, drop=True)
        for keep_prob in missing:
            found = evaluation(variables, keep_prob, draw=False)
            known[f"{block} {keep_prob:g}"] = found.metrics["top1"]
            write(path, json.dumps(known, indent=1) + "\n")
    return {keep_prob: known[f"{block} {keep_prob:g}"] for keep_prob in keep_probs}


def curves_of(runs: list[Run], block: int, keep_probs: list[float]) -> dict:
    """`{inference block: {row: {seed: {keep_prob: top1}}}}` of the runs that are finished."""
    return {
        inference: {
            row: {
                run.seed: evaluate(run, inference, keep_probs)
                for run in runs
                if run.row.name == row and run.result()
            }
            for row in dict.fromkeys(run.row.name for run in runs)
        }
        for inference in dict.fromkeys((1, block))
    }


def make_points(curves: dict, keep_probs: list[float]) -> list[dict]:
    """The mean over seeds at each keep_prob, of each way to train, under each inference block.

    The paper's larger block is compared with ours, whatever its size.
    """
    points = []
    for inference, rows in curves.items():
        for row, seeds in rows.items():
            names = 1 if inference == 1 else 7, row if row in ("baseline", "block1") else "block7"
            paper = dict(zip(_DIGITISED, PAPER[names], strict=True))
            for keep_prob in sorted(keep_probs):
                values = {seed: curve[keep_prob] for seed, curve in seeds.items()}
                point = _place(inference, row, keep_prob) | {"seeds": len(values)}
                point |= summary("top1", values)
                points.append(point | {"top1_paper": paper.get(keep_prob)})
    return points


def paper_points() -> list[dict]:
    """The paper's curves, at its own keep_probs and blocks."""
    return [
        _place(*names, keep_prob) | {"top1": top1}
        for names, curve in PAPER.items()
        for keep_prob, top1 in zip(_DIGITISED, curve, strict=True)
    ]


def _place(inference: int, row: str, keep_prob: float) -> dict:
    """Where a point is drawn."""
    panel, series = f"inference block {inference}", f"trained: {row}"
    return {"panel": panel, "series": series, "x": keep_prob}


def losses(curves: dict) -> list[dict]:
    """What dropping at inference costs: top-1 without it, less the mean of that with it.

    Args:
      curves: of `curves_of`, with keep_prob 1 and others.

    Returns:
      For each inference block, the records of `tables.compared`.
    """
    records = []
    for inference, rows in curves.items():
        lost = {
            row: {
                seed: curve[1.0] - float(np.mean([v for k, v in curve.items() if k < 1.0]))
                for seed, curve in seeds.items()
            }
            for row, seeds in rows.items()
        }
        records += [{"inference_block": inference} | record for record in compared("loss", lost)]
    return records


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, "runs/figure5")
    options.add_argument("--block", type=int, default=7, help="the larger block")
    options.add_argument("--keep_probs", type=float, nargs="+", default=list(KEEP_PROBS))
    arguments = parse(options, argv)
    runs = make_runs(trained.make_rows(arguments.block), arguments)
    code = 0 if arguments.collect else run_all(runs, arguments.shard)
    if code >= 128:
        return code
    keep_probs = sorted({*arguments.keep_probs, 1.0})
    if not arguments.whole:
        curves_of(shard_of(runs, arguments.shard), arguments.block, keep_probs)
        print("this shard's runs are evaluated: --collect draws the figure of all")
        return code
    curves = curves_of(runs, arguments.block, keep_probs)
    points = make_points(curves, keep_probs)
    xlabel = "inference keep_prob"
    write_figure("figure5", points, paper_points(), runs, arguments, xlabel=xlabel, columns=2)
    text = to_csv(losses(curves))
    write(arguments.workdir / "figure5_losses.csv", text)
    print(f"top-1 lost to dropping at inference, mean over keep_prob:\n{text}", end="")
    return code


if __name__ == "__main__":
    sys.exit(main())
