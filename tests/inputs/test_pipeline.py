import itertools
import logging
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from inputs.images import DataError
from inputs.pipeline import eval_batches, train_batches
from inputs.transforms import on_image

ROOT = Path(__file__).parents[2]


class Numbers:
    """`size` images that show their own index; those in `bad` cannot be read."""

    class_names = ("even", "odd")

    def __init__(self, size, bad=()):
        self.size, self.bad, self.reads = size, frozenset(bad), []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.reads.append(index)
        if index in self.bad:
            raise DataError(f"file-{index}.jpg cannot be decoded: remove it.")
        image = np.full((2, 2, 1), index, np.uint8)
        return {"image": image, "label": np.int32(index % 2)}


@on_image
def stamp(image, rng):
    """Keeps the index in pixel (0, 0) and writes random numbers in the others."""
    out = rng.integers(0, 256, image.shape, np.uint8)
    out[0, 0] = image[0, 0]
    return out


def unchanged(example, rng):
    return example


def train(source, count, *, transform=stamp, batch_size=8, seed=3, **kwargs):
    kwargs.setdefault("num_threads", 2)
    batches = train_batches(source, transform, batch_size=batch_size, seed=seed, **kwargs)
    return list(itertools.islice(batches, count))


def joined(batches, key="image"):
    return np.concatenate([batch[key] for batch in batches])


def indices(batches):
    return joined(batches)[:, 0, 0, 0]


@pytest.mark.parametrize("size", [3, 20, 24, 37])  # below, off and on a multiple of a batch
def test_every_epoch_is_another_permutation(size):
    epochs = 6
    batches = train(Numbers(size), -(-size * epochs // 8))
    order = indices(batches)[: size * epochs].reshape(epochs, size)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(size), (epochs, 1)))
    assert len({tuple(epoch) for epoch in order}) > (1 if size == 3 else epochs - 1)
    np.testing.assert_array_equal(joined(batches, "label"), indices(batches) % 2)
    assert not joined(batches, "skipped").any()


def test_types_and_shapes():
    (batch,) = train(Numbers(9), 1)
    assert {k: (v.shape, str(v.dtype)) for k, v in batch.items()} == {
        "image": ((8, 2, 2, 1), "uint8"),
        "label": ((8,), "int32"),
        "skipped": ((8,), "int32"),
    }


def test_augmentation_is_reproducible_and_differs_by_epoch_and_seed():
    runs = [train(Numbers(16), 6, num_threads=threads) for threads in (0, 1, 5)]
    for run in runs[1:]:
        np.testing.assert_array_equal(joined(run), joined(runs[0]))
    images, order = joined(runs[0]), indices(runs[0])
    for index in range(16):  # three epochs: one example, three different crops
        assert len({image.tobytes() for image in images[order == index]}) == 3
    assert not np.array_equal(joined(train(Numbers(16), 6, seed=4)), images)


def test_neighbouring_seeds_are_not_shifted_epochs():
    """Grain adds the epoch to the shuffle's seed: run 4 must not be run 3 an epoch later."""
    three, four = (indices(train(Numbers(40), 10, seed=seed)) for seed in (3, 4))
    assert not np.array_equal(three[40:], four[:40])


@pytest.mark.parametrize("start", [1, 4, 11])
def test_seeking_is_the_same_as_running(start):
    ran, sought = train(Numbers(21), 14)[start:], train(Numbers(21), 14 - start, start_step=start)
    for key in ran[0]:
        np.testing.assert_array_equal(joined(ran, key), joined(sought, key))


def test_seeking_reads_nothing_before_its_step():
    source = Numbers(50)
    train(source, 1, start_step=np.int32(2_000_000_000), batch_size=5, num_threads=0)
    assert len(source.reads) == 5


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("start", [0, 3])
def test_any_number_of_processes_sees_the_same_batches(processes, start):
    source, each = Numbers(21, bad=[2, 3, 17]), 8 // processes
    alone = train(source, 7, on_error="skip", start_step=start)
    shares = [
        train(
            source,
            7,
            on_error="skip",
            start_step=start,
            rows=slice(process * each, (process + 1) * each),
        )
        for process in range(processes)
    ]
    for step, batch in enumerate(alone):
        for key in batch:
            rows = np.concatenate([share[step][key] for share in shares])
            np.testing.assert_array_equal(rows, batch[key])


