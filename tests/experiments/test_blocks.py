"""Runs of several machines come together in one file, and its table is what pairs of them say."""

import json

import pytest

from experiments import blocks

# `{way: top-1 of each seed}`; block 7 less block 1 is 1, 2 and 3, less none 2, 2 and 5.
TEST = {"none": (70, 71, 69), "block 1": (71, 71, 71), "block 7": (72, 73, 74)}


def write_run(folder, kind, top1, *, seed, block=7, split="val", keep_prob=0.9, width=0.5, **drop):
    folder.mkdir(parents=True)
    drop = {"schedule": "linear", "shared_mask": False, "sites": ("conv", "skip")} | drop
    config = {
        "model": {"name": "resnet", "depth": 18, "width_multiplier": width},
        "data": {"train_split": "train", "eval_split": split},
        "drop": {"kind": kind, "block_size": block, "keep_prob": keep_prob} | drop,
        "optimizer": {},
        "schedule": {},
        "seed": seed,
    }
    result = {
        "final": {"top1": top1, "loss": top1 / 10},
        "best": {"top1": 99.0},
        "devices": "1 x CPU (cpu)",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "result.json").write_text(
        json.dumps(result | {"commit": "0123456789ab", "seconds": 1.5})
    )


@pytest.fixture
def runs(tmp_path):
    for way, values in TEST.items():
        kind, block = ("none", 7) if way == "none" else ("dropblock", int(way[-1]))
        for seed, top1 in enumerate(values):
            write_run(tmp_path / "runs" / way / f"seed{seed}", kind, top1, seed=seed, block=block)
    return tmp_path / "runs"


def test_the_table_is_of_pairs_and_each_run_is_there_once(runs, tmp_path, capsys):
    write_run(runs / "held" / "a", "dropblock", 60.0, seed=0, block=3, split="train[80%:]")
    write_run(runs / "held" / "b", "dropblock", 62.0, seed=1, block=3, split="train[80%:]")
    file = tmp_path / "runs.csv"
    for _ in range(2):
        assert blocks.main([str(file), "--add", str(runs)]) == 0
    assert len(file.read_text().splitlines()) == 1 + 11
    assert blocks.main([str(file)]) == 0
    printed = capsys.readouterr().out.rpartition("held out")[2]
    assert "| block 3 | 61.00 (2) |" in printed
    # Student's t of two degrees of freedom is 4.303; the standard deviations are 1 and sqrt 3.
    assert "| block 7 | 0.9 | 3 | 73.00 ± 2.48 | +3.00 ± 4.30 | +2.00 ± 2.48 |" in printed
    assert "| none | 1 | 3 | 70.00 ± 2.48 |  | -1.00 ± 2.48 |" in printed
    assert file.with_suffix(".png").stat().st_size > 1000


def test_the_loss_is_of_the_runs_that_have_it(runs, tmp_path, capsys):
    file = tmp_path / "runs.csv"
    assert blocks.main([str(file), "--add", str(runs), "--metric", "loss"]) == 0
    assert "| block 7 | 0.9 | 3 | 7.30 ± 0.25 | +0.30 ± 0.43 | +0.20 ± 0.25 |" in (
        capsys.readouterr().out
    )
    assert (tmp_path / "runs_loss.png").stat().st_size > 1000
    text = file.read_text()
    file.write_text(text.replace(",7.4,", ",,"))  # block 7's of seed 2
    assert blocks.main([str(file), "--metric", "loss"]) == 0
    assert "| block 7 | 0.9 | 2 | 7.25 ± 0.64 |" in capsys.readouterr().out
    assert text.count(",7.4,") == 1


def test_pairs_are_of_one_network_in_the_table_of_all_too(runs, tmp_path, capsys):
    for block, top1 in (1, 40.0), (7, 46.0):  # less block 1: 6, beside 1, 2 and 3
        write_run(runs / f"wide{block}", "dropblock", top1, seed=0, block=block, width=1.0)
    assert blocks.main([str(tmp_path / "runs.csv"), "--add", str(runs)]) == 0
    alone, _, both = capsys.readouterr().out.partition("all networks, test set")
    assert "| block 7 | 0.9 | 1 | 46.00 |  | +6.00 |" in alone
    # Student's t of three degrees of freedom is 3.182; the standard deviation is 2.160.
    assert "| block 7 | 0.9 | 4 |  | +3.00 ± 4.30 | +3.00 ± 3.44 |" in both


