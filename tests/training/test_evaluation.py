"""Every example counts once, and only process 0 draws."""

import itertools

import jax
import pytest

import tiny
from tasks import make_task
from training.evaluation import make_evaluate
from training.plan import make_plan
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
