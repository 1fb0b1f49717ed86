"""Times functions side by side."""

import collections
import random
import statistics
import time
from collections.abc import Callable, Mapping


def side_by_side(cases: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each case; every round runs all of them once, in random order.

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
    return {name: statistics.median(times[name]) for name in cases}
