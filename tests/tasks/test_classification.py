"""Losses and metrics against literal computations, and what the task refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10_amoebanet, mnist_resnet
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
    assert task.summarize(task.eval_sums({"logits": logits}, batch))["top1"] == 100
    batch["mask"] = jnp.array([True, True])
    assert task.summarize(task.eval_sums({"logits": logits}, batch))["top1"] == 50


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
    figure = task.draw(shown, batch, limit=9)
    titles = [axis.get_title() for axis in figure.axes]
    assert len(figure.axes) == 16 and sum(map(bool, titles)) == 9
    wrong, right = (batch["label"][0] + 1) % 10, batch["label"][0]
    assert titles[0] == f"{task.class_names[wrong]} ({task.class_names[right]})"


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
        ({"data.augment": "heavy"}, "'heavy'"),
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
