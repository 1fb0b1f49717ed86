"""Times functions side by side."""

import collections
import os
import pathlib
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def side_by_side(
    cases: Mapping[str, Callable[[], object]], repeats: int, **how: Any
) -> dict[str, float]:
    """Median seconds of each case; see `rounds`."""
    return {name: statistics.median(times) for name, times in rounds(cases, repeats, **how).items()}


def rounds(
    cases: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    calls: int = 1,
    wait: Callable[[object], object] = jax.block_until_ready,
) -> dict[str, list[float]]:
    """Seconds of each case in each round; a round runs all of them, in random order.

    Args:
      cases: functions that return a result, there or not yet. Each runs once before, unmeasured.
      repeats: rounds.
      calls: how often a case runs in a round, before its last result is waited for. An accelerator
        works beside the host: with one short call it would be the host that is timed.
      wait: returns when a result, and what was asked for before it, is there.
    """
    for function in cases.values():
        wait(function())
    times = collections.defaultdict(list)
    for _ in range(repeats):
        for name in random.sample(list(cases), len(cases)):
            start = time.perf_counter()
            for _ in range(calls):
                result = cases[name]()
            wait(result)
            times[name].append((time.perf_counter() - start) / calls)
            del result
    return dict(times)


def cpu_seconds_of(pid: int) -> float:
    """The CPU time of another process until now, of all its threads; on Linux."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
