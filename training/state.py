"""The state of a run: a plain pytree of dicts, and the network as a pure function of it."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx


def stream(key: jax.Array, name: str) -> jax.Array:
    """The key of a named stream; no key is ever saved, all come from the seed and the step."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


@dataclasses.dataclass(frozen=True)
class Network:
    """An NNX model, split into what is static and what is state.

    Attributes:
      graphdef: the model without arrays.
      init: `key -> (params, batch_stats)`, pure dicts.
      params: shapes of the parameters.
    """

    graphdef: Any
    init: Callable
    params: Any

    def apply(self, params, batch_stats, *args, **kwargs):
        """Calls the model; returns its output and the new `batch_stats`.

        The model is a copy that belongs to the trace, so that BatchNorm may write to it.
        """
        model = nnx.merge(self.graphdef, params, batch_stats, copy=True)
        out = model(*args, **kwargs)
        return out, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def make_network(make_model: Callable[[nnx.Rngs], nnx.Module]) -> Network:
    """Builds a model by shape alone.

    Raises:
      ValueError: what the model says of its arguments.
    """

    def create(key):
        return make_model(nnx.Rngs(params=key))

    def init(key):
        _, params, batch_stats = nnx.split(create(key), nnx.Param, nnx.BatchStat)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)

    model = nnx.eval_shape(lambda: create(jax.random.key(0)))
    graphdef, params, _ = nnx.split(model, nnx.Param, nnx.BatchStat)
    return Network(graphdef, init, nnx.to_pure_dict(params))


def create(network: Network, optimizer: optax.GradientTransformation, key, *, ema: bool) -> dict:
    """The state at step 0: `step, params, batch_stats, opt_state`, and `ema` where asked for."""
    params, batch_stats = network.init(stream(key, "init"))
    state = {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "batch_stats": batch_stats,
        "opt_state": optimizer.init(params),
    }
    if ema:
        # A copy: two names of one buffer could not both be donated.
        state["ema"] = jax.tree.map(jnp.copy, variables(state))
    return state


def variables(state: dict) -> dict:
    """What the network runs on when it is evaluated: the average where there is one."""
    if "ema" in state:
        return state["ema"]
    return {name: state[name] for name in ("params", "batch_stats")}
