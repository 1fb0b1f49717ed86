import hashlib
import io
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from inputs import prepare
from inputs.images import decode_image
from inputs.pipeline import eval_batches, train_batches
from inputs.sources import Cached, DataError, classification_source
from inputs.transforms import make_transform, on_image
from toy_tfds import LABELS, feature, record, write_tfds


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def photo(height=24, width=32, seed=0):
    """A smooth colour image, which survives JPEG: uint8 `[height, width, 3]`."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    resized = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def encoded(image, kind="JPEG", **kwargs):
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


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


def test_exif_rotation_is_ignored(tmp_path):
    image = photo(24, 32)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    turned = encoded(image, exif=exif.tobytes())
    np.testing.assert_array_equal(
        read_one(tmp_path, "a.jpg", turned), decode_image(encoded(image), "the same, unturned")
    )


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


# Prepared TFDS sets.


def records(count, kind="PNG"):
    return [
        record(image=encoded(photo(seed=i), kind), label=i % 3, note=b"not read")
        for i in range(count)
    ]


def opened(tmp_path, split="train", name="toy"):
    return classification_source(name, str(tmp_path), split)


def check_toy(source, first=0):
    for i, example in enumerate(everything(source), first):
        np.testing.assert_array_equal(example["image"], photo(seed=i))
        assert example["label"] == i % 3 and isinstance(example["label"], np.int32)


def test_prepared_set(tmp_path):
    data = records(10)
    write_tfds(tmp_path, {"train": [data[:4], data[4:7]], "test": [data[7:]]})
    train, test = opened(tmp_path), opened(tmp_path, "test")
    assert (len(train), len(test)) == (7, 3)
    assert train.class_names == LABELS
    check_toy(train)
    check_toy(test, first=7)
    check_toy(opened(tmp_path, "train[3:5]"), first=3)
    check_toy(opened(tmp_path, "train[-29%:]"), first=5)
    check_toy(pickle.loads(pickle.dumps(train)))
    with ThreadPoolExecutor(8) as pool:
        labels = list(pool.map(lambda i: train[i % 7]["label"], range(200)))
    assert labels == [i % 7 % 3 for i in range(200)]
    with pytest.raises(IndexError):
        train[7]


def test_prepared_set_goes_through_the_pipeline(tmp_path):
    write_tfds(tmp_path, {"train": [records(5)]})
    batches = list(eval_batches(opened(tmp_path), lambda x, rng: x, batch_size=2))
    labels = np.concatenate([batch["label"] for batch in batches])
    np.testing.assert_array_equal(labels, [0, 1, 2, 0, 1, 0])


def test_cached_examples_are_read_once_and_the_same_in_every_epoch(tmp_path):
    write_tfds(tmp_path, {"train": [records(5)]})
    source, read = opened(tmp_path), []

    class Counting:
        class_names = source.class_names

        def __len__(self):
            return len(source)

        def __getitem__(self, index):
            read.append(index)
            return source[index]

    transform = on_image(
        make_transform("small", image_size=24, train=True, crop_padding=4, fill=(9, 9, 9))
    )
    options = {"batch_size": 5, "seed": 0, "num_threads": 0}  # threads may read one twice
    cached = train_batches(Cached(Counting()), transform, **options)
    plain = train_batches(source, transform, **options)
    for _ in range(4):
        jax.tree.map(np.testing.assert_array_equal, next(cached), next(plain))
    assert sorted(read) == [0, 1, 2, 3, 4]


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


def test_newest_version_and_configs(tmp_path):
    write_tfds(tmp_path, {"train": [records(1)]}, version="9.0.0")
    write_tfds(tmp_path, {"train": [records(2)]}, version="10.0.0")
    (tmp_path / "toy" / "11.0.0.incompleteABC").mkdir()
    assert len(opened(tmp_path)) == 2
    assert len(opened(tmp_path, name="toy:9.0.0")) == 1

    other = tmp_path / "other"
    write_tfds(other, {"train": [records(3)]}, config="small")
    assert len(opened(other)) == len(opened(other, name="toy/small")) == 3
    write_tfds(other, {"train": [records(4)]}, config="large")
    with pytest.raises(DataError, match="several configs: name one of toy/large, toy/small"):
        opened(other)
    assert len(opened(other, name="toy/large:1.0.0")) == 4


def test_absent_set_says_how_to_prepare_it(tmp_path):
    command = rf"`python -m inputs.prepare --name=cifar10 --data_dir={tmp_path}`"
    with pytest.raises(DataError, match=command):
        opened(tmp_path, name="cifar10")


def test_unknown_splits_are_listed(tmp_path):
    write_tfds(tmp_path, {"train": [records(2)], "test": [records(1)]})
    with pytest.raises(DataError, match=r"no split 'valid' .* use one of train \(2\), test \(1\)"):
        opened(tmp_path, "valid")
    for split in ("train[", "train[:9]", "train[1:1]"):
        with pytest.raises(DataError, match="slice"):
            opened(tmp_path, split)


def test_sets_that_are_no_image_classification_are_refused(tmp_path):
    write_tfds(tmp_path / "a", {"train": [records(1)]}, label=None)
    with pytest.raises(DataError, match=r"its features: image, note\): use one with an image and"):
        opened(tmp_path / "a")
    deep = {"shape": {"dimensions": ["-1", "-1", "1"]}, "dtype": "uint16"}
    write_tfds(
        tmp_path / "b", {"train": [records(1)]}, image=feature("Image", "image_feature", image=deep)
    )
    with pytest.raises(DataError, match=r"uint16 images of shape \(None, None, 1\)"):
        opened(tmp_path / "b")


def test_damaged_records_are_named(tmp_path):
    jpeg = encoded(photo(96, 128))
    bad = [(jpeg[:-500], 0), (b"", 1), None, (jpeg, -1), (jpeg, 2)]
    bad = [record(image=pair[0], label=pair[1]) if pair else b"\xff\xff" for pair in bad]
    folder = write_tfds(tmp_path, {"train": [bad]})
    source = opened(tmp_path)
    for index, reason in enumerate(("truncated", "is empty", "cannot be read", "has label -1")):
        with pytest.raises(DataError, match=rf"{folder} train example {index} .*{reason}"):
            source[index]
    assert source[4]["label"] == 2


def test_missing_and_damaged_shards_are_named(tmp_path):
    data = records(4)
    folder = write_tfds(tmp_path, {"train": [data[:2], data[2:]]})
    shard = folder / "toy-train.array_record-00001-of-00002"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"train example 2 cannot be read"):
        opened(tmp_path)[2]
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard.name} is missing \(1 such"):
        opened(tmp_path)


# python -m inputs.prepare


@pytest.mark.parametrize("elsewhere", [False, True])
def test_tfrecord_sets_are_refused_with_the_command_that_rewrites_them(tmp_path, elsewhere, capsys):
    data = records(5)
    splits = {"train": [data[:2], data[2:4]], "test": [data[4:]]}
    folder = write_tfds(tmp_path / "old data", splits, file_format="tfrecord", config="small")
    with pytest.raises(DataError, match="tfrecord files") as error:
        opened(tmp_path / "old data")
    assert f"`python -m inputs.prepare --from_dir='{folder}'`" in str(error.value)

    target = tmp_path / ("new" if elsewhere else "old data")
    args = [f"--from_dir={folder}"] + [f"--data_dir={target}"] * elsewhere
    assert prepare.main(args) == 0
    written = target / "toy" / "small" / "1.0.0"
    assert capsys.readouterr().out == f"Wrote {written}\n"
    check_toy(opened(target))
    check_toy(opened(target, "test"), first=4)
    assert opened(target).class_names == LABELS
    info = tfds.builder_from_directory(written).info
    assert info.file_format.value == ("array_record" if elsewhere else "tfrecord")
    assert prepare.main(args) == 0  # again: nothing to do, nothing broken
    check_toy(opened(target))


def test_rewriting_names_what_is_wrong(tmp_path, capsys):
    folder = write_tfds(tmp_path, {"train": [records(3)]}, file_format="tfrecord")
    shard = folder / "toy-train.tfrecord-00000-of-00001"
    whole = shard.read_bytes()
    one = struct.unpack("<Q", whole[:8])[0] + 16
    for damaged, reason in ((whole[:-9], "cannot be read"), (whole[:one], "holds 1 examples inst")):
        shard.write_bytes(damaged)
        assert prepare.main([f"--from_dir={folder}"]) == 2
        assert f"{shard} {reason}" in capsys.readouterr().err
        assert not list(folder.glob("*.array_record-*-of-00001"))  # nothing that looks whole
    assert prepare.main([f"--from_dir={tmp_path}"]) == 2
    assert "holds no prepared TFDS set" in capsys.readouterr().err


def test_downloading_without_tensorflow_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    assert prepare.main(["--name=cifar10", f"--data_dir={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert "needs tensorflow and importlib_resources" in err and '".[prepare]"' in err
    assert err.count("\n") == 1
