"""What pictures are made of: where it is drawn, and in which colours."""

import io
import itertools

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from inputs.joint_transforms import IGNORE
from tasks import pictures
from training.palette import _seen, palette

LONG = ["a name of a class which nobody would ever want to read to its end", "traffic light"]


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
    if shape[-1] == 1:  # from black to white, whatever is in it
        assert shown.get_cmap().name == "gray" and shown.get_clim() == (0, 255)
    expected = image[..., 0] if shape[-1] == 1 else image
    np.testing.assert_array_equal(shown.get_array(), expected)


def test_boxes_lie_on_the_edges_of_pixels(axis):
    pictures.show(axis, np.zeros((90, 90, 3), np.uint8))
    boxes = np.array([[11, 2, 15, 9], [40, 40, 63, 54], [70, 2, 84, 4]])
    pictures.draw_boxes(axis, boxes, np.array([3, 4, 3]), ["a", "b", "c"], "vwxyz")
    corners = [(1.5, 10.5, 7, 4), (39.5, 39.5, 14, 23), (1.5, 69.5, 2, 14)]
    found = [(*p.get_xy(), p.get_width(), p.get_height()) for p in axis.patches]
    assert found == corners and not any(patch.get_fill() for patch in axis.patches)
    texts = {text.get_text(): text for text in axis.texts}
    assert texts.keys() == {"a", "b", "c"}
    colors = palette(5) / 255
    for patch, name, label in zip(axis.patches, "abc", (3, 4, 3), strict=True):
        assert patch.get_edgecolor()[:3] == tuple(colors[label])
        assert texts[name].get_bbox_patch().get_facecolor()[:3] == tuple(colors[label])
        assert texts[name].get_position() == pytest.approx(patch.get_xy(), abs=7)  # above it
    # Black on yellow, white on blue.
    assert [texts[name].get_color() for name in "abc"] == ["black", "white", "black"]


