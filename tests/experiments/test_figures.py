"""The ablation and Figures 3 and 4: their runs, and the paper's numbers that they hold."""

import argparse
import csv
import json
import re

import jax
import pytest

import processes
from configs import mnist_resnet
from experiments import ablation, figure3, figure4, plots
from experiments.runner import Run
from tasks import make_task
from training.plan import make_plan

PAGE = (processes.ROOT / "docs" / "paper.md").read_text()


def section(number):
    return re.search(rf"^### {number} .*?(?=^##)", PAGE, re.M | re.S)[0]


def finished(rows, folder):
    """Runs of `rows` that have a result, made up from their names."""
    runs = []
    for number, row in enumerate(rows):
        for seed in (0, 1):
            workdir = folder / row.name / f"seed{seed}"
            workdir.mkdir(parents=True)
            evaluated = {"top1": 70 + number / 10 + seed, "loss": 2 - number / 10 + seed}
            result = {"best": evaluated, "final": evaluated, "best_metric": "top1"}
            result |= {"seconds": 1, "commit": "abc"}
            (workdir / "result.json").write_text(json.dumps(result))
            runs.append(Run(row, seed, workdir, (f"--config=x.py:{row.variant}",)))
    return runs


def config_of(row):
    """What train.py makes of a row's overrides."""
    config = mnist_resnet.get_config(row.variant)
    config.update_from_flattened_dict(row.overrides)
    return config


def test_figure3_has_the_papers_points():
    panels = figure3.make_panels()
    rows = plots.rows_of(panels)
    assert len(rows) == len({row.name for row in rows}) == 1 + 7 + 10 + 10 + 7
    text = section("3.5")
    for label, accuracies in figure3.PAPER.items():
        line = next(
            line
            for line in text.splitlines()
            if re.match(rf"\| (\(a\)|\(b\)|\(a\) and \(b\)) {label}", line)
        )
        printed = [float(cell) for cell in re.findall(r"\d\d\.\d+", line)]
        assert printed == list(accuracies.values()), label
    by_name = {row.name: row for row in rows}
    constant = config_of(by_name["dropblock_constant_0.85"]).drop
    assert (constant.kind, constant.schedule, constant.keep_prob) == ("dropblock", "constant", 0.85)
    dropout = config_of(by_name["dropout_0.6"]).drop
    assert (dropout.kind, dropout.schedule, dropout.keep_prob) == ("dropout", "linear", 0.6)
    assert dropout.sites == ("conv",) and dropout.places.group3 == 0.25
    (spatial,) = (one for one in panels[0].series if one.label == "SpatialDropout")
    assert spatial.rows[0.9].name == "spatial_dropout_0.9" and spatial.paper[0.9] == 77.41


def test_figure4_has_the_papers_points():
    panels = figure4.make_panels()
    rows = {row.name: row for row in plots.rows_of(panels)}
    assert len(rows) == 3 * 7 + 3 * 8
    text = section("3.6")
    for accuracies in figure4.PAPER.values():
        assert " | ".join(f"{accuracy:.2f}" for accuracy in accuracies) in text
    best = rows["groups34_conv_skip_scheduled_7"]
    (curve,) = panels[-1].series
    assert curve.rows[7] == best and curve.paper[7] == 78.16
    drop = config_of(best).drop
    assert (drop.block_size, drop.sites, drop.schedule) == (7, ("conv", "skip"), "linear")
    assert (drop.places.group3, drop.places.group4) == (0.25, 1.0)
    drop = config_of(rows["group4_conv_2"]).drop
    assert (drop.block_size, drop.sites, drop.schedule) == (2, ("conv",), "constant")
    assert (drop.places.group3, drop.places.group4) == (0.0, 1.0)


def test_figure4_over_a_third_place():
    blocks = {"group4": (1,), "groups34": (1,), "groups234": (1, 3)}
    panels = figure4.make_panels(blocks)
    assert len(panels) == 9 and panels[6].title == "the config's groups: convolutions"
    rows = {row.name: row for row in plots.rows_of(panels)}
    last = rows["groups234_conv_skip_scheduled_3"]
    # The factor of group 2 is the config's: in the other places it is set to 0.
    assert "drop.places.group2" not in last.overrides
    assert rows["groups34_conv_1"].overrides["drop.places.group2"] == 0.0


