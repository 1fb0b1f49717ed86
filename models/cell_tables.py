"""The tables of AmoebaNet's cells, as published, and the grammar that they are written in.

Source: the authors' public AmoebaNet code; docs/paper.md section 4.
"""

import dataclasses
import re
from typing import NamedTuple

# What they do is in models/cells.py.
_OPERATION = re.compile(
    r"none|(max|avg)_pool_\d+x\d+|(dil_2_)?separable_\d+x\d+_\d+|1x1|3x3|1x7_7x1"
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A cell: five sums of two operations on earlier states, and which states are used up.

    Attributes:
      sums: what gives h2 to h6, such as "1x1 @1 + max_pool_3x3 @1"; @n is the state hn. h0 is the
        current input, h1 the one before it.
      used: for h0 to h6, 1 where the cell itself uses the state up; the output concatenates the
        others.

    Raises:
      ValueError: a line that is not of this grammar, or a state that does not exist yet.
    """

    sums: tuple[str, ...]
    used: str

    def __post_init__(self):
        for number, line in enumerate(self.sums, start=2):
            for name, index in _parse(line):
                if not _OPERATION.fullmatch(name):
                    raise ValueError(f"there is no operation {name!r} in a cell")
                if index >= number:
                    raise ValueError(f"h{number} = {line!r} takes h{index}, which comes after it")
        if not re.fullmatch("[01]( [01])*", self.used) or len(self.used.split()) != self.states:
            raise ValueError(f"used must have 0 or 1 for {self.states} states, got {self.used!r}")
        if not self.outputs:
            raise ValueError(f"used must leave a state to the output, got {self.used!r}")

    @property
    def states(self) -> int:
        """How many there are: the two inputs, and one for each sum."""
        return 2 + len(self.sums)

    @property
    def operations(self) -> list[list[tuple[str, int]]]:
        """The (name, index of its state) of the two operations of each sum."""
        return [_parse(line) for line in self.sums]

    @property
    def outputs(self) -> list[int]:
        """Indices of the states that the output concatenates."""
        return [index for index, used in enumerate(self.used.split()) if used == "0"]


class Cells(NamedTuple):
    """The two tables of a network."""

    normal: Table
    reduction: Table


def _parse(line: str) -> list[tuple[str, int]]:
    matched = re.fullmatch(r"(\S+) @(\d+) \+ (\S+) @(\d+)", line)
    if matched is None:
        raise ValueError(f"a sum must read 'operation @state + operation @state', got {line!r}")
    return [(matched[1], int(matched[2])), (matched[3], int(matched[4]))]


CELLS = {
    "A": Cells(
        Table(
            (
                "avg_pool_3x3 @0 + max_pool_3x3 @0",
                "separable_3x3_2 @1 + none @1",
                "none @0 + avg_pool_3x3 @1",
                "separable_3x3_2 @0 + separable_5x5_2 @2",
                "avg_pool_3x3 @5 + separable_3x3_2 @0",
            ),
            used="1 0 1 0 0 1 0",
        ),
        Table(
            (
                "separable_3x3_2 @1 + avg_pool_3x3 @0",
                "max_pool_3x3 @0 + separable_7x7_2 @2",
                "max_pool_3x3 @1 + max_pool_3x3 @0",
                "separable_3x3_2 @4 + 1x7_7x1 @0",
                "avg_pool_3x3 @1 + separable_7x7_2 @0",
            ),
            used="1 1 0 0 0 0 0",
        ),
    ),
    "B": Cells(
        Table(
            (
                "1x1 @1 + max_pool_3x3 @1",
                "none @1 + separable_3x3_2 @0",
                "1x1 @1 + separable_3x3_2 @0",
                "1x1 @2 + none @2",
                "avg_pool_3x3 @1 + 1x1 @5",
            ),
            used="0 1 1 0 0 1 0",
        ),
        Table(
            (
                "max_pool_2x2 @0 + max_pool_3x3 @0",
                "none @2 + 3x3 @1",
                "dil_2_separable_5x5_2 @2 + max_pool_3x3 @2",
                "none @3 + separable_3x3_2 @1",
                "avg_pool_3x3 @4 + 1x1 @3",
            ),
            used="1 1 1 1 1 0 0",
        ),
    ),
    "D": Cells(
        Table(
            (
                "1x1 @1 + max_pool_3x3 @1",
                "none @1 + 1x7_7x1 @0",
                "1x1 @0 + 1x7_7x1 @0",
                "max_pool_3x3 @2 + none @2",
                "avg_pool_3x3 @1 + 1x1 @5",
            ),
            used="0 1 1 0 0 1 0",
        ),
        Table(
            (
                "max_pool_2x2 @0 + max_pool_3x3 @0",
                "none @2 + 3x3 @1",
                "1x7_7x1 @2 + max_pool_3x3 @2",
                "none @3 + max_pool_2x2 @1",
                "avg_pool_3x3 @2 + 1x1 @3",
            ),
            used="1 1 1 1 0 0 0",
        ),
    ),
}
