"""Losses and metrics against literal computations, and what the task refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10_amoebanet, mnist_resnet
from inputs.images import DataError
from tasks import make_task


@pytest.fixture(scope="module")
def task():
    return make_task(mnist_resnet.get_config())


def literal(logits, labels, mask):
    """Mean cross-entropy, top-1 and top-5 in percent, in float64, example by example."""
    losses, top1, top5 = [], [], []
    for row, label, valid in zip(np.asarray(logits, np.float64), labels, mask, strict=True):
        if valid:
            losses.append(np.log(np.exp(row - row.max()).sum()) + row.max() - row[label])
            order = np.argsort(-row, kind="stable")
            top1.append(order[0] == label)
            top5.append(label in order[:5])
    return {"loss": np.mean(losses), "top1": 100 * np.mean(top1), "top5": 100 * np.mean(top5)}


def test_metrics_are_exactly_those_of_the_masked_examples(task, key):
    logits = 3 * jax.random.normal(key, (40, 10))
    labels = jax.random.randint(key, (40,), 0, 10)
    mask = jnp.arange(40) < 33
    sums = task.eval_sums({"logits": logits}, {"label": labels, "mask": mask})
    assert sums["count"] == 33
    assert task.summarize(sums) == pytest.approx(literal(logits, labels, mask), rel=1e-5)


def test_equal_logits_are_not_right_for_every_label(task):
    batch = {"label": jnp.arange(10), "mask": jnp.ones(10, bool)}
    sums = task.eval_sums({"logits": jnp.zeros((10, 10))}, batch)
    assert (sums["top1"], sums["top5"]) == (1, 5)


def test_masked_examples_may_hold_anything(task):
    logits = jnp.array([[9.0] + [0.0] * 9, [jnp.nan] * 10])
    batch = {"label": jnp.array([0, 0]), "mask": jnp.array([True, False])}
    assert task.summarize(task.eval_sums({"logits": logits}, batch)) == pytest.approx(
        literal(logits[:1], [0], [True]), rel=1e-4
    )
    batch["mask"] = jnp.array([True, True])
    assert task.summarize(task.eval_sums({"logits": logits}, batch))["top1"] == 50
    # One such logit is enough for an example to be wrong.
    partly = jnp.array([[9.0, jnp.nan] + [0.0] * 8] * 2)
    sums = task.eval_sums({"logits": partly}, batch)
    assert (sums["top1"], sums["top5"]) == (0, 0)


def test_metrics_of_no_example_are_no_numbers(task):
    sums = task.eval_sums(
        {"logits": jnp.zeros((2, 10))},
        {"label": jnp.array([0, 1]), "mask": jnp.array([False, False])},
    )
    assert all(np.isnan(value) for value in task.summarize(sums).values())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_loss(key, smoothing):
    config = mnist_resnet.get_config()
    config.label_smoothing = smoothing
    logits = jax.random.normal(key, (6, 10))
    labels = jnp.array([0, 1, 2, 3, 4, 5])
    loss, sums = make_task(config).loss({"logits": logits}, {"label": labels})
    targets = np.eye(10)[np.asarray(labels)] * (1 - smoothing) + smoothing / 10
    log_p = np.asarray(jax.nn.log_softmax(logits))
    assert float(loss) == pytest.approx(-(targets * log_p).sum(-1).mean(), rel=1e-5)
    assert float(sums["loss"]) == pytest.approx(6 * float(loss), rel=1e-5)


def test_the_auxiliary_head_adds_its_smoothed_loss_and_no_metric(key):
    config = cifar10_amoebanet.get_config("baseline")
    assert (config.aux_weight, config.label_smoothing) == (0.4, 0.1)
    task = make_task(config, need_data=False)
    logits, aux = jax.random.normal(key, (2, 6, 10))
    batch = {"label": jnp.array([0, 1, 2, 3, 4, 5])}
    loss, sums = task.loss({"logits": logits, "aux_logits": aux}, batch)
    (own, own_sums), (other, _) = (task.loss({"logits": x}, batch) for x in (logits, aux))
    assert float(loss) == pytest.approx(float(own) + 0.4 * float(other), rel=1e-6)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, sums, own_sums))


def test_images_are_normalised_on_the_device(task):
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    expected = (pixels / 255 - 0.13) / 0.31
    np.testing.assert_allclose(task.inputs({"image": pixels}), expected, rtol=1e-5, atol=1e-6)


def test_pictures_show_labels_and_mistakes(task):
    batch = next(iter(task.eval_batches(batch_size=16, rows=slice(None))))
    shown = {"logits": np.eye(10)[(batch["label"] + 1) % 10]}
    shown["logits"][1] = np.eye(10)[batch["label"][1]]
    first = {name: values[:9] for name, values in batch.items()}
    figure = task.draw({"logits": shown["logits"][:9]}, first)
    titles = [axis.get_title() for axis in figure.axes]
    assert len(figure.axes) == 16 and sum(map(bool, titles)) == 9
    wrong, right = (batch["label"][0] + 1) % 10, batch["label"][0]
    assert titles[0] == f"{task.class_names[wrong]}\n({task.class_names[right]})"
    assert titles[1] == f"{task.class_names[batch['label'][1]]}\n "
    red, black = (axis.title.get_color() for axis in figure.axes[:2])
    assert (red, black) == ("#c00000", "black")
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == ["right prediction", "wrong (truth)"]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), batch["image"][0, ..., 0])


def test_the_likeliest_classes_are_told(task):
    logits = np.array([1000.0, 1002, 0, 1001, 998, 998, 990, 0, 0, 0], np.float32)
    powers = {"1": 0, "3": -1, "0": -2, "4": -4, "5": -4}
    total = sum(np.exp(power) for power in [*powers.values(), -12])
    found = task.describe({"logits": logits})["top5"]
    assert [item["class"] for item in found] == list(powers)
    assert [item["probability"] for item in found] == pytest.approx(
        [np.exp(power) / total for power in powers.values()], rel=1e-6
    )
    image = np.arange(784, dtype=np.uint8).reshape(28, 28, 1)
    figure = task.picture(image, {"logits": logits})
    assert figure.axes[0].get_title() == "0.65 1\n0.24 3\n0.09 0"
    assert len(figure.axes) == 1
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), image[..., 0])


@pytest.mark.parametrize("cache", [False, True])
def test_examples_stay_in_memory_where_the_config_says_so(cache):
    config = mnist_resnet.get_config()
    config.data.cache = cache
    source = make_task(config, train=False).eval
    assert (source[0] is source[0]) == cache


def test_an_image_that_cannot_be_read_is_no_reason_not_to_look_at_the_next():
    def source(*images):
        class Images(list):
            def __getitem__(self, index):
                if images[index] is None:
                    raise DataError("not an image")
                return {"image": images[index]}

        return Images(images)

    config = mnist_resnet.get_config()
    config.data.augment = "none"
    task = make_task(config)
    right, wrong = np.zeros((28, 28, 1), np.uint8), np.zeros((28, 20, 1), np.uint8)
    task.check_example(source(None, right), train=False)
    with pytest.raises(ValueError, match=r"\(28, 20, 1\).*\(28, 28, 1\)"):
        task.check_example(source(None, wrong, right), train=False)
    task.check_example(source(*[None] * 3), train=False)


def test_shapes_are_those_of_the_data(task):
    batch = next(iter(task.train_batches(start_step=0, rows=slice(None))))
    for name, expected in task.batch_shapes(100).items():
        assert (batch[name].shape, batch[name].dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing.*1.0"),
        ({"model.name": "vgg"}, "model.name.*'resnet', 'amoebanet'.*'vgg'"),
        ({"model.name": "amoebanet"}, "not of model.name 'amoebanet': it has no model.cells"),
        ({"dtype": "float64"}, "dtype.*'float64'"),
        ({"data.on_error": "ignore"}, "data.on_error.*'ignore'"),
        ({"data.augment": "heavy"}, "data.augment.*'heavy'"),
        ({"data.crop_padding": -1}, "data.crop_padding.*-1"),
        ({"data.mean": (0.1, 0.2)}, r"data.mean.*1 channels.*\(0.1, 0.2\)"),
        ({"data.image_size": 0}, "data.image_size.*0"),
        ({"data.image_size": 32, "data.augment": "none"}, r"\(28, 28, 1\).*\(32, 32, 1\)"),
        (
            {"data.channels": 3, "data.mean": (0.1,) * 3, "data.std": (0.3,) * 3},
            r"\(28, 28, 1\).*\(28, 28, 3\): set",
        ),
        ({"data.name": "nowhere"}, "inputs.prepare --name=nowhere"),
        ({"data.eval_split": "validation"}, "validation"),
        ({"task": "guessing"}, "task must be.*'guessing'"),
        ({"drop.kind": "blockdrop"}, "drop.kind"),
    ],
)
def test_wrong_configs_are_refused(fields, message):
    config = mnist_resnet.get_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=message):
        make_task(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"aux_weight": -0.4}, "aux_weight.*-0.4"),
        ({"model.cells": "z"}, "model.cells must be one of .*'z'"),
        ({"model.head_keep_prob": -0.5}, r"model.head_keep_prob must be in \[0, 1\], got -0.5"),
        ({"model.name": "resnet"}, "not of model.name 'resnet': it has no model.depth"),
    ],
)
def test_wrong_configs_of_amoebanet_are_refused(fields, message):
    config = cifar10_amoebanet.get_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=message):
        make_task(config, need_data=False)


def test_counts_come_from_the_config_where_the_data_is_missing():
    config = mnist_resnet.get_config()
    config.data.name = "nowhere"
    task = make_task(config, need_data=False)
    assert (task.num_train, task.num_eval, len(task.class_names)) == (4000, 1000, 10)
    assert "nowhere" in task.missing
    config.data.num_eval_examples = None
    with pytest.raises(ValueError, match="num_eval_examples must be set"):
        make_task(config, need_data=False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"autoaugment": "svhn"}, "data.autoaugment must be one of .*'cifar'.*got 'svhn'"),
        ({"cutout": 1.5}, r"data.cutout must be in \[0, 1\], got 1.5"),
        (
            {"autoaugment": "cifar", "channels": 4, "mean": (0.5,) * 4, "std": (0.2,) * 4},
            "data.autoaugment needs 1 or 3 channels, got 4",
        ),
    ],
)
def test_augmentations_are_checked(fields, message):
    config = mnist_resnet.get_config()
    config.data.update(fields)
    with pytest.raises(ValueError, match=message):
        make_task(config)


@pytest.mark.parametrize(
    ("channels", "policy"), [(1, "cifar"), (3, "cifar"), (4, "none"), (2, "none")]
)
def test_images_of_any_channels_will_do_without_a_policy(channels, policy):
    config = mnist_resnet.get_config()
    config.data.update(
        name="nowhere",
        channels=channels,
        mean=(0.5,) * channels,
        std=(0.2,) * channels,
        autoaugment=policy,
    )
    make_task(config, need_data=False)


@pytest.mark.parametrize("variant", ["cutout", "autoaugment"])
def test_augmented_batches_follow_from_seed_and_position(variant):
    def batches(start_step):
        task = make_task(mnist_resnet.get_config(variant))
        iterator = task.train_batches(start_step=start_step, rows=slice(None))
        return [next(iterator)["image"] for _ in range(4 - start_step)]

    whole = batches(0)
    assert whole[0].shape == (100, 28, 28, 1) and whole[0].dtype == np.uint8
    for ran, sought in zip(whole[2:], batches(2), strict=True):
        np.testing.assert_array_equal(ran, sought)
    plain = make_task(mnist_resnet.get_config("baseline"))
    image = next(plain.train_batches(start_step=0, rows=slice(None)))["image"]
    changed = (image != whole[0]).any((1, 2, 3)).mean()
    assert changed > 0.5
    if variant == "cutout":  # 0.13 of 255, and at least a quarter of the square is inside
        assert ((whole[0] == round(0.13 * 255)).sum((1, 2, 3)) >= 49).all()
