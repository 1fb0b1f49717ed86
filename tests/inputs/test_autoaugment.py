"""AutoAugment's tables against what was published, and its operations against plain NumPy."""

import collections

import numpy as np
import pytest
from PIL import Image

from inputs.autoaugment import POLICIES, autoaugment, operate
from inputs.transforms import make_transform

FILL = (9, 99, 199)


def noise(channels, height=24, width=32, low=0, high=256, seed=0):
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.uint8)


def operated(image, name, magnitude, sign=1):
    channels = image.shape[2]
    pixels = Image.fromarray(image[..., 0] if channels == 1 else image)
    result = operate(pixels, name, magnitude, sign, FILL[:channels])
    return np.asarray(result).reshape(image.shape)


# --- The published tables.


def test_the_tables_have_the_published_counts():
    counts = {
        name: collections.Counter(operation for pair in policy for operation, _, _ in pair)
        for name, policy in POLICIES.items()
    }
    assert counts["imagenet"] == {
        "Equalize": 17,
        "Solarize": 7,
        "Rotate": 6,
        "Color": 6,
        "Posterize": 5,
        "Invert": 3,
        "AutoContrast": 2,
        "Contrast": 2,
        "Sharpness": 1,
        "ShearX": 1,
    }
    assert counts["cifar"] == {
        "Equalize": 9,
        "AutoContrast": 7,
        "TranslateY": 5,
        "Sharpness": 5,
        "Color": 5,
        "Brightness": 4,
        "Solarize": 4,
        "Invert": 3,
        "TranslateX": 2,
        "ShearY": 2,
        "Contrast": 2,
        "Rotate": 1,
        "Posterize": 1,
    }


@pytest.mark.parametrize("policy", POLICIES)
def test_the_tables_are_of_the_published_form(policy):
    assert len(POLICIES[policy]) == 25
    for pair in POLICIES[policy]:
        assert len(pair) == 2
        for _, probability, magnitude in pair:
            assert probability in [tenth / 10 for tenth in range(11)]
            assert magnitude in range(10)


def test_some_rows_of_the_tables():
    imagenet, cifar = POLICIES["imagenet"], POLICIES["cifar"]
    assert imagenet[0] == (("Posterize", 0.4, 8), ("Rotate", 0.6, 9))
    assert imagenet[12] == (("Equalize", 0.0, 7), ("Equalize", 0.8, 8))
    assert imagenet[18] == (("ShearX", 0.6, 5), ("Equalize", 1.0, 9))
    # The last five stand in the table twice.
    assert [imagenet.index(row) for row in imagenet[20:]] == [4, 1, 13, 14, 2]
    assert len(set(imagenet)) == 20 and len(set(cifar)) == 25
    assert cifar[0] == (("Invert", 0.1, 7), ("Contrast", 0.2, 6))
    assert cifar[15] == (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0))
    assert cifar[24] == (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 1))
    # A sum over each column catches any other slip of a digit.
    sums = {
        name: (
            round(sum(probability for pair in policy for _, probability, _ in pair), 1),
            sum(magnitude for pair in policy for _, _, magnitude in pair),
        )
        for name, policy in POLICIES.items()
    }
    assert sums == {"imagenet": (31.0, 287), "cifar": (26.5, 267)}


# --- The operations. `gray` is Pillow's: ITU-R 601 luma, in 16-bit fixed point.


def gray(image):
    if image.shape[2] == 1:
        return image[..., 0].astype(int)
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def blend(other, image, factor):
    """Pillow's enhancers: `other` at factor 0, the image at 1; cut off, not rounded."""
    mixed = other + np.float32(factor) * (image.astype(np.float32) - other)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def smooth(image):
    """A 3x3 filter of ones with a 5 in the middle; the border stays."""
    padded = image.astype(float)
    total = 4 * padded[1:-1, 1:-1]
    for y in range(3):
        for x in range(3):
            total = total + padded[y : y + image.shape[0] - 2, x : x + image.shape[1] - 2]
    result = image.copy()
    result[1:-1, 1:-1] = np.floor(total / 13 + 0.5)
    return result


