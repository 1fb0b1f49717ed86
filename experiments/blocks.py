"""Do blocks beat cells? Accuracy against the block size, of runs on several machines together.

    python -m experiments.blocks experiments/results/imagenette.csv
    python -m experiments.blocks FILE.csv --add runs/search runs/final
    python -m experiments.blocks FILE.csv --metric loss

The file has a line for each run; `--add` puts the finished runs below folders there, each once.
Printed are the accuracies on what was held out of the training split, by keep_prob, and those on
the test set with their differences to no dropping and to block 1, by pairs of one seed; drawn, in
FILE.png, the differences to block 1 against the block size. Intervals are 95 % t-intervals. With
--metric loss all is of the cross entropy (nats) of those runs whose line has it, in FILE_loss.png.
With --than "block 7" the differences are to block 7 in block 1's place; with --keep_prob 0.9 only
the runs at that keep_prob are compared, and those without dropping. Neither is drawn.
"""

import argparse
import csv
import pathlib
import re
import sys
from typing import Any

import matplotlib.figure

from experiments.plots import METRICS, add_metric
from experiments.tables import paired, summary, table_row, to_csv, with_interval
from training import config as config_lib
from training.files import write
from training.plots import save_figure
from training.result import read as read_result

# Of a run: its seed on another machine is another run.
_IDENTITY = (
    "network",
    "train_split",
    "eval_split",
    "way",
    "keep_prob",
    "seed",
    "devices",
    "commit",
)
_CELLS = "block 1"


