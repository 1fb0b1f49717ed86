"""Predictions drawn with dropping on: their mean, and how far they lie apart (docs/uncertainty.md).

Probabilities are held as logarithms, so that in float32 neither one near 0 nor its entropy is lost;
entropies are in nats. What is summed does not grow with the number of samples.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# In the order in which they are said; a single prediction has the first two.
SCORES = ("max_probability", "entropy", "expected_entropy", "mutual_information", "std")


class Spread(NamedTuple):
    """What samples of class probabilities say together.

    Attributes:
      log_mean: float32 `[..., classes]`, the logarithm of the mean probability.
      std: float32 `[..., classes]`, the standard deviation of the samples' probabilities (over all
        of them: that of one is 0).
      entropy: float32 `[...]`, of the mean: the predictive entropy.
      expected_entropy: float32 `[...]`, the mean of the samples' entropies: what is left where the
        samples agree.
      mutual_information: float32 `[...]`, the difference of the two: how much the samples disagree
        (BALD; Houlsby et al. 2011).
    """

    log_mean: jax.Array
    std: jax.Array
    entropy: jax.Array
    expected_entropy: jax.Array
    mutual_information: jax.Array


class Moments(NamedTuple):
    """Mean and standard deviation of samples of values, float32 of their shape."""

    mean: jax.Array
    std: jax.Array


def entropy(log_probabilities: jax.Array) -> jax.Array:
    """Entropy `[...]`, in nats, of distributions over the last axis, given as logarithms."""
    p = _others(log_probabilities)
    rest = p.sum(-1)
    # The likeliest one's own logarithm is 0 in float32 wherever a network is sure.
    likeliest = -(1.0 - rest) * jnp.log1p(-rest)
    return likeliest - jnp.sum(jnp.where(p == 0, 0.0, p * log_probabilities), axis=-1)


def _others(log_probabilities):
    """Probabilities, with 0 for the likeliest class."""
    return jnp.where(_is_likeliest(log_probabilities), 0.0, jnp.exp(log_probabilities))


def _is_likeliest(log_probabilities):
    classes = log_probabilities.shape[-1]
    return jax.nn.one_hot(log_probabilities.argmax(-1), classes, dtype=bool)


def scores(log_probabilities: jax.Array, spread: Spread | None = None) -> dict[str, jax.Array]:
    """Numbers that are the higher the less sure a prediction is, each `[...]`, by `SCORES`.

    Args:
      log_probabilities: `[..., classes]`, of the prediction.
      spread: of the samples, where there are any, its maps as fine as the prediction.

    Returns:
      `max_probability`: how much it lacks to 1; `entropy`; and with samples `expected_entropy`,
      `mutual_information` and `std`, that of the likeliest class.
    """
    found = {
        "max_probability": _others(log_probabilities).sum(-1),
        "entropy": entropy(log_probabilities),
    }
    if spread is None:
        return found
    return found | {
        "expected_entropy": spread.expected_entropy,
        "mutual_information": spread.mutual_information,
        "std": jnp.sum(jnp.where(_is_likeliest(log_probabilities), spread.std, 0.0), axis=-1),
    }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Values:
    """Running mean of samples, and the sum of their squared distances to it (Welford 1962)."""

    mean: jax.Array
    squares: jax.Array

    @classmethod
    def none(cls, like):
        return cls(jnp.zeros(like.shape), jnp.zeros(like.shape))

    def add(self, x, number):
        distance = x - self.mean
        mean = self.mean + distance / number
        return _Values(mean, self.squares + distance * (x - mean))

    def moments(self, count) -> Moments:
        return Moments(self.mean, jnp.sqrt(self.squares / count))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Probabilities:
    """The same of probabilities, whose sum is held as a logarithm, and the sum of entropies."""

    log_sum: jax.Array
    squares: jax.Array
    entropies: jax.Array

    @classmethod
    def none(cls, like):
        zeros = jnp.zeros(like.shape)
        return cls(zeros - jnp.inf, zeros, jnp.zeros(like.shape[:-1]))

    def add(self, log_p, number):
        p = jnp.exp(log_p)
        log_sum = jnp.logaddexp(self.log_sum, log_p)
        before = jnp.exp(self.log_sum) / jnp.maximum(number - 1.0, 1.0)
        squares = self.squares + (p - before) * (p - jnp.exp(log_sum) / number)
        return _Probabilities(log_sum, squares, self.entropies + entropy(log_p))

    def spread(self, count) -> Spread:
        log_mean = self.log_sum - jnp.log(jnp.float32(count))
        total, expected = entropy(log_mean), self.entropies / count
        return Spread(
            log_mean,
            # What rounding leaves of a difference of equals may be below 0.
            jnp.sqrt(jnp.maximum(self.squares, 0.0) / count),
            total,
            expected,
            jnp.maximum(total - expected, 0.0),
        )


def average(
    sample: Callable[[jax.Array], tuple[jax.Array, dict[str, jax.Array], Any]],
    key: jax.Array,
    count: int,
) -> tuple[Spread, dict[str, Moments], Any]:
    """Draws samples one after another, in one program that holds the sums and one sample.

    Args:
      sample: `key -> (log_probabilities, values, sums)`: log probabilities `[..., classes]`, values
        by name, and a pytree that is added over samples.
      key: each sample's own is made from it and the sample's number.
      count: of samples, at least 1.

    Returns:
      The spread of the probabilities, the moments of the values, and the sums.
    """
    log_p, values, sums = jax.eval_shape(sample, key)
    start = (
        _Probabilities.none(log_p),
        {name: _Values.none(value) for name, value in values.items()},
        jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), sums),
    )

    def add(index, running):
        probabilities, moments, totals = running
        # XLA takes out of the loop what lies before the first drop site: it is computed once.
        log_p, values, sums = sample(jax.random.fold_in(key, index))
        number = jnp.float32(index + 1)
        moments = {name: moments[name].add(value, number) for name, value in values.items()}
        return (
            probabilities.add(log_p, number),
            moments,
            jax.tree.map(jnp.add, totals, sums),
        )

    probabilities, moments, totals = jax.lax.fori_loop(0, count, add, start)
    return (
        probabilities.spread(count),
        {name: value.moments(count) for name, value in moments.items()},
        totals,
    )
