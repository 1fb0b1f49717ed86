"""Segmentation's loss, resizing and confusion matrix, against literal computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny_segmentation
from configs import mask_folder_fcn
from eight_devices import mesh as eight_devices
from inputs.joint_transforms import IGNORE, segmentation_transform
from tasks import make_task, pictures
from tasks.segmentation import Segmentation, class_iou, confusion_matrix, resize_to_original
from training import sharding
from training.evaluation import make_evaluate
from training.plan import make_plan


def tiny(fields=(), variant="baseline"):
    config = tiny_segmentation.get_config(variant)
    config.update_from_flattened_dict(dict(fields))
    return config


STRIDE_2 = {"model.stem_stride": 2, "model.min_level": 1, "model.max_level": 4}


@pytest.fixture(scope="module")
def task():
    return make_task(tiny())


def literal(labels, classes, num_classes):
    """mIoU, pixel accuracy and IoUs, pixel by pixel, as TensorFlow's mean_iou has them."""
    counts = labels != IGNORE
    ious = {}
    for k in range(num_classes):
        hit = (labels == k) & (classes == k)
        either = (labels == k) | (classes == k) & counts
        if either.any():
            ious[k] = hit.sum() / either.sum()
    return np.mean(list(ious.values())), (labels == classes)[counts].mean(), ious


masks = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        # Few of the classes: others are absent, from the truth, the prediction or both.
        st.sets(st.integers(0, classes - 1), min_size=1),
        st.sets(st.integers(0, classes - 1), min_size=1),
        st.integers(0, 2**32 - 1),
    )
)


@settings(max_examples=40, deadline=None)
@given(masks)
def test_metrics_are_those_of_a_literal_computation(drawn):
    num_classes, true, predicted, seed = drawn
    random = np.random.default_rng(seed)
    labels = random.choice([*sorted(true), IGNORE], (2, 9, 7)).astype(np.uint8)
    labels[0, 0, 0] = min(true)
    classes = random.choice(sorted(predicted), (2, 9, 7)).astype(np.uint8)
    confusion = np.asarray(confusion_matrix(jnp.asarray(labels), jnp.asarray(classes), num_classes))
    assert confusion.dtype == np.int32 and confusion.sum() == (labels != IGNORE).sum()
    miou, accuracy, ious = literal(labels, classes, num_classes)
    found = class_iou(confusion)
    assert {k for k in range(num_classes) if not np.isnan(found[k])} == set(ious)
    np.testing.assert_allclose([found[k] for k in ious], list(ious.values()))
    task = object.__new__(Segmentation)
    task.class_names = [f"c{k}" for k in range(num_classes)]
    scored = task.score({"confusion": confusion, "loss": 3.0 * confusion.sum()}, {})
    assert scored.pop("loss") == pytest.approx(3.0)
    assert scored.pop("mIoU") == pytest.approx(100 * miou)
    assert scored.pop("pixel_accuracy") == pytest.approx(100 * accuracy)
    assert scored == pytest.approx({f"IoU/c{k}": 100 * iou for k, iou in ious.items()})


def test_the_loss_is_the_mean_over_the_pixels_that_count(task):
    random = np.random.default_rng(0)
    task = make_task(tiny(STRIDE_2))
    logits = 3 * random.standard_normal((2, 17, 17, 11)).astype(np.float32)
    labels = random.choice([*range(11), IGNORE], (2, 33, 33)).astype(np.uint8)
    loss, sums = jax.jit(task.loss)({"logits": logits}, {"label": labels})
    assert sums["confusion"].shape == (11, 11)
    losses = []
    for image, y, x in np.ndindex(2, 17, 17):
        label = labels[image, 2 * y, 2 * x]
        if label != IGNORE:
            row = logits[image, y, x].astype(np.float64)
            losses.append(np.log(np.exp(row).sum()) - row[label])
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)
    summary = task.summarize(sums)
    assert summary["loss"] == pytest.approx(float(loss), rel=1e-5)
    miou, accuracy, _ = literal(labels[:, ::2, ::2], logits.argmax(-1), 11)
    assert summary["mIoU"] == pytest.approx(100 * miou)
    assert summary["pixel_accuracy"] == pytest.approx(100 * accuracy)


