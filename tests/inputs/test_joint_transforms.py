import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inputs.joint_transforms import IGNORE, detection_transform, segmentation_transform
from inputs.pipeline import eval_batches, train_batches
from inputs.scenes import Scenes
from photos import photo

FILL = (10, 20, 30)


def example(image, boxes=(), *, labels=None, crowd=None, index=7):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return {
        "image": image,
        "boxes": boxes,
        "labels": np.array(range(len(boxes)) if labels is None else labels, np.int32),
        "crowd": np.zeros(len(boxes), bool) if crowd is None else np.array(crowd),
        "area": np.ones(len(boxes), np.float32),
        "image_id": 3,
        "index": np.int32(index),
    }


def detect(*, image_size=64, max_boxes=5, train=True, fill=FILL, **kwargs):
    return detection_transform(
        image_size=image_size, max_boxes=max_boxes, train=train, fill=fill, **kwargs
    )


def bilinear(image, tall, wide):
    return np.asarray(Image.fromarray(image).resize((wide, tall), Image.Resampling.BILINEAR))


def nearest(mask, tall, wide):
    height, width = mask.shape
    centres = [
        [mask[(2 * y + 1) * height // (2 * tall), (2 * x + 1) * width // (2 * wide)]]
        for y in range(tall)
        for x in range(wide)
    ]
    return np.array(centres, np.uint8).reshape(tall, wide)


def literal(image, boxes, rng, *, scale, fill, resize, size=64):
    """The whole image resized, then sliced, mirrored, and laid on a canvas; boxes one by one."""
    height, width = image.shape[:2]
    factor = rng.uniform(*scale) * size / max(height, width)
    tall, wide = (max(1, round(side * factor)) for side in (height, width))
    top, left = rng.integers(0, [max(0, tall - size) + 1, max(0, wide - size) + 1])
    mirrored = rng.random() < 0.5
    part = resize(image, tall, wide)[top : top + size, left : left + size]
    rows, columns = part.shape[:2]
    canvas = np.tile(np.array(fill, np.uint8), (size, size, 1)).reshape(size, size, -1)
    canvas[:rows, :columns] = (part[:, ::-1] if mirrored else part).reshape(rows, columns, -1)
    moved = []
    for ymin, xmin, ymax, xmax in boxes:
        y0, y1 = (min(max(y * tall / height - top, 0), rows) for y in (ymin, ymax))
        x0, x1 = (min(max(x * wide / width - left, 0), columns) for x in (xmin, xmax))
        if mirrored:
            x0, x1 = columns - x1, columns - x0
        if y1 > y0 and x1 > x0:
            moved.append((y0, x0, y1, x1))
    return canvas, np.array(moved).reshape(-1, 4)


shapes = st.tuples(st.integers(1, 150), st.integers(1, 150))


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 10**6), st.sampled_from([(0.8, 1.2), (0.75, 1.5), (0.3, 4.0)]))
def test_detection_is_resize_crop_flip_and_pad(shape, seed, scale):
    image = photo(*shape, seed)
    corners = np.random.default_rng(seed).uniform(0, 1, (5, 2, 2))
    boxes = (np.sort(corners, axis=1) * shape).reshape(-1, 4)
    transform = detect(scale=scale)
    got = transform(example(image, boxes), np.random.default_rng(seed))
    again = transform(example(image, boxes), np.random.default_rng(seed))
    assert all(np.array_equal(got[key], again[key]) for key in got)
    want, want_boxes = literal(
        *(image, boxes.astype(np.float32), np.random.default_rng(seed)),
        scale=scale,
        fill=FILL,
        resize=bilinear,
    )
    np.testing.assert_allclose(
        got["image"].astype(int), want, atol=2
    )  # Pillow rounds the crop to float32
    count = (got["labels"] >= 0).sum()
    np.testing.assert_allclose(got["boxes"][:count], want_boxes, atol=1e-3)
    assert not got["boxes"][count:].any() and (got["labels"][count:] == -1).all()


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(0, 10**6), st.sampled_from([(0.75, 1.5), (0.3, 3.0)]))
def test_segmentation_is_resize_crop_flip_and_pad(shape, seed, scale):
    image = photo(*shape, seed)
    mask = np.random.default_rng(seed).integers(0, 21, shape, np.uint8)
    transform = segmentation_transform(image_size=64, train=True, scale=scale, fill=FILL)
    got = transform(
        {"image": image, "mask": mask, "index": np.int32(0)}, np.random.default_rng(seed)
    )
    rngs = [np.random.default_rng(seed) for _ in range(2)]
    want, _ = literal(image, [], rngs[0], scale=scale, fill=FILL, resize=bilinear)
    label, _ = literal(mask, [], rngs[1], scale=scale, fill=IGNORE, resize=nearest)
    np.testing.assert_allclose(got["image"].astype(int), want, atol=2)
    np.testing.assert_array_equal(got["label"], label[..., 0])


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(0, 10**6))
def test_boxes_and_masks_follow_the_pixels(data, seed):
    """A bright rectangle is found again where its box and its mask say."""
    height, width = data.draw(st.integers(40, 160)), data.draw(st.integers(40, 160))
    ymin, xmin = data.draw(st.integers(0, height - 20)), data.draw(st.integers(0, width - 20))
    ymax = data.draw(st.integers(ymin + 10, height))
    xmax = data.draw(st.integers(xmin + 10, width))
    image, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    image[ymin:ymax, xmin:xmax], mask[ymin:ymax, xmin:xmax] = 255, 1
    train = data.draw(st.booleans())

    transform = detect(train=train, fill=(0, 0, 0), scale=(0.5, 2.0))
    got = transform(example(image, [(ymin, xmin, ymax, xmax)]), np.random.default_rng(seed))
    bright = got["image"][..., 0] > 127
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    if got["labels"][0] == -1:  # cropped away; the blurred edge of it may just be seen
        assert train and bright.mean() < 0.03
    elif min(got["boxes"][0, 2:] - got["boxes"][0, :2]) >= 2:
        found = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
        np.testing.assert_allclose(got["boxes"][0], found, atol=1.01)
    # Of less than that, what is left of it at a border is about half as bright: it may be missed.

    transform = segmentation_transform(image_size=64, train=True, fill=(0, 0, 0), scale=(0.5, 2.0))
    given_ = {"image": image, "mask": mask, "index": np.int32(0)}
    got = transform(given_, np.random.default_rng(seed))
    inside = got["label"] != IGNORE
    assert not got["image"][~inside].any()
    agree = (got["image"][..., 0] > 127) == (got["label"] == 1)
    # Within half a pixel of the original's of the border, or one of the result's, they may differ;
    # and the border may lie just beyond the picture.
    reach = max(1, int(np.ceil(max(got["scale"]) / 2)))
    edge = np.pad(got["label"] == 1, reach)
    near = np.zeros_like(agree)
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            near |= edge[dy : dy + 64, dx : dx + 64] != (got["label"] == 1)
    thin = min((got["label"] == 1).any(axis).sum() for axis in (0, 1)) < 3
    assert thin or (agree | near).all()


