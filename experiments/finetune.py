"""The rows of Tables 3 and 4, of which one starts from the weights of a classifier."""

import argparse
from collections.abc import Mapping

from experiments.runner import Row

NAME = "finetune"


def add_option(options: argparse.ArgumentParser):
    """Adds what the row starts from to the options of a table."""
    options.add_argument(
        "--init_from", metavar="WEIGHTS", help="what the row finetune starts from: docs/weights.md"
    )


def make_rows(
    papers: Mapping[str, dict], note: str, *, papers_data: bool, init_from: str | None
) -> list[Row]:
    """The rows in the paper's order; of other data than the paper's without its numbers.

    Args:
      papers: what the paper has for each row, by its name, which is that of its variant.
      note: of the row `finetune`, on the paper's data.
      papers_data: whether the data is the paper's. On other data `finetune` is the variant
        `scratch`, and there only if it has something to start from.
      init_from: what `finetune` starts from.
    """
    rows = []
    for name, paper in papers.items():
        fields = {"init_from": init_from} if name == NAME and init_from else {}
        if papers_data:
            rows.append(Row(name, name, fields, paper, note if name == NAME else ""))
        elif name != NAME:
            rows.append(Row(name, name))
        elif fields:
            rows.append(Row(name, "scratch", fields))
    return rows