def test_a_batch_without_pixels_that_count_has_loss_0(task):
    batch = {"label": np.full((2, 33, 33), IGNORE, np.uint8)}
    loss, grads = jax.value_and_grad(lambda logits: task.loss({"logits": logits}, batch)[0])(
        jnp.ones((2, 33, 33, 11))
    )
    assert loss == 0 and not grads.any()


def test_the_loss_of_eight_devices_is_that_of_the_whole_batch(task):
    random = np.random.default_rng(1)
    logits = random.standard_normal((8, 33, 33, 11)).astype(np.float32)
    labels = random.integers(0, 11, (8, 33, 33)).astype(np.uint8)
    labels[1:, 5:] = IGNORE  # most of what counts is on the first device
    labels[7] = IGNORE
    whole = jax.jit(task.loss)({"logits": logits}, {"label": labels})
    put = jax.device_put((logits, labels), sharding.by_batch(eight_devices()))
    shared = jax.jit(task.loss)({"logits": put[0]}, {"label": put[1]})
    np.testing.assert_allclose(shared[0], whole[0], rtol=1e-5)
    np.testing.assert_array_equal(shared[1]["confusion"], whole[1]["confusion"])


def test_without_a_scale_it_is_interpolation_with_aligned_corners():
    logits = np.random.default_rng(0).standard_normal((5, 9, 2)).astype(np.float32)
    got = resize_to_original(jnp.asarray(logits), 8, jnp.ones(2), (33, 65))
    np.testing.assert_allclose(got[::8, ::8], logits, atol=1e-5)  # as labels are taken
    between = np.interp(np.arange(65) / 8, np.arange(9), logits[2, :, 1])
    np.testing.assert_allclose(got[16, :, 1], between, atol=1e-5)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_beyond_the_first_and_last_cell_their_values_go_on(scale):
    cells = np.random.default_rng(0).standard_normal((1, 5, 2)).astype(np.float32)
    got = resize_to_original(jnp.asarray(cells), 4, jnp.full(2, scale), (30, 50))
    positions = ((np.arange(50) + 0.5) * scale - 0.5) / 4
    for number in range(2):
        row = np.interp(positions, np.arange(5), cells[0, :, number])
        np.testing.assert_allclose(got[..., number], np.tile(row, (30, 1)), atol=1e-5)


@pytest.mark.parametrize("size", [(36, 60), (44, 25)])
@pytest.mark.parametrize("factor", [1, 3])
def test_logits_land_where_their_labels_were_taken(size, factor):
    """What training takes as labels, and evaluation resizes, lies on the original's own pixels.

    A ramp along an axis is linear, so a shift by part of a pixel would be seen.
    """
    stride, side = 4, max(size) * factor + 1
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = (rows + columns).astype(np.uint8)
    image = mask[..., None]
    example = {"image": image, "mask": mask, "index": np.int32(0)}
    transform = segmentation_transform(image_size=side, train=False, max_size=(64, 64))
    seen = transform(example, np.random.default_rng(0))
    height, width = np.round(np.multiply(size, seen["scale"])).astype(int)
    # A network that says, at each cell, what it sees on the pixel there.
    ys, xs = (np.arange(0, n, stride) for n in (side, side))
    y, x = ((grid + 0.5) / scale - 0.5 for grid, scale in zip((ys, xs), seen["scale"], strict=True))
    logits = (y[:, None] + x[None, :])[..., None].astype(np.float32)
    scale = jnp.asarray(seen["scale"])
    got = np.asarray(resize_to_original(jnp.asarray(logits), stride, scale, (64, 64)))
    inside = (slice(1, size[0] - 4), slice(1, size[1] - 4))  # between the first and last cell
    np.testing.assert_allclose(got[..., 0][inside], mask[inside], atol=1e-3)
    # And the image that the network sees has that value there too.
    shown = seen["image"][..., 0].astype(float)[ys[ys < height]][:, xs[xs < width]]
    expected = logits[: shown.shape[0], : shown.shape[1], 0]
    np.testing.assert_allclose(shown[1:-2, 1:-2], expected[1:-2, 1:-2], atol=1.1)


