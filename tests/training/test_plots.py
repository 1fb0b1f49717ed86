"""Which curves are drawn where, and of what points."""

import numpy as np
import pytest
from PIL import Image

from training.plots import curves, save_figure

RECORDS = [
    {
        "step": step,
        "epoch": step / 2,
        "train/loss": 1.0 / step,
        "train/top1": 10.0 * step,
        "train/grad_norm": 3.0,
        "sched/learning_rate": 0.1,
        "sched/keep_prob": 0.9,
        "kept/group3": 0.95,
        "expected_kept/group3": 0.96,
        "time/seconds": 1.0 * step,
    }
    | ({"eval/loss": 0.5, "eval/top1": 60.0, "eval/AP/cat": 5.0} if step % 2 == 0 else {})
    | {f"eval/{name}": 7.0 for name in ("examples", "skipped", "positives")}
    for step in range(1, 5)
]


@pytest.fixture(scope="module")
def panels():
    return curves(RECORDS).axes


def lines(axis):
    return {line.get_label(): line for line in axis.lines}


def test_each_panel_has_its_curves(panels):
    assert {axis.get_title(): sorted(lines(axis)) for axis in panels} == {
        "loss": ["eval/loss", "train/loss"],
        "metrics": ["eval/top1", "train/top1"],
        "learning rate": ["sched/learning_rate"],
        "kept fraction (dashed: expected)": [
            "expected_kept/group3",
            "kept/group3",
            "sched/keep_prob",
        ],
    }
    for axis in panels:
        assert axis.get_xlabel() == "epoch"
        named = {text.get_text() for text in axis.get_legend().get_texts()}
        assert named == lines(axis).keys()


def test_the_points_are_those_of_the_lines_that_have_them(panels):
    trained, evaluated = (lines(panels[0])[f"{name}/loss"] for name in ("train", "eval"))
    np.testing.assert_allclose(trained.get_xydata(), [[s / 2, 1 / s] for s in range(1, 5)])
    np.testing.assert_allclose(evaluated.get_xydata(), [[1, 0.5], [2, 0.5]])
    assert (trained.get_marker(), evaluated.get_marker()) == ("None", "o")
    styles = {name: line.get_linestyle() for name, line in lines(panels[3]).items()}
    assert styles == {"expected_kept/group3": "--", "kept/group3": "-", "sched/keep_prob": "-"}


def test_a_run_without_evaluations_has_curves(tmp_path):
    figure = curves([{"step": 1, "epoch": 1.0, "train/loss": 1.0}])
    assert [len(axis.lines) for axis in figure.axes] == [1, 0, 0, 0]
    assert [axis.get_legend() is None for axis in figure.axes] == [False, True, True, True]
    path = tmp_path / "new" / "plots" / "curves.png"
    for _ in range(2):
        save_figure(figure, path)
    with Image.open(path) as image:
        assert image.format == "PNG" and np.asarray(image).std() > 0


def test_panels_do_not_overlap(panels):
    boxes = [axis.get_position() for axis in panels]
    for index, box in enumerate(boxes):
        assert 0 < box.x0 < box.x1 < 1 and 0 < box.y0 < box.y1 < 1
        assert box.width > 0.3 and box.height > 0.3
        assert not any(box.overlaps(other) for other in boxes[:index])
