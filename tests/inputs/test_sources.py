"""Classification data: embedded MNIST and image folders; prepared sets are in test_prepared.py."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from inputs.images import DataError
from inputs.pipeline import eval_batches
from inputs.sources import Cached, classification_source
from photos import encoded, photo


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def everything(source):
    return [source[i] for i in range(len(source))]


# Embedded MNIST.


def test_mnist_is_stratified_and_its_splits_are_disjoint():
    train, test = (classification_source("mnist", None, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (4000, 1000)
    for source, each in ((train, 400), (test, 100)):
        labels = np.array([example["label"] for example in everything(source)])
        np.testing.assert_array_equal(np.bincount(labels), [each] * 10)
    example = train[0]
    assert (example["image"].shape, example["image"].dtype) == ((28, 28, 1), np.uint8)
    assert isinstance(example["label"], np.int32)
    assert train.class_names == tuple("0123456789")
    images = [digest(e["image"]) for e in everything(train) + everything(test)]
    assert len(set(images)) == 5000


def test_mnist_never_changes():
    """Published results name these splits: the order must be the same on any machine."""
    source = classification_source("mnist", None, "train")
    images = np.stack([example["image"] for example in everything(source)])
    labels = np.array([example["label"] for example in everything(source)])
    assert digest(labels) == "731cbe21dee4964814e8ddd4e96358cb9110a9e31371932f8b0a35ff8c7817b3"
    assert digest(images) == "ed9636335c4823f3c95a410f6f1c468e5eb9352c9c497229da2353d7cc04ff5e"


def test_mnist_slices_are_stratified_and_fit_together():
    parts = [classification_source("mnist", None, s) for s in ("train[:1000]", "train[25%:]")]
    whole = classification_source("mnist", None, "train")
    assert [len(part) for part in parts] == [1000, 3000]
    labels = [example["label"] for example in everything(parts[0])]
    np.testing.assert_array_equal(np.bincount(labels), [100] * 10)
    for index in (0, 999, 1000, 3999):
        part, at = divmod(index, 1000) if index < 1000 else (1, index - 1000)
        np.testing.assert_array_equal(parts[part][at]["image"], whole[index]["image"])


@pytest.mark.parametrize(
    "split, first, size",
    [("train[-10%:]", 3600, 400), ("train[:-3999]", 0, 1), ("test[10:20]", 4010, 10)],
)
def test_slices_follow_python(split, first, size):
    source = classification_source("mnist", None, split)
    assert len(source) == size
    whole = [
        classification_source("mnist", None, name)[i]
        for name, count in (("train", 4000), ("test", 1000))
        for i in range(count)
    ]
    np.testing.assert_array_equal(source[0]["image"], whole[first]["image"])


@pytest.mark.parametrize(
    "split, message",
    [
        ("validation", r"mnist has no split 'validation': use one of train, test\."),
        ("train[", r"split 'train\[' is not understood: write train, train\[:1000\]"),
        ("train[:9000]", r"takes examples 0 to 9000 of 4000: choose a slice"),
        ("train[5:5]", r"takes examples 5 to 5 of 4000"),
    ],
)
def test_wrong_splits_are_explained(split, message):
    with pytest.raises(DataError, match=message):
        classification_source("mnist", None, split)


# Image folders.


def write_folder(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def good_folder(root, each=6):
    files = {
        f"{split}/{name}/{i}.jpg": encoded(photo(seed=i))
        for split in ("train", "val")
        for name in ("cat", "ant", "bee")
        for i in range(each)
    }
    write_folder(root, files)


def read_one(tmp_path, name, data):
    write_folder(tmp_path, {f"train/cat/{name}": data})
    source = classification_source("image_folder", str(tmp_path), "train")
    assert len(source) == 1
    return source[0]["image"]


def test_classes_are_sorted_and_labels_index_them(tmp_path):
    good_folder(tmp_path)
    source = classification_source("image_folder", str(tmp_path), "train")
    assert source.class_names == ("ant", "bee", "cat")
    assert len(source) == 18
    labels = [example["label"] for example in everything(source)]
    np.testing.assert_array_equal(np.bincount(labels), [6, 6, 6])
    assert isinstance(labels[0], np.int32)


def test_folder_slices_hold_every_class_and_fit_together(tmp_path):
    good_folder(tmp_path, each=20)
    parts = [
        classification_source("image_folder", str(tmp_path), split)
        for split in ("train[:50%]", "train[50%:]")
    ]
    whole = classification_source("image_folder", str(tmp_path), "train")
    assert [len(part) for part in parts] == [30, 30]
    assert parts[0].files + parts[1].files == whole.files
    for part in parts:
        assert len(np.unique(part.labels)) == 3


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.Jpeg", "a.png", "a.PNG", "a.webp", "a.bmp"])
def test_formats_and_letter_cases(tmp_path, name):
    kind = {"jpg": "JPEG"}.get(suffix := name.split(".")[1].lower(), suffix.upper())
    image = photo()
    got = read_one(tmp_path, name, encoded(image, kind))
    assert (got.shape, got.dtype) == (image.shape, np.uint8)
    assert np.abs(got.astype(int) - image).mean() < (12 if kind in ("JPEG", "WEBP") else 1e-9)


def test_other_files_and_hidden_ones_are_left_alone(tmp_path):
    files = {"notes.txt": b"x", "._a.jpg": b"x", ".DS_Store": b"x", "a.jpg": encoded(photo())}
    write_folder(tmp_path, {f"train/cat/{name}": data for name, data in files.items()})
    (tmp_path / "train" / ".cache").mkdir()
    source = classification_source("image_folder", str(tmp_path), "train")
    assert (len(source), source.class_names) == (1, ("cat",))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "I;16", "transparent P"])
def test_all_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(photo())
    if mode == "transparent P":
        stored, kwargs = image.convert("P"), {"transparency": bytes(range(256))}
    elif mode == "I;16":
        gray = np.asarray(image.convert("L")).astype(np.uint16) << 8
        stored, kwargs = Image.fromarray(gray), {}
    else:
        stored, kwargs = image.convert(mode), {}
    kind = "JPEG" if mode == "CMYK" else "PNG"
    got = read_one(tmp_path, "a." + kind, encoded(stored, kind, **kwargs))
    want = image if mode not in ("L", "LA", "I;16") else image.convert("L")
    want = np.asarray(want.convert("RGB")).astype(int)
    assert got.shape == want.shape
    # A palette of 256 colours and JPEG lose a little; the others nothing.
    assert np.abs(got - want).mean() < (20 if mode in ("P", "transparent P", "CMYK") else 1e-9)


def test_what_is_not_taken_is_said(tmp_path):
    good_folder(tmp_path)
    others = {f"cat/{i}.tif": b"x" for i in range(7)} | {
        "ant/notes.txt": b"x",
        "ant/sub/a.jpg": b"x",
    }
    write_folder(tmp_path, {f"train/{n}": d for n, d in (others | {"loose.png": b"x"}).items()})
    source = classification_source("image_folder", str(tmp_path), "train")
    assert source.found.counts == (6, 6, 6)
    in_folders, loose = source.found.notes
    assert "train: not taken: 7 .tif, 1 .txt, 1 other in class folders, of" in in_folders
    assert "(ant/notes.txt, ant/sub, cat/0.tif, cat/1.tif, cat/2.tif, ... (9 in all))" in in_folders
    assert loose.endswith("not taken: 1 image outside of class folders (loose.png)")
    assert classification_source("image_folder", str(tmp_path), "val").found.notes == ()
    assert Cached(source).found == source.found
    for path in (tmp_path / "train" / "cat").glob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match=r"cat holds no images: add .*; there are cat.0\.tif, "):
        classification_source("image_folder", str(tmp_path), "train")


BROKEN = {
    "empty.jpg": (b"", "it is empty"),
    "text.jpg": (b"<html>404 not found</html>", "it is no image"),
    "cut.jpg": (encoded(photo(96, 128))[:-500], "image file is truncated"),
    "header.jpg": (encoded(photo())[:30], "Truncated"),
    "cut.png": (encoded(photo(), "PNG")[:-300], "truncated"),
    "eps.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no image"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(tmp_path, name):
    data, reason = BROKEN[name]
    with pytest.raises(DataError, match=rf"cat.{name} cannot be decoded \(.*{reason}.*replace"):
        read_one(tmp_path, name, data)


def test_broken_files_can_be_skipped(tmp_path):
    write_folder(tmp_path, {f"val/cat/{name}": data for name, (data, _) in BROKEN.items()})
    write_folder(tmp_path, {"val/cat/good.jpg": encoded(photo())})
    source = classification_source("image_folder", str(tmp_path), "val")
    (batch,) = eval_batches(source, lambda x, rng: x, batch_size=8, on_error="skip")
    assert (batch["mask"].sum(), batch["skipped"].sum()) == (1, len(BROKEN))


def test_a_file_that_went_away_is_named(tmp_path):
    good_folder(tmp_path, each=1)
    source = classification_source("image_folder", str(tmp_path), "train")
    gone = tmp_path / "train" / source.files[0]
    gone.unlink()
    with pytest.raises(DataError, match=rf"{gone.name} cannot be read \(No such file"):
        source[0]


def test_evaluation_uses_the_labels_of_training(tmp_path):
    good_folder(tmp_path)
    for path in (tmp_path / "val" / "ant").iterdir():
        path.unlink()
    (tmp_path / "val" / "ant").rmdir()
    names = classification_source("image_folder", str(tmp_path), "train").class_names
    source = classification_source("image_folder", str(tmp_path), "val", class_names=names)
    assert source.class_names == names
    assert {int(example["label"]) for example in everything(source)} == {1, 2}

    write_folder(tmp_path, {"val/dog/1.jpg": encoded(photo())})
    with pytest.raises(DataError, match=r"dog is none of the classes ant, bee, cat: remove"):
        classification_source("image_folder", str(tmp_path), "val", class_names=names)
    with pytest.raises(DataError, match="use splits of one data set"):
        classification_source("mnist", None, "test", class_names=names)


def test_wrong_folders_are_explained(tmp_path):
    def refused(match, split="train", data_dir=str(tmp_path)):
        with pytest.raises(DataError, match=match):
            classification_source("image_folder", data_dir, split)

    refused("image_folder needs a folder", data_dir=None)
    refused("no such folder", data_dir=str(tmp_path / "nowhere"))
    (tmp_path / "train").mkdir()
    refused(r"no split folder 'val' \(there: train\): images belong in .*val.CLASS", split="val")
    refused("train has no class folders: images belong in .*train.CLASS")
    (tmp_path / "train" / "cat").mkdir()
    refused(r"cat holds no images: add some \(\.jpg, .*or remove the folder")


@pytest.mark.parametrize("bound", ["9" * 400, "9" * 400 + "%", "9" * 5000, "٣", "1_0"])
def test_no_split_has_so_many_digits(bound):
    for split in (f"train[:{bound}]", f"train[-{bound}:]"):
        with pytest.raises(DataError, match=r"^split 'train\[.{,80} is not understood"):
            classification_source("mnist", None, split)
    with pytest.raises(DataError, match="is not understood"):
        classification_source("mnist", None, "tr\0ain")


def test_classes_whose_names_cannot_be_printed_are_refused(tmp_path):
    write_folder(tmp_path, {"train/cat/a.jpg": encoded(photo()), "train/a\nb/a.jpg": b""})
    with pytest.raises(DataError, match=r"class folder 'a\\nb', whose name cannot be printed"):
        classification_source("image_folder", str(tmp_path), "train")


def test_what_cannot_be_read_is_not_cached(tmp_path):
    good_folder(tmp_path)
    source = Cached(classification_source("image_folder", str(tmp_path), "train"))
    path = tmp_path / "train" / source._source.files[0]
    good = path.read_bytes()
    path.write_bytes(b"no image")
    with pytest.raises(DataError):
        source[0]
    path.write_bytes(good)
    assert source[0]["image"].dtype == np.uint8
