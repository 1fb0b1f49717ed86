"""What holds for every task."""

import jax
import numpy as np
import pytest
from flax import nnx

from configs import cifar10_amoebanet, mnist_resnet
from tasks import make_task
from tasks.base import Task, mean_color
from tasks.classification import Classification

# What a new task has to give.
PARTS = {
    "open_split",
    "transform",
    "batch_shapes",
    "make_model",
    "loss",
    "summarize",
    "predict",
    "eval_sums",
    "score",
    "draw",
    "unlabeled",
    "describe",
    "picture",
}


@pytest.mark.parametrize("missing", sorted(PARTS))
def test_a_task_that_lacks_a_part_is_refused_at_once(missing):
    parts = dict.fromkeys(PARTS - {missing}, lambda *_: None)
    with pytest.raises(TypeError, match=f"abstract method '?{missing}"):
        type("Partial", (Task,), parts)(None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [(4000, True), (1000, False)]),
        ({"train": False}, [(1000, False)]),
        ({"evaluate": False}, [(4000, True)]),
        ({"train": False, "evaluate": False}, []),
    ],
)
def test_the_splits_that_are_opened_are_checked(options, expected):
    seen = []

    class Watched(Classification):
        def check_example(self, source, *, train):
            seen.append((len(source), train))

    config = mnist_resnet.get_config()
    config.data.update(num_train_examples=7, num_eval_examples=8)
    config.data.class_names = tuple("0123456789")
    task = Watched(config, **options)
    assert seen == expected
    found = {train: count for count, train in expected}
    assert task.facts == {
        "class_names": config.data.class_names,
        "num_classes": 10,
        "num_train_examples": found.get(True, 7),
        "num_eval_examples": found.get(False, 8),
    }


def test_a_split_without_examples_is_named():
    config = mnist_resnet.get_config()
    config.data.eval_split = "test[:0]"
    with pytest.raises(ValueError, match=r"test\[:0\]"):
        make_task(config)


def test_classes_have_the_configs_names_where_the_data_is_missing():
    config = mnist_resnet.get_config()
    config.data.update(name="nowhere", num_classes=2)
    assert make_task(config, need_data=False).class_names == ("0", "1")
    config.data.class_names = ("cat", "dog")
    assert make_task(config, need_data=False).class_names == ("cat", "dog")
    with pytest.raises(ValueError, match="nowhere"):
        Classification(config)


def test_data_that_is_there_is_not_called_missing(tmp_path):
    config = mnist_resnet.get_config()
    (tmp_path / "train" / "cat").mkdir(parents=True)
    config.data.update(name="image_folder", dir=str(tmp_path), num_classes=2)
    said = make_task(config, need_data=False).data_found
    assert said.startswith("the data cannot be used as it is, its counts are the config's: ")
    assert "cat holds no images" in said
    with config.ignore_type():
        config.data.num_classes = None
    with pytest.raises(ValueError, match=r"cat holds no images.*") as error:
        make_task(config, need_data=False)
    assert "Without the data" not in str(error.value)


def test_each_channel_has_its_mean_and_deviation():
    config = cifar10_amoebanet.get_config()
    config.data.mean, config.data.std = (0.0, 0.5, 1.0), (0.5, 0.25, 2.0)
    task = make_task(config, need_data=False)
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3) * 10
    expected = np.empty(pixels.shape)
    for channel, (mean, std) in enumerate(((0.0, 0.5), (0.5, 0.25), (1.0, 2.0))):
        expected[..., channel] = (pixels[..., channel] / 255 - mean) / std
    np.testing.assert_allclose(task.inputs({"image": pixels}), expected, rtol=1e-5, atol=1e-6)
    assert mean_color(config.data) == (0, 128, 255)
    shape = task.image_shape(5)
    assert (shape.shape, shape.dtype) == ((5, 32, 32, 3), np.uint8)


def test_evaluation_sees_the_images_as_they_are():
    task = make_task(mnist_resnet.get_config("cutout"), train=False)
    batch = next(iter(task.eval_batches(batch_size=8, rows=slice(None))))
    for index, image in enumerate(batch["image"]):
        np.testing.assert_array_equal(image, task.eval[index]["image"])
    assert not task.collects and task.files({}) == {}


def test_the_least_values_are_allowed():
    config = mnist_resnet.get_config()
    config.data.update(name="nowhere", image_size=1, crop_padding=0, cutout=0.0)
    make_task(config, need_data=False)


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_an_auxiliary_head_is_there_where_it_counts(weight):
    config = cifar10_amoebanet.get_config()
    config.aux_weight = weight
    task = make_task(config, need_data=False)
    model = nnx.eval_shape(lambda: task.make_model("cpu", nnx.Rngs(0)))
    paths = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert any("aux" in jax.tree_util.keystr(path) for path, _ in paths) == (weight > 0)
