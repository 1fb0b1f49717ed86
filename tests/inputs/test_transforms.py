import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inputs import transforms


def coordinates(height, width):
    """An image whose pixels tell where they come from: `[row, column, 0]`."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def crop_boxes(monkeypatch, image, count, **kwargs):
    """The boxes `random_resized_crop` takes, read from pixels that know their place."""
    boxes = []

    def look(crop, *_):
        (top, left, _), (bottom, right, _) = crop[0, 0], crop[-1, -1]
        boxes.append((int(bottom) - int(top) + 1, int(right) - int(left) + 1, int(top), int(left)))
        return crop

    monkeypatch.setattr(transforms, "resize", look)
    rng = np.random.default_rng(0)
    for _ in range(count):
        transforms.random_resized_crop(image, rng, 224, **kwargs)
    return np.array(boxes)


def test_random_crops_fill_the_ranges_and_stay_in_them(monkeypatch):
    height, width = 200, 250
    rows, columns, top, left = crop_boxes(monkeypatch, coordinates(height, width), 4000).T
    area, aspect = rows * columns / (height * width), columns / rows
    assert area.min() >= 0.1  # min_object_covered, which lies above the range's 0.08
    assert area.min() < 0.12
    assert 0.95 < area.max() <= 1
    # Width is rounded to a pixel, so the aspect may lie outside by half a pixel.
    assert (np.abs(columns - np.clip(aspect, 3 / 4, 4 / 3) * rows) <= 0.5 + 1e-9).all()
    assert aspect.min() < 0.76 and aspect.max() > 1.32
    assert (top + rows <= height).all() and (left + columns <= width).all()
    # The place is uniform in what the box leaves free: mean 1/2, 4,000 draws, 6 sigma.
    free_rows, free_columns = height - rows, width - columns
    assert abs((top[free_rows > 20] / free_rows[free_rows > 20]).mean() - 0.5) < 6 * 0.3 / 60
    assert abs((left[free_columns > 20] / free_columns[free_columns > 20]).mean() - 0.5) < 0.03


def test_height_is_uniform_as_in_tensorflow(monkeypatch):
    """TF draws the height uniformly, not the area: at one aspect, mean height is the mid-range."""
    rows = crop_boxes(monkeypatch, coordinates(240, 240), 4000, aspect=(1, 1), area=(0.25, 0.9))[
        :, 0
    ]
    low, high = round(240 * 0.25**0.5), round(240 * 0.9**0.5)
    assert (rows.min(), rows.max()) == (low, high - 1) or (rows.min(), rows.max()) == (low, high)
    sigma = (high - low) / 12**0.5 / 4000**0.5
    assert abs(rows.mean() - (low + high) / 2) < 6 * sigma + 0.5


@pytest.mark.parametrize(
    "why, kwargs",
    [
        ("no box of this area has this aspect", {"area": (0.9, 1.0), "aspect": (4.0, 5.0)}),
        ("no tries", {"attempts": 0}),
        ("no box covers enough", {"area": (0.1, 0.2), "min_covered": 0.5}),
        ("the box is the whole image", {"area": (0.99999, 1.0), "aspect": (1.0, 1.0)}),
    ],
)
def test_falls_back_to_the_central_crop(why, kwargs):
    image = noise(120, 120)
    got = transforms.random_resized_crop(image, np.random.default_rng(0), 64, **kwargs)
    np.testing.assert_array_equal(got, transforms.central_crop(image, 64), err_msg=why)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(0, 99))
def test_crops_of_any_image_are_the_asked_size(height, width, channels, seed):
    image = noise(height, width, channels, seed)
    rng = np.random.default_rng(seed)
    for crop in (
        transforms.random_resized_crop(image, rng, 8),
        transforms.central_crop(image, 8),
        transforms.resize(image, 8),
    ):
        assert crop.shape == (8, 8, channels) and crop.dtype == np.uint8


@pytest.mark.parametrize("height, width", [(500, 375), (375, 500), (333, 333), (256, 256)])
def test_central_crop_matches_a_literal_reference(height, width):
    image = noise(height, width)
    # The authors' _decode_and_center_crop, with image_size 224 and CROP_PADDING 32.
    side = int((224 / (224 + 32)) * min(height, width))
    top, left = ((height - side) + 1) // 2, ((width - side) + 1) // 2
    crop = Image.fromarray(image).crop((left, top, left + side, top + side))
    want = np.asarray(crop.resize((224, 224), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(transforms.central_crop(image, 224), want)


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None]
    shrunk = transforms.resize(stripes, 9).astype(int)
    assert np.abs(shrunk - 127).max() < 40  # sampling without a filter gives 0 and 255


def test_pad_and_crop_shifts_by_every_offset_and_fills_with_zeros():
    image = noise(6, 5, 1) | 1  # no zeros of its own
    padding, rng = 2, np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        crop = transforms.pad_and_crop(image, rng, padding)
        padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        places = [
            (y, x)
            for y in range(2 * padding + 1)
            for x in range(2 * padding + 1)
            if np.array_equal(padded[y : y + 6, x : x + 5], crop)
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == (2 * padding + 1) ** 2


def test_flip_mirrors_half_of_the_images():
    image, rng = noise(3, 4), np.random.default_rng(0)
    flipped = 0
    for _ in range(2000):
        got = transforms.random_flip(image, rng)
        is_flipped = np.array_equal(got, image[:, ::-1])
        assert is_flipped or np.array_equal(got, image)
        flipped += is_flipped
    assert abs(flipped / 2000 - 0.5) < 5 * 0.5 / 2000**0.5


def test_recipes():
    image, small = noise(300, 200), noise(32, 32)
    make = transforms.make_transform

    def rng():
        return np.random.default_rng(7)

    train = make("imagenet", image_size=64, train=True, flip=False)(image, rng())
    np.testing.assert_array_equal(train, transforms.random_resized_crop(image, rng(), 64))
    central = make("imagenet", image_size=64, train=False)(image, rng())
    np.testing.assert_array_equal(central, transforms.central_crop(image, 64))

    train = make("small", image_size=32, train=True, crop_padding=4, flip=False)(small, rng())
    np.testing.assert_array_equal(train, transforms.pad_and_crop(small, rng(), 4))
    assert make("small", image_size=32, train=False)(small, rng()) is small
    assert make("small", image_size=16, train=True)(small, rng()).shape == (16, 16, 3)
    assert make("none", image_size=32, train=True)(image, rng()) is image


@pytest.mark.parametrize("kind", ["imagenet", "inception", "small"])
def test_no_flip_where_flipping_changes_the_class(kind):
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 1))

    def rising(flip):
        transform = transforms.make_transform(
            kind, image_size=64, train=True, crop_padding=0, flip=flip
        )
        rng = np.random.default_rng(0)
        crops = [transform(ramp, rng).astype(int) for _ in range(60)]
        return [bool(crop[0, 0, 0] < crop[0, -1, 0]) for crop in crops]

    assert all(rising(flip=False))
    assert 10 < sum(rising(flip=True)) < 50


def test_unknown_recipe():
    with pytest.raises(
        ValueError, match="'cutmix', expected one of imagenet, inception, small, none"
    ):
        transforms.make_transform("cutmix", image_size=8, train=True)


def test_inception_recipe():
    image = noise(300, 200)
    make = transforms.make_transform

    def rng():
        return np.random.default_rng(7)

    got = make("inception", image_size=64, train=True, flip=False)(image, rng())
    own = rng()
    crop = transforms.inception_crop(image, own, 64)
    np.testing.assert_array_equal(got, transforms.distort_colors(crop, own))
    central = make("inception", image_size=64, train=False)(image, rng())
    np.testing.assert_array_equal(central, transforms.central_part(image, 64))


def test_inception_crops_fill_their_range_and_fall_back_to_the_whole(monkeypatch):
    image, crops = coordinates(200, 250), []
    monkeypatch.setattr(transforms, "resize", lambda crop, *_: crops.append(crop) or crop)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        transforms.inception_crop(image, rng, 331)
    area = np.array([crop.shape[0] * crop.shape[1] for crop in crops]) / (200 * 250)
    assert 0.1 <= area.min() < 0.11 and 0.95 < area.max() <= 1
    whole = transforms.inception_crop(coordinates(2, 250), rng, 331)  # no aspect fits
    assert whole.shape == (2, 250, 3)


@pytest.mark.parametrize("height, width", [(500, 375), (40, 41), (1, 1)])
def test_central_part_matches_a_literal_reference(height, width):
    image = noise(height, width)
    # tf.image.central_crop(image, 0.875), then an uneven resize.
    top, left = int(height * 0.125 / 2), int(width * 0.125 / 2)
    part = Image.fromarray(image).crop((left, top, width - left, height - top))
    want = np.asarray(part.resize((31, 31), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(transforms.central_part(image, 31), want)


def test_colours_are_shifted_in_luma_and_chroma():
    image, shifts = np.full((2, 3, 3), 128, np.uint8), []
    for seed in range(400):
        got = transforms.distort_colors(image, np.random.default_rng(seed)).astype(float)
        assert (got == got[0, 0]).all()
        red, green, blue = got[0, 0] - 128
        # YCbCr of the shift (BT.601), which is what was drawn.
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        shifts.append((luma, (blue - luma) / 1.772, (red - luma) / 1.402))
    reach = np.abs(shifts).max(0)
    np.testing.assert_allclose(reach, [32, 25.5, 25.5], atol=1.5)
    assert (np.abs(np.mean(shifts, 0)) < 6 * reach / 3**0.5 / 20).all()
    corner = np.array([[[255, 0, 250]]], np.uint8)
    assert all(
        transforms.distort_colors(corner, np.random.default_rng(s)).max() > 200 for s in range(50)
    )  # clipped, not wrapped around
    gray = transforms.distort_colors(image[..., :1], np.random.default_rng(0))
    assert gray.shape == (2, 3, 1) and (gray == gray[0, 0]).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [1, 4, 5, 12])
def test_cutout_covers_a_square_around_any_pixel(channels, side):
    height, width, fill = 9, 7, (200, 210, 220)[:channels]
    image = noise(height, width, channels) // 2  # below the fill
    before, rng, corners = image.copy(), np.random.default_rng(0), set()
    for _ in range(800):
        got = transforms.cut_out(image, rng, side, fill)
        covered = (got == fill).all(-1)
        np.testing.assert_array_equal(got[~covered], image[~covered])
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        # All of its bounding box, and as large as the border leaves it.
        assert covered.sum() == len(rows) * len(columns)
        assert len(rows) <= side and len(columns) <= side
        for cells, size in ((rows, height), (columns, width)):
            assert len(cells) == min(side, size) or cells[0] == 0 or cells[-1] == size - 1
        corners.add((rows[0], rows[-1], columns[0], columns[-1]))
    np.testing.assert_array_equal(image, before)
    if side <= 5:  # every pixel is the centre of another square
        assert len(corners) == height * width


def test_cutout_is_the_last_of_a_recipe():
    image = noise(32, 32)
    options = {"image_size": 32, "train": True, "fill": (1, 2, 3)}
    for policy in ("none", "cifar"):
        plain = transforms.make_transform("small", autoaugment=policy, **options)
        cut = transforms.make_transform("small", autoaugment=policy, cutout=0.5, **options)
        for seed in range(5):
            rng = np.random.default_rng(seed)
            want = transforms.cut_out(plain(image, rng), rng, 16, (1, 2, 3))
            np.testing.assert_array_equal(cut(image, np.random.default_rng(seed)), want)
