"""Opening a run, and predicting in Python."""

import jax
import numpy as np
import pytest
from PIL import Image

from inputs.images import DataError
from photos import photo
from prediction import open_run
from tasks import make_task
from training import config as config_lib
from training.config import ConfigError
from training.evaluation import make_evaluate
from training.plan import make_plan


def digits(count):
    return [np.full((28, 28, 1), 12 * value, np.uint8) for value in range(count)]


def test_predictions_do_not_depend_on_the_batch(opened):
    run = opened["classification"]
    images = digits(20)
    assert run.batch_size(20) == 16 and run.batch_size(3) == 3
    found = run.predict(images)  # a batch of 16, and one of 4 and padding
    assert len(found) == 20
    for one, image in list(zip(found, images, strict=True))[14:18]:
        (alone,) = run.predict([image])
        assert [c["class"] for c in alone["top5"]] == [c["class"] for c in one["top5"]]
        for this, that in zip(alone["top5"], one["top5"], strict=True):
            assert this["probability"] == pytest.approx(that["probability"], rel=1e-4)


def test_predictions_are_the_evaluations(opened, runs):
    """Of images that a run was evaluated on."""
    run = opened["classification"]
    config = config_lib.from_json(runs["classification"] / "config.json")
    plan = make_plan(config, make_task, jax.devices(), train=False)
    metrics = make_evaluate(plan)(run.variables).metrics
    examples = [plan.task.eval[index] for index in range(50)]
    found = run.predict([example["image"] for example in examples])
    right = [
        f["top5"][0]["class"] == plan.task.class_names[e["label"]]
        for f, e in zip(found, examples, strict=True)
    ]
    assert 100 * np.mean(right) == pytest.approx(metrics["top1"])


def test_the_network_itself(opened):
    run = opened["classification"]
    (image,) = digits(1)
    normalised = run.task.inputs({"image": image[None]})
    (prediction,) = run.each([image])
    logits = jax.jit(lambda x: run.model(x, train=False)["logits"])(normalised)
    np.testing.assert_allclose(logits[0], prediction["logits"], rtol=1e-4, atol=1e-4)


def test_a_file_is_what_its_pixels_are_and_upright(opened, tmp_path):
    run = opened["detection"]
    pixels = photo(40, 60)[..., :1]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a.png", exif=exif)
    turned = np.ascontiguousarray(np.rot90(pixels, -1))
    from_file, from_array, *_ = run.predict([tmp_path / "a.png", *[turned] * 3])
    assert from_file == from_array
    boxes = np.array([found["bbox"] for found in from_file["annotations"]])
    assert (boxes[:, 1] + boxes[:, 3]).max() > 50  # 60 high, 40 wide
    assert (boxes[:, 0] + boxes[:, 2]).max() <= 40 + 1e-4


def test_which_weights_are_said(opened, runs):
    for task, run in opened.items():
        average = "" if task == "segmentation" else "moving average (EMA) of the "
        assert run.weights == f"{average}weights of step 12, {runs[task] / 'checkpoints' / '12'}"
        assert run.step == 12 and run.class_names == run.task.class_names
        assert len(run.class_names) == {"segmentation": 11}.get(task, 10)


def test_a_least_score(runs, opened):
    image = photo(50, 50)[..., :1]
    prediction = next(opened["detection"].each([image] * 4))
    scores = prediction["scores"].tolist()
    task = open_run(runs["detection"], min_score=scores[3]).task
    assert [a["score"] for a in task.describe(prediction)["annotations"]] == scores[:4]
    assert len(task.picture(image, prediction).axes[0].patches) == 4


def test_what_is_no_run_is_named(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=f"^{tmp_path}/empty holds neither a training run"):
        open_run(tmp_path / "empty")
    with pytest.raises(ConfigError, match="no checkpoint '13'"):
        open_run(runs["classification"], "13")
    with pytest.raises(ConfigError, match="no checkpoint in .*elsewhere"):
        open_run(runs["classification"], checkpoint_dir=tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="a least score is of boxes: this run is of task 'class"):
        open_run(runs["classification"], min_score=0.5)
    with pytest.raises(ConfigError, match=r"min_score must be in \[0, 1\], got 50"):
        open_run(runs["detection"], min_score=50)
    with pytest.raises(ConfigError, match="maps are for classifiers .* 'detection' and model 'ret"):
        open_run(runs["detection"], cam=True)


@pytest.mark.parametrize(
    "image",
    [np.zeros((28, 28), np.uint8), np.zeros((28, 28, 3), np.uint8), np.zeros((28, 28, 1))],
)
def test_an_array_that_is_no_image_is_named(opened, image):
    with pytest.raises(ValueError, match=r"must be uint8 \[height, width, 1\], got .*\[28, 28"):
        opened["classification"].predict([image])


def test_a_file_that_is_no_image_is_named(opened, tmp_path):
    (tmp_path / "a.jpg").write_text("text")
    with pytest.raises(DataError, match=r"^\S*a.jpg cannot be decoded \(it is no image\)$"):
        opened["classification"].predict([tmp_path / "a.jpg"])
    found = list(opened["classification"].each([tmp_path / "a.jpg", *digits(1)]))
    assert isinstance(found[0], DataError) and found[1]["logits"].shape == (10,)
