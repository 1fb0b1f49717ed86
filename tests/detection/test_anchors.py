"""Anchors of a pyramid, by value."""

import numpy as np
import pytest

from detection.anchors import make_anchors


def test_anchors_at_640():
    anchors = make_anchors(640, 640)
    assert anchors.shape == (76_725, 4) and anchors.dtype == np.float32
    start = 0
    for level in range(3, 8):
        stride = 2**level
        cells = (640 // stride) ** 2
        of_level = anchors[start : start + 9 * cells]
        start += 9 * cells
        # The first: a square of 4 strides, centred half a stride from the corner.
        first = stride / 2 - 2 * stride, stride / 2 + 2 * stride
        np.testing.assert_array_equal(of_level[0], np.repeat(first, 2))
        # The last: 0.7 wide and 1.4 high times 2^(2/3), half a stride from the other corner.
        centre, half = 640 - stride / 2, 2 * stride * 2 ** (2 / 3)
        height, width = 1.4 * half, 0.7 * half
        last = [centre - height, centre - width, centre + height, centre + width]
        np.testing.assert_allclose(of_level[-1], last, rtol=1e-6)
    assert start == len(anchors)
    np.testing.assert_array_equal(anchors[0], [-12, -12, 20, 20])
    # By value, of level 7: 576 -+ 1.4 * 512 * 2^(2/3) / 2, and half of that.
    np.testing.assert_allclose(anchors[-1], [7.0752, 291.5376, 1144.9248, 860.4624], atol=1e-3)


def test_order_is_rows_then_columns_then_scales_then_aspects():
    anchors = make_anchors(8, 16, min_level=2, max_level=2)
    assert anchors.shape == (2 * 4 * 9, 4)
    position = 0
    for row in range(2):
        for column in range(4):
            for scale in range(3):
                for wide, high in ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)):
                    side = 4 * 4 * 2 ** (scale / 3)
                    y, x = 4 * row + 2, 4 * column + 2
                    height, width = high * side, wide * side
                    expected = [y - height / 2, x - width / 2, y + height / 2, x + width / 2]
                    np.testing.assert_allclose(anchors[position], expected, rtol=1e-5)
                    position += 1


def test_other_levels_and_shapes():
    anchors = make_anchors(
        32, 64, min_level=1, max_level=3, scales=1, aspects=((1.0, 1.0),), anchor_scale=2.0
    )
    assert len(anchors) == 16 * 32 + 8 * 16 + 4 * 8
    np.testing.assert_array_equal(anchors[0], [-1, -1, 3, 3])
    np.testing.assert_array_equal(anchors[-1], [20, 52, 36, 68])


def test_the_least_of_everything():
    anchors = make_anchors(
        1, 1, min_level=0, max_level=0, scales=1, aspects=((1.0, 1.0),), anchor_scale=0.5
    )
    np.testing.assert_array_equal(anchors, [[0.25, 0.25, 0.75, 0.75]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 600, "width": 640}, "height.*multiple of 128.*level 7.*600"),
        ({"height": 640, "width": 0}, "width.*multiple of 128.*0"),
        ({"height": 64, "width": 96, "max_level": 6}, "width.*multiple of 64.*96"),
        ({"height": 640, "width": 640, "min_level": 8}, "min_level.*8 and 7"),
        ({"height": 640, "width": 640, "min_level": -1}, "min_level.*-1"),
        ({"height": 640, "width": 640, "scales": 0}, "scales.*0"),
        ({"height": 640, "width": 640, "aspects": ()}, "aspects"),
        ({"height": 640, "width": 640, "anchor_scale": 0.0}, "anchor_scale.*0.0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_anchors(**arguments)
