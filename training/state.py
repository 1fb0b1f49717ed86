"""The state of a run: a plain pytree of dicts, and the network as a pure function of it."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from etils import epath
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from training import sharding


def stream(key: jax.Array, name: str) -> jax.Array:
    """The key of a named stream; no key is ever saved, all come from the seed and the step."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


class CutParam(nnx.Param):
    """A parameter that is cut over devices, as its `cut` says, and gathered when a layer reads it.

    Then, and not for the whole network: what is computed anew for the gradient is gathered anew.
    """

    def get_value(self, *, index: Any = ...):
        whole: Any = sharding.gather(self.get_raw_value(), self.cut)
        return whole[index]


@dataclasses.dataclass(frozen=True)
class Network:
    """An NNX model, split into what is static and what is state.

    Attributes:
      graphdef: the model without arrays.
      init: `key -> (params, batch_stats)`, pure dicts.
      params: shapes of the parameters.
      mesh: what the state is cut over, None where it is whole on each device.
    """

    graphdef: Any
    init: Callable
    params: Any
    mesh: Mesh | None = None

    def cut(self, shape: tuple[int, ...]) -> NamedSharding | None:
        """The sharding of an array of the state, None where it is whole on each device."""
        return None if self.mesh is None else sharding.cut(self.mesh, shape)

    def apply(self, params, batch_stats, *args, **kwargs):
        """Calls the model; returns its output and the new `batch_stats`.

        The model is a copy that belongs to the trace, so that BatchNorm may write to it.
        """
        params = jax.tree.map(self._param, params)
        model = nnx.merge(self.graphdef, params, batch_stats, copy=True)
        out = model(*args, **kwargs)
        return out, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    def _param(self, x):
        cut = self.cut(x.shape)
        return x if cut is None else CutParam(x, cut=cut)


def make_network(make_model: Callable[[nnx.Rngs], nnx.Module], mesh: Mesh | None = None) -> Network:
    """Builds a model by shape alone.

    Args:
      make_model: the model, from the stream `params`.
      mesh: what to cut the state over, if it is not to be whole on each device.

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
    return Network(graphdef, init, nnx.to_pure_dict(params), mesh)


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


def weights(state: dict, directory) -> str:
    """Which weights `variables` gives of a checkpoint in a folder, and where from, for the eye."""
    step = int(state["step"])
    what = "moving average (EMA) of the weights" if "ema" in state else "weights"
    return f"{what} of step {step}, {epath.Path(directory) / str(step)}"
