"""Which curves are drawn where, and of what points."""

import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
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
    | ({"eval/loss": 0.5, "eval/top1": 60.0, "eval/top5": 5.0} if step % 2 == 0 else {})
    | {f"eval/{name}": 7.0 for name in ("examples", "skipped", "positives")}
    for step in range(1, 5)
]
COCO = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AP@500", "AP50@500"]
COCO += ["AR1", "AR10", "AR100", "AR500", "ARs", "ARm", "ARl"]


@pytest.fixture(scope="module")
def panels():
    return curves(RECORDS, "top1").axes


def drawn(axis):
    """The curves, without what marks the best."""
    return {line.get_label(): line for line in axis.lines if line.get_label()[0] != "_"}


def titles(figure):
    return {axis.get_title(): sorted(drawn(axis)) for axis in figure.axes}


def test_each_panel_has_its_curves(panels):
    assert {axis.get_title(): sorted(drawn(axis)) for axis in panels} == {
        "loss": ["eval", "train"],
        "top1: best 60.00 at step 4": ["eval", "train"],
        "top5": ["eval"],
        "learning rate": ["sched"],
        "kept fraction (dashed: expected)": ["expected group3", "group3", "keep_prob"],
    }
    for axis in panels:
        assert axis.get_xlabel() == "epoch"
        if len(drawn(axis)) > 1:
            named = [text.get_text() for text in axis.get_legend().get_texts()]
            assert sorted(named) == sorted(drawn(axis))


def test_the_points_are_those_of_the_lines_that_have_them(panels):
    trained, evaluated = (drawn(panels[0])[name] for name in ("train", "eval"))
    np.testing.assert_allclose(trained.get_xydata(), [[s / 2, 1 / s] for s in range(1, 5)])
    np.testing.assert_allclose(evaluated.get_xydata(), [[1, 0.5], [2, 0.5]])
    assert (trained.get_marker(), evaluated.get_marker()) == ("None", "o")
    assert trained.get_color() == evaluated.get_color()
    styles = {name: line.get_linestyle() for name, line in drawn(panels[4]).items()}
    assert styles == {"expected group3": "--", "group3": "-", "keep_prob": "-"}


def test_the_best_is_marked_and_of_equals_the_last(panels):
    for axis in panels:
        (mark,) = [line for line in axis.lines if line.get_linestyle() == ":"]
        assert mark.get_xdata()[0] == 2.0
    (star,) = [line for line in panels[1].lines if line.get_marker() == "*"]
    np.testing.assert_array_equal(star.get_xydata(), [[2.0, 60.0]])
    worse = [*RECORDS, RECORDS[0] | {"step": 5, "epoch": 2.5, "eval/top1": 9.0}]
    lost = [*worse, RECORDS[0] | {"step": 6, "epoch": 3.0, "eval/top1": math.nan}]
    for records in (worse, lost):
        assert "top1: best 60.00 at step 4" in titles(curves(records, "top1"))


def detected(classes):
    record = RECORDS[0] | {f"train/{name}_loss": 0.001 for name in ("class", "box")}
    record |= {f"eval/{name}": 1.0 for name in COCO}
    record |= {f"eval/AP/{'long ' * 9}{i}": 1.0 for i in range(classes)}
    return curves([record, record | {"step": 2, "epoch": 1.0}], "AP")


def test_many_metrics_are_in_panels_of_their_kinds_in_colours_of_their_own():
    figure = detected(10)
    found = titles(figure)
    assert found["AP: best 1.00 at step 2"] == ["eval"]
    assert found["AP in detail"] == sorted(
        name for name in COCO if name[:2] == "AP" and name != "AP"
    )
    assert found["AR in detail"] == sorted(name for name in COCO if name[:2] == "AR")
    assert len(found["AP of classes"]) == 1 and "AP of classes" not in titles(detected(11))
    for axis in figure.axes:
        lines = [line for line in axis.lines if line.get_linestyle() == "-"]
        styles = {(line.get_color(), line.get_marker()) for line in lines}
        assert len(styles) == len(lines)
    assert figure.axes[0].get_yscale() == "log"


def test_nothing_is_cut_and_legends_lie_beside_their_panels():
    long = {"sched/learning_rate": 0.000583, "train/top1": 0.50105}  # numbers of many digits
    near = [record | long | {"train/loss": 2.30043 + 1e-5 * record["step"]} for record in RECORDS]
    for figure in (detected(10), *(curves(rows, "top1") for rows in (RECORDS, near, near[:1]))):
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        panels = [axis.get_window_extent(renderer) for axis in figure.axes]
        for axis in figure.axes:
            legend = axis.get_legend()
            for part in filter(None, (axis.title, axis.xaxis, axis.yaxis, legend)):
                place = part.get_tightbbox(renderer)
                assert place is not None and place.x0 >= 0 and place.x1 <= figure.bbox.width
                assert place.y0 >= 0 and place.y1 <= figure.bbox.height
                assert part is not legend or not any(place.overlaps(panel) for panel in panels)


def test_a_run_without_evaluations_has_curves(tmp_path):
    figure = curves([{"step": 1, "epoch": 1.0, "train/loss": 1.0}], "top1")
    (axis,) = figure.axes
    (line,) = axis.lines
    assert line.get_marker() == "o"  # else nothing were seen of a single point
    path = tmp_path / "new" / "plots" / "curves.png"
    for _ in range(2):
        save_figure(figure, path)
    with Image.open(path) as image:
        assert image.format == "PNG" and np.asarray(image).std() > 0


def test_panels_do_not_overlap(panels):
    boxes = [axis.get_position() for axis in panels]
    for index, box in enumerate(boxes):
        assert 0 < box.x0 < box.x1 < 1 and 0 < box.y0 < box.y1 < 1
        assert box.width > 0.15 and box.height > 0.3
        assert not any(box.overlaps(other) for other in boxes[:index])