def test_a_single_pixel_counts_whole(task):
    labels = np.full((2, 33, 33), IGNORE, np.uint8)
    labels[1, 4, 5] = 3
    loss, sums = task.loss({"logits": jnp.zeros((2, 33, 33, 11))}, {"label": labels})
    assert float(loss) == pytest.approx(np.log(11), rel=1e-5)
    summary = task.summarize(sums)
    assert summary["loss"] == pytest.approx(np.log(11), rel=1e-5)
    assert summary["pixel_accuracy"] == 0
    np.testing.assert_array_equal(class_iou([[5, 0, 0], [0, 1, 0], [0, 0, 0]]), [1, 1, np.nan])


def test_no_pixel_has_no_metrics(task):
    sums = {"loss": 0.0, "confusion": np.zeros((11, 11), np.int32)}
    for summary in (task.summarize(sums), task.score(sums, {})):
        assert summary.pop("loss") == 0
        assert summary.keys() == {"mIoU", "pixel_accuracy"} and np.isnan([*summary.values()]).all()


def test_what_is_predicted_is_counted_for_each_example(task):
    labels = np.random.default_rng(0).integers(0, 11, (2, 33, 33)).astype(np.uint8)
    logits = jax.nn.one_hot(
        (labels + np.array([0, 1])[:, None, None]) % 11, 11
    )  # one right, one wrong
    labels[:, 9] = IGNORE
    batch = {"label": labels, "scale": np.ones((2, 2), np.float32)}
    found = task.predict({"logits": logits}, batch, lambda fn: fn)
    np.testing.assert_array_equal(found["classes"], logits.argmax(-1))
    assert [np.trace(counts) for counts in found["confusion"]] == [32 * 33, 0]
    assert found["confusion"].sum() == 2 * 32 * 33 and found["confusion"].shape == (2, 11, 11)
    right, wrong = (np.log(np.e + 10) - hit for hit in (1, 0))
    np.testing.assert_allclose(found["loss"], 32 * 33 * np.array([right, wrong]), rtol=1e-5)


def test_a_picture_leaves_out_padding(task):
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(0, 255, (3, 33, 33, 1), np.uint8),
        "label": random.integers(0, 11, (3, 16, 20), np.uint8),
        "scale": np.float32([[2, 2], [2, 2], [1.5, 2.5]]),
        "original_size": np.int32([[4, 9], [16, 16], [8, 10]]),
    }
    classes = random.integers(0, 11, (3, 16, 20), np.uint8)
    figure = task.draw({"classes": classes}, batch)
    axes = np.reshape(figure.axes, (3, 3))
    assert [row[0].texts[0].get_text() for row in axes] == ["image", "truth", "prediction"]
    assert "3" in {text.get_text() for text in figure.legends[0].get_texts()}
    colors = pictures.class_colors(task.class_names)
    for row, (height, width) in ((0, (8, 18)), (2, (12, 25))):
        shown = axes[0, row].images[0].get_array()
        np.testing.assert_array_equal(shown, batch["image"][row, :height, :width, 0])
        rows, columns = batch["original_size"][row]
        for place, mask in enumerate((batch["label"], classes), start=1):
            np.testing.assert_array_equal(
                axes[place, row].images[0].get_array(), colors[mask[row, :rows, :columns]]
            )


