"""Draws what DropBlock drops of a feature map, beside dropout of the same keep_prob.

    python -m dropblock.show
    python -m dropblock.show photo.jpg --keep_prob 0.9 --block_size 7 --map_size 14 --out masks.png

Above, the map and what each way of dropping leaves of it; below, how much the two rules of gamma
keep for what is asked, and masks of more channels. The numbers are printed, too. Needs the extra
`show`, which is matplotlib. Exit codes: 0 done, 2 bad input.
"""

import argparse
import dataclasses
import functools
import importlib.util
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from dropblock import block_gamma, dropblock_mask, dropout, expected_keep
from dropblock.gamma import GAMMA_RULES

NEEDS_EXTRA = (
    "dropblock.show draws with matplotlib, which is not installed: "
    "pip install 'dropblock-jax[show]'"
)
FORMATS = (".png", ".svg")
WITHOUT_A_SCREEN = "dropblock.png"

CHANNELS = 256  # what is really kept is their mean; the first is drawn large, the next ones small
SMALL = (3, 4)
LARGEST_SIDE = 256  # of a map: finer cells are below a pixel of the picture

DROPPED, INK, PALE = "#1d1f27", "#24292f", "#8c959f"
TITLES = {
    "dropout": "dropout",
    "paper": "DropBlock, paper's gamma",
    "exact": "DropBlock, exact gamma",
}
COLOURS = {"dropout": "#57606a", "paper": "#0868ac", "exact": "#c2410c"}


class UsageError(Exception):
    """What the user has to put right, in one sentence."""


@dataclasses.dataclass(frozen=True)
class Masks:
    """What one way of dropping drew.

    Attributes:
      name: "dropout", or the rule of DropBlock's gamma: "paper" or "exact".
      kept: bool `[channels, height, width]`, True where kept.
      expected: the fraction that is kept on average, by the formula.
    """

    name: str
    kept: np.ndarray
    expected: float


def draw_masks(keep_prob, block_size, map_size, seed) -> list[Masks]:
    """Dropout and DropBlock under both rules, each on `CHANNELS` channels of one example.

    Args:
      keep_prob: number in [0, 1].
      block_size: int, or `(height, width)`.
      map_size: `(height, width)`.
      seed: of the key.

    Raises:
      ValueError: an argument out of range.
    """
    drawn = _draw(jax.random.key(seed), (1, *map_size, CHANNELS), keep_prob, block_size)
    expected = [keep_prob]
    for rule in GAMMA_RULES:
        gamma = block_gamma(keep_prob, map_size, block_size, rule)
        expected.append(expected_keep(gamma, map_size, block_size))
    return [
        Masks(name, np.moveaxis(np.asarray(mask)[0], -1, 0), keep)
        for name, mask, keep in zip(TITLES, drawn, expected, strict=True)
    ]


@functools.partial(jax.jit, static_argnames=("shape", "keep_prob", "block_size"))
def _draw(key, shape, keep_prob, block_size):
    return dropout(key, jnp.ones(shape), keep_prob) > 0, *(
        dropblock_mask(key, shape, keep_prob, block_size, gamma_rule=rule) for rule in GAMMA_RULES
    )


def made_up_map(map_size) -> np.ndarray:
    """What a channel that has learnt cats might hold of one: a drawing, `[height, width]`."""
    from PIL import Image, ImageDraw, ImageFilter

    side = 448
    image = Image.new("L", (side, side), 20)
    draw = ImageDraw.Draw(image)

    def scaled(*points):
        return [(side * x / 100, side * y / 100) for x, y in points]

    def ellipse(x, y, rx, ry, value):
        draw.ellipse(scaled((x - rx, y - ry), (x + rx, y + ry)), fill=value)

    halves = (lambda x: x, lambda x: 100 - x)
    for at in halves:
        draw.polygon(scaled((at(16), 8), (at(12), 52), (at(46), 28)), fill=150)
        draw.polygon(scaled((at(21), 18), (at(19), 42), (at(36), 31)), fill=215)
    ellipse(50, 57, 39, 34, 150)
    ellipse(50, 71, 20, 15, 190)
    for at in halves:
        ellipse(at(33), 52, 9.5, 9, 255)
        ellipse(at(33), 52, 3, 7.5, 40)
        for down in (0, 4, 8):
            draw.line(scaled((at(38), 71 + down / 3), (at(4), 65 + down)), fill=235, width=5)
    draw.polygon(scaled((44, 63), (56, 63), (50, 70)), fill=60)
    draw.line(scaled((50, 70), (50, 76)), fill=60, width=7)
    draw.arc(scaled((40, 70), (50, 81)), 0, 140, fill=60, width=7)
    draw.arc(scaled((50, 70), (60, 81)), 40, 180, fill=60, width=7)
    image = image.filter(ImageFilter.GaussianBlur(side / 90))
    return np.asarray(image.resize(map_size[::-1], Image.Resampling.BOX)) / 255


