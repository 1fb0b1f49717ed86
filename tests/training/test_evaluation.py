"""Every example counts once, and only process 0 draws."""

import itertools

import jax
import pytest

import tiny
from tasks import make_task
from training.evaluation import make_evaluate
from training.plan import Plan, make_plan
from training.state import variables


@pytest.fixture(scope="module")
def plan():
    return make_plan(tiny.get_config(), make_task, jax.devices())


@pytest.fixture(scope="module")
def evaluate(plan):
    """`() -> Evaluation` of a fresh network, on eight devices."""
    start, run = variables(plan.create()), make_evaluate(plan)
    return lambda **options: run(start, **options)


def test_only_process_0_draws(evaluate, monkeypatch):
    found = evaluate()
    assert found.metrics["examples"] == 50 and found.picture is not None
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert evaluate() == (found.metrics, None, {})
    monkeypatch.undo()
    assert evaluate(draw=False) == (found.metrics, None, {})


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_missing_example_is_noticed_on_any_number_of_hosts(plan, evaluate, monkeypatch, hosts):
    whole = plan.task.eval_batches
    monkeypatch.setattr(jax, "process_count", lambda: hosts)
    monkeypatch.setattr(
        plan.task, "eval_batches", lambda **options: itertools.islice(whole(**options), 3)
    )
    with pytest.raises(RuntimeError, match="evaluated 48 and skipped 0 of 50 examples"):
        evaluate()


def test_no_two_batches_drop_the_same_and_every_evaluation_does(plan, monkeypatch):
    """The chance that two keys let all six sites drop equally much is about 2e-12."""
    dropped = []

    def eval_step(plan, *, drop):
        step = whole(plan, drop=drop)

        def watched(*args):
            sums, predictions = step(*args)
            dropped.append(tuple(float(site.dropped) for site in sums["sites"].values()))
            return sums, predictions

        return watched

    whole = Plan.eval_step
    monkeypatch.setattr(Plan, "eval_step", eval_step)
    start, run = variables(plan.create()), make_evaluate(plan, drop=True)
    assert run(start, 0.5, draw=False) == run(start, 0.5, draw=False)
    first, second = dropped[:4], dropped[4:]
    assert len(first[0]) == 6 and len(set(first)) == 4, first
    assert first == second
