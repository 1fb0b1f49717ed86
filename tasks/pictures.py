"""What the tasks' pictures are made of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from inputs.joint_transforms import IGNORE
from inputs.reading import shortened
from training.palette import is_light, palette

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure

_POINTS = 72  # in an inch
_LABEL = 7  # font sizes, in points
_LEGEND = 8
_BACKGROUND, _IGNORED = (222, 222, 222), (255, 255, 255)


def grid(
    rows: int, columns: int, *, side: float, lines: int = 1
) -> "tuple[matplotlib.figure.Figure, list]":
    """A figure of `rows` times `columns` axes without frames, each about `side` inches wide.

    Above each is room for so many lines of title.
    """
    import matplotlib.figure

    # Matplotlib's own layouts draw everything twice to find what is known: the lines of title.
    line = 0.15 + 0.15 * lines
    height = rows * (side + line)
    figure = matplotlib.figure.Figure((side * columns, height))
    figure.subplots_adjust(0.005, 0.005, 0.995, 1 - line / height, wspace=0.05, hspace=line / side)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.axis("off")
    return figure, axes


def columns(
    sizes: Sequence[Sequence[int]], names: Sequence[str], *, height: float
) -> "tuple[matplotlib.figure.Figure, np.ndarray]":
    """A figure with a column for each image, as wide as it needs, and a row for each name.

    Args:
      sizes: (height, width) of each image.
      names: of the rows, written beside them; empty for none.
      height: of a row, in inches; less where the figure would be wider than a page.

    Returns:
      The figure, and its axes, an array `[names, images]`.
    """
    import matplotlib.figure

    gap, margin, page = 0.06, 0.3 if any(names) else 0.06, 14.0
    # A strip's column is no sliver, and leaves room for the others.
    shapes = np.array([np.clip(size[1] / size[0], 0.4, 2.5) for size in sizes])
    height = min(height, (page - margin - gap * len(shapes)) / shapes.sum())
    widths = height * shapes
    total = margin + widths.sum() + gap * len(shapes), gap + (height + gap) * len(names)
    figure = matplotlib.figure.Figure(total)
    axes = np.empty((len(names), len(shapes)), object)
    for row, column in np.ndindex(axes.shape):
        left = margin + widths[:column].sum() + gap * column
        bottom = gap + (height + gap) * (len(names) - 1 - row)
        place = (left / total[0], bottom / total[1], widths[column] / total[0], height / total[1])
        axis = figure.add_axes(place)
        axis.axis("off")
        axes[row, column] = axis
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.annotate(
            fitted(name, height, 9),
            (0, 0.5),
            (-4, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="center",
            fontsize=9,
        )
    return figure, axes


def class_colors(class_names: Sequence[str]) -> np.ndarray:
    """The colours of labels, uint8 `[256, 3]`, as a PNG's palette has them, or one for each name.

    A class called background is light gray; others differ as `palette` has them, up to 255. What a
    mask ignores, and values without a class, are white.
    """
    count = len(class_names)
    colors = np.full((max(256, count), 3), _IGNORED, np.uint8)
    background = np.array([name.casefold() == "background" for name in class_names], bool)
    others = int(np.sum(~background))
    colors[:count][background] = _BACKGROUND
    colors[:count][~background] = palette(min(others, IGNORE))[np.arange(others) % IGNORE]
    return colors


def show(axis, image: np.ndarray):
    """Draws an image, uint8 `[height, width, channels]`."""
    if image.shape[-1] == 1:  # black is 0 and white 255, whatever the image holds
        axis.imshow(image.squeeze(-1), cmap="gray", vmin=0, vmax=255)
    else:
        axis.imshow(image)


def set_title(axis, text: str, *, fontsize: float, **style):
    """Writes a title that has names of classes, whatever they are, as wide as the axes at most."""
    text = "\n".join(fitted(line, _width(axis), fontsize) for line in text.split("\n"))
    axis.set_title(text, parse_math=False, fontsize=fontsize, **style)


def draw_boxes(
    axis,
    boxes: np.ndarray,
    labels: np.ndarray,
    texts: Sequence[str],
    class_names: Sequence[str],
):
    """Draws boxes on an image that is shown, each label in its own colour.

    A text goes where nothing of it is cut: above its box, inside or below. One that would lie on
    another, of a box that comes later and so lies on top, is left out.

    Args:
      axis: where it is shown.
      boxes: `[n, 4]`, `[ymin, xmin, ymax, xmax]` in pixels.
      labels: `[n]`, what each is.
      texts: of each box; empty for none.
      class_names: what labels index.
    """
    import matplotlib.patches

    # To matplotlib, 0 is the centre of the first pixel; to a box, its corner.
    boxes = np.asarray(boxes, float).reshape(-1, 4) - 0.5
    colors = class_colors(class_names)[np.asarray(labels, int)]
    for (ymin, xmin, ymax, xmax), color in zip(boxes.tolist(), colors, strict=True):
        size = (xmax - xmin, ymax - ymin)
        axis.add_patch(
            matplotlib.patches.Rectangle(
                (xmin, ymin), *size, fill=False, edgecolor=color / 255, linewidth=1.2
            )
        )
    texts = [fitted(text, _width(axis), _LABEL) for text in texts]
    for index, (left, top) in _places(axis, boxes, texts).items():
        axis.text(
            left,
            top,
            texts[index],
            parse_math=False,
            fontsize=_LABEL,
            color="black" if is_light(colors[index]) else "white",
            va="top",
            bbox={"facecolor": colors[index] / 255, "edgecolor": "none", "pad": 0.5},
        )


def _places(axis, boxes: np.ndarray, texts: Sequence[str]) -> dict[int, tuple[float, float]]:
    """The left and upper end of each text that has a place, by its index, in pixels."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    inches = _width(axis), axis.get_position().height * axis.figure.get_figheight()
    pixels = max((right - left) / inches[0], (bottom - top) / inches[1]) / _POINTS  # in a point
    places: dict[int, tuple[float, float]] = {}
    taken = np.zeros((0, 4))
    for index in (i for i in reversed(range(len(boxes))) if texts[i]):
        ymin, xmin, ymax, _ = boxes[index]
        # With what the letters' background is wider and higher than them.
        size = np.array([1.3 * _LABEL, _points(texts[index], _LABEL) + 2]) * pixels
        x = max(min(xmin, right - size[1]), left)
        for y in (ymin - size[0], ymin, ymax):
            place = np.array([y, x, y + size[0], x + size[1]])
            over = (place[:2] < taken[:, 2:]) & (taken[:, :2] < place[2:])
            if top <= y and place[2] <= bottom and not over.all(1).any():
                places[index] = (x + pixels, y + pixels)
                taken = np.concatenate([taken, place[None]])
                break
    return places


