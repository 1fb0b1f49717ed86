"""Crops, flips, resizes, colours and Cutout: uint8 `[height, width, channels]` in and out.

Random ones draw from the generator they are given and from nothing else. Normalisation is the
model's first operation, on the device: uint8 is a quarter of the bytes to move there.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

try:
    import cykooz_resizer as simd
except ImportError:
    simd = None

from inputs.autoaugment import autoaugment as distort
from inputs.images import EncodedImage

# Of an image that is decoded, or yet to be.
Transform = Callable[[np.ndarray | EncodedImage, np.random.Generator], np.ndarray]
ExampleTransform = Callable[[Mapping[str, Any], np.random.Generator], dict[str, Any]]

KINDS = ("imagenet", "inception", "small", "none")


def make_transform(
    kind: str,
    *,
    image_size: int,
    train: bool,
    quick: bool = False,
    crop_padding: int = 4,
    flip: bool = True,
    autoaugment: str = "none",
    cutout: float = 0.0,
    fill: tuple[int, ...] = (0,),
) -> Transform:
    """Returns `transform(image, rng) -> image` of one recipe.

    Args:
      kind: "imagenet": training takes a random-resized crop, evaluation the central crop.
        "inception": the same with crops of its own, then a distortion of the colours; evaluation
        takes the central part of both sides. "small": resized only where the size differs;
        training then pads and crops. "none": the image as it is.
      image_size: Height and width of the result.
      train: Whether to augment.
      quick: Whether the crops of training may be taken from encoded images in less time, with
        slightly other pixels: see `EncodedImage.reduced` and `resize_quickly`.
      crop_padding: Pixels of padding on each side for "small".
      flip: Whether training mirrors half of the images. Digits, for one, should not be mirrored.
      autoaugment: AutoAugment's policy in training, after crop and flip; "none" is off.
      cutout: Side of Cutout's square in training, as a fraction of `image_size`; 0 is off. The
        last of all.
      fill: For each channel, the value of what Cutout covers, and of what AutoAugment moves in.
    """
    if kind not in KINDS:
        raise ValueError(f"transform is {kind!r}, expected one of {', '.join(KINDS)}")

    fixed = fixed_part(kind, image_size)

    def imagenet_train(image, rng: np.random.Generator) -> np.ndarray:
        image = random_resized_crop(image, rng, image_size, quick=quick)
        return random_flip(image, rng) if flip else image

    def imagenet_eval(image, rng: np.random.Generator) -> np.ndarray:
        return central_crop(image, image_size)

    def inception_train(image, rng: np.random.Generator) -> np.ndarray:
        image = inception_crop(image, rng, image_size, quick=quick)
        return distort_colors(random_flip(image, rng) if flip else image, rng)

    def inception_eval(image, rng: np.random.Generator) -> np.ndarray:
        return central_part(image, image_size)

    def small_train(image, rng: np.random.Generator) -> np.ndarray:
        image = pad_and_crop(fixed(image), rng, crop_padding)
        return random_flip(image, rng) if flip else image

    def fixed_alone(image, rng: np.random.Generator) -> np.ndarray:
        return fixed(image)

    training, evaluation = {
        "imagenet": (imagenet_train, imagenet_eval),
        "inception": (inception_train, inception_eval),
        "small": (small_train, fixed_alone),
        "none": (fixed_alone, fixed_alone),
    }[kind]
    if not train:
        return evaluation
    square = round(cutout * image_size)
    if autoaugment == "none" and square == 0:
        return training

    def augmented(image, rng: np.random.Generator) -> np.ndarray:
        image = training(image, rng)
        if autoaugment != "none":
            image = distort(image, rng, autoaugment, fill)
        return cut_out(image, rng, square, fill) if square else image

    return augmented


def fixed_part(kind: str, image_size: int) -> Callable[[np.ndarray | EncodedImage], np.ndarray]:
    """What a recipe does first to each image, always alike: a cache can hold its result."""
    if kind == "small":
        return lambda image: resize(_decoded(image), image_size)
    return _decoded


def on_image(transform: Transform) -> ExampleTransform:
    """Makes a transform of examples, as the pipeline takes it, of one of their images alone."""

    def apply(example: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return {**example, "image": transform(example["image"], rng)}

    return apply


def random_resized_crop(
    image: np.ndarray | EncodedImage,
    rng: np.random.Generator,
    size: int,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    attempts: int = 10,
    min_covered: float = 0.1,
    *,
    quick: bool = False,
) -> np.ndarray:
    """Takes a random box and resizes it to `[size, size, channels]`, bicubic.

    The boxes of `tf.image.sample_distorted_bounding_box`, with the arguments of the authors' ResNet
    code (docs/paper.md, ImageNet training): the aspect ratio width / height is uniform in `aspect`,
    then the height is uniform among those that give an `area` fraction in range. A box must cover
    `min_covered` of the image, so by default areas between 0.08 and 0.1 are drawn again. As in the
    authors' code, after `attempts` failures, or for a box that is the whole image, the central crop
    is taken instead.
    """
    box = _covering_box(image, rng, area, aspect, attempts, min_covered)
    if box is None:
        return central_crop(image, size, quick=quick)
    return _part(image, box, size, quick=quick)


def inception_crop(
    image: np.ndarray | EncodedImage, rng: np.random.Generator, size: int, *, quick: bool = False
) -> np.ndarray:
    """Takes a random box and resizes it to `[size, size, channels]`, bilinear.

    Inception's, with the arguments of the authors' AmoebaNet code: boxes as in
    `random_resized_crop` but of at least a tenth of the image, and the whole image where all
    attempts fail. Source: docs/paper.md section 4.
    """
    box = _covering_box(
        image, rng, area=(0.1, 1.0), aspect=(3 / 4, 4 / 3), attempts=100, min_covered=0.1
    )
    height, width = image.shape[:2]
    box = box or (slice(0, height), slice(0, width))
    return _part(image, box, size, Image.Resampling.BILINEAR, quick=quick)


def central_part(
    image: np.ndarray | EncodedImage, size: int, fraction: float = 0.875
) -> np.ndarray:
    """Resizes the central `fraction` of both sides to `[size, size, channels]`, bilinear.

    Inception's evaluation: the aspect is not kept. Source: docs/paper.md section 4.
    """
    height, width = image.shape[:2]
    top, left = int((height - height * fraction) / 2), int((width - width * fraction) / 2)
    box = slice(top, height - top), slice(left, width - left)
    return _part(image, box, size, Image.Resampling.BILINEAR)


def distort_colors(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shifts luma and chroma: the fast colour distortion of the authors' AmoebaNet code.

    Luma by up to 32 of 255, and the two chromas of YCbCr by up to a tenth of the range; luma alone
    where the image is not RGB. Source: docs/paper.md section 4.
    """
    luma = rng.uniform(-32, 32)
    blue, red = rng.uniform(-25.5, 25.5, size=2)
    shift = np.array([1.402 * red, -0.344136 * blue - 0.714136 * red, 1.772 * blue])
    shift = luma + (shift if image.shape[2] == 3 else 0.0)
    return np.clip(np.rint(image + shift), 0, 255).astype(np.uint8)


