"""From `result.json` files to a table: mean, 95 % t-interval, and the paper's number beside it."""

import argparse
import csv
import io
import json
import math
import pathlib
import re
import sys

import numpy as np
import scipy.stats

from experiments.runner import Run
from training.files import write


def interval(values: list[float], level: float = 0.95) -> tuple[float, float | None]:
    """Mean, and half the width of its t-interval; None for fewer than two values."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, float(scipy.stats.t.ppf((1 + level) / 2, len(values) - 1)) * error


def collect(runs: list[Run], metrics: tuple[str, ...], reference: str = "baseline") -> list[dict]:
    """A record for each row of `runs`, from those that are finished.

    Args:
      runs: the experiment's.
      metrics: names in `result.json`, the one that is held against the reference first. Each is
        the best over training, as the paper reports it, chosen by the run's own best metric.
      reference: the row that differences are taken to, by pairs of runs of one seed.

    Returns:
      `row`, `note`, `seeds`; for each metric `<metric>`, `<metric>_interval`, `<metric>_paper`,
      `<metric>_paper_spread`; for the first also `final` and `final_interval`, what the last
      evaluation had, `difference` and `difference_interval`; None where there is nothing to say.
    """
    rows = {run.row.name: run.row for run in runs}
    values = {metric: best(runs, metric) for metric in metrics}
    tops, final = values[metrics[0]], best(runs, metrics[0], which="final")
    records = []
    for name, row in rows.items():
        record = {"row": name, "note": row.note, "seeds": len(tops[name])}
        for metric in metrics:
            record |= summary(metric, values[metric][name])
            mean, spread = row.paper.get(metric, (None, None))
            record |= {f"{metric}_paper": mean, f"{metric}_paper_spread": spread}
        record |= summary("final", final[name])
        pairs = {} if name == reference else paired(tops[name], tops.get(reference, {}))
        records.append(record | summary("difference", pairs))
    return records


def best(runs: list[Run], metric: str, which: str = "best") -> dict[str, dict[int, float]]:
    """`{row: {seed: value}}` of a metric in what is finished; or that of the "final" evaluation."""
    values: dict[str, dict[int, float]] = {run.row.name: {} for run in runs}
    for run in runs:
        if (result := run.result()) is not None:
            values[run.row.name][run.seed] = result[which][metric]
    return values


def paired(values: dict[int, float], others: dict[int, float]) -> dict[int, float]:
    """Differences between runs of one seed, which share initialisation and data order."""
    return {seed: value - others[seed] for seed, value in values.items() if seed in others}


def summary(name: str, values: dict[int, float]) -> dict:
    """`<name>` and `<name>_interval` of values by seed; None where there are too few."""
    mean, half = interval(list(values.values())) if values else (None, None)
    return {name: mean, f"{name}_interval": half}


def compared(name: str, values: dict[str, dict[int, float]]) -> list[dict]:
    """A record for each row: a number, and its difference to the baseline's by pairs of a seed.

    Args:
      name: of the number.
      values: `{row: {seed: value}}`.

    Returns:
      `row`, `seeds`, `<name>`, `<name>_interval`, `difference` and `difference_interval`.
    """
    reference = values.get("baseline", {})
    return [
        {"row": row, "seeds": len(own)}
        | summary(name, own)
        | summary("difference", {} if row == "baseline" else paired(own, reference))
        for row, own in values.items()
    ]


def write_table(
    name: str,
    runs: list[Run],
    metrics: tuple[str, ...],
    arguments: argparse.Namespace,
    *,
    reference: str = "baseline",
    data: str = "ImageNet",
) -> list[dict]:
    """Writes `<name>.csv`, `.json` and `.md` into the workdir, and prints the last.

    `data` is what the paper's numbers are of.
    """
    records = collect(runs, metrics, reference)
    folder: pathlib.Path = arguments.workdir
    write(folder / f"{name}.csv", to_csv(records))
    write(
        folder / f"{name}.json", json.dumps(provenance(runs) | {"rows": records}, indent=1) + "\n"
    )
    paper = any(run.row.paper for run in runs)
    whose = f" The paper's numbers are of {data}, with the spread it prints." if paper else ""
    text = f"{heading(name, runs)}{whose}\n\n{to_markdown(records, metrics, reference)}"
    write(folder / f"{name}.md", text)
    print(text)
    warn(runs)
    return records


def warn(runs: list[Run]):
    """Says on stderr what a table or figure does not show: unfinished runs, several commits."""
    results = [run.result() for run in runs]
    if None in results:
        missing = results.count(None)
        print(f"{missing} of {len(runs)} runs are not finished", file=sys.stderr)
    commits = {result["commit"] for result in results if result is not None}
    if len(commits) > 1:
        print(f"the runs are of several commits: {', '.join(sorted(commits))}", file=sys.stderr)


def to_csv(records: list[dict]) -> str:
    """The records, numbers to four decimals."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow(
            {key: round(v, 4) if isinstance(v, float) else v for key, v in record.items()}
        )
    return text.getvalue()


