"""The schedule is a pure function of the step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropblock import keep_prob_schedule


def test_linear_falls_from_one_to_target():
    schedule = keep_prob_schedule(0.9, 1000)
    # The authors' rule: 1 - step / num_steps * (1 - target).
    for step in range(0, 1001, 50):
        assert schedule(step) == pytest.approx(1 - step / 1000 * (1 - 0.9), abs=1e-15)
    assert schedule(0) == 1.0 and schedule(1000) == 0.9


def test_constant_is_the_target_at_every_step():
    schedule = keep_prob_schedule(0.9, 10, kind="constant")
    assert {schedule(step) for step in range(-1, 12)} == {0.9}
    np.testing.assert_array_equal(schedule(jnp.arange(12)), np.full(12, 0.9, np.float32))


@pytest.mark.parametrize("target, start", [(0.9, 1.0), (0.2, 0.7), (1.0, 0.5), (0.0, 1.0)])
def test_ends_are_met_exactly_and_held(target, start):
    schedule = keep_prob_schedule(target, 337_770, start=start)
    for step, end in ((0, start), (-5, start), (337_770, target), (400_000, target)):
        assert schedule(step) == end
        assert jax.jit(schedule)(step) == np.float32(end)


def test_one_step_is_a_run():
    schedule = keep_prob_schedule(0.9, 1)
    assert [schedule(step) for step in (0, 0.5, 1, 2)] == pytest.approx([1.0, 0.95, 0.9, 0.9])


def test_number_and_array_agree_and_stay_in_range():
    schedule = keep_prob_schedule(0.9, 977)
    steps = np.arange(1000)
    assert type(schedule(3)) is float
    array = jax.jit(schedule)(jnp.asarray(steps))
    assert array.dtype == jnp.float32
    np.testing.assert_allclose(array, [schedule(step) for step in steps.tolist()], atol=2e-7)
    assert (np.diff(array) <= 0).all() and array.min() >= np.float32(0.9) and array.max() == 1


def test_it_runs_in_scan_and_does_not_recompile():
    schedule = keep_prob_schedule(0.5, 8)
    traces = []

    @jax.jit
    def keep_prob(step):
        traces.append(step)
        return schedule(step)

    stepped = [float(keep_prob(jnp.int32(step))) for step in range(9)]
    assert len(traces) == 1
    _, scanned = jax.lax.scan(lambda step, _: (step + 1, schedule(step)), jnp.int32(0), length=9)
    np.testing.assert_array_equal(scanned, stepped)
    np.testing.assert_allclose(scanned, np.linspace(1, 0.5, 9), atol=1e-7)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"target": 1.5, "num_steps": 10}, r"target .*got 1\.5"),
        ({"target": -0.5, "num_steps": 10}, r"target .*got -0\.5"),
        ({"target": 0.9, "num_steps": 0}, "num_steps .*got 0"),
        ({"target": 0.9, "num_steps": 10, "start": 2.0}, r"start .*got 2\.0"),
        ({"target": 0.9, "num_steps": 10, "kind": "cosine"}, "kind .*got 'cosine'"),
    ],
)
def test_errors_name_the_argument_and_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        keep_prob_schedule(**arguments)