def equalized(channel):
    counts = np.bincount(channel.ravel(), minlength=256)
    step = (counts.sum() - counts[counts > 0][-1]) // 255
    if step == 0:
        return channel
    before = np.cumsum(counts) - counts
    return np.minimum((before + step // 2) // step, 255).astype(np.uint8)[channel]


def stretched(channel):
    low, high = int(channel.min()), int(channel.max())
    return np.clip((channel - float(low)) * 255 / (high - low), 0, 255).astype(np.uint8)


def by_channel(function, image):
    return np.stack([function(channel) for channel in np.moveaxis(image, -1, 0)], axis=-1)


@pytest.mark.parametrize("channels", [1, 3])
def test_tone(channels):
    image = noise(channels)
    np.testing.assert_array_equal(operated(image, "Invert", 3), 255 - image)
    for magnitude, threshold in [(0, 256), (2, 205), (5, 128), (8, 52), (9, 26)]:
        want = np.where(image.astype(int) < threshold, image, 255 - image)
        np.testing.assert_array_equal(operated(image, "Solarize", magnitude), want)
    for magnitude, bits in [(0, 8), (2, 8), (3, 7), (5, 6), (6, 6), (7, 6), (8, 5), (9, 5)]:
        kept = image & (0xFF << (8 - bits) & 0xFF)
        np.testing.assert_array_equal(operated(image, "Posterize", magnitude), kept)
    # The histogram's steps are whole numbers, so a large image, of tones that lie uneven.
    uneven = (noise(channels, 300, 300).astype(int) ** 2 // 300).astype(np.uint8)
    want = by_channel(equalized, uneven)
    np.testing.assert_array_equal(operated(uneven, "Equalize", 1), want)
    narrow = noise(channels, low=50, high=180)
    got = operated(narrow, "AutoContrast", 1).astype(int)
    assert np.abs(got - by_channel(stretched, narrow)).max() <= 1  # the last bit of a float
    assert got.min() == 0 and got.max() == 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 3, 5, 9])
def test_enhancers(channels, magnitude):
    image = noise(channels)
    factor = {0: 0.1, 3: 0.64, 5: 1.0, 9: 1.72}[magnitude]
    mean = np.full_like(image, int(gray(image).mean() + 0.5))
    others = {
        "Brightness": np.zeros_like(image),
        "Contrast": mean,
        "Color": np.repeat(gray(image)[..., None], channels, -1).astype(np.uint8),
        "Sharpness": smooth(image),
    }
    for name, other in others.items():
        got = operated(image, name, magnitude).astype(int)
        want = blend(other, image, factor)
        assert np.abs(got - want).max() <= 1, name  # of floats that are cut off
        assert (got == want).mean() > 0.95, name
        if magnitude == 5:
            np.testing.assert_array_equal(got, image)


def moved(image, source):
    """The image whose pixel (y, x) is that at `source(y, x)`, or the fill beyond the border."""
    height, width, channels = image.shape
    rows, columns = np.mgrid[:height, :width] + 0.5
    y, x = (np.floor(v).astype(int) for v in source(rows, columns))
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    result = image[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    return np.where(inside[..., None], result, np.array(FILL[:channels], np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_geometry(channels, sign):
    image = noise(channels)
    height, width = image.shape[:2]
    angle = np.deg2rad(27) * sign  # counterclockwise: magnitude 9 of 10, of 30 degrees

    def turned(y, x):
        y, x = y - height / 2, x - width / 2
        return (
            np.sin(angle) * x + np.cos(angle) * y + height / 2,
            np.cos(angle) * x - np.sin(angle) * y + width / 2,
        )

    cases = {
        ("Rotate", 9): turned,
        ("ShearX", 5): lambda y, x: (y, x + sign * 0.15 * y),
        ("ShearY", 8): lambda y, x: (y + sign * 0.24 * x, x),
        ("TranslateX", 9): lambda y, x: (y, x + sign * 9),  # of 32 columns, the authors' 9 pixels
        ("TranslateY", 9): lambda y, x: (y + sign * 7, x),  # round(9 * 24 / 32)
    }
    for (name, magnitude), source in cases.items():
        got, want = operated(image, name, magnitude, sign), moved(image, source)
        same = (got == want).all(-1).mean()
        assert same > 0.99, name  # a place between two pixels may fall to either
        unmoved = operated(image, name, 0, sign)
        np.testing.assert_array_equal(unmoved, image, err_msg=name)


def test_unknown_operation():
    with pytest.raises(ValueError, match="no operation 'Blur'"):
        operated(noise(1), "Blur", 3)


# --- The policy.


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_is_of_the_same_shape_and_follows_from_the_generator(policy, channels):
    image = noise(channels)
    before = image.copy()
    results = [
        [
            autoaugment(image[:, ::-1], np.random.default_rng(seed), policy, FILL[:channels])
            for seed in range(40)
        ]
        for _ in range(2)
    ]
    for first, second in zip(*results, strict=True):
        assert first.shape == image.shape and first.dtype == np.uint8
        np.testing.assert_array_equal(first, second)
    assert len({result.tobytes() for result in results[0]}) > 15
    np.testing.assert_array_equal(image, before)


def test_operations_act_as_often_as_the_table_says(monkeypatch):
    acted = collections.Counter()

    def note(pixels, name, magnitude, sign, fill):
        acted[name, magnitude] += 1
        acted[sign] += 1
        return pixels

    monkeypatch.setattr("inputs.autoaugment.operate", note)
    rng, draws = np.random.default_rng(0), 20_000
    for _ in range(draws):
        autoaugment(np.zeros((1, 1, 1), np.uint8), rng, "cifar", (0,))
    expected = collections.Counter()
    for pair in POLICIES["cifar"]:
        for name, probability, magnitude in pair:
            expected[name, magnitude] += probability / 25
    for key, rate in expected.items():
        # 6 sigma of a count; an operation can act twice in a sub-policy, which doubles it.
        assert abs(acted[key] - draws * rate) <= 12 * (draws * rate) ** 0.5, key
    total = acted[1] + acted[-1]
    assert abs(acted[1] - total / 2) < 6 * 0.5 * total**0.5


def test_the_recipe_distorts_training_images_after_crop_and_flip():
    image = noise(3, 40, 40)
    options = {"image_size": 32, "train": True, "fill": FILL}
    plain = make_transform("imagenet", **options)
    augmented = make_transform("imagenet", autoaugment="imagenet", **options)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        want = autoaugment(plain(image, rng), rng, "imagenet", FILL)
        np.testing.assert_array_equal(augmented(image, np.random.default_rng(seed)), want)
    evaluated = make_transform(
        "imagenet", image_size=32, train=False, autoaugment="imagenet", cutout=0.5
    )
    plain = make_transform("imagenet", image_size=32, train=False)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(evaluated(image, rng), plain(image, rng))