def to_markdown(records: list[dict], metrics: tuple[str, ...], reference: str = "baseline") -> str:
    """The records as a table; intervals are 95 %, the paper's spread is as it prints it.

    The paper's columns are there if it has numbers for any row.
    """
    paper = any(record[f"{metric}_paper"] is not None for record in records for metric in metrics)
    head = ["row", "seeds"]
    for metric in metrics:
        head += [f"best {metric}", f"paper's {metric}"] if paper else [f"best {metric}"]
    head += [f"final {metrics[0]}", f"difference to {reference}, by seed", "note"]
    lines = [table_row(head), table_row(["---"] * len(head))]
    for record in records:
        cells = [record["row"], str(record["seeds"])]
        for metric in metrics:
            cells.append(with_interval(record[metric], record[f"{metric}_interval"]))
            if paper:
                cells.append(
                    with_interval(record[f"{metric}_paper"], record[f"{metric}_paper_spread"])
                )
        cells.append(with_interval(record["final"], record["final_interval"]))
        cells.append(with_interval(record["difference"], record["difference_interval"], sign="+"))
        lines.append(table_row([*cells, record["note"]]))
    return "\n".join(lines) + "\n"


def heading(name: str, runs: list[Run]) -> str:
    """What was run, in a line or two; nothing that differs when it is run again."""
    configs = sorted({re.split("[=/]", run.arguments[0])[-1].split(":")[0] for run in runs})
    common = [
        flag.removeprefix("--config.")
        for flag in runs[0].arguments
        if flag.startswith("--config.")
        and not flag.startswith(("--config.seed=", "--config.data.dir="))
        and all(flag in run.arguments for run in runs)
    ]
    seeds = ", ".join(map(str, sorted({run.seed for run in runs})))
    fields = f"; {' '.join(common)}" if common else ""
    return f"{name}: {', '.join(configs)}{fields}; seeds {seeds}. Means and 95 % t-intervals."


def provenance(runs: list[Run]) -> dict:
    """Each run's own result and arguments, and all their time."""
    found = [(run, result) for run in runs if (result := run.result()) is not None]
    return {
        "runs": [
            {
                "row": run.row.name,
                "seed": run.seed,
                "arguments": [flag for flag in run.arguments if ".data.dir=" not in flag][1:],
                "result": result,
            }
            for run, result in found
        ],
        "hours": round(sum(result["seconds"] for _, result in found) / 3600, 3),
    }


def with_interval(mean: float | None, half: float | None, sign: str = "") -> str:
    """A mean with half the width of its interval, to two decimals; "-" for none."""
    if mean is None:
        return "-"
    return f"{mean:{sign}.2f}" + ("" if half is None else f" ± {half:.2f}")


def table_row(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