def record_of(folder: pathlib.Path) -> dict[str, Any]:
    """The line of a finished classification run, from its `config.json` and `result.json`."""
    config = config_lib.from_json(folder / "config.json")
    result, drop, data = read_result(folder / "result.json"), config["drop"], config["data"]
    way = drop["kind"]
    if way == "dropblock":
        way = f"block {drop['block_size']}"
        way += "" if "skip" in drop["sites"] else ", convolutions"
    way += ", constant" if drop["kind"] != "none" and drop["schedule"] == "constant" else ""
    way += ", shared mask" if drop["shared_mask"] else ""
    model = config["model"]
    return {
        "network": f"{model['name']}{model['depth']} x{model['width_multiplier']:g}",
        "train_split": data["train_split"],
        "eval_split": data["eval_split"],
        "way": way,
        "keep_prob": 1.0 if drop["kind"] == "none" else drop["keep_prob"],
        "seed": config["seed"],
        "top1": round(result["final"]["top1"], 4),
        "loss": round(result["final"]["loss"], 4),
        "devices": result["devices"],
        "commit": result["commit"][:7],
        "seconds": result["seconds"],
    }


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a file; a loss is None where only top-1 is known."""
    numbers = {"keep_prob": float, "seed": int, "top1": float, "loss": float}
    with path.open(newline="") as file:
        return [
            line | {k: number(line[k]) if line.get(k) else None for k, number in numbers.items()}
            for line in csv.DictReader(file)
        ]


def add(path: pathlib.Path, folders: list[pathlib.Path]):
    """Puts the finished runs below `folders` into a file, in place of what it has of them."""
    lines = read(path) if path.exists() else []
    try:
        lines += [
            record_of(found.parent) for folder in folders for found in folder.rglob("result.json")
        ]
    except config_lib.ConfigError as error:
        sys.exit(f"error: {error}")
    each = {tuple(line[key] for key in _IDENTITY): line for line in lines}
    if not each:
        sys.exit(f"error: no finished run below {', '.join(map(str, folders))}")
    write(path, to_csv([each[key] for key in sorted(each)]))


def chosen_by(lines: list[dict], metric: str = "top1") -> str:
    """A table for each network: what was held out of the training split, by way and keep_prob."""
    text = ""
    for network in dict.fromkeys(line["network"] for line in lines):
        own = [line for line in lines if line["network"] == network]
        values: dict[tuple[str, float], list[float]] = {}
        for line in own:
            values.setdefault((line["way"], line["keep_prob"]), []).append(line[metric])
        keep_probs = sorted({keep_prob for _, keep_prob in values}, reverse=True)
        text += f"\n{network}, held out of the training split:\n\n"
        text += _row("keep_prob", *(f"{keep_prob:g}" for keep_prob in keep_probs))
        text += _row(*["---"] * (1 + len(keep_probs)))
        for way in sorted({way for way, _ in values}):
            cells = [values.get((way, keep_prob), []) for keep_prob in keep_probs]
            text += _row(way, *(f"{sum(c) / len(c):.2f} ({len(c)})" if c else "" for c in cells))
    return text


def compared(lines: list[dict], metric: str = "top1", than: str = _CELLS) -> dict[str, list[dict]]:
    """For each network a record for each way: its mean, and its differences by pairs of a seed.

    Args:
      lines: the runs.
      metric: what of them, "top1" or "loss".
      than: the way that the differences are to, beside those to "none".

    Raises:
      SystemExit: two runs of one way and seed, of which the table could show either.
    """
    networks: dict[str, list[dict]] = {}
    for network in dict.fromkeys(line["network"] for line in lines):
        ways: dict[str, dict[int, float]] = {}
        keep_probs: dict[str, set[float]] = {}
        for line in lines:
            if line["network"] != network:
                continue
            if line["seed"] in ways.setdefault(line["way"], {}):
                sys.exit(
                    f"error: {network}, {line['way']} has seed {line['seed']} twice: of several "
                    "keep_probs --keep_prob takes one"
                )
            ways[line["way"]][line["seed"]] = line[metric]
            keep_probs.setdefault(line["way"], set()).add(line["keep_prob"])
        networks[network] = [
            {"way": way, "keep_probs": sorted(keep_probs[way]), "seeds": len(own)}
            | summary(metric, own)
            | summary("to_none", paired(own, ways.get("none", {})) if way != "none" else {})
            | summary("to_other", paired(own, ways.get(than, {})) if way != than else {})
            for way, own in sorted(ways.items(), key=lambda item: (item[0] != "none", item[0]))
        ]
    return networks


def together(lines: list[dict], metric: str = "top1", than: str = _CELLS) -> dict[str, list[dict]]:
    """What `compared` gives for the pairs of all networks, which have no mean in common."""
    name = "all networks"
    mixed = [line | {"network": name, "seed": (line["network"], line["seed"])} for line in lines]
    return {name: [record | summary(metric, {}) for record in compared(mixed, metric, than)[name]]}


def to_markdown(networks: dict[str, list[dict]], metric: str = "top1", than: str = _CELLS) -> str:
    """The records of `compared` as a table for each network."""
    text = ""
    for network, records in networks.items():
        text += f"\n{network}, test set:\n\n"
        text += _row("", "keep_prob", "seeds", METRICS[metric], "less none", f"less {than}")
        text += _row(*["---"] * 6)
        for record in records:
            keep_probs = ", ".join(f"{value:g}" for value in record["keep_probs"])
            numbers = [_number(record, name) for name in ("to_none", "to_other")]
            own = _number(record, metric, sign="")
            text += _row(record["way"], keep_probs, str(record["seeds"]), own, *numbers)
    return text


def draw(networks: dict[str, list[dict]], metric: str = "top1") -> matplotlib.figure.Figure:
    """Blocks less cells, against the block size; at 0, no dropping."""
    figure = matplotlib.figure.Figure((5.0, 3.4), layout="constrained")
    axis = figure.subplots()
    for number, (network, records) in enumerate(networks.items()):
        points = [
            (int(way[1]) if way else 0, record["to_other"], record["to_other_interval"] or 0)
            for record in records
            if (way := re.fullmatch(r"block (\d+)", record["way"])) or record["way"] == "none"
            if record["to_other"] is not None
        ]
        if points:
            sizes, means, halves = zip(*points, strict=True)
            beside = [size + 0.12 * number for size in sizes]
            axis.errorbar(beside, means, halves, fmt="o", ms=5, capsize=3, label=network)
    axis.axhline(0, color="gray", lw=1)
    ylabel = f"{METRICS[metric]}, less that of {_CELLS}"
    axis.set(xlabel="block size (0: without dropping)", ylabel=ylabel)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    return figure


def _number(record: dict, name: str, sign: str = "+") -> str:
    mean = record[name]
    return "" if mean is None else with_interval(mean, record[f"{name}_interval"], sign)


def _row(*cells: str) -> str:
    return table_row([*cells]) + "\n"


def main(argv: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("file", type=pathlib.Path)
    options.add_argument("--add", type=pathlib.Path, nargs="+", metavar="WORKDIR")
    add_metric(options)
    options.add_argument("--than", default=_CELLS, metavar="WAY")
    options.add_argument("--keep_prob", type=float)
    arguments = options.parse_args(argv)
    if arguments.add:
        add(arguments.file, arguments.add)
    elif not arguments.file.exists():
        sys.exit(f"error: {arguments.file} is not there: --add WORKDIR makes it")
    metric = arguments.metric
    lines = [line for line in read(arguments.file) if line[metric] is not None]
    held_out = [line for line in lines if line["eval_split"].startswith("train")]
    test = [line for line in lines if not line["eval_split"].startswith("train")]
    than, keep_prob = arguments.than, arguments.keep_prob
    if keep_prob is not None:
        test = [line for line in test if line["way"] == "none" or line["keep_prob"] == keep_prob]
    if than not in (ways := sorted({line["way"] for line in test})) and than != _CELLS:
        sys.exit(f"error: --than {than}: there are {', '.join(ways)}")
    networks = compared(test, metric, than)
    tables = networks | (together(test, metric, than) if len(networks) > 1 else {})
    print(chosen_by(held_out, metric) + to_markdown(tables, metric, than))
    if than == _CELLS and keep_prob is None:
        suffix = ".png" if metric == "top1" else f"_{metric}.png"
        save_figure(draw(networks, metric), arguments.file.with_name(arguments.file.stem + suffix))
    return 0


if __name__ == "__main__":
    sys.exit(main())
