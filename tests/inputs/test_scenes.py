import hashlib
import pickle

import numpy as np
import pytest

from inputs.images import DataError
from inputs.scenes import Scenes, _overlap
from inputs.sources import classification_source


@pytest.fixture(scope="module")
def scenes():
    source = Scenes("train[:120]")
    return [source[i] for i in range(len(source))]


def test_boxes_lie_tightly_around_the_digits(scenes):
    for scene in scenes:
        mask, image = scene["mask"], scene["image"][..., 0]
        assert image.shape == mask.shape == (128, 128)
        union = np.zeros(mask.shape, bool)
        for box, label in zip(scene["boxes"].astype(int), scene["labels"], strict=True):
            top, left, bottom, right = box
            assert 0 <= top < bottom <= 128 and 0 <= left < right <= 128
            assert 18 <= max(bottom - top, right - left) <= 56
            union[top:bottom, left:right] = True
            ours = mask[top:bottom, left:right] == label + 1
            assert ours.any()
            alone = all(
                _overlap(tuple(box), tuple(o)) == 0 for o in scene["boxes"] if (o != box).any()
            )
            if alone:
                assert ours.any(1)[[0, -1]].all() and ours.any(0)[[0, -1]].all()
        assert not image[~union].any() and not mask[~union].any()
        np.testing.assert_array_equal(mask > 0, image >= 64)
        assert set(np.unique(mask)) == {0, *(scene["labels"] + 1)}


def test_digits_overlap_little_and_all_counts_and_sizes_occur(scenes):
    for scene in scenes:
        boxes = scene["boxes"]
        for i in range(len(boxes)):
            for j in range(i):
                assert _overlap(tuple(boxes[i]), tuple(boxes[j])) <= 0.1
    assert {len(scene["boxes"]) for scene in scenes} == {2, 3, 4, 5, 6}
    assert {int(label) for scene in scenes for label in scene["labels"]} == set(range(10))
    sides = [max(b[2] - b[0], b[3] - b[1]) for scene in scenes for b in scene["boxes"]]
    assert min(sides) <= 22 and max(sides) >= 54


def test_overlap():
    assert _overlap((0, 0, 10, 10), (5, 5, 15, 25)) == 0.25  # of the smaller
    assert _overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert _overlap((0, 0, 10, 10), (2, 2, 4, 4)) == 1


def test_a_scene_follows_from_its_index_alone():
    source = Scenes("train")
    later = pickle.loads(pickle.dumps(source))
    for index in (3999, 0, 17):
        one, other = source[index], later[index]
        assert all(np.array_equal(one[key], other[key]) for key in one)
    part = Scenes("train[10:20]")
    assert len(part) == 10 and len(source) == 4000 and len(Scenes("test")) == 500
    np.testing.assert_array_equal(part[7]["image"], source[17]["image"])
    assert (part[7]["index"], part[7]["image_id"]) == (7, 18)
    assert not np.array_equal(Scenes("train", seed=1)[0]["image"], source[0]["image"])
    with pytest.raises(IndexError):
        part[10]


def test_scenes_never_change():
    """Published results name these scenes: boxes and labels are the same on any machine."""
    source = Scenes("test[:50]")
    digest = hashlib.sha256()
    for scene in (source[i] for i in range(50)):
        digest.update(scene["boxes"].tobytes() + scene["labels"].tobytes())
    assert digest.hexdigest() == "050b99b9c153f3084173f368815fddd80fc0ef4e26eb0c1d3797f90e4fff7700"


def test_test_scenes_have_other_digits():
    """Digits keep their pixels where they are not scaled: 20 pixels is what MNIST has."""
    kwargs = {"digit_size": (20, 20), "digits": (1, 1), "size": 20}
    found = {}
    for split in ("train", "test"):
        source = Scenes(f"{split}[:300]", **kwargs)
        found[split] = {source[i]["image"].tobytes() for i in range(300)}
    assert not found["train"] & found["test"]
    digits = classification_source("mnist", None, "test")
    known = {digits[i]["image"][4:24, 4:24].tobytes() for i in range(len(digits))}
    assert found["test"] & known  # those that fill the square


def test_arguments_shape_the_scenes():
    source = Scenes("train[:30]", size=64, digit_size=(10, 16), digits=(1, 9), max_overlap=0)
    for scene in (source[i] for i in range(30)):
        assert scene["image"].shape == (64, 64, 1) and 1 <= len(scene["boxes"]) <= 9
        assert (scene["boxes"][:, 2:] - scene["boxes"][:, :2]).max() <= 16
        assert np.prod(scene["boxes"][:, 2:] - scene["boxes"][:, :2], axis=1).sum() <= 64 * 64
    assert source.max_size == (64, 64)


def test_ground_truth_is_that_of_the_scenes():
    source = Scenes("test[:5]")
    truth = source.ground_truth()
    assert [image["id"] for image in truth["images"]] == [source[i]["image_id"] for i in range(5)]
    for index, image in enumerate(truth["images"]):
        own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        scene = source[index]
        x, y, w, h = np.array([a["bbox"] for a in own]).T
        np.testing.assert_array_equal(np.stack([y, x, y + h, x + w], 1), scene["boxes"])
        ids = [source.category_ids[label] for label in scene["labels"]]
        assert [a["category_id"] for a in own] == ids
        assert [a["area"] for a in own] == scene["area"].tolist()
    assert [c["name"] for c in truth["categories"]] == list(source.class_names)


def test_classes_of_detection_and_segmentation():
    assert Scenes("test").class_names == tuple("0123456789")
    assert Scenes("test", masks=True).class_names == ("background", *"0123456789")
    Scenes("test", class_names=tuple("0123456789"))


@pytest.mark.parametrize(
    "split, kwargs, match",
    [
        ("val", {}, "no split 'val': use one of train, test"),
        ("test[:501]", {}, "examples 0 to 501 of 500"),
        ("test", {"size": 50}, "20 to 56 pixels do not fit on a canvas of 50"),
        ("test", {"digit_size": (30, 20)}, "30 to 20 pixels do not fit"),
        ("test", {"digits": (0, 3)}, r"digits is \(0, 3\)"),
        ("test", {"class_names": ("a", "b")}, "leave config.data.class_names unset"),
    ],
)
def test_wrong_arguments_are_explained(split, kwargs, match):
    with pytest.raises(DataError, match=match):
        Scenes(split, **kwargs)
