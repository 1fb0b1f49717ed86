"""A few steps are traced, once, and the trace can be read."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from training.profiling import Trace


def run(folder, first, last):
    told = []
    add = jax.jit(lambda x: x + 1)
    with Trace(folder, first, told.append) as trace:
        x = jnp.zeros(())
        for step in range(first, last):
            with trace.step(step, x):
                x = add(x)
    return told


def steps(folder):
    (file,) = folder.glob("plugins/profile/*/*.trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    found = {e["args"]["step_num"] for e in events if e.get("name") == "train"}
    return sorted(int(step) for step in found)


@pytest.mark.parametrize(("first", "last", "traced"), [(10, 30, range(14, 19)), (0, 6, [4, 5, 6])])
def test_the_fourth_to_the_eighth_step_are_traced(tmp_path, first, last, traced):
    (told,) = run(tmp_path, first, last)
    assert steps(tmp_path) == list(traced)
    assert told.startswith(f"traced steps {traced[0]} to {traced[-1]} into {tmp_path}: ")


def test_nothing_is_traced_that_is_not_asked_for(tmp_path, monkeypatch):
    assert run(None, 0, 30) == run(tmp_path, 0, 3) == [] and not list(tmp_path.iterdir())
