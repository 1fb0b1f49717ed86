import logging
import pickle

import numpy as np
import pytest
from PIL import Image

from inputs.found import found_in
from inputs.images import DataError
from inputs.joint_transforms import segmentation_transform
from inputs.pipeline import eval_batches
from inputs.segmentation_sources import segmentation_source

NAMES = ("background", "ant", "bee")


def mask_of(height=20, width=30, values=(0, 1, 2, 255), seed=0):
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), (height, width))


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)


def palette(mask):
    image = Image.fromarray(mask)
    image.putpalette([(37 * i) % 256 for i in range(768)])
    return image


def write(root, masks, *, split="train", images="images", folder="masks", names="{}.txt"):
    for name, mask in masks.items():
        size = mask.size if isinstance(mask, Image.Image) else mask.shape[::-1]
        save(root / images / f"{name}.jpg", Image.new("RGB", size, (9, 99, 199)))
        save(root / folder / f"{name}.png", mask)
    path = root / names.format(split)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(masks))


def opened(root, split="train", class_names=NAMES, **kwargs):
    return segmentation_source("mask_folder", str(root), split, class_names=class_names, **kwargs)


def test_images_and_masks_of_all_kinds(tmp_path):
    masks = {name: mask_of(seed=i) for i, name in enumerate("abcd")}
    deep = masks["c"].astype(np.uint16)
    bits = mask_of(values=(0, 1))
    stored = {
        "a": masks["a"],
        "b": palette(masks["b"]),
        "c": deep,
        "d": Image.fromarray(bits * 255).convert("1"),
    }
    write(tmp_path, stored)
    for name, mode in (("a", "L"), ("b", "RGBA")):
        (tmp_path / "images" / f"{name}.jpg").unlink()
        save(tmp_path / "images" / f"{name}.png", Image.new(mode, (30, 20), 77))
    source = opened(tmp_path)
    assert len(source) == 4 and source.class_names == NAMES and source.max_size == (20, 30)
    pixels = np.stack([*(masks[name] for name in "abc"), bits])
    assert source.found.counts == tuple((pixels == label).sum() for label in range(3))
    assert source.found.images == (4, 4, 3)
    for index, name in enumerate("abcd"):
        example = source[index]
        assert example["image"].shape == (20, 30, 3) and example["index"] == index
        assert example["mask"].dtype == np.uint8
        np.testing.assert_array_equal(example["mask"], bits if name == "d" else masks[name])
    assert opened(tmp_path, channels=1)[0]["image"].shape == (20, 30, 1)
    part = pickle.loads(pickle.dumps(opened(tmp_path, "train[1:3]")))
    np.testing.assert_array_equal(part[0]["mask"], masks["b"])


def test_the_layout_of_voc(tmp_path):
    masks = {"2007_000032": palette(mask_of(20, 30)), "2007_000039": palette(mask_of(40, 10))}
    layout = {"images": "JPEGImages", "names": "ImageSets/Segmentation/{split}.txt"}
    write(
        tmp_path,
        masks,
        split="trainaug",
        images="JPEGImages",
        folder="SegmentationClassAug",
        names="ImageSets/Segmentation/{}.txt",
    )
    source = opened(tmp_path, "trainaug", masks="SegmentationClassAug", **layout)
    assert len(source) == 2 and source.max_size == (40, 30)

    # Lists often have both paths instead.
    pairs = [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in masks]
    (tmp_path / "train_aug.txt").write_text("\n".join(pairs))
    other = opened(tmp_path, "train_aug")
    np.testing.assert_array_equal(other[1]["mask"], source[1]["mask"])
    (tmp_path / "train_aug.txt").write_text("\n".join(pairs).replace("39.png", "38.png"))
    with pytest.raises(DataError, match=r"1 of 4 files of .* are missing: .*2007_000038\.png"):
        opened(tmp_path, "train_aug")


def test_pairs_of_paths_lie_in_the_folder(tmp_path):
    for root in (tmp_path / "data", tmp_path / "outside"):
        write(root, {"a": mask_of()})
    for line in ("../outside/images/a.jpg /masks/a.png", "/images/a.jpg ../outside/masks/a.png"):
        (tmp_path / "data" / "train.txt").write_text(line)
        with pytest.raises(DataError, match="a path of the list of split 'train' is .*, which d"):
            opened(tmp_path / "data")


def test_lists_as_windows_writes_them(tmp_path):
    write(tmp_path, {"a": mask_of(), "b": mask_of()})
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert len(opened(tmp_path)) == 2


def test_names_may_have_spaces_and_suffixes(tmp_path):
    write(tmp_path, {"cell 1": mask_of(), "cell 2": mask_of()})
    assert len(opened(tmp_path)) == 2
    (tmp_path / "images" / "cell 1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 images .*ambiguous.*: cell 1\.jpg and cell 1\.png"):
        opened(tmp_path)
    (tmp_path / "train.txt").write_text("cell 1.jpg")
    with pytest.raises(DataError, match=r"1 of 1 masks .* are missing .*: cell 1\.jpg"):
        opened(tmp_path)


