import json
import logging
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from inputs.detection_sources import detection_source
from inputs.images import DataError
from inputs.joint_transforms import detection_transform
from inputs.pipeline import eval_batches


def save(path, height=60, width=80, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height), 100).save(path)


# A COCO json with an image folder.


def write_coco(root, *, split="train", annotations="annotations", images="images", **change):
    listed = [{"id": i, "file_name": f"{i}.png", "height": 60, "width": 80} for i in (5, 6, 9)]
    for image, mode in zip(listed, ("RGB", "L", "RGBA"), strict=True):
        save(root / images / image["file_name"], mode=mode)
    boxes = {5: [(1, 2, 30, 40), (0, 0, 0, 5)], 9: [(10, 10, 20, 20)]}
    data = {
        "images": listed,
        "annotations": [
            {"image_id": id, "category_id": 4, "bbox": box} for id in boxes for box in boxes[id]
        ],
        "categories": [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}],
    } | change
    path = root / annotations / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def coco_json(root, split="train", **kwargs):
    return detection_source("coco_json", str(root), split, **kwargs)


def test_coco_json(tmp_path):
    write_coco(tmp_path)
    source = coco_json(tmp_path)
    examples = [source[i] for i in range(len(source))]
    assert [e["image"].shape for e in examples] == [(60, 80, 3)] * 3  # gray and RGBA too
    assert [len(e["boxes"]) for e in examples] == [1, 0, 1]
    assert [e["image_id"] for e in examples] == [5, 6, 9]
    np.testing.assert_array_equal(examples[0]["boxes"], [(2, 1, 42, 31)])
    assert source.class_names == ("cat", "dog") and source.category_ids == (4, 9)
    truth = source.ground_truth()
    assert [i["id"] for i in truth["images"]] == [5, 6, 9] and len(truth["annotations"]) == 2
    assert coco_json(tmp_path, channels=1)[0]["image"].shape == (60, 80, 1)
    part = pickle.loads(pickle.dumps(coco_json(tmp_path, "train[1:]")))
    assert [part[i]["image_id"] for i in range(len(part))] == [6, 9]
    assert len(part.ground_truth()["annotations"]) == 1


def test_coco_as_it_is_published(tmp_path):
    write_coco(tmp_path, split="val2017", images="val2017")
    source = coco_json(tmp_path, "val2017", images="{split}")
    assert source[0]["image_id"] == 5


def test_sizes_that_the_json_lacks_are_read(tmp_path):
    path = write_coco(tmp_path)
    data = json.loads(path.read_text())
    for image in data["images"]:
        del image["height"], image["width"]
    path.write_text(json.dumps(data))
    assert coco_json(tmp_path)[0]["image"].shape == (60, 80, 3)
    assert coco_json(tmp_path).ground_truth()["images"][2]["width"] == 80


def test_missing_images_are_all_named(tmp_path):
    write_coco(tmp_path)
    for id in (5, 9):
        (tmp_path / "images" / f"{id}.png").unlink()
    with pytest.raises(DataError, match=r"2 of 3 images of .*train.json .*: .*5\.png, .*9\.png\."):
        coco_json(tmp_path)
    assert len(coco_json(tmp_path, "train[1:2]")) == 1
    with pytest.raises(DataError, match="1 of 1 images of .*config.data.images names their folder"):
        coco_json(tmp_path, "train[1:2]", images="pictures")


def test_an_image_of_another_size_is_named_when_read(tmp_path):
    write_coco(tmp_path)
    save(tmp_path / "images" / "6.png", 80, 60)
    source = coco_json(tmp_path)
    with pytest.raises(
        DataError, match=r"6\.png is \(80, 60\) \(height.*says \(60, 80\): the boxes"
    ):
        source[1]
    transform = detection_transform(image_size=64, max_boxes=2, train=False, fill=(0, 0, 0))
    (batch,) = eval_batches(source, transform, batch_size=4, on_error="skip")
    np.testing.assert_array_equal(batch["mask"], [True, False, True, False])
    np.testing.assert_array_equal(batch["skipped"], [0, 1, 0, 0])
    assert not batch["boxes"][~batch["mask"]].any()