def test_an_image_shifted_by_the_stride_is_a_cell_further():
    random = np.random.default_rng(0)
    task = make_task(tiny(STRIDE_2))
    label = random.integers(0, 11, (1, 33, 33)).astype(np.uint8)
    moved = np.roll(label, 2, axis=2)
    logits = 9 * jax.nn.one_hot(label[:, ::2, ::2], 11)
    shifted = jnp.roll(logits, 1, axis=2)
    there, here = (
        task.loss({"logits": x}, {"label": y})[1]["confusion"]
        for x, y in ((logits, label), (shifted[:, :, 1:-1], moved[:, :, 2:-2]))
    )
    assert np.trace(there) == there.sum() and np.trace(here) == here.sum()


@pytest.fixture(scope="module")
def evaluations():
    """The plan, a new network, and what an evaluation of it finds on 1 and on 8 devices."""
    found = []
    variables: dict = {}
    for devices in (1, 8):
        plan = make_plan(tiny(), make_task, jax.devices()[:devices])
        state = plan.create()
        # Random: a new head says nothing but the first class.
        kernel = np.random.default_rng(0).normal(0, 1, state["params"]["output"]["kernel"].shape)
        state["params"]["output"]["kernel"] = jnp.asarray(kernel, jnp.float32)
        variables = {name: state[name] for name in ("params", "batch_stats")}
        variables = jax.device_put(variables, sharding.replicated(plan.mesh))
        found.append(make_evaluate(plan)(variables))
    return plan, variables, found


def test_eight_devices_find_what_one_does_to_the_last_count(evaluations):
    _, _, (one, eight) = evaluations
    losses = [found.metrics["loss"] for found in (one, eight)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert one.metrics | {"loss": losses[1]} == eight.metrics and one.metrics["examples"] == 11
    assert sum(name.startswith("IoU/") for name in one.metrics) > 3
    assert 0 < one.metrics["mIoU"] < 100


def test_the_loss_of_an_evaluation_is_the_mean_over_all_pixels_that_count(evaluations):
    """Of two batches, the second padded, on 8 devices; pixel by pixel, of one image at a time."""
    plan, variables, (_, eight) = evaluations
    total = pixels = 0
    for batch in plan.task.eval_batches(batch_size=1, rows=slice(None)):
        out, _ = plan.network.apply(*variables.values(), plan.task.inputs(batch), train=False)
        (logits,), (label,), (scale,) = out["logits"], batch["label"], batch["scale"]
        logits = resize_to_original(logits, plan.task.stride, jnp.asarray(scale), label.shape)
        logits, counts = np.asarray(logits, np.float64), label != IGNORE
        own = np.take_along_axis(logits[counts], label[counts][:, None], -1)[:, 0]
        total += (np.log(np.exp(logits[counts]).sum(-1)) - own).sum()
        pixels += counts.sum()
    assert 8000 < pixels < 11 * 40 * 40 + 1
    assert eight.metrics["loss"] == pytest.approx(total / pixels, rel=1e-5)


def test_a_picture_has_image_truth_and_prediction(evaluations):
    plan, _, (one, _) = evaluations
    axes = np.reshape(one.picture.axes, (3, 4))
    assert all(len(axis.images) == 1 for axis in axes.flat)
    # One of each fourth of the 11.
    colors = pictures.class_colors(plan.task.class_names)
    masks = [colors[plan.task.eval[index]["mask"]] for index in range(11)]
    places = [
        [index for index in range(11) if np.array_equal(masks[index], axis.images[0].get_array())]
        for axis in axes[1]
    ]
    parts = [range(2), range(2, 5), range(5, 8), range(8, 11)]
    assert all(index in part for (index,), part in zip(places, parts, strict=True))
    named = {text.get_text() for text in one.picture.legends[0].get_texts()}
    seen = {value for (i,) in places for value in np.unique(plan.task.eval[i]["mask"]).tolist()}
    assert {plan.task.class_names[value] for value in seen} <= named


def test_sums_of_all_batches_are_exact(task):
    """Masked examples may hold anything, and counts beyond float32's integers are kept."""
    confusion = np.zeros((3, 11, 11), np.int32)
    confusion[:, 0, 0] = (2**24 + 1, 2, 7)
    predictions = {"confusion": confusion, "loss": np.array([1.5, 2.0, np.nan])}
    sums = task.eval_sums(predictions, {"mask": np.array([True, True, False])})
    assert int(sums["confusion"][0, 0]) == 2**24 + 3 and int(sums["count"]) == 2
    assert float(sums["loss"]) == 3.5


def test_an_image_of_ones_own_is_classified_at_its_size(task):
    arrays = make_task(tiny(), train=False, evaluate=False)
    arrays.class_names = task.class_names
    example = arrays.unlabeled(np.zeros((20, 30, 1), np.uint8), 0)
    batch = jax.tree.map(
        lambda x: np.asarray(x)[None],
        arrays.transform(train=False)(example, np.random.default_rng(0)),
    )
    logits = np.zeros((1, 33, 33, 11), np.float32)
    logits[..., 4] = 1
    logits[:, :11, :, 7] = 2  # half of the 22 rows that the image takes
    predictions = arrays.predict({"logits": logits}, batch, lambda fn: fn)
    assert int(arrays.eval_sums(predictions, batch | {"mask": np.array([True])})["count"]) == 1
    prediction = {name: np.asarray(x)[0] for name, x in predictions.items()}
    assert arrays.describe(prediction) == {"pixels": {"3": 300, "6": 300}}
    figure = arrays.picture(example["image"], prediction)
    assert len(figure.axes) == 2 and figure.axes[1].images[0].get_array().shape == (20, 30, 3)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), example["image"][..., 0])
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"3", "6"}