def test_figure4_of_one_place_alone(tmp_path, capsys):
    words = ["--dataset=mnist", f"--workdir={tmp_path}", "--collect", "--blocks4", "--blocks34"]
    assert figure4.main([*words, "--blocks234", "1", "3"]) == 0
    rows = {row["row"] for row in json.loads((tmp_path / "figure4.json").read_text())["points"]}
    places = {f"groups234_{column}_{block}" for column in figure4.COLUMNS for block in (1, 3)}
    assert rows == places
    with pytest.raises(SystemExit):
        figure4.main(words)
    assert "are all empty" in capsys.readouterr().err


def test_the_ablation_changes_one_thing_at_a_time():
    first = config_of(ablation.ROWS[0])
    base, places = first.to_dict()["drop"], first.drop.places
    rows = ablation.make_rows(places)
    assert rows[-1].overrides == {"drop.places.group3": 1.0}
    for row in rows[1:]:
        config = config_of(row)
        drop = config.to_dict()["drop"]
        changed = [name for name in drop if drop[name] != base[name]]
        assert len(changed) == 1, row.name
        plan = make_plan(config, make_task, jax.devices()[:1])
        if row.name == "no_scale":
            assert plan.task.drop.normalize is None


def test_the_ablation_of_factors_is_of_those_that_the_config_has():
    places = {"stem": 0.0, "group2": 0.25, "group3": 0.5, "group4": 1.0}
    row = ablation.make_rows(places)[-1]
    assert row.overrides == {"drop.places.group2": 1.0, "drop.places.group3": 1.0}
    assert row.note == "factor 1 in group2 and group3"
    assert ablation.make_rows({"group3": 1.0, "group4": 1.0}) == ablation.ROWS


@pytest.mark.parametrize("figure", [figure3, figure4])
def test_figures_write_their_points_and_a_plot(figure, tmp_path):
    panels = figure.make_panels()
    runs = finished(plots.rows_of(panels), tmp_path)
    arguments = argparse.Namespace(workdir=tmp_path)
    drawn, paper = plots.points_of(panels, runs), plots.paper_of(panels)
    plots.write_figure("f", drawn, paper, runs, arguments, xlabel="x", columns=3)
    points = list(csv.DictReader((tmp_path / "f.csv").read_text().splitlines()))
    assert len(points) == sum(len(curve.rows) for panel in panels for curve in panel.series)
    values = {point["row"]: float(point["top1"]) for point in points}
    assert values == {
        row.name: pytest.approx(70.5 + number / 10)
        for number, row in enumerate(plots.rows_of(panels))
    }
    assert len(json.loads((tmp_path / "f.json").read_text())["runs"]) == len(runs)
    assert (tmp_path / "f.png").exists()
    curves = [
        {
            (axis.get_title(), curve.get_label()): [tuple(point) for point in curve[0].get_xydata()]
            for axis in part.axes
            for curve in axis.containers
        }
        for part in plots.draw(drawn, paper, "x", 3).subfigs
    ]
    series = {(panel.title, curve.label): curve for panel in panels for curve in panel.series}
    assert curves == [
        {
            key: [(x, values[row.name]) for x, row in sorted(curve.rows.items())]
            for key, curve in series.items()
        },
        {key: list(curve.paper.items()) for key, curve in series.items() if curve.paper},
    ]


def test_a_figure_over_other_places():
    (first, *_) = figure3.make_panels([0.65, 1.0])
    assert [list(series.rows) for series in first.series] == [[0.65, 1.0]] * 3
    assert {series.rows[1.0].name for series in first.series} == {"baseline"}
    panels = figure4.make_panels({"group4": (1,), "groups34": (2, 3)})
    assert len(plots.rows_of(panels)) == 3 * 3


