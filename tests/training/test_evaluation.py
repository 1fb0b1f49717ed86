"""Every example counts once, and only process 0 draws."""

import itertools
import types

import jax
import numpy as np
import pytest

import tiny
from tasks import make_task
from training.evaluation import _spread, make_evaluate
from training.plan import Plan, make_plan
from training.state import variables
from training.step import SiteSums


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


class Doubling:
    """A plan and its task, of five numbers in batches of two; one of them cannot be read."""

    num_eval, batch_size, rows, key = 5, 2, slice(0, 2), jax.random.key(0)
    num_drawn = 4
    drop = types.SimpleNamespace(place_of=lambda name: None)
    masks = ((True, True), (True, False), (True, False))

    def __init__(self, collects):
        self.collects, self.task, self.dropped, self.drawn = collects, self, [], []

    def eval_batches(self, *, batch_size, rows):
        assert (batch_size, rows) == (2, slice(0, 2))
        for index, mask in enumerate(self.masks):
            x = np.array([2 * index, 2 * index + 1])
            yield {"x": x, "mask": np.array(mask), "skipped": np.array([0, index == 1])}

    def put_batch(self, batch):
        return batch

    def eval_step(self, *, drop):
        def step(variables, batch, key, keep_prob):
            self.dropped.append((drop, float(keep_prob)))
            sites = {"head.a": SiteSums(*np.float32([2, 0.5, 1, 3]))} if drop else {}
            sums = {"count": batch["mask"].sum(), "total": (batch["x"] * batch["mask"]).sum()}
            found = {"doubled": variables * batch["x"], "mask": batch["mask"]}
            return {"sums": sums, "skipped": batch["skipped"].sum(), "sites": sites}, found

        return step

    def draw(self, predictions, batch):
        self.drawn.append((predictions["doubled"].tolist(), batch["x"].tolist()))
        return "picture"

    def score(self, sums, collected):
        return {"total": sums["total"], "seen": collected.get("doubled", np.array([])).tolist()}

    def files(self, collected):
        return {"seen.txt": str(collected.get("doubled"))}


def test_what_a_task_is_told_of_the_whole_set():
    plan = Doubling(collects=True)
    found = make_evaluate(plan)(2)
    assert found.metrics == {
        "total": 0 + 1 + 2 + 4,
        "seen": [0, 2, 4, 8],
        "examples": 4,
        "skipped": 1,
    }
    assert found.picture == "picture" and found.files == {"seen.txt": "[0 2 4 8]"}
    # One of each of 4 parts, of which that of 3 could not be read.
    ((doubled, x),) = plan.drawn
    assert x in ([0, 1, 2, 4], [0, 1, 2], [0, 1, 4]) and doubled == [2 * value for value in x]
    assert plan.dropped == [(False, 1.0)] * 3


def test_one_batch_may_be_all():
    plan = Doubling(collects=True)
    plan.num_eval, plan.masks = 1, ((False, True),)
    found = make_evaluate(plan)(3)
    assert found.metrics["seen"] == [3]
    assert found.picture is None and plan.drawn == []  # the only example could not be read


@pytest.mark.parametrize(("rows", "hosts"), [(slice(0, 16), 1), (slice(0, 4), 4), (slice(4, 8), 4)])
@pytest.mark.parametrize("size", [1000, 103, 5, 1])
def test_what_is_drawn_is_from_all_over_the_split(rows, hosts, size):
    plan = types.SimpleNamespace(batch_size=16, rows=rows)
    spread = _spread(8, size, plan)
    assert spread == _spread(8, size, plan)  # in every evaluation
    chosen = [16 * batch + rows.start + row for batch, taken in spread.items() for row in taken]
    assert chosen == sorted(set(chosen)) and all(index < size for index in chosen)
    assert all(0 <= row < 16 / hosts for taken in spread.values() for row in taken)
    read = [index for index in range(size) if rows.start <= index % 16 < rows.stop]
    assert len(chosen) == min(8, len(read))
    if size == 1000:  # one in each eighth, and not at equal steps
        assert [index // 125 for index in chosen] == pytest.approx([*range(8)], abs=0.5)
        assert len(set(np.diff(chosen))) > 2


def test_it_is_told_how_many_are_done():
    told = []
    make_evaluate(Doubling(collects=False), tell=lambda *of: told.append(of))(2)
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_what_is_not_asked_for_is_not_done():
    plan = Doubling(collects=False)
    found = make_evaluate(plan, drop=True)(2, keep_prob=0.5, draw=False)
    assert found.metrics["seen"] == [] and found.files == {"seen.txt": "None"}
    assert (found.metrics["kept/head"], found.metrics["expected_kept/head"]) == (0.75, 0.5)
    assert found.picture is None and plan.drawn == [] and plan.dropped == [(True, 0.5)] * 3
    asked = []
    assert make_evaluate(plan)(2, stopping=lambda: asked.append(1) or len(asked) > 1) is None
    assert len(asked) == 2


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
