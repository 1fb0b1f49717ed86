"""What cannot be used: refused or skipped, named once, counted, and listed whole in a file."""

import logging
import pickle

import pytest

from inputs.bad import BadList, Skipped, listed_in, refuse_or_warn
from inputs.images import DataError
from inputs.pipeline import eval_batches, train_batches
from training.config import ConfigError, arguments_are_config

BAD = {i: f"file-{i}.png is no image." for i in range(3, 11)}


def test_a_long_list_is_short_in_the_message_and_whole_in_a_file(tmp_path):
    path = tmp_path / "run" / "bad_files.txt"
    with pytest.raises(DataError) as raised, listed_in(path):
        refuse_or_warn(
            {i: f"/x/{sentence}" for i, sentence in BAD.items()}, 20, "of /x", "raise", root="/x"
        )
    assert str(raised.value) == (
        "8 of 20 of /x cannot be used: file-3.png is no image, file-4.png is no image,"
        " file-5.png is no image, file-6.png is no image, file-7.png is no image, ... (8 in all);"
        " --config.data.on_error skip goes on without them."
    )
    assert raised.value.__notes__ == [f"all 8 are named in {path}"]
    assert path.read_text() == "".join(f"/x/file-{i}.png is no image\n" for i in range(3, 11))


def test_the_list_is_found_through_the_error_of_the_config(tmp_path):
    path = tmp_path / "bad_files.txt"
    with pytest.raises(ConfigError), listed_in(path), arguments_are_config():
        refuse_or_warn(BAD, 20, "examples", "raise", root="/x")
    assert path.read_text().count("\n") == 8


def test_a_short_list_and_other_errors_leave_no_file(tmp_path):
    path = tmp_path / "run" / "bad_files.txt"
    with pytest.raises(BadList) as raised, listed_in(path):
        refuse_or_warn({1: "one."}, 20, "examples", "raise", root="/x")
    assert not hasattr(raised.value, "__notes__")
    with pytest.raises(ValueError), listed_in(path):
        raise ValueError("something else")
    assert not path.parent.exists()
    assert pickle.loads(pickle.dumps(raised.value)).items == ("one",)


def test_skipping_warns_unless_nothing_is_left(caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        refuse_or_warn({}, 2, "examples", "skip", root="/x")
        refuse_or_warn({1: "b is broken."}, 2, "examples", "skip", root="/x")
    assert caplog.messages == ["Skipped: 1 of 2 examples cannot be used: b is broken."]
    with pytest.raises(BadList, match="2 of 2 examples cannot be used: a, b"):
        refuse_or_warn({0: "a", 1: "b"}, 2, "examples", "skip", root="/x")


class Numbers:
    class_names = ("a",)

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index in BAD:
            raise DataError(BAD[index])
        return {"index": index}


def read(skipped, **options):
    options |= {"batch_size": 5, "on_error": "skip", "num_threads": 2, "skipped": skipped}
    for _ in range(3):
        list(eval_batches(Numbers(), lambda x, rng: x, **options))
    batches = train_batches(Numbers(), lambda x, rng: x, seed=0, **options)
    for _ in range(8):
        next(batches)


def test_each_is_warned_of_once_in_a_run_and_counted_at_the_end(caplog, tmp_path):
    skipped = Skipped()
    path = tmp_path / "run" / "bad_files.txt"
    skipped.know(["mask.png is no mask."])
    skipped.keep_in(path)
    with caplog.at_level(logging.WARNING, logger="absl"):
        read(skipped)
    assert len(caplog.messages) == 5  # of 8; the rest are in the file alone
    assert sum(f"More are named in {path} alone." in message for message in caplog.messages) == 1
    assert all("on_error" not in message for message in caplog.messages)
    named = {"mask.png is no mask"} | {f"file-{i}.png is no image" for i in BAD}
    assert set(path.read_text().splitlines()) == named
    assert path.read_text().count("\n") == len(named)
    assert skipped.total == f"skipped: 9 examples that cannot be used, all named in {path}"


def test_what_other_processes_skip_counts(tmp_path):
    skipped = Skipped()
    skipped.keep_in(tmp_path / "bad_files.txt")
    for _ in range(2):
        pickle.loads(pickle.dumps(skipped)).add("a.png is no image.")
    assert skipped.count == 1 and skipped.total.startswith("skipped: 1 example that")


def test_without_a_file_all_are_named(caplog):
    skipped = Skipped()
    with caplog.at_level(logging.WARNING, logger="absl"):
        read(skipped)
    assert len(caplog.messages) == len(BAD)
    assert skipped.total == "skipped: 8 examples that cannot be used"


def test_nothing_skipped_is_not_worth_a_word(tmp_path):
    path = tmp_path / "bad_files.txt"
    path.write_text("of a start before\n")
    skipped = Skipped()
    skipped.keep_in(path)
    assert not path.exists() and skipped.total == ""


def test_a_refusal_says_how_to_go_on():
    with pytest.raises(
        DataError, match=r"file-3\.png is no image, or go on without it by --config\.data\.on_er"
    ):
        list(eval_batches(Numbers(), lambda x, rng: x, batch_size=5))