def test_differences_are_to_another_way_where_one_is_asked(runs, tmp_path, capsys):
    file = tmp_path / "runs.csv"
    assert blocks.main([str(file), "--add", str(runs), "--than", "block 7"]) == 0
    printed = capsys.readouterr().out
    assert "| top-1, % | less none | less block 7 |" in printed
    assert "| block 1 | 0.9 | 3 | 71.00 ± 0.00 | +1.00 ± 2.48 | -2.00 ± 2.48 |" in printed
    assert not file.with_suffix(".png").exists()
    with pytest.raises(SystemExit, match="--than block 9: there are block 1, block 7, none"):
        blocks.main([str(file), "--than", "block 9"])


def test_a_file_from_before_the_loss_was_kept_takes_more_runs(runs, tmp_path, capsys):
    file = tmp_path / "runs.csv"
    blocks.main([str(file), "--add", str(runs / "none")])
    rows = [line.split(",") for line in file.read_text().splitlines()]
    column = rows[0].index("loss")
    file.write_text("".join(",".join(r[:column] + r[column + 1 :]) + "\n" for r in rows))
    assert blocks.main([str(file), "--add", str(runs)]) == 0
    assert "| none | 1 | 3 | 70.00 ± 2.48 |" in capsys.readouterr().out
    assert len(file.read_text().splitlines()) == 1 + 9
    assert [line["loss"] for line in blocks.read(file) if line["way"] == "none"] == [7.0, 7.1, 6.9]


def test_ways_have_names_of_their_own(tmp_path):
    names = {
        "dropout": ("dropout", {}),
        "block 7, constant": ("dropblock", {"schedule": "constant"}),
        "block 7, shared mask": ("dropblock", {"shared_mask": True}),
        "block 7, convolutions, constant": (
            "dropblock",
            {"sites": ("conv",), "schedule": "constant"},
        ),
        "none": ("none", {"schedule": "constant"}),
    }
    for number, (name, (kind, drop)) in enumerate(names.items()):
        write_run(tmp_path / str(number), kind, 50.0, seed=0, **drop)
        assert blocks.record_of(tmp_path / str(number))["way"] == name


def test_what_the_table_could_show_either_of_is_refused(runs, tmp_path):
    write_run(runs / "again", "dropblock", 70.0, seed=2, keep_prob=0.8)
    with pytest.raises(SystemExit, match="block 7 has seed 2 twice"):
        blocks.main([str(tmp_path / "runs.csv"), "--add", str(runs)])


def test_runs_at_one_keep_prob_are_compared_where_that_is_asked(runs, tmp_path, capsys):
    for block, top1 in (1, 60.0), (7, 64.0):
        write_run(runs / f"more{block}", "dropblock", top1, seed=2, block=block, keep_prob=0.8)
    file = tmp_path / "runs.csv"
    assert blocks.main([str(file), "--add", str(runs), "--keep_prob", "0.8"]) == 0
    printed = capsys.readouterr().out
    assert "| none | 1 | 3 | 70.00 ± 2.48 |  | +9.00 |" in printed
    assert "| block 7 | 0.8 | 1 | 64.00 | -5.00 | +4.00 |" in printed
    assert blocks.main([str(file), "--keep_prob", "0.9"]) == 0
    assert "| block 7 | 0.9 | 3 | 73.00 ± 2.48 | +3.00 ± 4.30 | +2.00 ± 2.48 |" in (
        capsys.readouterr().out
    )
    assert not file.with_suffix(".png").exists()


def test_nothing_to_show_is_told(tmp_path):
    with pytest.raises(SystemExit, match="no finished run below"):
        blocks.main([str(tmp_path / "runs.csv"), "--add", str(tmp_path)])
    with pytest.raises(SystemExit, match="--add WORKDIR makes it"):
        blocks.main([str(tmp_path / "runs.csv")])


def test_a_damaged_run_is_named(runs, tmp_path):
    (runs / "none" / "seed1" / "config.json").write_text("{")
    with pytest.raises(SystemExit, match=r"none/seed1/config.json is damaged"):
        blocks.main([str(tmp_path / "runs.csv"), "--add", str(runs)])
    assert not (tmp_path / "runs.csv").exists()
