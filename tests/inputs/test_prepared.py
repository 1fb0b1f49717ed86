"""TFDS sets of classification: read as ArrayRecord, and rewritten by `inputs.prepare`."""

import json
import os
import pickle
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from inputs import prepare
from inputs.images import DataError
from inputs.pipeline import eval_batches, train_batches
from inputs.sources import Cached, classification_source
from inputs.transforms import fixed_part, make_transform, on_image
from photos import encoded, photo
from toy_tfds import LABELS, feature, record, write_tfds


def records(count, kind="PNG"):
    return [
        record(image=encoded(photo(seed=i), kind), label=i % 3, note=b"not read")
        for i in range(count)
    ]


def opened(tmp_path, split="train", name="toy"):
    return classification_source(name, str(tmp_path), split)


def check_toy(source, first=0):
    for i in range(len(source)):
        example, number = source[i], first + i
        np.testing.assert_array_equal(example["image"], photo(seed=number))
        assert example["label"] == number % 3 and isinstance(example["label"], np.int32)


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
    cached = train_batches(Cached(Counting(), fixed_part("small", 24)), transform, **options)
    plain = train_batches(source, transform, **options)
    for _ in range(4):
        jax.tree.map(np.testing.assert_array_equal, next(cached), next(plain))
    assert sorted(read) == [0, 1, 2, 3, 4]


def test_newest_version_and_configs(tmp_path):
    write_tfds(tmp_path, {"train": [records(1)]}, version="9.0.0")
    write_tfds(tmp_path, {"train": [records(2)]}, version="10.0.0")
    (tmp_path / "toy" / "11.0.0.incompleteABC").mkdir()
    for part in ("11.0.0/features.json", "12.0.0/dataset_info.json"):  # copied in part
        (tmp_path / "toy" / part).parent.mkdir()
        (tmp_path / "toy" / part).write_text("{}")
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


def test_no_code_that_a_set_names_is_run(tmp_path, monkeypatch):
    evil = feature("X", "evil")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    names = (
        "evil.X",
        "tensorflow_datasets.core.features.evil.X",
        "tensorflow_datasets.core.features.../evil.X",
        7,
    )
    for number, name in enumerate(names):
        root = tmp_path / str(number)
        write_tfds(root, {"train": [records(1)]}, note=evil | {"pythonClassName": name})
        with pytest.raises(DataError, match=r"features\.json (has the feature|describes no feat)"):
            opened(root)
    # As TFDS wrote them before 4.5, where the names could hide in a text.
    root = tmp_path / "old"
    hidden = {
        "type": f"{TFDS}sequence_feature.Sequence",
        "content": '{"feature": {"type": "evil.X"}}',
    }
    write_tfds(root, {"train": [records(1)]}, note=hidden)
    with pytest.raises(DataError, match="has the feature 'evil.X', which is none of TFDS's own"):
        opened(root)
    assert "evil" not in sys.modules


TFDS = "tensorflow_datasets.core.features."


def test_features_as_they_were_written_before(tmp_path):
    folder = write_tfds(tmp_path, {"train": [records(3)]})
    parts = {
        "image": {
            "type": f"{TFDS}image_feature.Image",
            "content": {"shape": [None, None, 3], "dtype": "uint8", "encoding_format": "png"},
        },
        "label": {"type": f"{TFDS}class_label_feature.ClassLabel", "content": {"num_classes": 3}},
        "note": {
            "type": f"{TFDS}text_feature.Text",
            "proto_cls": "tensorflow_datasets.TextFeature",
            "content": "{}",
        },
    }
    tree = {"type": f"{TFDS}features_dict.FeaturesDict", "content": parts}
    (folder / "features.json").write_text(json.dumps(tree))
    check_toy(opened(tmp_path))
    (folder / "label.labels.txt").unlink()
    assert opened(tmp_path).class_names == ("0", "1", "2")


