"""The detection task by hand: its loss, its way back to the original pixels, COCO's numbers."""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import tiny_detection
from detection.evaluate import evaluate
from detection.losses import detection_loss
from detection.matching import make_targets
from inputs.images import DataError
from tasks import make_task
from training import sharding


@pytest.fixture(scope="module")
def task():
    return make_task(tiny_detection.get_config())


@pytest.fixture(scope="module")
def batch(task):
    return next(task.eval_batches(batch_size=8, rows=slice(None)))


@pytest.fixture(scope="module")
def right(task):
    """From a batch, the outputs of a network that is right about every anchor."""

    @jax.jit
    def outputs(boxes, labels):
        targets = make_targets(boxes, labels, task.anchors)
        logits = 20.0 * jax.nn.one_hot(targets.labels, 10) - 10.0
        return {"class_logits": logits, "box_codes": targets.codes}

    return lambda batch: outputs(batch["boxes"], batch["labels"])


@pytest.fixture(scope="module")
def out(batch, right):
    return right(batch)


@pytest.fixture(scope="module")
def predict(task):
    """`(out, batch) -> predictions` on one device, on the host."""
    step = jax.jit(lambda out, batch: task.predict(out, batch, lambda function: function))
    return lambda out, batch: jax.device_get(step(out, batch))


def noisy(out, key):
    return {
        name: x + 0.3 * jax.random.normal(jax.random.fold_in(key, index), x.shape)
        for index, (name, x) in enumerate(out.items())
    }


def test_the_loss_is_that_of_its_parts(task, batch, out, key):
    out = noisy(out, key)
    loss, sums = task.loss(out, batch)
    targets = make_targets(batch["boxes"], batch["labels"], task.anchors)
    expected, parts = detection_loss(out["class_logits"], out["box_codes"], targets)
    metrics = task.summarize(sums)
    assert float(loss) == pytest.approx(float(expected)) == metrics["loss"]
    assert metrics["class_loss"] == pytest.approx(float(parts["class_loss"]))
    assert metrics["box_loss"] == pytest.approx(float(parts["box_loss"]))
    assert metrics["positives"] == pytest.approx(float((targets.labels >= 0).sum()) / 8)


