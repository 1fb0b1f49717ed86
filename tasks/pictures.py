"""What the tasks' pictures are made of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from inputs.joint_transforms import IGNORE
from inputs.reading import shortened

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure


def grid(rows: int, columns: int, *, side: float) -> "tuple[matplotlib.figure.Figure, list]":
    """A figure of `rows` times `columns` axes without frames, each about `side` inches wide."""
    import matplotlib.figure

    # Matplotlib's own layouts draw everything twice to find what is known: a line of title.
    line = 0.3
    height = rows * (side + line)
    figure = matplotlib.figure.Figure((side * columns, height))
    figure.subplots_adjust(0.005, 0.005, 0.995, 1 - line / height, wspace=0.05, hspace=line / side)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.axis("off")
    return figure, axes


def show(axis, image: np.ndarray):
    """Draws an image, uint8 `[height, width, channels]`."""
    axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray")


def set_title(axis, text: str, **style):
    """Writes a title that has names of classes, whatever they are."""
    # To draw 100,000 letters takes matplotlib half a minute.
    axis.set_title(shortened(text), parse_math=False, **style)


def draw_boxes(axis, boxes: np.ndarray, labels: np.ndarray, texts: Sequence[str]):
    """Draws boxes `[n, 4]`, `[ymin, xmin, ymax, xmax]` in pixels, each label in its own colour."""
    import matplotlib
    import matplotlib.patches

    colors = matplotlib.colormaps["tab10"]
    for (ymin, xmin, ymax, xmax), label, text in zip(
        np.asarray(boxes, float).tolist(), labels, texts, strict=True
    ):
        color = colors(label % colors.N)
        # To matplotlib, 0 is the centre of the first pixel; to a box, its corner.
        corner = (xmin - 0.5, ymin - 0.5)
        axis.add_patch(
            matplotlib.patches.Rectangle(
                corner, xmax - xmin, ymax - ymin, fill=False, edgecolor=color, linewidth=1.2
            )
        )
        axis.text(
            *corner,
            shortened(text),
            parse_math=False,
            fontsize=6,
            color="white",
            verticalalignment="bottom",
            clip_on=True,
            bbox={"facecolor": color, "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )


def show_mask(axis, mask: np.ndarray):
    """Draws class indices, uint8 `[height, width]`, in the colours of PASCAL VOC's masks."""
    axis.imshow(_colors(mask), interpolation="nearest")


def show_overlay(axis, image: np.ndarray, mask: np.ndarray):
    """Draws an image with its mask's colours over it."""
    colors = _colors(mask)
    axis.imshow((image.astype(np.uint16) + colors + 1) // 2)


def palette() -> bytes:
    """The 256 colours of `show_mask`, as Pillow has a palette."""
    return _colors(np.arange(256)).tobytes()


def add_legend(
    figure: "matplotlib.figure.Figure", masks: Sequence[np.ndarray], class_names: Sequence[str]
):
    """Names the classes that are in any of the masks, below them."""
    import matplotlib.patches

    names = {IGNORE: "ignored"} | dict(enumerate(class_names))
    patches = [
        matplotlib.patches.Patch(fc=_colors(value) / 255, ec="gray", label=shortened(names[value]))
        for value in sorted(set().union(*(np.unique(mask).tolist() for mask in masks)))
    ]
    legend = figure.legend(handles=patches, loc="lower center", ncols=6, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    lines = -(-len(patches) // 6)
    figure.subplots_adjust(bottom=0.25 * (lines + 1) / figure.get_figheight())


def _colors(values) -> np.ndarray:
    """VOC's colours of mask values, `[..., 3]`: bits 0, 1, 2 are the high bits of R, G, B, ..."""
    bits = np.arange(3)
    found = np.asarray(values, int)[..., None, None] >> (3 * bits + bits[:, None]) & 1
    return (found << 7 - bits).sum(-1).astype(np.uint8)
