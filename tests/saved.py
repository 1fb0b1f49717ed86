"""Checkpoints to try things on."""

import jax
import jax.numpy as jnp

from training.checkpoints import Checkpoints


def state(step):
    return {
        "step": jnp.int32(step),
        "params": {"w": jax.random.normal(jax.random.key(step), (64, 64))},
    }


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


ABSTRACT = abstract(state(0))


def open_at(folder, keep=2):
    return Checkpoints(folder, keep=keep, best_metric="top1")


def save_scored(folder):
    """Saves the checkpoints of four steps, of which 2 and 4 were evaluated."""
    with open_at(folder, keep=5) as checkpoints:
        for step, top1 in ((1, None), (2, 70.0), (3, None), (4, 60.0)):
            metrics = None if top1 is None else {"top1": top1, "examples": 50}
            checkpoints.save(step, {"step": jnp.int32(step)}, metrics)