def test_what_a_curve_has_over_another(tmp_path):
    (*_, panel) = figure3.make_panels([0.8, 0.9, 1.0])
    runs = finished(plots.rows_of([panel]), tmp_path)
    # Made up: 70 + seed + 0.1, 0.2, ... in the order of the rows; of the last, seed 1 is missing.
    assert [run.row.name for run in runs[::2]] == [
        "dropblock_0.8",
        "dropblock_0.9",
        "baseline",
        "dropblock_constant_0.8",
        "dropblock_constant_0.9",
    ]
    runs[2].workdir.joinpath("result.json").write_text('{"best": {"top1": 75.1}}')
    runs[-1].workdir.joinpath("result.json").unlink()
    scheduled, constant = panel.series
    first, second, mean = plots.differences([(scheduled, constant)], runs)
    assert (first["x"], first["seeds"]) == (0.8, 2)
    assert first["difference"] == pytest.approx(-0.3)
    assert first["difference_interval"] == pytest.approx(0, abs=1e-9)
    assert (second["x"], second["seeds"]) == (0.9, 1)
    assert second["difference"] == pytest.approx(75.1 - 70.4)
    assert (mean["x"], mean["seeds"]) == ("mean", 1)
    assert mean["difference"] == pytest.approx((-0.3 + 4.7) / 2)
    some = [run for run in runs if run.row.name != "dropblock_constant_0.8"]  # --rows
    assert [one["x"] for one in plots.differences([(scheduled, constant)], some)] == [0.9, "mean"]
    assert plots.differences([(scheduled, constant)], runs[:4]) == []
    plots.write_differences("f", [(scheduled, constant)], runs, tmp_path)
    lines = (tmp_path / "f_differences.csv").read_text().splitlines()
    assert lines[1] == '"DropBlock, scheduled","DropBlock, unscheduled",0.8,2,-0.3,0.0'


def test_figures_of_the_loss(tmp_path, capsys):
    keep_probs = [0.8, 0.9]
    rows = plots.rows_of(figure3.make_panels(keep_probs))
    finished(rows, tmp_path)
    words = ["--dataset=mnist", f"--workdir={tmp_path}", "--collect", "--seeds", "0", "1"]
    words += ["--keep_probs", *map(str, keep_probs)]
    assert figure3.main([*words, "--metric", "loss"]) == 0
    points = json.loads((tmp_path / "figure3_loss.json").read_text())
    assert points["paper"] == [] and "top1_paper" not in points["points"][0]
    values = {point["row"]: point["loss"] for point in points["points"]}
    assert values == {row.name: pytest.approx(2.5 - number / 10) for number, row in enumerate(rows)}
    # The unscheduled rows are the seventh and eighth, six after the scheduled ones.
    assert "differences in loss, nats" in capsys.readouterr().out
    lines = (tmp_path / "figure3_loss_differences.csv").read_text().splitlines()
    assert lines[1] == '"DropBlock, scheduled","DropBlock, unscheduled",0.8,2,0.6,0.0'
    assert (tmp_path / "figure3_loss.png").exists() and not (tmp_path / "figure3.png").exists()
    figure = plots.draw(points["points"], [], "keep_prob", 2, "loss")
    assert {axis.get_ylabel() for axis in figure.subfigs[0].axes} == {"loss, nats"}


def test_the_papers_curves_are_drawn_whole(tmp_path):
    blocks = {"group4": (1,), "groups34": (1, 2), "groups234": (1,)}
    panels = figure4.make_panels(blocks)
    points = plots.points_of(panels, finished(plots.rows_of(panels), tmp_path))
    compared = [(p["x"], p["top1_paper"]) for p in points if p["panel"] == panels[3].title]
    assert compared == [(1, 76.73), (2, None)]  # the paper has no block of 2 there
    figure = plots.draw(points, plots.paper_of(panels), "block size", 3)
    ours, theirs = figure.subfigs
    assert [len(part.axes) for part in (ours, theirs)] == [9, 6]
    assert [len(axis.lines[0].get_xdata()) for axis in ours.axes] == [1] * 3 + [2] * 3 + [1] * 3
    assert [len(axis.lines[0].get_xdata()) for axis in theirs.axes] == [7] * 3 + [8] * 3
