"""Reading a step's metrics: are they finite, and is anything really dropped?"""

import collections
from collections.abc import Callable

import jax
import numpy as np

from training.config import ConfigError, Diverged
from training.step import SiteSums

# A Poisson count with this expectation is zero with probability 1e-13.
_SEEDS_BEFORE_ALARM = 30.0


def place_means(
    sites: dict[str, SiteSums], place_of: Callable[[str], str | None]
) -> dict[str, float]:
    """Kept fractions of places, averaged over their sites and examples.

    Args:
      sites: `{site: sums}`, see `step.SiteSums`, on the host.
      place_of: from a site's name to its place; a site of the network's own (None) is counted
        under the first part of its name.

    Returns:
      `kept/<place>` and `expected_kept/<place>` for each place.
    """
    totals = {}
    for site, sums in sites.items():
        place = place_of(site) or site.split(".")[0]
        total = totals.setdefault(place, [0.0, 0.0, 0.0])
        for index, value in enumerate((sums.count, sums.dropped, sums.expected_dropped)):
            total[index] += float(value)
    means = {}
    for place in sorted(totals):
        count, dropped, expected = totals[place]
        means[f"kept/{place}"] = 1.0 - dropped / count
        means[f"expected_kept/{place}"] = 1.0 - expected / count
    return means


class SiteWatch:
    """Stops a run in which a site should have dropped something by now and never has."""

    def __init__(self):
        self._seen = set()  # sites that have dropped something
        self._expected = collections.defaultdict(float)  # seeds by now, of the others

    def update(self, sites: dict[str, SiteSums]):
        """Takes one step's `{site: sums}`, on the host.

        Raises:
          ConfigError: a site is silently off.
        """
        self._seen |= {site for site, sums in sites.items() if float(sums.dropped) > 0.0}
        for site in sites.keys() - self._seen:
            self._expected[site] += float(sites[site].seeds)
            if self._expected[site] > _SEEDS_BEFORE_ALARM:
                raise ConfigError(
                    f"drop site {site} has dropped nothing, where {self._expected[site]:.0f} seeds "
                    "were expected by now: dropping is silently off there"
                )


def read(step: int, metrics: dict, watch: SiteWatch) -> dict:
    """Brings a step's metrics to the host and judges them.

    Raises:
      Diverged: the loss or the gradient norm is not finite.
      ConfigError: a drop site is silently off.
    """
    metrics = jax.device_get(metrics)
    for name in ("loss", "grad_norm"):
        if not np.isfinite(metrics[name]):
            raise Diverged(
                f"{name} is {metrics[name]} at step {step}: the last checkpoint is good; try a "
                "lower schedule.learning_rate, or set optimizer.clip_norm"
            )
    watch.update(metrics["sites"])
    return metrics


def flat(metrics: dict, task) -> dict[str, float]:
    """A step's metrics, as `read` returns them, under the names of metrics.jsonl."""
    record = {f"train/{name}": value for name, value in task.summarize(metrics["sums"]).items()}
    record["train/grad_norm"] = float(metrics["grad_norm"])
    for name in ("learning_rate", "keep_prob"):
        record[f"sched/{name}"] = float(metrics[name])
    return record | place_means(metrics["sites"], task.drop.place_of)