def test_the_loss_of_an_evaluation_is_that_of_the_examples_that_count(
    task, batch, out, predict, key
):
    out = noisy(out, key)
    mask = np.arange(8) != 3
    # What is masked may hold anything.
    broken = out | {"class_logits": out["class_logits"].at[3].set(jnp.nan)}
    sums = task.eval_sums(predict(broken, batch), batch | {"mask": mask})
    kept = {name: x[mask] for name, x in batch.items()}
    loss, _ = task.loss({name: x[mask] for name, x in out.items()}, kept)
    assert task.summarize(sums)["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert sums["count"] == 7


def test_detections_are_in_the_pixels_of_the_original(task, right, predict):
    # An image that is made smaller, another larger, neither square.
    transform = task.transform(train=False)
    examples = []
    for index, (height, width) in enumerate([(100, 128), (48, 30)]):
        low = np.array([[0.1, 0.05], [0.5, 0.4]]) * (height, width)
        high = low + np.array([[0.35, 0.4], [0.5, 0.6]]) * (height, width)  # to the very corner
        examples.append(
            task.unlabeled(np.zeros((height, width, 1), np.uint8), index)
            | {
                "boxes": np.concatenate([low, high], 1).astype(np.float32),
                "labels": np.array([3, 7], np.int32),
                "crowd": np.zeros(2, bool),
            }
        )
    rows = [transform(example, np.random.default_rng(0)) for example in examples * 4]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    found = predict(right(batch), batch)
    for row, example in enumerate(examples):
        sure = found["scores"][row] > 0.5
        assert sorted(found["labels"][row][sure]) == [3, 7]
        order = np.argsort(found["labels"][row][sure])
        np.testing.assert_allclose(found["boxes"][row][sure][order], example["boxes"], atol=1e-2)
        assert (found["boxes"][row] <= np.tile(example["image"].shape[:2], 2)).all()
    assert found["index"].tolist() == [0, 1] * 4


def test_predictions_do_not_depend_on_the_number_of_devices(task, batch, out, predict, key):
    out = noisy(out, key)
    mesh = sharding.make_mesh(jax.devices())
    one = predict(out, batch)
    eight = jax.jit(lambda out, batch: task.predict(out, batch, sharding.by_device(mesh)))(
        *jax.device_put((out, batch), sharding.by_batch(mesh))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, eight)


def test_predictions_of_padding_are_finite(task, right, predict):
    *_, last = task.eval_batches(batch_size=8, rows=slice(None))
    assert last["mask"].sum() == 4
    found = predict(right(last), last)
    assert all(np.isfinite(values).all() for values in found.values())


def of(predictions, indices):
    """What an evaluation collects: predictions of some examples, in this order."""
    return {name: x[np.array(indices)] for name, x in predictions.items()}


def test_the_score_is_cocos(task, batch, out, predict, key):
    predictions = predict(noisy(out, key), batch)
    assert predictions["boxes"].shape == (8, 50, 4) and task.collects
    found = of(predictions, [5, 0, 7, 2, 1])
    sums = task.eval_sums(predictions, batch)
    metrics = task.score(sums, found)

    whole = task.eval.ground_truth()
    ids = {whole["images"][index]["id"] for index in (0, 1, 2, 5, 7)}
    truth = whole | {
        "images": [image for image in whole["images"] if image["id"] in ids],
        "annotations": [box for box in whole["annotations"] if box["image_id"] in ids],
    }
    detections = []
    for row, index in enumerate(found["index"]):
        for box, score, label in zip(
            found["boxes"][row], found["scores"][row], found["labels"][row], strict=True
        ):
            if label >= 0:
                ymin, xmin, ymax, xmax = box.astype(float).tolist()
                detections.append(
                    {
                        "image_id": whole["images"][index]["id"],
                        "category_id": int(label) + 1,
                        "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                        "score": float(score),
                    }
                )
    written = json.loads(task.files(found)["detections.json"])

    def ordered(entries):
        return sorted(entries, key=lambda e: (e["image_id"], -e["score"], e["bbox"]))

    assert ordered(written) == ordered(detections)
    by_image = {id: [d for d in detections if d["image_id"] == id] for id in ids}
    first = [d for own in by_image.values() for d in own[:20]]
    for limit, chosen in ((20, first), (50, detections)):
        expected, per_class = evaluate(truth, chosen, max_detections=limit)
        for name, value in expected.items():
            if limit == 50 and name not in ("AP", "AP50", "AP75", "AR50"):
                continue
            name = f"{name}@50" if limit == 50 and name.startswith("AP") else name
            if np.isnan(value):
                assert name not in metrics
            else:
                assert metrics[name] == pytest.approx(100 * value), name
        if limit == 20:
            for name, value in per_class.items():
                assert np.isnan(value) or metrics[f"AP/{name}"] == pytest.approx(100 * value)
    assert 0 < metrics["AP"] < 100


def test_images_that_were_not_read_are_not_held_against_the_detector(task, batch, out, predict):
    predictions = predict(out, batch)
    sums = task.eval_sums(predictions, batch)
    assert task.score(sums, of(predictions, [6, 2]))["AP"] == 100
    with pytest.raises(RuntimeError, match="more than once"):
        task.score(sums, of(predictions, [6, 2, 6]))


def test_a_network_that_finds_nothing_scores_nothing(task, batch, out, predict):
    found = predict({name: jnp.full_like(x, jnp.nan) for name, x in out.items()}, batch)
    assert task.score(task.eval_sums(found, batch), found)["AP"] == 0
    assert json.loads(task.files(found)["detections.json"]) == []


def test_pictures_show_the_ground_truth_and_what_is_found(task, batch, out, predict):
    predictions = predict(out, batch)
    figure = task.draw(predictions, batch)
    axes = np.reshape(figure.axes, (2, len(batch["labels"])))
    rows = [axis.texts[0].get_text() for axis in axes[:, 0]]
    assert rows == ["ground truth", "detections, score ≥ 0.3"]
    for row, (truth, found) in enumerate(axes[:, :3].T):
        names = {task.class_names[label] for label in batch["labels"][row] if label >= 0}
        # Of texts that would lie on each other one is left out.
        skip = row == 0
        written, scored = ({t.get_text() for t in axis.texts[skip:]} for axis in (truth, found))
        assert written and written <= names and scored <= {f"{name} 1.00" for name in names}
        corners = [sorted(patch.get_xy() for patch in axis.patches) for axis in (truth, found)]
        np.testing.assert_allclose(corners[1], corners[0], atol=1e-2)


def test_pictures_show_the_surer_detections_of_a_scaled_image(task):
    """By hand: two images of which the first fills half of its square, the other is scaled."""
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(0, 255, (2, 64, 64, 1), np.uint8),
        "boxes": np.float32([[[0, 0, 9, 9]] * 2, [[2, 4, 20, 30], [0, 0, 0, 0]]]),
        "labels": np.array([[5, 6], [0, -1]]),
        "scale": np.float32([[1, 1], [2, 2]]),
        "original_size": np.int32([[64, 32], [32, 32]]),
    }
    least = task.config.detection.picture_score
    boxes = np.float32([[1, 2, 10, 15], [3, 3, 8, 8], [4, 4, 9, 9], [0, 0, 1, 1]])
    found = {
        "boxes": np.stack([boxes, boxes]),
        "scores": np.array([[0.9, least, 0.5 * least, 0.0]] * 2),
        "labels": np.array([[0, 3, 3, -1]] * 2),
    }
    figure = task.draw(found, batch)
    assert len(figure.axes) == 4
    for axis in (figure.axes[0], figure.axes[2]):
        np.testing.assert_array_equal(axis.images[0].get_array(), batch["image"][0, :, :32, 0])
    truth, axis = figure.axes[1], figure.axes[3]
    for shown in (truth, axis):
        np.testing.assert_array_equal(shown.images[0].get_array(), batch["image"][1, ..., 0])
    assert [text.get_text() for text in truth.texts] == ["0"]
    assert [patch.get_xy() for patch in truth.patches] == [(3.5, 1.5)]
    # The surest last, over the others, and in the pixels of what is shown.
    assert axis.texts[0].get_text() == "0 0.90"
    assert [patch.get_xy() for patch in axis.patches] == [(5.5, 5.5), (3.5, 1.5)]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["0", "3", "5", "6"]
    one = {name: values[1] for name, values in found.items()}
    assert [d["category"] for d in task.describe(one)["annotations"]] == ["0", "3", "3"]
    figure = task.picture(batch["image"][1], one)
    assert len(figure.axes) == 1
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), batch["image"][1, ..., 0])
    assert [patch.get_xy() for patch in figure.axes[0].patches] == [(2.5, 2.5), (1.5, 0.5)]


