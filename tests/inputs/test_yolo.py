"""YOLO folders, in the forms that tools write them."""

import logging

import numpy as np
import pytest
from PIL import Image

from inputs.detection_sources import detection_source
from inputs.found import found_in
from inputs.images import DataError

NAMES = "names: [ant, bee]\n"


def save(path, label=None, labels=None, size=(80, 60)):
    """An image, and its labels beside it or where `labels` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, 100).save(path)
    if label is not None:
        labels = labels or path.with_suffix(".txt")
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text(label)


def opened(root, split="train", **fields):
    return detection_source("yolo", str(root), split, **fields)


def one_box(example):
    """The class and corners of an example's only box."""
    (label,), (box,) = example["labels"].tolist(), example["boxes"].tolist()
    return label, np.round(box, 4).tolist()


BOX, CORNERS = "1 0.5 0.5 0.25 0.5\n", (1, [15.0, 30.0, 45.0, 50.0])


def ultralytics(root):
    for split in ("train", "val"):
        for name in "abc":
            save(
                root / "images" / split / f"{name}.jpg",
                BOX,
                root / "labels" / split / f"{name}.txt",
            )
    (root / "data.yaml").write_text(
        "path: ../datasets/insects  # elsewhere\ntrain: images/train\nval: images/val\ntest:\n"
        "names:\n  0: ant\n  1: bee\n"
    )


def roboflow(root):
    for split in ("train", "valid"):
        for name in "abc":
            save(root / split / "images" / f"{name}.jpg", BOX, root / split / f"labels/{name}.txt")
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['ant', 'bee']\n"
    )


def darknet(root):
    for split in ("train", "val"):
        lines = []
        for name in "abc":
            save(root / f"obj_{split}_data" / f"{name}.jpg", BOX)
            lines.append(f"data/obj_{split}_data/{name}.jpg")
        (root / f"{split}.txt").write_text("\n".join(lines))
    (root / "obj.names").write_text("ant\nbee\n")


def lists(root):
    ultralytics(root)
    (root / "data.yaml").write_text("train: [a.txt, b.txt]\nval: b.txt\n" + NAMES)
    (root / "a.txt").write_text("./images/train/a.jpg\nimages/train/b.jpg")
    (root / "b.txt").write_text("./images/val/c.jpg")


@pytest.mark.parametrize("form", [ultralytics, roboflow, darknet, lists])
def test_forms(tmp_path, form):
    form(tmp_path)
    for split in ("train", "val"):
        source = opened(tmp_path, split)
        assert source.class_names == ("ant", "bee")
        assert len(source) == (1 if (form, split) == (lists, "val") else 3)
        assert [one_box(source[i]) for i in range(len(source))] == [CORNERS] * len(source)
    assert source.found.counts == (0, len(source))
    assert len(source.ground_truth()["annotations"]) == len(source)
    yaml = tmp_path / "data.yaml"
    if yaml.exists():  # people name that file
        assert len(opened(yaml)) == 3
    if form is lists:
        return
    yaml.unlink(missing_ok=True)
    fields = {} if form is darknet else {"class_names": ("ant", "bee")}
    assert one_box(opened(tmp_path, "val", **fields)[0]) == CORNERS


def test_a_folder_without_splits_is_cut_into_some(tmp_path):
    for i in range(20):
        save(tmp_path / "images" / f"{i}.png", BOX, tmp_path / "labels" / f"{i}.txt")
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    parts = [opened(tmp_path, split) for split in ("all[:80%]", "all[80%:]")]
    assert [len(part) for part in parts] == [16, 4]
    paths = parts[0].paths + parts[1].paths
    assert len(set(paths)) == 20 and paths != sorted(paths)
    # labelImg's, with all in one folder.
    flat = tmp_path / "flat"
    save(flat / "a.png", BOX)
    (flat / "classes.txt").write_text("ant\nbee\n")
    assert one_box(opened(flat, "all")[0]) == CORNERS
    with pytest.raises(DataError, match="no split 'train': looked for it .*images/train, .*all"):
        opened(flat)


def folder(tmp_path, *labels, yaml=NAMES):
    for number, label in enumerate(labels):
        path = tmp_path / "labels" / "train" / f"{number}.txt"
        save(tmp_path / "images" / "train" / f"{number}.png", label, path)
    (tmp_path / "data.yaml").write_text(yaml)
    return tmp_path