def photo_map(path: pathlib.Path, map_size) -> np.ndarray:
    """A picture cut to the map's form and shrunk to it, in [0, 1]: `[height, width, 3]`.

    Raises:
      UsageError: it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise UsageError(f"{path} cannot be read as an image") from None
    return np.asarray(ImageOps.fit(upright, map_size[::-1], Image.Resampling.BOX)) / 255


def picture(features: np.ndarray, masks: list[Masks], keep_prob, block_size, make_figure):
    """The figure: what each way leaves of `features`, and below it what is kept.

    Args:
      features: `[height, width]` of one channel or `[height, width, 3]` of a photo, in [0, 1].
      masks: of `draw_masks`, for the same arguments.
      keep_prob, block_size: what was asked.
      make_figure: `matplotlib.figure.Figure`, or `pyplot.figure` for a window.

    Returns:
      What `make_figure` made.
    """
    map_size = features.shape[:2]
    # All in inches, from below. Four columns, each a map and under it rows of small ones.
    column, gap, margin = 2.42, 0.2, 0.12
    rows, columns, between = *SMALL, 0.07
    slope = min(max(map_size[0] / map_size[1], 0.4), 2.0)
    small = (column - between * (columns - 1)) / columns
    low, high = 0.32, small * slope * rows + between * (rows - 1)
    maps = low + high + 0.72
    wide, tall = 4 * column + 3 * gap + 2 * margin, maps + column * slope + 0.98
    figure = make_figure(figsize=(wide, tall), facecolor="white")

    def axes_at(left, bottom, width, height):
        return figure.add_axes((left / wide, bottom / tall, width / wide, height / tall))

    def text_at(left, bottom, text, **style):
        style = {"color": INK, "fontsize": 10.5, "ha": "center"} | style
        figure.text(left / wide, bottom / tall, text, **style)

    lefts = [margin + number * (column + gap) for number in range(4)]
    middles = [left + column / 2 for left in lefts]
    text_at(
        lefts[0],
        tall - 0.34,
        f"keep_prob {keep_prob:g}, block_size {sizes(block_size)}",
        fontsize=14,
        fontweight="bold",
        ha="left",
    )
    under = maps + column * slope
    text_at(middles[0], under + 0.33, "feature map", fontsize=12, fontweight="bold")
    text_at(middles[0], under + 0.1, f"{sizes(map_size)} cells")
    draw_map(axes_at(lefts[0], maps, column, column * slope), features)
    for drawn, left, middle in zip(masks, lefts[1:], middles[1:], strict=True):
        colour = COLOURS[drawn.name]
        text_at(
            middle, under + 0.33, TITLES[drawn.name], color=colour, fontsize=12, fontweight="bold"
        )
        text_at(middle, under + 0.1, f"{drawn.kept[0].mean():.3f} of this map kept")
        draw_map(axes_at(left, maps, column, column * slope), features, drawn.kept[0])
        text_at(middle, low + high + 0.36, f"asked {keep_prob:g}, expected {drawn.expected:.3f}")
        text_at(
            middle, low + high + 0.12, f"kept {drawn.kept.mean():.3f} of {len(drawn.kept)} channels"
        )
        for number, kept in enumerate(drawn.kept[1 : 1 + rows * columns]):
            row, place = divmod(number, columns)
            axes = axes_at(
                left + place * (small + between),
                low + high - (row + 1) * small * slope - row * between,
                small,
                small * slope,
            )
            draw_map(axes, np.full(map_size, 0.3), kept)
    text_at(middles[0], low + high + 0.12, "what is kept for each keep_prob")
    axes = axes_at(lefts[0] + 0.3, low, column - 0.4, high)
    draw_curves(axes, masks, keep_prob, block_size)
    return figure


def sizes(value) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def draw_map(axes, features, kept=None):
    """A map, what is dropped of it covered."""
    import matplotlib.colors

    colours = matplotlib.colormaps["GnBu"](features) if features.ndim == 2 else features
    colours = colours[..., :3].copy()
    if kept is not None:
        colours[~kept] = matplotlib.colors.to_rgb(DROPPED)
    axes.imshow(colours, interpolation="nearest")
    axes.set_axis_off()


def draw_curves(axes, masks, keep_prob, block_size):
    """What the rules of gamma keep of such a map for each keep_prob, and the masks drawn."""
    map_size = masks[0].kept.shape[1:]
    asked = np.linspace(0, 1, 101)
    for drawn in masks[1:]:
        gammas = [block_gamma(value, map_size, block_size, drawn.name) for value in asked]
        keeps = [expected_keep(gamma, map_size, block_size) for gamma in gammas]
        axes.plot(asked, keeps, color=COLOURS[drawn.name], lw=2, label=drawn.name)
        axes.plot(
            keep_prob,
            drawn.kept.mean(),
            "o",
            color=COLOURS[drawn.name],
            ms=7,
            mec="white",
            clip_on=False,
        )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.tick_params(labelsize=9, colors=INK, color=PALE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.legend(
        frameon=False, fontsize=9.5, loc="lower right", labelcolor="linecolor", handlelength=1
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line, its values checked but for those that the library checks.

    Raises:
      UsageError: a value that is none of those it may be.
    """
    parser = argparse.ArgumentParser(
        prog="python -m dropblock.show",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "image",
        nargs="?",
        type=pathlib.Path,
        metavar="IMAGE",
        help="a picture to be dropped from, cut and shrunk to the map (default: a drawing)",
    )
    parser.add_argument(
        "--keep_prob",
        type=float,
        default=0.75,
        help="what is asked, in [0, 1] (default: %(default)s)",
    )
    parser.add_argument(
        "--block_size",
        type=_sides,
        default="7",
        metavar="SIDE",
        help="a block's side in cells, or HEIGHTxWIDTH (default: %(default)s)",
    )
    parser.add_argument(
        "--map_size",
        type=_sides,
        default="28",
        metavar="SIDE",
        help="the map's side in cells, or HEIGHTxWIDTH (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=9, help="of the masks (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        metavar="FILE",
        help="write FILE.png or FILE.svg (default: show a window; "
        f"where there is no screen, write {WITHOUT_A_SCREEN})",
    )
    flags = parser.parse_args(argv)
    flags.map_size = flags.map_size * (1 if len(flags.map_size) > 1 else 2)
    if len(flags.map_size) != 2 or not all(0 < side <= LARGEST_SIDE for side in flags.map_size):
        got = sizes(flags.map_size)
        raise UsageError(f"map_size must be one or two sides from 1 to {LARGEST_SIDE}, got {got}")
    if len(flags.block_size) == 1:
        (flags.block_size,) = flags.block_size
    if not 0 <= flags.seed < 2**32:
        raise UsageError(f"seed must be from 0 to 2**32 - 1, got {flags.seed}")
    if flags.out and flags.out.suffix.lower() not in FORMATS:
        raise UsageError(f"--out must end in {' or '.join(FORMATS)}, got {flags.out}")
    return flags


def _sides(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split("x")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no SIDE or HEIGHTxWIDTH") from None


def run(flags: argparse.Namespace):
    """Draws, prints the numbers, and writes the picture or shows it.

    Raises:
      UsageError, ValueError: what the user has to put right.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(NEEDS_EXTRA)
    import matplotlib.figure

    asked = flags.keep_prob, flags.block_size
    size = flags.map_size
    features = photo_map(flags.image, size) if flags.image else made_up_map(size)
    masks = draw_masks(*asked, size, flags.seed)
    numbers = "\n".join(
        f"{TITLES[drawn.name]}: asked {flags.keep_prob:g}, expected {drawn.expected:.3f}, "
        f"kept {drawn.kept.mean():.3f}"
        for drawn in masks
    )
    out, make_figure = flags.out, matplotlib.figure.Figure
    if out is None:
        from matplotlib import pyplot
        from matplotlib.backends.registry import BackendFilter, backend_registry

        no_window = backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE)
        if pyplot.get_backend().lower() in no_window:
            out = pathlib.Path(WITHOUT_A_SCREEN)
        else:
            make_figure = pyplot.figure
    figure = picture(features, masks, *asked, make_figure)
    print(numbers)
    if out is None:
        pyplot.show()
        return
    try:
        figure.savefig(out, dpi=160, metadata={"Description": numbers})
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from None
    print(f"Wrote {out}")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        run(parse(argv))
    except (UsageError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
