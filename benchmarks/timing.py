"""Times functions side by side."""

import collections
import random
import statistics
import time
from collections.abc import Callable, Mapping


def side_by_side(cases: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each case; see `rounds`."""
    return {name: statistics.median(times) for name, times in rounds(cases, repeats).items()}


def rounds(cases: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each case in each round; a round runs all of them once, in random order.

    Args:
      cases: functions that return when their result is there. Each runs once before, unmeasured.
      repeats: rounds.
    """
    for function in cases.values():
        function()
    times = collections.defaultdict(list)
    for _ in range(repeats):
        for name in random.sample(list(cases), len(cases)):
            start = time.perf_counter()
            cases[name]()
            times[name].append(time.perf_counter() - start)
    return dict(times)