def test_evaluation_sees_the_masks_as_they_are(task):
    batch = next(iter(task.eval_batches(batch_size=8, rows=slice(None))))
    for index, label in enumerate(batch["label"]):
        np.testing.assert_array_equal(label, task.eval[index]["mask"])


def test_shapes_are_those_of_the_data(task):
    batch = next(iter(task.train_batches(start_step=0, rows=slice(None))))
    shapes = task.batch_shapes(8)
    assert batch.keys() == shapes.keys() | {"skipped"}
    for name, expected in shapes.items():
        assert (batch[name].shape, batch[name].dtype) == (expected.shape, expected.dtype)


@pytest.mark.slow  # its short form: the loss above, and any network's in test_step.py
def test_eight_devices_train_as_one_and_a_run_goes_on_where_it_was():
    """The first step with a drop kind on 1 and 8 devices; batches from step 1 on are the same."""
    config = tiny({"drop.schedule": "constant"}, "dropblock")
    plans = [make_plan(config, make_task, jax.devices()[:devices]) for devices in (1, 8)]
    plan = plans[0]
    batches = plan.task.train_batches(start_step=0, rows=slice(None))
    first, second = next(batches), next(batches)
    sought = next(plan.task.train_batches(start_step=1, rows=slice(None)))
    assert all((second[name] == sought[name]).all() for name in second)
    first.pop("skipped")
    found = [plan.train_step(plan.create(), plan.put_batch(first), plan.key) for plan in plans]
    (one, one_metrics), (eight, eight_metrics) = found
    kept = [sum(s.dropped for s in m["sites"].values()) for m in (one_metrics, eight_metrics)]
    assert kept[0] > 0
    np.testing.assert_allclose(*kept, rtol=1e-6)
    np.testing.assert_allclose(one_metrics["loss"], eight_metrics["loss"], rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        one["params"],
        eight["params"],
    )


# --- Bad input, before anything is compiled.


