"""The best setting of each method, by the accuracy on examples that are not the test set.

    python -m experiments.search --dataset fashion_mnist --config.data.dir DIR \
        --config.data.train_split "train[:1000]" --config.data.eval_split "train[50000:]" \
        --rows baseline dropout dropblock --grid epochs 80 160 \
        --grid dropout:drop.keep_prob 0.9 0.7 0.5 --grid dropblock:drop.keep_prob 0.95 0.9 0.8

Rows are variants of the config (default: all). `--grid FIELD VALUE ...` is for every method,
`--grid METHOD:FIELD VALUE ...` for one; a method is run at every combination of its own. Ends with
the words that give each method's best setting to `experiments.table1`. Writes search.csv,
search.json and search.md into the workdir.
"""

import itertools
import sys

from configs.methods import VARIANTS
from experiments.runner import Row, make_runs, parse, parser, run_all
from experiments.tables import write_table


def make_rows(methods: list[str], grids: list[list[str]]) -> list[Row]:
    """A row for every method and combination of values.

    Args:
      methods: variants of the config.
      grids: each a field, or a method and a field with a colon between, and its values.

    Raises:
      SystemExit: a grid without values, or for a method that is not there.
    """
    own: dict[str, dict[str, list[str]]] = {method: {} for method in methods}
    for name, *values in grids:
        method, _, field = name.rpartition(":")
        if not values or (method and method not in own):
            sys.exit(
                f"error: --grid {' '.join([name, *values])}: expected FIELD VALUE ... or "
                f"METHOD:FIELD VALUE ..., METHOD one of {', '.join(own)}"
            )
        for each in [method] if method else methods:
            own[each][field] = values
    rows = []
    for method, fields in own.items():
        for values in itertools.product(*fields.values()):
            overrides = dict(zip(fields, values, strict=True))
            words = [f"{field.split('.')[-1]}={value}" for field, value in overrides.items()]
            rows.append(Row("_".join([method, *words]).replace("/", "-"), method, overrides))
    return rows


def best_settings(rows: list[Row], records: list[dict]) -> dict[str, Row]:
    """Each method's row with the highest mean; the first of equal ones."""
    means = {record["row"]: record["top1"] for record in records if record["top1"] is not None}
    best: dict[str, Row] = {}
    for row in rows:
        before = best.get(row.variant)
        if row.name in means and (before is None or means[row.name] > means[before.name]):
            best[row.variant] = row
    return best


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, "runs/search")
    options.add_argument("--grid", nargs="+", action="append", default=[], metavar="WORD")
    arguments = parse(options, argv)
    unknown = set(arguments.rows or []) - set(VARIANTS)
    if unknown:
        sys.exit(f"error: --rows {' '.join(sorted(unknown))}: there are {', '.join(VARIANTS)}")
    rows = make_rows(arguments.rows or list(VARIANTS), arguments.grid)
    arguments.rows = None  # their names are those of methods here, not of rows
    runs = make_runs(rows, arguments)
    code = 0 if arguments.collect else run_all(runs, arguments.shard)
    records = write_table("search", runs, ("top1",), arguments)
    best = best_settings(rows, records)
    print("--set", *(f"{m}:{f}={v}" for m, row in best.items() for f, v in row.overrides.items()))
    return code


if __name__ == "__main__":
    sys.exit(main())
