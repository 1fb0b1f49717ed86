"""Where a mask is uncertain: maps of what samples say of each pixel, and a picture."""

import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tasks import pictures
from tasks.base import PixelMap, Task
from training.files import replacing

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure

# What the picture shows of the maps: how much the samples disagree.
SHOWN = "mutual_information"


def save(maps: dict[str, PixelMap], folder: pathlib.Path, name: str) -> dict[str, dict[str, Any]]:
    """Writes maps as 16-bit PNGs `uncertainty/<map>/<name>` in a folder.

    Args:
      maps: of one image.
      folder: of all that is written.
      name: of the image's files.

    Returns:
      For each map its `file`, its `scale`, by which the PNG's values are to be multiplied, and its
      `mean` and `max`.

    Raises:
      WriteError: one cannot be written.
    """
    told = {}
    for kind, (values, scale) in maps.items():
        file = f"uncertainty/{kind}/{name}"
        with replacing(folder / file) as draft:
            Image.fromarray(values).save(draft, "PNG")
        told[kind] = {
            "file": file,
            "scale": scale,
            "mean": float(values.mean() * scale),
            "max": float(values.max() * scale),
        }
    return told


def picture(
    task: Task, image: np.ndarray, prediction: dict, maps: dict[str, PixelMap]
) -> "matplotlib.figure.Figure":
    """An image, the class of each pixel over it, and how much the samples disagree there.

    Args:
      task: whose prediction it is.
      image: uint8 `[height, width, channels]`, as it was read.
      prediction: of the image.
      maps: of the prediction.
    """
    mask = task.mask(prediction)
    assert mask is not None  # what has maps has one
    narrow = (5, 2)  # for the bar
    figure, axes = pictures.columns([mask.shape] * 3 + [narrow], [""], height=4.0)
    pictures.show(axes[0, 0], image)
    pictures.show_overlay(axes[0, 1], image, mask, task.class_names)
    values, scale = maps[SHOWN]
    shown = axes[0, 2].imshow(values * np.float32(scale), cmap="magma", vmin=0.0)
    bar = figure.colorbar(shown, cax=axes[0, 3].inset_axes((0.05, 0.05, 0.12, 0.9)))
    bar.set_label("mutual information of the samples, in nats", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    pictures.add_legend(figure, [mask], task.class_names)
    return figure
