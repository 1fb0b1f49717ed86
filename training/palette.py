"""Colours that every eye tells apart, also where there are many."""

import functools

import numpy as np

# Okabe and Ito's (Color Universal Design, 2008), but for its black.
_FIRST = ("e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7")

# Linear RGB as it is seen without red and without green cones: Machado, Oliveira and Fernandes,
# "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009), severity 1.
_VISIONS = np.array(
    [
        np.eye(3),
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    ]
)
# From linear RGB to cones and from their cube roots to lightness and two hues: Ottosson's Oklab
# (2020), in which equal distances look alike.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@functools.cache
def palette(count: int) -> np.ndarray:
    """So many different colours, uint8 `[count, 3]`, the first of them the same for any count.

    Seven that are known to be told apart by the colour-blind, then always the one that is farthest
    from all before, by the eye that confuses them most: of three kinds of cones, or of two.
    """
    levels = np.linspace(0, 255, 14).round()
    shades = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    seen = _seen(shades)
    lightness, chroma = seen[0, :, 0], np.hypot(seen[0, :, 1], seen[0, :, 2])
    # Neither near black, white nor gray, as the images beside them and the background are.
    shades = shades[(lightness > 0.4) & (lightness < 0.93) & (chroma > 0.05)]
    chosen = [tuple(bytes.fromhex(color)) for color in _FIRST[:count]]
    seen, known = _seen(shades), _seen(np.array(chosen).reshape(-1, 3))
    nearest = np.full(len(shades), np.inf)
    for color in np.moveaxis(known, 1, 0):
        nearest = np.minimum(nearest, _distance(seen, color))
    while len(chosen) < count:
        best = int(nearest.argmax())
        chosen.append(tuple(shades[best]))
        nearest = np.minimum(nearest, _distance(seen, seen[:, best]))
    return np.array(chosen, np.uint8).reshape(-1, 3)


def is_light(color: np.ndarray) -> bool:
    """Whether black is read better on a colour, uint8 `[3]`, than white."""
    return bool(_seen(np.asarray(color)[None])[0, 0, 0] > 0.65)


def _seen(colors: np.ndarray) -> np.ndarray:
    """Oklab of sRGB `[n, 3]` in 0 to 255, as each vision has it, `[visions, n, 3]`."""
    shares = np.asarray(colors, float) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ _VISIONS.transpose(0, 2, 1), 0, 1)
    return np.cbrt(linear @ _CONES.T) @ _LAB.T


def _distance(seen: np.ndarray, color: np.ndarray) -> np.ndarray:
    """The least of the visions' distances of `[visions, n, 3]` from `[visions, 3]`."""
    return np.linalg.norm(seen - color[:, None], axis=-1).min(0)
