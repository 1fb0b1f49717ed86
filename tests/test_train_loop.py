"""The training loop, in this process: what it notices, what it saves, and how it stops."""

import contextlib
import json

import jax
import jax.numpy as jnp
import pytest

import random_runs
import tiny
import train
from models.drop import KINDS, Kind
from processes import StopsAt, records, state, untimed
from tasks import make_task
from training.checkpoints import Checkpoints
from training.config import ConfigError
from training.evaluation import Evaluation, make_evaluate
from training.plan import Plan, make_plan


@pytest.fixture(scope="module")
def plan():
    """Of one device; one for all tests, so that its step is traced and compiled once."""
    return make_plan(tiny.get_config(), make_task, jax.devices()[:1])


@pytest.fixture(scope="module")
def evaluation(plan):
    return make_evaluate(plan)


@pytest.fixture
def part(plan, evaluation, monkeypatch):
    """Trains until the n-th time that a stop signal is asked for."""
    monkeypatch.setattr(train, "make_plan", lambda *_: plan)
    monkeypatch.setattr(train, "make_evaluate", lambda *_, **__: evaluation)

    def part(workdir, stop_at=99, config=None, **options):
        monkeypatch.setattr(
            train, "StopSignals", lambda *_: contextlib.nullcontext(StopsAt(stop_at))
        )
        return train.train(config or tiny.get_config(), workdir, **options)

    return part


def open_checkpoints(folder):
    return Checkpoints(folder, keep=None, best_metric="top1")


def test_a_stop_does_not_wait_for_an_evaluation_and_none_is_lost(tmp_path, part):
    workdir, whole = tmp_path / "run", tmp_path / "whole"
    assert part(workdir, 6) == 143  # at step 6, where an evaluation of 4 batches is due
    assert [r["step"] for r in records(workdir)] == [1, 2, 3, 4, 5, 6]
    assert "eval/top1" not in records(workdir)[-1]
    assert part(workdir, 2) == 143  # in that evaluation, which is made up for
    assert state(workdir, 6) and "eval/top1" not in records(workdir)[-1]
    assert part(workdir, 12) == 143  # after it and 6 steps, in the last evaluation
    assert part(workdir) == part(whole) == 0
    assert untimed(workdir) == untimed(whole)
    assert state(workdir, 12) == state(whole, 12)
    results = [json.loads((path / "result.json").read_text()) for path in (workdir, whole)]
    assert results[0]["final"] == results[1]["final"] and results[0]["best"] == results[1]["best"]
    best = []
    for path in (workdir, whole):
        with open_checkpoints(path / "checkpoints") as checkpoints:
            best.append((checkpoints.best, checkpoints.best_value))
    assert best[0] == best[1]
    times = [r["time/seconds"] for r in records(workdir)]
    assert times == sorted(times) and results[0]["seconds"] == round(times[-1], 1)


@pytest.mark.parametrize("stops", [(1, 4), (5,)], ids=["within", "after"])
def test_a_stop_in_the_evaluation_of_a_finished_run_leaves_nothing_half_done(tmp_path, part, stops):
    """Of one whose checkpoints alone are left: its log was lost, so that it is evaluated again."""
    workdir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    random_runs.save(tiny.get_config(), elsewhere, 12, {"top1": 50.0})
    for stop_at in stops:  # it is asked for after each of 4 batches, and after the evaluation
        assert part(workdir, stop_at, checkpoint_dir=elsewhere) == 143
        assert len(records(workdir)) == (stop_at == 5) and not (workdir / "result.json").exists()
    assert part(workdir, checkpoint_dir=elsewhere) == 0
    (line,) = records(workdir)
    assert line["step"] == 12 and line["eval/examples"] == 50
    result = json.loads((workdir / "result.json").read_text())
    assert result["final"]["top1"] == result["best"]["top1"] == line["eval/top1"]
    with open_checkpoints(elsewhere) as checkpoints:
        assert checkpoints.steps == [12] and checkpoints.evaluated(12)


def test_every_new_best_is_saved_before_and_after_a_restart(tmp_path, part, monkeypatch):
    config = tiny.get_config()
    config.checkpoint_every_steps = 100
    config.keep_checkpoints = 20
    monkeypatch.setattr(Plan, "eval_every", 2)
    values = iter([10.0, 30.0, 20.0, 30.0, 5.0, 1.0])

    def evaluate(variables, stopping):
        return Evaluation({"top1": next(values), "examples": 50}, None, {})

    monkeypatch.setattr(train, "make_evaluate", lambda *_, **__: evaluate)
    assert part(tmp_path, 7, config) == 143  # at step 5, of questions at 1 2 2 3 4 4 5
    with open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps == [2, 4, 5] and checkpoints.best == 4
    assert part(tmp_path, config=config) == 0
    with open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        # Neither 6 nor 10, which are worse; 8 is as good as 4, and later.
        assert checkpoints.steps == [2, 4, 5, 8, 12] and checkpoints.best == 8
    assert json.loads((tmp_path / "result.json").read_text())["best"]["step"] == 8


def test_a_finished_run_whose_last_line_is_lost_is_evaluated_again(tmp_path, part):
    assert part(tmp_path) == 0
    before = untimed(tmp_path), json.loads((tmp_path / "result.json").read_text())
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-20] + "}\n")
    saved = (tmp_path / "checkpoints" / "12" / "manifest.json").stat().st_mtime_ns
    assert part(tmp_path) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["final"] == before[1]["final"] and result["best"] == before[1]["best"]
    evaluation = {k: v for k, v in before[0][-1].items() if k.startswith("eval/")}
    assert evaluation.items() <= untimed(tmp_path)[-1].items()
    assert untimed(tmp_path)[:-1] == before[0][:-1]
    assert (tmp_path / "checkpoints" / "12" / "manifest.json").stat().st_mtime_ns == saved


def test_sites_that_are_silent_step_by_step_stop_the_run(tmp_path, monkeypatch):
    """A step expects 4 seeds of each: none of them is alarming by itself, eight are."""

    def silent(rng, x, keep_prob, drop):
        return x, jnp.ones(x.shape[0]), keep_prob, jnp.float32(4)

    monkeypatch.setitem(KINDS, "dropblock", Kind(silent))
    monkeypatch.setattr(train, "make_plan", lambda *args: make_plan(*args[:2], args[2][:1]))
    config = tiny.get_config()
    # Steps are read in two places, in turn: where one is logged, and else behind the next. The
    # whole run's six are too few for an alarm from one of them alone.
    config.log_every_steps = 2
    config.checkpoint_every_steps = 100
    config.eval_every_epochs = 100.0
    with pytest.raises(ConfigError, match="has dropped nothing, where 32 seeds were expected"):
        train.train(config, tmp_path)
    assert [r["step"] for r in records(tmp_path)] == [2, 4, 6]
