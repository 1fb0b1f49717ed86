"""The search's rows, and which setting it calls the best."""

import json

import pytest

from experiments import search

GRIDS = [
    ["epochs", "80", "160"],
    ["dropblock:drop.keep_prob", "0.9", "0.8"],
    ["dropblock:drop.places.group4/block1", "1.0"],
]


def test_a_method_is_run_at_every_combination_of_its_own():
    rows = search.make_rows(["baseline", "dropblock"], GRIDS)
    assert [(row.variant, row.overrides) for row in rows] == [
        ("baseline", {"epochs": "80"}),
        ("baseline", {"epochs": "160"}),
        *(
            (
                "dropblock",
                {
                    "epochs": epochs,
                    "drop.keep_prob": keep_prob,
                    "drop.places.group4/block1": "1.0",
                },
            )
            for epochs in ("80", "160")
            for keep_prob in ("0.9", "0.8")
        ),
    ]
    names = [row.name for row in rows]
    assert len(set(names)) == len(names) and not any("/" in name for name in names)


@pytest.mark.parametrize("grid", [["epochs"], ["dropout:drop.keep_prob", "0.9"]])
def test_a_grid_that_says_nothing_is_refused(grid):
    with pytest.raises(SystemExit, match=f"--grid {grid[0]}.*METHOD one of baseline, dropblock"):
        search.make_rows(["baseline", "dropblock"], [grid])


def test_the_best_mean_of_each_method_wins(tmp_path, capsys):
    words = ["--dataset", "mnist", "--seeds", "0", "1", "--workdir", str(tmp_path), "--collect"]
    words += ["--rows", "baseline", "dropblock", "--grid", "epochs", "80", "160"]
    words += ["--grid", "dropblock:drop.keep_prob", "0.9", "0.8"]
    accuracies = {
        "baseline_epochs=80": (90.0, 90.0),
        "baseline_epochs=160": (90.0, 90.0),  # equal: the first stands
        "dropblock_epochs=80_keep_prob=0.9": (99.0, 80.0),
        "dropblock_epochs=80_keep_prob=0.8": (90.0, 91.0),
        "dropblock_epochs=160_keep_prob=0.9": (90.0, 90.0),
    }
    for row, both in accuracies.items():
        for seed, top1 in enumerate(both):
            folder = tmp_path / row / f"seed{seed}"
            folder.mkdir(parents=True)
            metrics = {"step": 1, "top1": top1, "top5": 100.0}
            result = {"best": metrics, "final": metrics, "seconds": 1.0, "commit": "abc"}
            (folder / "result.json").write_text(json.dumps(result))
    assert search.main(words) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "--set baseline:epochs=80 dropblock:epochs=80 dropblock:drop.keep_prob=0.8"
    assert len(json.loads((tmp_path / "search.json").read_text())["runs"]) == 10


def test_a_method_that_is_not_there_is_named():
    with pytest.raises(SystemExit, match="dropblok: there are baseline"):
        search.main(["--dataset", "mnist", "--rows", "dropblok", "--grid", "epochs", "80"])