def extents(figure, texts):
    """Where texts with what is behind them are drawn, in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = []
    for text in texts:
        behind = getattr(text, "get_bbox_patch", lambda: None)()
        found.append((behind or text).get_window_extent(renderer))
    return found


@pytest.mark.parametrize("size", [(60, 90), (300, 300), (2000, 1500)])
def test_texts_of_boxes_are_not_cut_and_do_not_lie_on_each_other(size):
    """Of boxes at every edge, over the whole image, and of no area."""
    figure, axes = pictures.columns([size], ["image"], height=4.0)
    pictures.show(axes[0, 0], np.zeros((*size, 3), np.uint8))
    share = [[0, 0, 0.1, 0.1], [0, 0.9, 0.2, 1], [0.9, 0, 1, 0.2], [0.95, 0.95, 1, 1], [0, 0, 1, 1]]
    share += [[0.5, 0.5, 0.5, 0.5], [0.5, 0.52, 0.6, 0.6]] * 2
    boxes = np.array(share) * np.tile(size, 2)
    names = ["RBC 0.30", *LONG * 4]
    pictures.draw_boxes(axes[0, 0], boxes, np.arange(9), names, names)
    texts = axes[0, 0].texts[1:]  # the first is the row's
    drawn = extents(figure, texts)
    image = axes[0, 0].get_window_extent()
    assert len(drawn) > 4 and texts[0].get_text() == names[-1]
    for index, place in enumerate(drawn):
        assert image.x0 - 1 <= place.x0 and place.x1 <= image.x1 + 1
        assert image.y0 - 1 <= place.y0 and place.y1 <= image.y1 + 1
        assert not any(place.overlaps(other.padded(-1)) for other in drawn[:index])


def test_columns_are_as_wide_as_their_images_and_leave_no_gaps():
    sizes = [(300, 400), (480, 240), (100, 100), (10, 1000)]
    names = ["truth", "a name that is far longer than its row is high, by far, and by far"]
    figure, axes = pictures.columns(sizes, names, height=1.5)
    assert axes.shape == (2, 4) and figure.get_figwidth() < 14.1
    for row in axes:
        for axis, size in zip(row, sizes, strict=True):
            pictures.show(axis, np.zeros((*size, 3), np.uint8))
    pictures.add_legend(figure, [np.arange(2)], LONG)
    dpi = figure.get_dpi()
    written = extents(figure, [axis.texts[0] for axis in axes[:, 0]])
    places = [[axis.get_window_extent() for axis in row] for row in axes]
    for row, text in zip(places, written, strict=True):
        assert text.x0 >= 0 and row[0].y0 <= text.y0 and text.y1 <= row[0].y1
        # The last image is a strip, which has no column of its length.
        for place, (height, width) in zip(row[:3], sizes, strict=False):
            assert place.height == pytest.approx(1.5 * dpi, rel=0.01)
            assert place.width == pytest.approx(1.5 * dpi * width / height, rel=0.01)
        gaps = [right.x0 - left.x1 for left, right in itertools.pairwise(row)]
        assert max(gaps) < 0.1 * dpi
    assert 0 < places[0][0].y0 - places[1][0].y1 < 0.1 * dpi


def test_many_classes_have_different_colours_also_to_the_colour_blind():
    for count in (2, 12, 40, 255):
        colors = pictures.class_colors([f"c{i}" for i in range(count)])
        assert colors.shape == (256, 3) and colors.dtype == np.uint8
        assert (colors[[*range(count, 256), IGNORE]] == 255).all()
        assert len({tuple(color) for color in colors[:count].tolist()}) == count
        np.testing.assert_array_equal(colors[: min(count, 40)], palette(40)[: min(count, 40)])
    # Black letters are told from white ones at a distance of 1; here the least is of 40 classes.
    seen = _seen(palette(40))
    apart = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
    assert apart[:, ~np.eye(40, dtype=bool)].min() > 0.05
    lightness = seen[0, :, 0]
    assert lightness.min() > 0.4 and lightness.max() < 0.95


def test_red_and_green_are_alike_without_red_or_green_cones():
    """As published: a deep red and an olive green, which look alike to deuteranopes."""
    red, green, blue = (np.array([color]) for color in ([176, 64, 0], [108, 104, 0], [0, 60, 220]))
    near, far = (np.linalg.norm(_seen(red) - _seen(x), axis=-1)[:, 0] for x in (green, blue))
    assert near[2] < 0.5 * near[0] and far.min() > 0.25


def test_backgrounds_are_gray_and_many_more_classes_still_have_colours():
    colors = pictures.class_colors(["Background", "cat", "dog"])
    assert len({*colors[0].tolist()}) == 1
    np.testing.assert_array_equal(colors[1:3], palette(2))
    many = pictures.class_colors([str(i) for i in range(1203)])
    assert many.shape == (1203, 3)
    np.testing.assert_array_equal(many[255:510], many[:255])


def test_a_mask_has_the_colours_of_its_legend(axis):
    mask = np.array([[0, 1, 255], [1, 2, 2]], np.uint8)
    names = ["background", "cat", "dog", "cow"]
    pictures.show_mask(axis, mask, names)
    pictures.add_legend(axis.figure, [mask[:1], mask[1:]], names)
    (legend,) = axis.figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["background", "cat", "dog", "ignored"]
    (shown,) = axis.images
    found = {
        tuple(int(255 * part + 0.5) for part in patch.get_facecolor()[:3])
        for patch in legend.get_patches()
    }
    assert found == {(222, 222, 222), (230, 159, 0), (86, 180, 233), (255, 255, 255)}
    assert found == set(map(tuple, np.reshape(shown.get_array(), (-1, 3)).tolist()))
    assert shown.get_interpolation() == "nearest"


@pytest.mark.parametrize("classes", [0, 1, 6, 7, 20, 40])
@pytest.mark.parametrize("names", [LONG, ["cat"]])
def test_a_legend_lies_below_and_nothing_of_it_is_cut(axis, classes, names):
    pictures.add_legend(axis.figure, [np.arange(classes)], names * 40)
    if not classes:
        assert not axis.figure.legends and axis.figure.get_figheight() == 4
        return
    (legend,) = axis.figure.legends
    (axes, *texts) = extents(axis.figure, [axis, *legend.get_texts()])
    assert len(texts) == classes and axes.height == pytest.approx(0.77 * 400)
    for index, text in enumerate(texts):
        assert text.x0 >= 0 and text.x1 <= 400 and text.y0 >= 0 and text.y1 < axes.y0
        assert not any(text.overlaps(other) for other in texts[:index])


# To matplotlib, mathematics that is none; hidden in a legend; of more letters than it can draw.
@pytest.mark.parametrize("name", ["$\\foo$", "_a", "x" * 100_000])
def test_names_are_drawn_as_they_are(name):
    figure, (axis,) = pictures.grid(1, 1, side=1.4)
    pictures.set_title(axis, name, fontsize=8)
    pictures.show(axis, np.zeros((30, 30, 1), np.uint8))
    pictures.draw_boxes(axis, np.array([[1, 2, 5, 9]]), np.array([0]), [name], [name])
    pictures.add_legend(figure, [np.zeros((2, 2), int)], [name])
    figure.savefig(io.BytesIO())
    (legend,) = figure.legends
    for text in (axis.title, axis.texts[0], legend.get_texts()[0]):
        (place,) = extents(figure, [text])
        assert place.x0 >= 0 and place.x1 <= 140
        shown = text.get_text()
        assert shown == name or (shown[:-1] == "x" * (len(shown) - 1) and shown[-1] == "…")


def test_a_text_is_cut_where_it_is_too_wide_alone():
    assert pictures.fitted("cat", 1.0, 8) == "cat" and pictures.fitted("", 1.0, 8) == ""
    cut = [pictures.fitted(LONG[0], width, 8) for width in (0.01, 0.5, 1.0, 2.0, 9.0)]
    assert cut[0] == "…" and cut[-1] == LONG[0] and [*map(len, cut)] == sorted({*map(len, cut)})
    assert all(text.endswith("…") and LONG[0].startswith(text[:-1]) for text in cut[:-1])
