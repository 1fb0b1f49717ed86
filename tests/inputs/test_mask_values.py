"""Masks of other values than 0, 1, ... and 255."""

import numpy as np
import pytest
from PIL import Image

from inputs.images import DataError
from inputs.mask_values import mask_values
from inputs.segmentation_sources import segmentation_source
from photos import encoded

CAMVID = "64 128 64\tAnimal\n192 0 128\t\tArchway\n0 128 192\tBicyclist\n0 0 0\tVoid\n"
COLOURS = np.array([[(64, 128, 64), (192, 0, 128)], [(0, 128, 192), (0, 0, 0)]], np.uint8)


def read(values, pixels, kind="PNG"):
    return values.read(encoded(pixels, kind), "m.png")[0].tolist()


def test_an_index_that_is_ignored():
    values = mask_values(("sky", "tree"), ignore_index=11)
    pixels = np.array([[0, 1, 11, 255]], np.uint8)
    assert read(values, pixels) == [[0, 1, 255, 255]]
    assert read(values, pixels.astype(np.uint16)) == [[0, 1, 255, 255]]
    classes, counts = values.read(encoded(pixels, "PNG"), "m.png")
    assert classes.dtype == np.uint8 and counts[[0, 1, 11, 255]].tolist() == [1, 1, 0, 2]
    with pytest.raises(DataError, match=r"m.png has class 7, .*2 classes \(0 to 1: sky, tree; 255"):
        read(values, np.array([[0, 7]], np.uint8))
    with pytest.raises(DataError, match="ignore_index is -1, expected 0 to 65535"):
        mask_values(("sky",), ignore_index=-1)
    assert read(mask_values(("sky", "tree"), ignore_index=0), pixels[:, :2]) == [[255, 1]]
    assert read(mask_values(("sky",), ignore_index=1000), np.array([[1000, 0]], np.uint16)) == [
        [255, 0]
    ]


def test_values_by_name():
    values = mask_values(None, "0=sky,255=tree,7=ignore,8=sky")
    assert values.class_names == ("sky", "tree")
    assert read(values, np.array([[0, 255, 7, 8]], np.uint8)) == [[0, 1, 255, 0]]
    with pytest.raises(DataError, match="m.png has 3, which .*mask_values does not name .*sky, tr"):
        read(values, np.array([[3]], np.uint8))
    # Of the names those that are chosen, in another order.
    values = mask_values(("tree",), "0=sky,255=tree,7=ignore")
    assert read(values, np.array([[0, 255, 7]], np.uint8)) == [[255, 0, 255]]


def test_colours_of_a_file(tmp_path):
    (tmp_path / "label_colors.txt").write_text(CAMVID)
    values = mask_values(None, "label_colors.txt", root=str(tmp_path))
    assert values.class_names == ("Animal", "Archway", "Bicyclist")
    assert read(values, COLOURS) == [[0, 1], [2, 255]]
    palette = Image.fromarray(COLOURS).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    rgba = Image.fromarray(COLOURS).convert("RGBA")
    assert read(values, palette) == read(values, rgba) == [[0, 1], [2, 255]]
    other = COLOURS.copy()
    other[0, 0] = (1, 2, 255)
    with pytest.raises(DataError, match="m.png has the colour #0102ff, which config.data.mask_val"):
        read(values, other)


@pytest.mark.parametrize(
    "text",
    [
        "name,r,g,b\nAnimal,64,128,64\nArchway,192,0,128\nBicyclist,0,128,192\nVoid,0,0,0\n",
        "#408040 Animal\n#c00080: Archway\n#0080C0,Bicyclist\n#000000 Void\n",
    ],
)
def test_other_forms_of_such_a_file(tmp_path, text):
    (tmp_path / "list").write_text(text)
    assert read(mask_values(None, "list", root=str(tmp_path)), COLOURS) == [[0, 1], [2, 255]]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0 sky\n1 lane marking\n", ("sky", "lane marking")),
        ("sky,0\nlane marking 1\n", ("sky", "lane marking")),
        ("0=3,1=4", ("3", "4")),
        ("0: class 1\n1: class 2", ("class 1", "class 2")),
    ],
)
def test_indices_first_or_last(tmp_path, text, names):
    if "=" not in text:
        (tmp_path / "list").write_text(text)
        text = "list"
    values = mask_values(None, text, root=str(tmp_path))
    assert values.class_names == names
    assert read(values, np.array([[1, 0]], np.uint8)) == [[1, 0]]


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("0=sky,0=tree", None, "has the value 0 twice"),
        ("0=sky,#ffffff=tree", None, "has both indices and colours"),
        ("0=sky,tree=cow", None, "has 'tree=cow', expected an index or a colour"),
        ("0=sky,1=", None, "has '1=', expected"),
        ("=", None, "has '=', expected"),
        ("nothing.txt", None, "nothing.txt cannot be read .*a value and a name"),
        ("0=sky", ("cow",), "class_names has cow, and .*mask_values names sky"),
        ("0=ignore", None, "there are 0 classes"),
        (None, None, "needs config.data.class_names: .*background,nucleus; or a list"),
        (None, tuple(map(str, range(256))), "there are 256 classes, expected 1 to 255"),
    ],
)
def test_what_is_not_understood_is_shown(tmp_path, text, names, message):
    with pytest.raises(DataError, match=message):
        mask_values(names, text, root=str(tmp_path))


def test_a_folder_of_colours(tmp_path):
    for part, image in (("images", COLOURS), ("masks", COLOURS)):
        (tmp_path / part).mkdir()
        Image.fromarray(image).save(tmp_path / part / "a.png")
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "colours.txt").write_text(CAMVID)

    def opened(**fields):
        return segmentation_source("mask_folder", str(tmp_path), "train", **fields)

    with pytest.raises(DataError, match="a.png is a colour image .* config.data.mask_values"):
        opened(class_names=("Animal",))
    source = opened(listed_values="colours.txt", class_names=("Bicyclist", "Animal"))
    assert source[0]["mask"].tolist() == [[1, 255], [0, 255]]
    assert source.class_names == ("Bicyclist", "Animal")
    assert (source.found.counts, source.found.images) == ((1, 1), (1, 1))