def show_mask(axis, mask: np.ndarray, class_names: Sequence[str]):
    """Draws class indices, uint8 `[height, width]`, in the colours of `class_colors`."""
    axis.imshow(class_colors(class_names)[mask], interpolation="nearest")


def show_overlay(axis, image: np.ndarray, mask: np.ndarray, class_names: Sequence[str]):
    """Draws an image with its mask's colours over it, but for a background's."""
    image, colors = image[..., :3], class_colors(class_names)
    covered = (colors != _BACKGROUND).any(-1)[mask][..., None]
    axis.imshow(np.where(covered, (image.astype(np.uint16) + colors[mask] + 1) // 2, image))


def add_legend(
    figure: "matplotlib.figure.Figure", values: Sequence[np.ndarray], class_names: Sequence[str]
):
    """Names the classes that are in any of some arrays of labels, below the figure."""
    names, colors = {IGNORE: "ignored"} | dict(enumerate(class_names)), class_colors(class_names)
    found = sorted(set().union(*(np.unique(array).tolist() for array in values)))
    add_key(figure, [(colors[value] / 255, names[value]) for value in found])


def add_key(figure: "matplotlib.figure.Figure", entries: Sequence[tuple]):
    """Adds what colours mean, (colour, text) each, in lines below the figure, which grows."""
    import matplotlib.patches

    if not entries:
        return
    width = figure.get_figwidth() - 0.2
    handle = 0.55  # of the colour and what lies about it, in inches
    texts = [fitted(text, min(width - handle, 2.2), _LEGEND) for _, text in entries]
    widest = max(_points(text, _LEGEND) for text in texts) / _POINTS + handle
    columns = min(max(int(width / widest), 1), len(texts))
    lines = -(-len(texts) // columns)
    _grow(figure, 0.17 * lines + 0.15)
    patches = [
        matplotlib.patches.Patch(fc=color, ec="gray", lw=0.5, label=text)
        for (color, _), text in zip(entries, texts, strict=True)
    ]
    legend = figure.legend(
        handles=patches,
        loc="lower center",
        ncols=columns,
        fontsize=_LEGEND,
        frameon=False,
        borderaxespad=0.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _grow(figure, inches: float):
    """Makes a figure higher, at its lower end."""
    before = figure.get_figheight()
    after = before + inches
    figure.set_figheight(after)
    for axis in figure.axes:
        x, y, width, height = axis.get_position(original=True).bounds
        axis.set_position((x, (y * before + inches) / after, width, height * before / after))


def fitted(text: str, width: float, size: float) -> str:
    """A text, cut so that it is at most so many inches wide in letters of so many points."""
    text = shortened(text)  # to measure 100,000 letters takes matplotlib half a minute
    width -= 0.05  # for the ground that it may stand on
    while len(text) > 1 and (share := _POINTS * width / _points(text, size)) < 1:
        text = text[: min(max(int(len(text) * share), 1), len(text) - 2)].rstrip() + "…"
    return text


def _points(text: str, size: float) -> float:
    """The width of a line of text, in points: the most, as letters are fitted to pixels."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)
    return max(1.04 * width, 1e-3)


def _width(axis) -> float:
    """Of an axis, in inches."""
    return axis.get_position().width * axis.figure.get_figwidth()