def test_broken_entries_of_a_json_can_be_skipped(tmp_path, caplog):
    path = write_coco(tmp_path)
    data = json.loads(path.read_text())
    data["images"].append({"id": 11})
    good = data["annotations"][0]
    data["annotations"] += [{"image_id": 5}, good | {"bbox": [1, 2]}, good | {"image_id": 11}, 7]
    data["annotations"].append(good | {"image_id": 99})
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"images\[3\] has no file_name"):
        coco_json(tmp_path)
    with caplog.at_level(logging.WARNING, logger="absl"):
        source = coco_json(tmp_path, on_error="skip")
    assert caplog.messages[0].startswith(f"Skipped: 5 broken entries of {path}: images[3] has no f")
    for words in ("annotations[3] has no category_id", "annotations[7] is of the image 99, which"):
        assert words in caplog.messages[0]
    assert "image 11" not in caplog.messages[0]  # which is named by itself
    assert [len(source[i]["boxes"]) for i in range(3)] == [1, 0, 1]
    assert len(source.found.left_out) == 6 and source.found.counts == (2, 0)  # one had no area


def test_broken_json_is_explained(tmp_path):
    path = write_coco(tmp_path)
    with pytest.raises(
        DataError, match=r"instances_val.json cannot be read \(no such file; there: inst"
    ):
        coco_json(tmp_path, "val")
    with pytest.raises(DataError, match=r"boxes.json cannot be read .*set config.data.annotations"):
        coco_json(tmp_path, annotations="boxes.json")
    with pytest.raises(DataError, match="coco_json needs a folder"):
        detection_source("coco_json", None, "train")
    with pytest.raises(DataError, match="examples 0 to 9 of 3"):
        coco_json(tmp_path, "train[:9]")
    path.write_text("{")
    with pytest.raises(DataError, match="train.json is no JSON"):
        coco_json(tmp_path)
    path.write_text(json.dumps({"images": [{"id": 1}]}))
    with pytest.raises(DataError, match=r"images\[0\] has no file_name"):
        coco_json(tmp_path)


@pytest.mark.parametrize("name", ["../outside.png", "ABSOLUTE", "sub/../../outside.png", "/"])
def test_images_outside_of_their_folder_are_refused(tmp_path, name):
    save(tmp_path / "outside.png")
    path = write_coco(tmp_path / "data")
    data = json.loads(path.read_text())
    data["images"][0]["file_name"] = name.replace("ABSOLUTE", str(tmp_path / "outside.png"))
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"a file_name of .*train.json is .*, which does not lie"):
        coco_json(tmp_path / "data")


def test_a_json_without_images_is_named(tmp_path):
    write_coco(tmp_path, images="images")
    path = tmp_path / "annotations" / "instances_train.json"
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match="train.json lists no images"):
        coco_json(tmp_path)


def test_evaluation_has_the_classes_of_training(tmp_path):
    write_coco(tmp_path)
    write_coco(tmp_path, split="val", categories=[{"id": 4, "name": "cat"}])
    names = coco_json(tmp_path).class_names
    with pytest.raises(DataError, match="val.json has classes cat, but cat, dog are wanted"):
        coco_json(tmp_path, "val", class_names=names)


# A VOC xml folder.

THING = "<object><name>{}</name><difficult>{}</difficult>{}</object>"
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
SIZE = "<size><width>80</width><height>60</height><depth>3</depth></size>"


def thing(name, box, difficult=0):
    return THING.format(name, difficult, BOX.format(*box))


def write_voc(root, files, split="train"):
    """Writes `{name: xml inside <annotation>}` with an image for each."""
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, inside in files.items():
        save(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{inside}</annotation>")
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(files) + "\n")


def voc_xml(root, split="train", **kwargs):
    return detection_source("voc_xml", str(root), split, **kwargs)


GOOD = {
    "b": SIZE + thing("dog", (10, 20, 30, 50)) + thing("ant", (1.5, 0, 80, 60), difficult=1),
    "a": SIZE,
    "c": thing(" cat ", (0, 0, 5, 6)),
}


def test_voc_xml(tmp_path):
    write_voc(tmp_path, GOOD)
    source = voc_xml(tmp_path)
    assert source.class_names == ("ant", "cat", "dog") and source.category_ids == (1, 2, 3)
    first = source[0]
    np.testing.assert_array_equal(first["boxes"], [(20, 10, 50, 30), (0, 1.5, 60, 80)])
    np.testing.assert_array_equal(first["labels"], [2, 0])
    np.testing.assert_array_equal(first["crowd"], [False, True])  # difficult
    assert len(source[1]["boxes"]) == 0
    np.testing.assert_array_equal(source[2]["boxes"], [(0, 0, 6, 5)])
    truth = source.ground_truth()
    assert [i["file_name"] for i in truth["images"]] == ["b.jpg", "a.jpg", "c.jpg"]
    assert [a["iscrowd"] for a in truth["annotations"]] == [0, 1, 0]
    part = voc_xml(tmp_path, "train[2:]", class_names=source.class_names)
    assert part[0]["image_id"] == source[2]["image_id"] == 3
    np.testing.assert_array_equal(part[0]["labels"], [1])


