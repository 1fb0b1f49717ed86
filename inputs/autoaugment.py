"""AutoAugment (Cubuk et al., CVPR 2019) on Pillow's operations: uint8 in, uint8 out.

A policy is 25 sub-policies of two operations `(name, probability, magnitude)`. For each image one
sub-policy is drawn; each of its operations acts with its probability. What the published tables
leave open, and what we chose, is in docs/paper.md section 3.9.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

SubPolicy = tuple[tuple[str, float, int], ...]

# The appendix' tables of the best policies: reduced ImageNet (five sub-policies stand in it twice)
# and reduced CIFAR-10.
POLICIES: dict[str, tuple[SubPolicy, ...]] = {
    "imagenet": (
        (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
        (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
        (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
        (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
        (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
        (("Equalize", 0.4, 4), ("Rotate", 0.8, 8)),
        (("Solarize", 0.6, 3), ("Equalize", 0.6, 7)),
        (("Posterize", 0.8, 5), ("Equalize", 1.0, 2)),
        (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
        (("Equalize", 0.6, 8), ("Posterize", 0.4, 6)),
        (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
        (("Rotate", 0.4, 9), ("Equalize", 0.6, 2)),
        (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
        (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
        (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
        (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
        (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
        (("Sharpness", 0.4, 7), ("Invert", 0.6, 8)),
        (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
        (("Color", 0.4, 0), ("Equalize", 0.6, 3)),
        (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
        (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
        (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
        (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
        (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
    ),
    "cifar": (
        (("Invert", 0.1, 7), ("Contrast", 0.2, 6)),
        (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
        (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
        (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
        (("AutoContrast", 0.5, 8), ("Equalize", 0.9, 2)),
        (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
        (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
        (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
        (("Equalize", 0.6, 5), ("Equalize", 0.5, 1)),
        (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
        (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
        (("Equalize", 0.3, 7), ("AutoContrast", 0.4, 8)),
        (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
        (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
        (("Solarize", 0.5, 2), ("Invert", 0.0, 3)),
        (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
        (("Equalize", 0.2, 8), ("Equalize", 0.6, 4)),
        (("Color", 0.9, 9), ("Equalize", 0.6, 6)),
        (("AutoContrast", 0.8, 4), ("Solarize", 0.2, 8)),
        (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
        (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 3)),
        (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
        (("AutoContrast", 0.9, 2), ("Solarize", 0.8, 3)),
        (("Equalize", 0.8, 8), ("Invert", 0.1, 3)),
        (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 1)),
    ),
}
NAMES = ("none", *POLICIES)

# A magnitude counts in tenths of an operation's range, as in the authors' code.
_TENTHS = 10
_MAX_SHEAR = 0.3
_MAX_DEGREES = 30
_MAX_TRANSLATION = 10 / 32  # of the side: the authors' 10 pixels of CIFAR's 32


def autoaugment(
    image: np.ndarray, rng: np.random.Generator, policy: str, fill: tuple[int, ...]
) -> np.ndarray:
    """Distorts an image by one sub-policy, drawn from those of `policy`.

    Args:
      image: uint8 `[height, width, channels]`, of 1 or 3 channels.
      rng: The only source of randomness.
      policy: A key of `POLICIES`.
      fill: For each channel, what comes in from beyond the border.
    """
    subpolicies = POLICIES[policy]
    pixels = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    for name, probability, magnitude in subpolicies[rng.integers(len(subpolicies))]:
        if rng.random() < probability:
            sign = 1 if rng.random() < 0.5 else -1
            pixels = operate(pixels, name, magnitude, sign, fill)
    return np.asarray(pixels).reshape(image.shape)


def operate(
    pixels: Image.Image, name: str, magnitude: int, sign: int, fill: tuple[int, ...]
) -> Image.Image:
    """One operation on an image of mode L or RGB.

    Args:
      pixels: The image.
      name: As the published tables call it.
      magnitude: 0 to 10; ignored by those that have no strength.
      sign: 1 or -1, the direction of a shear, translation or rotation.
      fill: For each channel, what comes in from beyond the border.
    """
    width, height = pixels.size
    tenths = magnitude / _TENTHS
    factor = 0.1 + 1.8 * tenths  # of the enhancers: 1 leaves the image as it is
    match name:
        case "ShearX":
            return _affine(pixels, (1, sign * _MAX_SHEAR * tenths, 0, 0, 1, 0), fill)
        case "ShearY":
            return _affine(pixels, (1, 0, 0, sign * _MAX_SHEAR * tenths, 1, 0), fill)
        case "TranslateX":
            shift = sign * round(_MAX_TRANSLATION * tenths * width)
            return _affine(pixels, (1, 0, shift, 0, 1, 0), fill)
        case "TranslateY":
            shift = sign * round(_MAX_TRANSLATION * tenths * height)
            return _affine(pixels, (1, 0, 0, 0, 1, shift), fill)
        case "Rotate":
            return pixels.rotate(sign * _MAX_DEGREES * tenths, fillcolor=_color(fill))
        case "AutoContrast":
            return ImageOps.autocontrast(pixels)
        case "Invert":
            return ImageOps.invert(pixels)
        case "Equalize":
            return ImageOps.equalize(pixels)
        case "Solarize":  # inverts what is not below the threshold
            return ImageOps.solarize(pixels, 256 - magnitude * 256 // _TENTHS)
        case "Posterize":  # keeps 8 to 4 bits
            return ImageOps.posterize(pixels, 8 - magnitude * 4 // _TENTHS)
        case "Contrast":
            return ImageEnhance.Contrast(pixels).enhance(factor)
        case "Color":
            return ImageEnhance.Color(pixels).enhance(factor)
        case "Brightness":
            return ImageEnhance.Brightness(pixels).enhance(factor)
        case "Sharpness":
            return ImageEnhance.Sharpness(pixels).enhance(factor)
    raise ValueError(f"there is no operation {name!r}")


def _affine(pixels: Image.Image, matrix: tuple[float, ...], fill: tuple[int, ...]) -> Image.Image:
    """`matrix` takes a result's (x, y) to the source's; nearest neighbour."""
    return pixels.transform(
        pixels.size,
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.NEAREST,
        fillcolor=_color(fill),
    )


def _color(fill: tuple[int, ...]) -> int | tuple[int, ...]:
    return fill[0] if len(fill) == 1 else fill
