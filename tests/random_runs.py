"""A run whose only checkpoint holds random numbers: nothing is compiled for it."""

import jax
import numpy as np

from tasks import make_task
from training import config as config_lib
from training.files import write
from training.plan import make_plan


def arrays(shapes):
    """Random numbers for a state's parameters and statistics, on its devices."""
    random = np.random.default_rng(0)

    def array(path, x):
        about_1 = jax.tree_util.keystr(path).endswith(("['var']", "['scale']"))  # BatchNorm's
        values = 0.1 * random.normal(size=x.shape) + about_1
        return jax.device_put(np.asarray(values, x.dtype), x.sharding)

    return jax.tree_util.tree_map_with_path(array, shapes)


def save(config, folder, step=0, metrics=None):
    """Writes the checkpoint, and the config of its run, into `folder`; returns the state."""
    plan = make_plan(config, make_task, jax.devices()[:1])
    config.data.update(plan.task.facts)
    state = arrays(plan.abstract_state)
    state["step"] = jax.device_put(np.int32(step), plan.abstract_state["step"].sharding)
    write(folder / "config.json", config_lib.to_json(config))
    with plan.checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(step, state, metrics)
    return state
