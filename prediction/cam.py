"""Class activation maps (Zhou et al., CVPR 2016): where the evidence for a class lies."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from inputs.transforms import resize
from tasks import pictures
from tasks.base import Task
from training.config import ConfigError
from training.plan import Plan

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure

ARE_FOR = "class activation maps are for classifiers whose last layer takes the mean of a map"


def activation_maps(features: jax.Array, kernel: jax.Array, labels: jax.Array) -> jax.Array:
    """The class activation map of a class for each image.

    Args:
      features: `[batch, height, width, channels]`, those whose mean the head takes.
      kernel: `[channels, classes]`, of the head.
      labels: int `[batch]`.

    Returns:
      float32 `[batch, height, width]`, whose mean is the class's logit less its bias.
    """
    weights = jnp.asarray(kernel, jnp.float32).T[labels]
    return jnp.einsum("bhwc,bc->bhw", features.astype(jnp.float32), weights)


def make_maps(plan: Plan):
    """Makes `(variables, batch, labels) -> maps`, `[batch, height, width]`, of a plan's classifier.

    Raises:
      ConfigError: it is none, or not one whose head takes the mean of features.
    """
    features = plan.task.architecture.features
    if plan.config.task != "classification" or features is None:
        raise ConfigError(
            f"{ARE_FOR}: this run is of task {plan.config.task!r} and model "
            f"{plan.config.model.name!r}"
        )

    def maps(variables: dict[str, Any], batch: dict[str, jax.Array], labels: jax.Array):
        params, stats = variables["params"], variables["batch_stats"]
        out, _ = plan.network.apply(params, stats, plan.task.inputs(batch), train=False)
        return activation_maps(features(out), params["head"]["kernel"], labels)

    return maps


def overlay(axis, image: np.ndarray, map: np.ndarray):
    """Draws a map's positive part as heat over its image, uint8 `[height, width, channels]`."""
    positive = np.maximum(map, 0) / max(map.max(), 1e-9)
    heat = resize((255 * positive).astype(np.uint8)[..., None], image.shape[:2])[..., 0]
    pictures.show(axis, image)
    axis.imshow(heat, cmap="jet", alpha=0.5, vmin=0, vmax=255)


def picture(task: Task, image: np.ndarray, prediction: dict) -> "matplotlib.figure.Figure":
    """An image, and the map `prediction["cam"]` over the part of it that the network sees."""
    example = task.unlabeled(image, 0)
    seen = task.transform(train=False)(example, np.random.default_rng(0))["image"]
    best = task.describe(prediction)["top5"][0]
    figure, axes = pictures.grid(1, 2, side=4.0)
    pictures.show(axes[0], image)
    pictures.set_title(axes[0], "{class} {probability:.2f}".format_map(best), fontsize=9)
    overlay(axes[1], seen, prediction["cam"])
    pictures.set_title(axes[1], f"class activation map of {best['class']}", fontsize=9)
    return figure
