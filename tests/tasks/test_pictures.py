"""What pictures are made of: where it is drawn, and in which colours."""

import io

import matplotlib
import matplotlib.figure
import numpy as np
import pytest

from tasks import pictures


@pytest.fixture
def axis():
    return matplotlib.figure.Figure((4, 4)).subplots()


def test_a_grid_has_its_axes_side_by_side():
    figure, axes = pictures.grid(2, 3, side=2.0)
    assert len(pictures.grid(1, 1, side=2.0)[1]) == 1
    assert len(axes) == 6 and not any(axis.axison for axis in axes)
    assert figure.get_figwidth() == 6 and figure.get_figheight() == pytest.approx(4.6)
    boxes = [axis.get_position() for axis in axes]
    for index, box in enumerate(boxes):
        # Nearly square, with room for a title above.
        assert box.width * 6 == pytest.approx(2, abs=0.2)
        assert box.height * 4.6 == pytest.approx(2, abs=0.2)
        assert 0 < box.x0 < box.x1 < 1 and box.y0 > 0 and box.y1 * 4.6 < 4.4
        assert not any(box.overlaps(other) for other in boxes[:index])
    # The second row begins below the first.
    assert boxes[0].x0 == boxes[3].x0 and boxes[0].y0 * 4.6 - boxes[3].y1 * 4.6 > 0.25


@pytest.mark.parametrize("shape", [(3, 5, 1), (3, 5, 3), (3, 1, 3)])
def test_an_image_is_shown_as_it_is(axis, shape):
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    pictures.show(axis, image)
    (shown,) = axis.images
    assert shown.get_cmap().name == "gray"
    expected = image[..., 0] if shape[-1] == 1 else image
    np.testing.assert_array_equal(shown.get_array(), expected)


def test_boxes_lie_on_the_edges_of_pixels(axis):
    boxes = np.array([[1, 2, 5, 9], [0, 0, 3, 4], [2, 2, 4, 4]])
    pictures.draw_boxes(axis, boxes, np.array([3, 13, 4]), ["a", "b", "c"])
    corners = [(1.5, 0.5, 7, 4), (-0.5, -0.5, 4, 3), (1.5, 1.5, 2, 2)]
    found = [(*p.get_xy(), p.get_width(), p.get_height()) for p in axis.patches]
    assert found == corners and not any(patch.get_fill() for patch in axis.patches)
    # Labels ten apart have one colour.
    colors = matplotlib.colormaps["tab10"].colors
    for patch, text, label in zip(axis.patches, axis.texts, (3, 3, 4), strict=True):
        assert patch.get_edgecolor()[:3] == colors[label]
        assert text.get_bbox_patch().get_facecolor()[:3] == colors[label]
        assert text.get_position() == patch.get_xy() and text.get_clip_on()
    assert [text.get_text() for text in axis.texts] == ["a", "b", "c"]


def test_a_mask_has_the_colours_of_its_legend(axis):
    mask = np.array([[0, 1, 255], [1, 2, 2]], np.uint8)
    pictures.show_mask(axis, mask)
    pictures.add_legend(axis.figure, [mask[:1], mask[1:]], ["ground", "cat", "dog", "cow"])
    (legend,) = axis.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ground", "cat", "dog", "ignored"]
    (shown,) = axis.images
    found = {
        tuple(int(255 * part + 0.5) for part in patch.get_facecolor()[:3])
        for patch in legend.get_patches()
    }
    assert found == {(0, 0, 0), (128, 0, 0), (0, 128, 0), (224, 224, 192)}
    assert found == set(map(tuple, np.reshape(shown.get_array(), (-1, 3)).tolist()))
    assert shown.get_interpolation() == "nearest"


@pytest.mark.parametrize(("classes", "lines"), [(1, 1), (6, 1), (7, 2), (12, 2), (13, 3)])
def test_a_legend_has_room_below(axis, classes, lines):
    names = [str(number) for number in range(20)]
    pictures.add_legend(axis.figure, [np.arange(classes)], names)
    # In inches: a quarter for each line, and for the edge.
    bottom = axis.figure.subplotpars.bottom * axis.figure.get_figheight()
    assert bottom == pytest.approx(0.25 * (lines + 1))


# To matplotlib, mathematics that is none; hidden in a legend; of more letters than it can draw.
@pytest.mark.parametrize("name", ["$\\foo$", "_a", "x" * 100_000])
def test_names_are_drawn_as_they_are(name):
    figure, (axis,) = pictures.grid(1, 1, side=1.0)
    pictures.set_title(axis, name)
    pictures.draw_boxes(axis, np.array([[1, 2, 5, 9]]), np.array([0]), [name])
    pictures.add_legend(figure, [np.zeros((2, 2), int)], [name])
    figure.savefig(io.BytesIO())
    (legend,) = figure.legends
    texts = {axis.get_title(), axis.texts[0].get_text(), legend.get_texts()[0].get_text()}
    assert texts == {name[:299] + "…" if len(name) > 300 else name}