def central_crop(
    image: np.ndarray | EncodedImage, size: int, fraction: float = 0.875, *, quick: bool = False
) -> np.ndarray:
    """Resizes the central square of `fraction` of the short side to `[size, size, channels]`.

    The default is 224 / (224 + 32), what the paper's ResNet is evaluated on.
    """
    height, width = image.shape[:2]
    side = max(1, int(fraction * min(height, width)))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return _part(image, (slice(top, top + side), slice(left, left + side)), size, quick=quick)


def random_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrors left and right with probability 1/2."""
    return mirror(image) if rng.random() < 0.5 else image


def mirror(image: np.ndarray) -> np.ndarray:
    """Left and right exchanged: of pixels `[height, width]` or `[height, width, channels]`."""
    mirrored = np.empty_like(image)
    for channel in np.ndindex(image.shape[2:]):  # NumPy takes seven times as long for all at once
        mirrored[:, :, *channel] = image[:, ::-1, *channel]
    return mirrored


def pad_and_crop(image: np.ndarray, rng: np.random.Generator, padding: int) -> np.ndarray:
    """Pads each side with `padding` zeros and takes a random crop of the original size."""
    height, width = image.shape[:2]
    top, left = rng.integers(0, 2 * padding + 1, size=2)
    # np.pad would take longer than everything else that happens to a 32x32 image.
    padded = np.zeros((height + 2 * padding, width + 2 * padding, image.shape[2]), image.dtype)
    padded[padding : padding + height, padding : padding + width] = image
    return padded[top : top + height, left : left + width]


def cut_out(
    image: np.ndarray, rng: np.random.Generator, side: int, fill: tuple[int, ...]
) -> np.ndarray:
    """Covers a square of `side` pixels with `fill` (Cutout, DeVries and Taylor 2017).

    Its centre is uniform over the image, so that a part of it may lie outside, as in the original.
    """
    height, width = image.shape[:2]
    row, column = rng.integers(0, (height, width))
    top, left = row - side // 2, column - side // 2
    image = image.copy()
    image[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = fill
    return image


def resize(
    image: np.ndarray,
    size: int | tuple[int, int],
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> np.ndarray:
    """Resizes to `size` (one side, or height and width), antialiased when it shrinks.

    The authors' TensorFlow 1 does not antialias; the quality is why we do.
    """
    height, width = (size, size) if isinstance(size, int) else size
    channels = image.shape[2]
    if image.shape[:2] == (height, width):
        return image
    pixels = Image.fromarray(image[..., 0] if channels == 1 else image)
    resized = pixels.resize((width, height), resampling)
    return np.asarray(resized).reshape(height, width, channels)


def resize_quickly(image: np.ndarray, size: int, resampling: Image.Resampling) -> np.ndarray:
    """`resize` to a square by vector instructions: the same filters, other roundings.

    Values differ by 1 of 255, but for a few in a thousand beside the sharpest edges. It is `resize`
    itself where there is no such package (on ARM under Linux), and of images with alpha.
    """
    height, width, channels = image.shape
    if simd is None or channels == 4 or (height, width) == (size, size):
        return resize(image, size, resampling)
    pixels = simd.PixelType.U8 if channels == 1 else simd.PixelType.U8x3
    filters = simd.FilterType
    bicubic = resampling == Image.Resampling.BICUBIC
    resizing = simd.ResizeAlg.convolution(filters.catmull_rom if bicubic else filters.bilinear)
    resized = simd.ImageData(size, size, pixels)
    simd.Resizer().resize(
        simd.ImageData(width, height, pixels, image.tobytes()),
        resized,
        simd.ResizeOptions(resize_alg=resizing),
    )
    return np.frombuffer(resized.get_buffer(), np.uint8).reshape(size, size, channels)


def _part(
    image: np.ndarray | EncodedImage,
    box: tuple[slice, slice],
    size: int,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
    *,
    quick: bool = False,
) -> np.ndarray:
    """Resizes a box of an image."""
    if isinstance(image, EncodedImage):
        if quick:
            return resize_quickly(image.reduced(box, size), size, resampling)
        image = image.decode()
    return resize(image[box], size, resampling)


def _decoded(image: np.ndarray | EncodedImage) -> np.ndarray:
    return image.decode() if isinstance(image, EncodedImage) else image


def _covering_box(
    image: np.ndarray | EncodedImage,
    rng: np.random.Generator,
    area: tuple[float, float],
    aspect: tuple[float, float],
    attempts: int,
    min_covered: float,
) -> tuple[slice, slice] | None:
    """Rows and columns of a box of at least `min_covered`; None after `attempts` failures.

    And for the box that is the whole image, which stands for a failure in TensorFlow.
    """
    height, width = image.shape[:2]
    for _ in range(attempts):
        box = _random_box(height, width, rng, area, aspect)
        if box is not None and box[2] * box[3] >= min_covered * height * width:
            top, left, rows, columns = box
            if (rows, columns) == (height, width):
                return None
            return slice(top, top + rows), slice(left, left + columns)
    return None


def _random_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[int, int, int, int] | None:
    """One try: top, left, rows and columns, or None where rounding leaves the ranges.

    TF tries to repair such a box by a pixel; drawing again differs for tiny images only.
    """
    ratio = rng.uniform(*aspect)
    smallest, largest = area[0] * height * width, area[1] * height * width
    low = round(math.sqrt(smallest / ratio))
    high = min(round(math.sqrt(largest / ratio)), height, int((width + 0.5) / ratio))
    rows = high if low >= high else int(rng.integers(low, high + 1))
    columns = round(rows * ratio)
    inside = 0 < rows <= height and 0 < columns <= width
    if not inside or not smallest <= rows * columns <= largest:
        return None
    top = rng.integers(0, height - rows + 1)
    left = rng.integers(0, width - columns + 1)
    return int(top), int(left), rows, columns