def test_worker_processes_see_the_same_batches():
    if not flags.FLAGS.is_parsed():  # Grain reads absl flags before it starts workers
        flags.FLAGS.mark_as_parsed()
    kwargs = {"start_step": 2, "rows": slice(2, 7)}
    want = train(Numbers(21, bad=[4]), 5, on_error="skip", **kwargs)
    got = train(Numbers(21, bad=[4]), 5, on_error="skip", num_workers=2, **kwargs)
    for key in want[0]:
        np.testing.assert_array_equal(joined(got, key), joined(want, key))


@pytest.mark.parametrize(
    "size, batch_size, processes", [(20, 8, 1), (20, 8, 4), (16, 8, 2), (3, 8, 4)]
)
def test_evaluation_covers_the_set_exactly_once_in_order(size, batch_size, processes):
    each = batch_size // processes
    shares = [
        list(
            eval_batches(
                Numbers(size),
                unchanged,
                batch_size=batch_size,
                rows=slice(p * each, (p + 1) * each),
            )
        )
        for p in range(processes)
    ]
    steps = -(-size // batch_size)
    assert [len(share) for share in shares] == [steps] * processes
    whole = {
        key: np.concatenate([share[t][key] for t in range(steps) for share in shares])
        for key in ("image", "label", "mask", "skipped")
    }
    assert len(whole["mask"]) == steps * batch_size and whole["mask"].dtype == bool
    np.testing.assert_array_equal(whole["mask"], np.arange(steps * batch_size) < size)
    np.testing.assert_array_equal(whole["image"][whole["mask"], 0, 0, 0], np.arange(size))
    np.testing.assert_array_equal(whole["label"][:size], np.arange(size) % 2)
    assert not whole["image"][size:].any() and not whole["label"][size:].any()
    assert not whole["skipped"].any()


def boxes_and_index(example, rng):
    """Other keys and types than those of the example."""
    index = int(example["image"][0, 0, 0])
    box = np.array([[index, 0.5, 1, 2]], np.float32)
    return {"boxes": box, "index": np.int32(index), "seen": rng.random() < 2}


def test_batches_hold_what_the_transform_gives():
    (batch,) = train(Numbers(9), 1, transform=boxes_and_index)
    assert {k: (v.shape, str(v.dtype)) for k, v in batch.items()} == {
        "boxes": ((8, 1, 4), "float32"),
        "index": ((8,), "int32"),
        "seen": ((8,), "bool"),
        "skipped": ((8,), "int32"),
    }
    np.testing.assert_array_equal(batch["boxes"][:, 0, 0], batch["index"])

    source = Numbers(5, bad=[1])
    (batch,) = eval_batches(source, boxes_and_index, batch_size=8, on_error="skip")
    np.testing.assert_array_equal(batch["mask"], [1, 0, 1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(batch["seen"], batch["mask"])
    np.testing.assert_array_equal(batch["index"], [0, 0, 2, 3, 4, 0, 0, 0])
    np.testing.assert_array_equal(batch["boxes"].any((1, 2)), batch["mask"])


def test_bad_file_is_named_when_raising():
    with pytest.raises(DataError, match=r"file-5\.jpg"):
        train(Numbers(12, bad=[5]), 2)
    with pytest.raises(DataError, match=r"file-5\.jpg"):
        list(eval_batches(Numbers(12, bad=[5]), unchanged, batch_size=4))


def test_the_next_good_example_takes_a_bad_ones_place(caplog):
    size, bad = 12, {4, 5, 11}
    with caplog.at_level(logging.WARNING, logger="absl"):
        got = train(Numbers(size, bad), 9, on_error="skip", num_threads=4)
    intended = indices(train(Numbers(size), 9))
    stand_in = {4: (6, 2), 5: (6, 1), 11: (0, 1)}
    np.testing.assert_array_equal(indices(got), [stand_in.get(i, (i, 0))[0] for i in intended])
    np.testing.assert_array_equal(
        joined(got, "skipped"), [stand_in.get(i, (i, 0))[1] for i in intended]
    )
    np.testing.assert_array_equal(joined(got, "label"), indices(got) % 2)
    # Six epochs passed over each; each is named once.
    named = sorted(message.split()[1] for message in caplog.messages)
    assert named == ["file-11.jpg", "file-4.jpg", "file-5.jpg"]


def test_evaluation_masks_what_it_cannot_read(caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        batches = list(
            eval_batches(Numbers(10, bad=[0, 9]), unchanged, batch_size=4, on_error="skip")
        )
    mask, skipped = joined(batches, "mask"), joined(batches, "skipped")
    np.testing.assert_array_equal(mask, [False] + [True] * 8 + [False] * 3)
    np.testing.assert_array_equal(skipped, [1] + [0] * 8 + [1, 0, 0])
    np.testing.assert_array_equal(indices(batches)[mask], np.arange(1, 9))
    assert not joined(batches)[~mask].any()
    assert len(caplog.messages) == 2


def test_nothing_readable_ends_instead_of_looping():
    source = Numbers(6, bad=range(6))
    with pytest.raises(DataError, match=r"none of the 6 examples.*file-"):
        train(source, 1, on_error="skip")
    with pytest.raises(DataError, match="none of the 6 examples"):
        list(eval_batches(source, unchanged, batch_size=4, on_error="skip"))


def test_bugs_are_not_taken_for_bad_data():
    def broken(example, rng):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        train(Numbers(6), 1, transform=broken, on_error="skip")


def test_images_of_different_sizes_are_explained():
    @on_image
    def grow(image, rng):
        return np.zeros((1 + image[0, 0, 0] % 2, 1, 1), np.uint8)

    with pytest.raises(DataError, match=r"shapes \(1, 1, 1\), \(2, 1, 1\): choose a transform"):
        train(Numbers(20), 1, transform=grow)


@pytest.mark.parametrize(
    "kwargs, match",
    [
        ({"rows": slice(0, 8, 2)}, "contiguous"),
        ({"rows": slice(8, 9)}, "contiguous"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"start_step": -1}, "start_step is -1"),
        ({"on_error": "ignore"}, "on_error must be .*'ignore'"),
    ],
)
def test_wrong_arguments_are_refused_at_once(kwargs, match):
    with pytest.raises(ValueError, match=match):
        train_batches(Numbers(9), unchanged, **({"batch_size": 8, "seed": 0} | kwargs))


def test_an_empty_set_is_refused():
    with pytest.raises(DataError, match="empty"):
        train_batches(Numbers(0), unchanged, batch_size=4, seed=0)


def grain_threads():
    return [t for t in threading.enumerate() if t.name.startswith("grain-prefetch")]


def test_dropping_an_iterator_stops_its_threads():
    before = grain_threads()  # those of another test's iterator may be ending
    batches = train_batches(Numbers(100), unchanged, batch_size=8, seed=0, num_threads=3)
    next(batches)
    held = [thread for thread in grain_threads() if thread not in before]
    assert held
    del batches
    for thread in held:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in held)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_abandoned_iterator_lets_the_process_end(workers, tmp_path):
    code = """
import sys
import time
import numpy as np
from absl import flags
from inputs.pipeline import train_batches

class Slow:
    class_names = ("a",)
    def __len__(self): return 1000
    def __getitem__(self, index):
        time.sleep(0.01)
        return {"image": np.zeros((2, 2, 1), np.uint8), "label": np.int32(0)}

def unchanged(example, rng):
    return example

if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    workers = int(sys.argv[1])
    batches = train_batches(Slow(), unchanged, batch_size=32, seed=0, num_workers=workers)
    next(batches)
    print("read")
"""
    script = tmp_path / "abandon.py"
    script.write_text(code)
    run = subprocess.run(
        [sys.executable, script, str(workers)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "read\n", "")


def test_a_reader_can_be_sent_to_a_worker():
    from inputs.pipeline import _Reader

    read = pickle.loads(pickle.dumps(_Reader(Numbers(4), unchanged, "skip")))
    assert read(3, np.random.default_rng(0))["label"] == 1