def bad_masks(root):
    """Seven examples, two of which are good."""
    colour = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    deep = mask_of().astype(np.uint16)
    deep[3, 3] = 300
    beyond = mask_of(values=(0, 1, 3, 7))
    write(
        root,
        {"good": mask_of(), "beyond": beyond, "colour": colour, "deep": deep, "fine": mask_of()},
    )
    write(root, {"size": mask_of(30, 20), "cut": mask_of()})
    save(root / "images" / "size.jpg", Image.new("RGB", (30, 20)))
    path = root / "masks" / "cut.png"
    path.write_bytes(path.read_bytes()[:60])
    names = ("good", "beyond", "colour", "deep", "fine", "size", "cut")
    (root / "train.txt").write_text("\n".join(names))


def test_everything_wrong_is_named_with_a_count(tmp_path):
    bad_masks(tmp_path)
    with pytest.raises(DataError, match="5 of 7 examples of .* train cannot be used") as error:
        opened(tmp_path)
    for text in (
        "beyond.png has class 3, 7, where there are 3 classes (0 to 2: background, ant, bee; 255",
        "colour.png is a colour image (RGB), where a mask has a class index in each pixel",
        "deep.png has class 300",
        "size.png is (30, 20) (height, width), its image (20, 30)",
        "cut.png cannot be decoded",
    ):
        assert text in str(error.value)


def test_an_exif_rotation_is_told(tmp_path):
    """One of a mask of the stored pixels, and one whose mask is as it is shown."""
    write(tmp_path, {"upright": mask_of(), "stored": mask_of(), "shown": mask_of(30, 20)})
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("stored", "shown"):
        Image.new("RGB", (30, 20)).save(tmp_path / "images" / f"{name}.jpg", exif=exif)
    with pytest.raises(DataError) as error:
        opened(tmp_path)
    assert "its image (20, 30): the image has an EXIF rotation, which is not" in str(error.value)
    (note,) = found_in(opened(tmp_path, on_error="skip")).notes
    assert "train: 1 of 2 images have an EXIF rotation, which is not applied, as masks" in note


def test_what_is_wrong_can_be_skipped(tmp_path, caplog):
    bad_masks(tmp_path)
    with caplog.at_level(logging.WARNING, logger="absl"):
        source = opened(tmp_path, on_error="skip")
    assert len(caplog.messages) == 1 and "5 of 7 examples" in caplog.messages[0]
    transform = segmentation_transform(
        image_size=16, train=False, fill=(0, 0, 0), max_size=source.max_size
    )
    batches = list(eval_batches(source, transform, batch_size=4, on_error="skip"))
    mask = np.concatenate([batch["mask"] for batch in batches])
    np.testing.assert_array_equal(mask, [True, False, False, False, True, False, False, False])
    assert sum(batch["skipped"].sum() for batch in batches) == 5


def test_missing_files_are_all_named(tmp_path):
    write(tmp_path, {name: mask_of() for name in "abc"})
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 masks of .* are missing in .*masks: b \(looked"):
        opened(tmp_path)
    (tmp_path / "masks" / "b.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"are missing in .* .bmp; there are b\.tif\)\.$"):
        opened(tmp_path)
    (tmp_path / "train.txt").write_text("a\nx\ny")
    with pytest.raises(DataError, match=r"2 of 3 images of .* are missing in .*images: x, y"):
        opened(tmp_path)
    with pytest.raises(
        DataError, match=r"val.txt cannot be read .*there: images, masks, train.txt"
    ):
        opened(tmp_path, "val")


def test_masks_of_0_and_255_are_not_taken_for_all_background(tmp_path):
    write(tmp_path, {name: mask_of(values=(0, 255)) for name in "ab"})
    with pytest.raises(
        DataError, match=r'hold no values but 0 and 255.*_values to "0=background,255=ant"\.'
    ):
        opened(tmp_path)
    source = opened(tmp_path, class_names=None, listed_values="0=background,255=ant")
    assert set(np.unique(source[0]["mask"])) == {0, 1}
    write(tmp_path, {"a": mask_of(values=(0, 255)), "b": mask_of(values=(0, 1))})
    assert len(opened(tmp_path)) == 2
    write(tmp_path, {"a": mask_of(values=(0,))})  # a negative
    assert len(opened(tmp_path)) == 1


def test_wrong_arguments_are_explained(tmp_path):
    with pytest.raises(DataError, match=r"needs config.data.class_names: the names of the classes"):
        opened(tmp_path, class_names=None)
    with pytest.raises(DataError, match="there are 256 classes, expected 1 to 255"):
        opened(tmp_path, class_names=tuple(map(str, range(256))))
    with pytest.raises(DataError, match="needs a folder"):
        segmentation_source("mask_folder", None, "train", class_names=NAMES)
    with pytest.raises(DataError, match="data.name is 'voc', expected mask_folder or scenes"):
        segmentation_source("voc", str(tmp_path), "train", class_names=NAMES)


def test_scenes_by_name():
    source = segmentation_source("scenes", None, "test[:3]", scenes={"size": 100})
    assert source.class_names[:2] == ("background", "0") and len(source.class_names) == 11
    assert source[2]["mask"].shape == source.max_size == (100, 100)