def test_parts_of_objects_are_no_objects(tmp_path):
    part = f"<part><name>head</name>{BOX.format(1, 1, 5, 5)}</part>"
    inside = f"<object><name>man</name>{part}{BOX.format(9, 9, 20, 20)}</object>"
    write_voc(tmp_path, {"a": SIZE + inside})
    np.testing.assert_array_equal(voc_xml(tmp_path)[0]["boxes"], [(9, 9, 20, 20)])


def test_split_files_of_one_class_have_a_second_column(tmp_path):
    write_voc(tmp_path, GOOD)
    (tmp_path / "ImageSets" / "Main" / "dog_train.txt").write_text("b  1\na -1\n\nc  0\n")
    assert len(voc_xml(tmp_path, "dog_train")) == 3


def test_useless_voc_boxes_are_named(tmp_path, caplog):
    write_voc(tmp_path, {"a": SIZE + thing("dog", (5, 5, 5, 5)) + thing("cow", (5, 5, 9, 9))})
    with caplog.at_level(logging.WARNING, logger="absl"):
        source = voc_xml(tmp_path, class_names=("dog", "cat"))
    (message,) = caplog.messages
    assert "train: 2 of 2 boxes are left out: 1 of no area (in a.jpg)" in message
    assert "1 of unknown classes 'cow' (in a.jpg)" in message
    assert len(source[0]["boxes"]) == 0


def test_more_boxes_than_the_maximum_are_named(tmp_path, caplog):
    write_voc(tmp_path, GOOD | {"d": SIZE + thing("dog", (1, 1, 9, 9)) * 4})
    with caplog.at_level(logging.WARNING, logger="absl"):
        voc_xml(tmp_path, max_boxes=3)
    (message,) = caplog.messages
    assert "1 of 4 images have more than 3 boxes (d.jpg: 4)" in message