def changed(name, old, new):
    def change(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


BROKEN = {
    "cut": (lambda f: (f / "dataset_info.json").write_text('{"name": "to'), "is no JSON"),
    "no object": (lambda f: (f / "dataset_info.json").write_text("[]"), "describes no data set"),
    "no splits": (
        changed("dataset_info.json", '"splits"', '"other"'),
        "use one of none or a",
    ),
    "template": (changed("dataset_info.json", "{SPLIT}", "{NOPE}"), "the filepathTemplate '.*NOPE"),
    "format": (changed("dataset_info.json", "{SPLIT}", "{SPLIT:>9999999999}"), "the filepathTemp"),
    "attribute": (changed("dataset_info.json", "{SPLIT}", "{SPLIT.__class__}"), "the filepathTemp"),
    "outside": (changed("dataset_info.json", "{DATASET}", "../{DATASET}"), "the filepathTemplate"),
    "name": (
        changed("dataset_info.json", '"name": "toy"', '"name": "../toy"'),
        "the name '../to",
    ),
    "negative": (changed("dataset_info.json", '"3"', '"-3"'), r"the shardLengths \[-3\]"),
    "fewer": (changed("dataset_info.json", '"3"', '"2"'), r"has 3 examples, where .* says 2"),
    "more": (changed("dataset_info.json", '"3"', '"32"'), r"has 3 examples, where .* says 32"),
    "none": (changed("dataset_info.json", '"3"', '"0"'), r"split 'train' of .* is empty"),
    "features": (lambda f: (f / "features.json").write_text("[]"), "describes no features"),
    "deep": (lambda f: (f / "features.json").write_text("[" * 10**5), "nested too deep"),
    "dtype": (changed("features.json", '"uint8"', '"os.system"'), "has os.system images of shape"),
    "classes": (
        changed("features.json", '"numClasses": "3"', '"numClasses": "1000000000000"'),
        "1000000000000 classes, expected 1 to",
    ),
    "labels": (changed("label.labels.txt", "bee", ""), "labels.txt holds 2 names, expected 3"),
    "extra": (changed("label.labels.txt", "bee", "bee\nfly"), "holds 4 names, expected 3"),
    "twice": (changed("label.labels.txt", "bee", "ant"), "expected 3 different ones"),
    "NUL": (changed("label.labels.txt", "bee", "b\0"), "different ones that can be printed"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata_is_named(tmp_path, name):
    change, reason = BROKEN[name]
    folder = write_tfds(tmp_path, {"train": [records(3)]})
    change(folder)
    with pytest.raises(DataError, match=reason) as error:
        opened(tmp_path)
    assert str(folder) in str(error.value)


def test_a_shard_that_is_said_to_be_empty_is_counted(tmp_path):
    folder = write_tfds(tmp_path, {"train": [records(3), records(2)]})
    changed("dataset_info.json", '"2"', '"0"')(folder)
    with pytest.raises(DataError, match="00001-of-00002 has 2 examples, where .* says 0"):
        opened(tmp_path)


def test_values_of_another_kind_are_named_or_skipped(tmp_path):
    image = encoded(photo(), "PNG")
    bad = {
        "has label 1099511627776, which is none": {"image": image, "label": 2**40},
        "has label 3, which is none": {"image": image, "label": 3},
        "has no label": {"image": image},
        "has no image": {"label": 0},
        "label is a float_list, expected int64": {"image": image, "label": 1.5},
        "label is a bytes_list": {"image": image, "label": b"1"},
        "label has 2 values, expected one": {"image": image, "label": [0, 1]},
        "image is a int64_list": {"image": 3, "label": 1},
    }
    write_tfds(tmp_path, {"train": [[*(record(**values) for values in bad.values()), *records(1)]]})
    source = opened(tmp_path)
    for index, reason in enumerate(bad):
        with pytest.raises(DataError, match=f"train example {index} .*{reason}"):
            source[index]
    (batch,) = eval_batches(source, lambda x, rng: x, batch_size=9, on_error="skip")
    assert (batch["mask"].sum(), batch["skipped"].sum()) == (1, len(bad))


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


def test_rewriting_writes_into_its_folder_only(tmp_path, capsys):
    folder = write_tfds(
        tmp_path / "old", {"train": [records(1)]}, file_format="tfrecord", config="c"
    )
    target = tmp_path / "a" / "b"
    for old, new in (('"toy"', '"../toy"'), ('"c"', '"../../c"'), ("{DATASET}", "../{DATASET}")):
        text = (folder / "dataset_info.json").read_text()
        (folder / "dataset_info.json").write_text(text.replace(old, new))
        assert prepare.main([f"--from_dir={folder}", f"--data_dir={target}"]) == 2
        assert "describes no data set" in capsys.readouterr().err and not target.exists()
        (folder / "dataset_info.json").write_text(text)


def test_rewriting_what_is_no_file_is_named(tmp_path, capsys):
    folder = write_tfds(tmp_path, {"train": [records(1)]}, file_format="tfrecord")
    shard = folder / "toy-train.tfrecord-00000-of-00001"
    shard.write_bytes(struct.pack("<QI", 2**62, 0) + b"x")
    assert prepare.main([f"--from_dir={folder}"]) == 2
    assert f"{shard} cannot be read" in capsys.readouterr().err
    shard.write_bytes(b"")
    os.truncate(shard, 2**40)
    assert prepare.main([f"--from_dir={folder}"]) == 2
    assert f"{shard} holds more examples instead of 1" in capsys.readouterr().err
    shard.unlink()
    os.mkfifo(shard)
    assert prepare.main([f"--from_dir={folder}"]) == 2
    assert f"{shard} is a device or a pipe" in capsys.readouterr().err


def test_downloading_without_tensorflow_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    assert prepare.main(["--name=cifar10", f"--data_dir={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert "needs tensorflow and importlib_resources" in err and '".[prepare]"' in err
    assert err.count("\n") == 1