def test_evaluation_shows_the_whole_image_and_leads_back():
    image = photo(100, 160)
    boxes = [(0, 0, 100, 160), (10.5, 20.25, 30, 47)]
    transform = detect(image_size=128, train=False)
    got = transform(example(image, boxes), np.random.default_rng(0))
    other = transform(example(image, boxes), np.random.default_rng(1))
    assert all(np.array_equal(got[key], other[key]) for key in got)
    np.testing.assert_array_equal(got["original_size"], [100, 160])
    np.testing.assert_allclose(got["scale"], 0.8)
    back = got["boxes"] / got["scale"][[0, 1, 0, 1]]
    np.testing.assert_allclose(back[:2], boxes, rtol=1e-6)
    assert got["index"] == 7
    want = np.asarray(Image.fromarray(image).resize((128, 80), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(got["image"][:80], want)
    np.testing.assert_array_equal(got["image"][80:], np.broadcast_to(FILL, (48, 128, 3)))
    assert {key: (value.shape, str(value.dtype)) for key, value in got.items()} == {
        "image": ((128, 128, 3), "uint8"),
        "boxes": ((5, 4), "float32"),
        "labels": ((5,), "int32"),
        "scale": ((2,), "float32"),
        "original_size": ((2,), "int32"),
        "index": ((), "int32"),
    }


def test_small_images_are_enlarged_in_evaluation_as_in_training():
    got = detect(train=False)(example(photo(16, 8)), np.random.default_rng(0))
    np.testing.assert_array_equal(got["scale"], [4, 4])


def test_segmentation_is_scored_at_the_original_size():
    image, mask = photo(30, 50), np.random.default_rng(0).integers(0, 3, (30, 50), np.uint8)
    mask[3, 4] = IGNORE
    transform = segmentation_transform(image_size=100, train=False, fill=FILL, max_size=(40, 50))
    got = transform({"image": image, "mask": mask, "index": np.int32(2)}, np.random.default_rng(0))
    np.testing.assert_array_equal(got["label"][:30], mask)
    assert got["label"].shape == (40, 50) and (got["label"][30:] == IGNORE).all()
    np.testing.assert_array_equal(got["scale"], [2, 2])
    np.testing.assert_array_equal(got["original_size"], [30, 50])
    # A pixel's centre is found in the enlarged image where the docstring says.
    y, x = 17, 33
    at = got["image"][int((y + 0.5) * 2) - 1 : int((y + 0.5) * 2) + 1, int((x + 0.5) * 2)]
    np.testing.assert_allclose(at.mean(0), image[y, x], atol=6)
    without = segmentation_transform(image_size=100, train=False, fill=FILL)
    again = without({"image": image, "index": np.int32(2)}, np.random.default_rng(0))
    assert again.keys() == got.keys() - {"label"}
    assert all((again[name] == got[name]).all() for name in again)


def test_the_scale_covers_its_range():
    transform = detect(scale=(0.8, 1.2))
    rng = np.random.default_rng(0)
    factors = [transform(example(photo(32, 24)), rng)["scale"][0] / 2 for _ in range(300)]
    assert min(factors) >= 0.8 - 1 / 64 and max(factors) <= 1.2 + 1 / 64
    counts, _ = np.histogram(factors, 4, (0.8, 1.2))
    assert counts.min() > 45  # 75 each; below by chance: P < 1e-4, and the generator is fixed


def test_crowds_are_left_out_and_of_too_many_the_largest_stay():
    boxes = [(0, 0, s, s) for s in (10, 40, 20, 64, 30, 50)]
    crowd = [False, False, False, True, False, False]
    transform = detect(train=False, max_boxes=3)
    got = transform(example(photo(64, 64), boxes, crowd=crowd), np.random.default_rng(0))
    np.testing.assert_array_equal(got["labels"], [1, 4, 5])
    np.testing.assert_array_equal(got["boxes"][:, 3], [40, 30, 50])


def test_without_flip_nothing_is_mirrored():
    image = np.zeros((32, 32, 1), np.uint8)
    image[:, 16:] = 255
    for flip, mirrored in ((False, 0), (True, 20)):
        transform = detect(flip=flip, fill=(0,), scale=(1.0, 1.0))
        seen = [
            transform(example(image), np.random.default_rng(seed))["image"][0, 0, 0] > 0
            for seed in range(40)
        ]
        assert abs(sum(seen) - mirrored) <= 15 * flip


@pytest.mark.parametrize("rows", [slice(0, 4), slice(4, 8)])
def test_scenes_go_through_the_pipeline(rows):
    source = Scenes("train[:20]")
    transform = detect(max_boxes=8, fill=(0,), flip=False)
    batch = next(train_batches(source, transform, batch_size=8, seed=0, rows=rows, num_threads=0))
    whole = next(train_batches(source, transform, batch_size=8, seed=0, num_threads=0))
    for key in whole:
        np.testing.assert_array_equal(batch[key], whole[key][rows])
    assert batch["image"].shape == (4, 64, 64, 1) and (batch["labels"] >= 0).any(1).all()

    transform = segmentation_transform(image_size=64, train=False, max_size=source.max_size)
    batches = list(eval_batches(source, transform, batch_size=8, num_threads=0))
    mask = np.concatenate([b["mask"] for b in batches])
    index = np.concatenate([b["index"] for b in batches])[mask]
    np.testing.assert_array_equal(index, np.arange(20))
    np.testing.assert_array_equal(batches[1]["label"][2], source[10]["mask"])