def test_polygons_negatives_and_missing_label_files(tmp_path, caplog):
    polygon = "0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n"
    with caplog.at_level(logging.WARNING, logger="absl"):
        source = opened(folder(tmp_path, polygon, "", "\n", None))
    examples = {source.paths[i][-5]: source[i] for i in range(4)}
    assert one_box(examples["0"]) == (0, [15.0, 20.0, 45.0, 60.0])
    assert [len(examples[name]["boxes"]) for name in "123"] == [0, 0, 0]
    (message,) = caplog.messages
    assert "1 of 4 images have no label file and are taken to hold no objects" in message
    for path in (tmp_path / "labels" / "train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"train has no label files: looked for .*labels.train"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 0.5 0.5 0.1 0.1", r"class '2', where there are 2 \(0 to 1\)"),
        ("-1 0.5 0.5 0.1 0.1", "class '-1'"),
        ("0.5 0.5 0.5 0.1 0.1", "class '0.5'"),
        ("0 0.5 0.5 0.1", "4 numbers, expected class, x, y, width, height"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 numbers, expected"),
        ("0 0.5 0.5 0.1 0.1 0.9 0.9 0.9", "8 numbers, expected"),
        ("0 40 30 10 20", "40 is no fraction of the image"),
        ("0 0.5 0.5 -0.1 0.1", "-0.1 is no fraction"),
        ("0 nan 0.5 0.1 0.1", "'nan' is no finite number"),
        ("bee 0.5 0.5 0.1 0.1", "'bee' is no finite number"),
        ("\0", ".*no finite number"),
    ],
)
def test_a_bad_line_is_named(tmp_path, caplog, line, reason):
    folder(tmp_path, BOX, f"{BOX}\n{line}\n")
    name = tmp_path / "labels" / "train" / "1.txt"
    short = name.relative_to(tmp_path)
    with pytest.raises(DataError, match=rf"1 of 2 examples of .* {short} line 3: {reason}"):
        opened(tmp_path)
    with caplog.at_level(logging.WARNING, logger="absl"):
        source = opened(tmp_path, on_error="skip")
    assert len(caplog.messages) == 1 and f"{short} line 3" in caplog.messages[0]
    good, bad = (0, 1) if source.paths[0].endswith("0.png") else (1, 0)
    assert one_box(source[good]) == CORNERS and source.found.counts == (0, 1)
    with pytest.raises(DataError, match=f"{name} line 3"):
        source[bad]
    assert len(source.found.bad) == 1


def test_boxes_beyond_the_border_are_cut(tmp_path):
    source = opened(folder(tmp_path, "0 1.0 0.5 0.5 1.005\n"))
    assert one_box(source[0]) == (0, [0.0, 60.0, 60.0, 80.0])


def test_an_unreadable_image_is_skipped_too(tmp_path):
    folder(tmp_path, BOX, BOX)
    (tmp_path / "images" / "train" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 2 images of|1 of 2 examples of .*1.png cannot be d"):
        opened(tmp_path)
    source = opened(tmp_path, on_error="skip")
    assert sorted(len(source.bad.get(i, "")) > 0 for i in range(2)) == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [ant, bee", r"data.yaml is no YAML \("),
        ("- a\n- b", "data.yaml is .*, expected train, val and names"),
        ("names: {0: ant, 2: bee}", "have the keys 0, 2, expected 0, 1"),
        ("names: [ant, ant]", "are ant, ant: give each class its own name"),
        ("names: ant", "are 'ant', expected a list of names"),
        ("names: [[ant]]", "expected a list of names"),
        ("names: []", "expected a list of names"),
        ("names: [ant, bee]\nnc: 3", "are 2, where nc is '3'"),
        ("names: [ant, bee]\nnames: [cow]", "a key is there twice"),
        ("names: !!python/object/apply:os.system ['touch HERE']", "expected a list of names|are"),
        ("[" * 3000, "data.yaml is nested too deep|is no YAML"),
        ("nc: 2", "neither a data.yaml with names nor a classes.txt"),
        ("train: ../../outside/../images\n" + NAMES, "a path of the yaml .* does not lie in"),
        ("train: /etc\n" + NAMES, "a path of the yaml .* does not lie in"),
        ("train: nowhere\n" + NAMES, "names 'nowhere', and .* is not there"),
        ("train: {a: b}\n" + NAMES, "has train: .*, expected a path"),
    ],
)
def test_what_a_yaml_may_not_say(tmp_path, text, message):
    folder(tmp_path, BOX, yaml=text.replace("HERE", str(tmp_path / "touched")))
    with pytest.raises(DataError, match=message):
        opened(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_names_stay_text(tmp_path):
    source = opened(folder(tmp_path, BOX, yaml="names: [no, 1e3]\n"))
    assert source.class_names == ("no", "1e3")
    with pytest.raises(DataError, match="has classes no, 1e3, but ant, bee are wanted"):
        opened(tmp_path, class_names=("ant", "bee"))


def test_lines_of_a_list_lie_in_the_folder(tmp_path):
    folder(tmp_path / "in", BOX, yaml="train: list.txt\n" + NAMES)
    save(tmp_path / "out.png", BOX)
    (tmp_path / "in" / "list.txt").write_text("../out.png")
    with pytest.raises(DataError, match="a line of .*list.txt is '../out.png', which does not lie"):
        opened(tmp_path / "in")


def test_images_with_an_exif_rotation_are_counted(tmp_path):
    ultralytics(tmp_path)
    assert found_in(opened(tmp_path)).notes == ()
    exif = Image.Exif()
    for name, value in (("a", 3), ("b", 8), ("c", 1)):
        exif[0x0112] = value
        Image.new("RGB", (80, 60)).save(tmp_path / f"images/train/{name}.jpg", exif=exif)
    source = opened(tmp_path)
    (note,) = found_in(source).notes
    assert "train: 2 of 3 images have an EXIF rotation, which is not applied, as boxes" in note
    assert one_box(source[1]) == CORNERS