def test_an_image_of_ones_own_has_no_objects(task):
    example = task.unlabeled(np.zeros((50, 40, 1), np.uint8), 3)
    row = task.transform(train=False)(example, np.random.default_rng(0))
    assert (row["labels"] == -1).all() and not row["boxes"].any() and row["index"] == 3
    assert [len(example[name]) for name in ("boxes", "labels", "crowd")] == [0, 0, 0]


def test_metrics_of_no_image_are_no_numbers(task):
    none = dict.fromkeys(("class_loss", "box_loss", "positives", "count"), 0.0)
    metrics = task.summarize(none | {"batches": 1.0})
    assert np.isnan(metrics.pop("positives")) and not any(metrics.values())


def test_an_image_that_cannot_be_read_is_no_reason_not_to_look_at_the_next(task):
    class Images(list):
        def __getitem__(self, index):
            if super().__getitem__(index) is None:
                raise DataError("not an image")
            return {"image": np.zeros(super().__getitem__(index), np.uint8)}

    task.check_example(Images([None, (40, 30, 1), (40, 30, 3)]), train=True)
    with pytest.raises(ValueError, match="have 3 channels, where data.channels is 1"):
        task.check_example(Images([None, (40, 30, 3)]), train=True)
    task.check_example(Images([None]), train=True)


def test_a_prediction_in_words(task, batch, out, predict):
    predictions = predict(out, batch)
    prediction = {name: values[0] for name, values in predictions.items()}
    described = json.loads(json.dumps(task.describe(prediction)))["annotations"]
    known = batch["labels"][0] >= 0
    sure = [found for found in described if found["score"] > 0.5]
    assert {found["category"] for found in sure} == set(map(str, batch["labels"][0][known]))
    scores = [found["score"] for found in described]
    assert scores == sorted(scores, reverse=True)
    names = {category["id"]: category["name"] for category in task.categories}
    assert list(names) == list(range(1, 11)) and task.legend
    for found, box in zip(described, prediction["boxes"], strict=False):
        x, y, width, height = found["bbox"]
        np.testing.assert_allclose([y, x, y + height, x + width], box, atol=1e-4)
        assert found["area"] == width * height and names[found["category_id"]] == found["category"]
    figure = task.picture(batch["image"][0], prediction)
    assert len(figure.axes[0].patches) == len(sure)