def folder(root, **replaced):
    """A config of an image and mask folder of two names; some files replaced, or None to leave."""
    files = {"a": np.zeros((8, 9), np.uint8), "b": np.ones((8, 9), np.uint8)} | replaced
    for part in ("images", "masks"):
        (root / part).mkdir()
    for name, mask in files.items():
        Image.new("RGB", (9, 8)).save(root / "images" / f"{name}.jpg")
        if mask is not None:
            Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("\n".join(files))
    config = mask_folder_fcn.get_config()
    config.data.dir = str(root)
    config.data.class_names = ("background", "cell")
    return config


def test_a_mask_folder_opens(tmp_path):
    config = folder(tmp_path)
    config.data.scale = (1.0, 1.0)
    task = make_task(config)
    assert (task.num_train, task.num_eval) == (2, 2)
    assert task.facts["class_names"] == ("background", "cell")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((8, 9, 3), np.uint8), r"1 of 3 examples.*bad\.png.*colo"),
        (np.zeros((8, 8), np.uint8), r"1 of 3 examples.*bad\.png is \(8, 8\).*its image \(8, 9\)"),
        (np.full((8, 9), 2, np.uint8), r"1 of 3 examples.*bad\.png has class 2.*2 classes"),
        (None, r"bad"),
    ],
)
def test_bad_masks_are_named_and_counted(tmp_path, mask, message):
    config = folder(tmp_path, bad=mask)
    assert config.data.on_error == "skip"
    if mask is not None:
        task = make_task(config)
        assert task.skipped.count == 1 and task.num_train == 3  # of both splits
    config.data.on_error = "raise"
    with pytest.raises(ValueError, match=message):
        make_task(config)


def test_other_values_of_masks(tmp_path):
    config = folder(tmp_path, c=np.full((8, 9), 11, np.uint8))
    config.data.class_names = "background,cell"
    config.data.ignore_index = 11
    task = make_task(config)
    assert task.class_names == ("background", "cell") and task.skipped.count == 0
    assert task.found["train"].counts == (72, 72) and set(task.eval[2]["mask"].flat) == {255}
    config.data.ignore_index, config.data.class_names = None, None
    config.data.mask_values = "0=background,1=cell,11=cell"
    task = make_task(config)
    assert task.class_names == ("background", "cell") and task.found["val"].counts == (72, 144)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data.scale": (1.5, 0.75)}, r"data.scale.*\(1.5, 0.75\)"),
        ({"data.scale": (0.0, 0.75)}, r"data.scale.*\(0.0, 0.75\)"),
        ({"data.channels": 3, "data.mean": (0.1,) * 3, "data.std": (0.2,) * 3}, "scenes.*1, got 3"),
        ({"model.name": "resnet"}, "model.name.*'resnet'"),
        ({"model.bn_epsilon": 0.0}, "model.bn_epsilon.*0"),
        ({"model.bn_momentum": 1.5}, "model.bn_momentum.*1.5"),
        ({"model.backbone": "amoebanet"}, "model.backbone must be one of .*'amoebanet'"),
        ({"data.name": "mnist"}, "mnist.*mask_folder or scenes"),
        ({"data.scenes.digit_size": (10, 90)}, "digits of 10 to 90"),
    ],
)
def test_wrong_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make_task(tiny(fields))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_overlay_leaves_the_background_as_it_is(channels):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, channels), np.uint8)
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3, 2:5] = 1
    names = ("background", "cell")
    _, (axis,) = pictures.grid(1, 1, side=1.0)
    pictures.show_overlay(axis, image, mask, names)
    drawn = np.asarray(axis.images[0].get_array(), int)
    seen = np.broadcast_to(image[..., :3], (4, 6, 3)).astype(int)
    np.testing.assert_array_equal(drawn[mask == 0], seen[mask == 0])
    color = pictures.class_colors(names)[1]
    assert np.abs(drawn - (seen + color) / 2)[mask == 1].max() <= 0.5