def test_missing_voc_files_are_all_named(tmp_path):
    write_voc(tmp_path, GOOD)
    with pytest.raises(DataError, match=r"Main.val.txt cannot be read .*there: train.txt"):
        voc_xml(tmp_path, "val")
    for name in ("a", "c"):
        (tmp_path / "JPEGImages" / f"{name}.jpg").unlink()
    with pytest.raises(DataError, match=r"2 of 3 images of .*JPEGImages: a, c \(looked for .jpg"):
        voc_xml(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "Annotations" / f"{name}.xml").unlink()
    with pytest.raises(DataError, match=r"2 of 3 annotations of .*b\.xml, .*a\.xml\."):
        voc_xml(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("b\na\nb\n")
    with pytest.raises(DataError, match="train.txt has 1 names twice: b"):
        voc_xml(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("\n")
    with pytest.raises(DataError, match="train.txt is empty"):
        voc_xml(tmp_path)


def test_broken_xml_is_all_named(tmp_path):
    broken = {
        "cut": "<object>",
        "no box": SIZE + "<object><name>x</name></object>",
        "no xmin": SIZE + thing("x", (1, 1, 2, 2)).replace("<xmin>1</xmin>", ""),
        "text": SIZE + thing("x", ("one", 1, 2, 2)),
    }
    names = {name.replace(" ", "_"): inside for name, inside in broken.items()}
    write_voc(tmp_path, GOOD | names)
    with pytest.raises(DataError, match="4 of 7 files of .* train are no VOC annotations") as error:
        voc_xml(tmp_path)
    for text in (
        "cut.xml (mismatched tag",
        "no_box.xml (<object> without <bndbox>)",
        "no_xmin.xml (<bndbox> without <xmin>)",
        "text.xml ('one' is no finite number)",
    ):
        assert text in str(error.value)


def test_broken_xml_can_be_skipped(tmp_path, caplog):
    write_voc(tmp_path, {"none": ""} | GOOD | {"cut": "<object>"})
    (tmp_path / "Annotations" / "none.xml").write_bytes(b"")
    (tmp_path / "Annotations" / "a.xml").unlink()
    with caplog.at_level(logging.WARNING, logger="absl"):
        source = voc_xml(tmp_path, on_error="skip")
    (message,) = caplog.messages
    assert "3 of 5 files of" in message and "train are no VOC annotations: Annotations" in message
    assert all(f"{name}.xml" in message for name in ("none", "a", "cut"))
    assert len(source) == 5 and len(source.found.bad) == 3 and source.found.counts == (0, 1, 1)
    for index, name in ((0, "none"), (2, "a"), (4, "cut")):
        with pytest.raises(DataError, match=f"{name}.xml"):
            source[index]
    assert len(source[1]["boxes"]) == 2 and source[3]["image_id"] == 4
    for path in (tmp_path / "Annotations").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="5 of 5 files of .* are no VOC annotations"):
        voc_xml(tmp_path, on_error="skip")


def test_an_image_whose_size_nobody_knows_can_be_skipped(tmp_path, caplog):
    write_voc(tmp_path, GOOD)  # c has no <size>
    (tmp_path / "JPEGImages" / "c.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 3 images of .*c\.jpg cannot be decoded"):
        voc_xml(tmp_path)
    with caplog.at_level(logging.WARNING, logger="absl"):
        source = voc_xml(tmp_path, on_error="skip")
    assert len(caplog.messages) == 1 and source.found.counts == (0, 0, 1)
    with pytest.raises(DataError, match=r"c\.jpg cannot be decoded"):
        source[2]


BROKEN = {
    "infinite": (SIZE.replace("80", "1e400"), "'1e400' is no finite number"),
    "huge": (SIZE.replace("80", "1e308"), "a <size> of 60.0 x 1e\\+308"),
    "half": (SIZE.replace("60", "60.9"), "a <size> of 60.9 x 80"),
    "two": (SIZE + thing("x", (1, 1, 2, 2)).replace("<xmin>1</xmin>", "<xmin>1</xmin>" * 2), "sev"),
    "difficult": (SIZE + thing("x", (1, 1, 2, 2), difficult=2), "<difficult> 2.0, expected 0 or 1"),
    "nameless": (SIZE + thing(" ", (1, 1, 2, 2)), "an <object> of the <name> ''"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_numbers_and_names_of_voc_are_held_to_be_some(tmp_path, name):
    inside, reason = BROKEN[name]
    write_voc(tmp_path, {"a": inside})
    with pytest.raises(DataError, match=rf"1 of 1 files .*a\.xml \(.*{reason}"):
        voc_xml(tmp_path)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("<?xml version='1.0' encoding='nope'?><annotation/>", "unknown encoding: nope"),
        ("<html><body>404</body></html>", "its root is <html>, expected <annotation>"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>", "it has a document type"),
    ],
)
def test_other_xml_is_named(tmp_path, text, reason):
    write_voc(tmp_path, {"a": SIZE})
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(DataError, match=rf"a\.xml \({reason}"):
        voc_xml(tmp_path)


def test_namespaces_do_not_hide_objects(tmp_path):
    write_voc(tmp_path, GOOD)
    want = voc_xml(tmp_path)[0]
    for space in ('<annotation xmlns="http://x">', "<v:annotation xmlns:v='http://x'>"):
        text = f"{space}{GOOD['b']}</{space.split()[0][1:]}>"
        (tmp_path / "Annotations" / "b.xml").write_text(text)
        np.testing.assert_array_equal(voc_xml(tmp_path)[0]["boxes"], want["boxes"])


def test_huge_boxes_of_voc_are_left_out(tmp_path, caplog):
    write_voc(tmp_path, {"a": SIZE + thing("dog", (1, 1, 1e308, 9)) + thing("dog", (1, 1, 9, 9))})
    with caplog.at_level(logging.WARNING, logger="absl"):
        source = voc_xml(tmp_path)
    assert "1 of 2 boxes are left out: 1 of numbers that are no pixels" in caplog.messages[0]
    assert len(source[0]["boxes"]) == 1


def test_names_of_the_list_lie_in_the_folder(tmp_path):
    write_voc(tmp_path / "data", GOOD)
    (tmp_path / "outside.xml").write_text("<annotation/>")
    (tmp_path / "data" / "ImageSets" / "Main" / "train.txt").write_text("../../outside\n")
    with pytest.raises(
        DataError, match="a name of the list of split 'train' is '../../outside.xml'"
    ):
        voc_xml(tmp_path / "data")


def test_a_pipe_as_an_annotation_is_named(tmp_path):
    write_voc(tmp_path, GOOD)
    path = tmp_path / "Annotations" / "a.xml"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"1 of 3 files .*a\.xml is a device or a pipe"):
        voc_xml(tmp_path)


def test_scenes_by_name():
    source = detection_source(
        "scenes", None, "test[:3]", scenes={"size": 64, "digit_size": (9, 20)}
    )
    assert len(source) == 3 and source[0]["image"].shape == (64, 64, 1)
    assert len(source.class_names) == 10