def test_shapes_are_those_of_the_data(task):
    batch = next(task.train_batches(start_step=0, rows=slice(None)))
    shapes = task.batch_shapes(8)
    assert shapes.keys() == batch.keys() - {"skipped"}
    for name, expected in shapes.items():
        assert (batch[name].shape, batch[name].dtype) == (expected.shape, expected.dtype), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.name": "resnet"}, "model.name must be one of .*'retinanet'.*'resnet'"),
        ({"data.image_size": 72}, "image_size must be a multiple of 16, the stride of level 4.*72"),
        ({"data.max_boxes": 0}, "data.max_boxes must be positive, got 0"),
        ({"data.scale": (1.2, 0.8)}, "data.scale must be two positive factors in order"),
        ({"data.channels": 3, "data.mean": (0.1,) * 3, "data.std": (0.3,) * 3}, "1 channels"),
        ({"data.name": "nowhere"}, "inputs.prepare --name=nowhere"),
        ({"data.name": "coco_json"}, "set config.data.dir"),
        ({"detection.max_detections": (10,)}, "max_detections must be .* above 10.*10"),
        ({"detection.max_detections": (50, 10)}, r"max_detections must be .* above 10.*\(50, 10\)"),
        ({"detection.max_detections": (100, 100)}, "max_detections must be different"),
        ({"detection.nms_iou": 1.5}, "detection.nms_iou must be in"),
        ({"detection.huber_delta": 0.0}, "detection.huber_delta must be positive"),
        ({"detection.focal_gamma": -1.0}, "detection.focal_gamma must not be negative"),
        ({"detection.max_candidates": 0}, "detection.max_candidates must be positive"),
        ({"model.anchor_aspects": ()}, "aspects"),
        ({"detection.match_iou": 1.5}, "detection.match_iou must be in"),
        ({"detection.min_score": 1.5}, "detection.min_score must be in"),
        ({"detection.picture_score": 1.5}, "detection.picture_score must be in"),
        ({"detection.focal_alpha": 1.5}, "detection.focal_alpha must be in"),
        ({"detection.box_weight": -1.0}, "detection.box_weight must not be negative"),
        ({"detection.max_detections": ()}, "max_detections must be"),
        ({"data.image_size": 0}, "image_size must be a multiple of 16.*got 0"),
        ({"data.scale": (0.0, 0.8)}, "data.scale must be two positive factors in order"),
    ],
)
def test_wrong_configs_are_refused(fields, message):
    config = tiny_detection.get_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=message):
        make_task(config)


def test_a_run_of_before_there_were_backbones_is_named():
    config = tiny_detection.get_config()
    del config.model.backbone
    with pytest.raises(ValueError, match="no model.backbone, one of resnet: .* config.json"):
        make_task(config)


def test_the_least_values_are_allowed():
    config = tiny_detection.get_config()
    config.data.update(scale=(1.0, 1.0), max_boxes=1, image_size=16)
    config.detection.update(focal_gamma=0.0, box_weight=0.0, max_candidates=1)
    config.detection.max_detections = (11,)
    make_task(config, train=False, evaluate=False)


def coco_config(root, *boxes):
    """A config of COCO files: two splits of one image, which has these boxes."""
    for folder in ("annotations", "images"):
        (root / folder).mkdir()
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(root / "images" / "one.png")
    coco = {
        "images": [{"id": 7, "file_name": "one.png", "height": 40, "width": 40}],
        "categories": [{"id": 4, "name": "cell"}],
        "annotations": [{"image_id": 7, "category_id": 4, "bbox": box} for box in boxes],
    }
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco))
    config = tiny_detection.get_config()
    config.data.update({"name": "coco_json", "dir": str(root)})
    config.data.update({"train_split": "train", "eval_split": "val"})
    return config


def test_an_evaluation_split_without_objects_is_refused(tmp_path):
    with pytest.raises(ValueError, match="split 'val' of coco_json has no boxes"):
        make_task(coco_config(tmp_path))


def test_images_of_too_many_boxes_are_named_where_they_are_trained_on(tmp_path, caplog):
    config = coco_config(tmp_path, [1, 2, 9, 9], [3, 4, 8, 8])
    config.data.max_boxes = 1
    with caplog.at_level(logging.WARNING, logger="absl"):
        make_task(config)
    (message,) = caplog.messages
    assert "train: 1 of 1 images have more than 1 boxes" in message
