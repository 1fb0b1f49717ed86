"""What is said of a compiled training step: of tests/tiny.py's on CPU devices, and by hand."""

import importlib.util
import re
import subprocess
import sys
import types

import jax
import pytest

import processes
import tiny
from tasks import make_task
from training import compiled_step, hlo
from training.compiled_step import CompiledStep, compile_train_step
from training.config import ConfigError
from training.hardware import GPUS, TPUS, Topology
from training.plan import make_plan

GIB = 2**30


def two_of(chip, send=100e9, hops=1):
    return Topology("two", chip, jax.devices()[:2], send, hops)


@pytest.fixture(scope="module")
def plan():
    config = tiny.get_config("baseline")
    config.data.update(name="nowhere", num_train_examples=64, num_eval_examples=50)
    return make_plan(config, make_task, jax.devices()[:2], need_data=False)


@pytest.fixture(scope="module")
def lowered(plan):
    return plan.lower_train_step()


@pytest.fixture(scope="module")
def step(plan, lowered):
    return compile_train_step(plan, lowered)


def test_a_step_of_this_machine_is_counted_but_not_estimated(plan, step):
    assert step.seconds_to_compile > 0 and step.seconds is None and step.sending == 0
    state = compiled_step.state_bytes(plan)
    assert state == sum(
        x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(plan.create))
    )
    assert step.memory >= state + step.temporary > state
    # All gradients are summed, and nothing else of that size is sent.
    sent = sum(one.nbytes * one.times for one in step.collectives if one.kind == "all-reduce")
    gradients = sum(x.size * 4 for x in jax.tree.leaves(plan.abstract_state["params"]))
    assert gradients <= sent < 1.2 * gradients
    text = compiled_step.report(step, plan)
    assert re.search(r"as XLA plans it for cpu: \d\.\d\d GiB, \d", text)
    assert re.search(r"\n  all-reduce: \d+, 0\.\d\d MB\n", text) and "images/s" not in text


def test_the_state_that_is_cut_counts_in_parts(plan):
    by_batch = jax.sharding.NamedSharding(plan.mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.ShapeDtypeStruct((3,), "float32", sharding=plan._replicated)
    cut = jax.ShapeDtypeStruct((8, 5), "bfloat16", sharding=by_batch)
    assert compiled_step.state_bytes(types.SimpleNamespace(abstract_state=[whole, cut])) == 12 + 40


def test_a_gpus_step_takes_its_bytes_and_its_collectives(plan, lowered, step):
    found = compile_train_step(plan, lowered, two_of(GPUS["h100"]))
    # The state is read and written once at least, and the network is small.
    least = 2 * compiled_step.state_bytes(plan) / GPUS["h100"].bandwidth
    assert least < found.seconds < 1000 * least
    assert found.sending == pytest.approx(
        # A pass to each of two devices and back: half of it, or the latency.
        sum(2 * one.times * max(one.nbytes / 2 / 100e9, 6e-6) for one in found.collectives)
    )


@pytest.mark.parametrize(("chip", "told"), [(GPUS["h100"], False), (TPUS["v5e"], None)])
def test_where_no_gpu_is_triton_has_no_part(plan, lowered, chip, told):
    options = []

    def compile(given):
        options.append(given or {})
        return lowered.compile()

    compile_train_step(plan, types.SimpleNamespace(compile=compile), two_of(chip))
    assert options[0].get("xla_gpu_enable_triton_gemm") is told


PROGRAM = """\
ENTRY %main (x: f32[1024]) -> f32[1024] {
  %x = f32[1024]{0} parameter(0)
  %y = f32[1024]{0} fusion(%x), backend_config={"estimated_cycles":"30000"}
  %g = f32[1024]{0} all-gather(%y), dimensions={0}
  ROOT %z = f32[1024]{0} all-reduce(%g), to_apply=%sum, backend_config={"estimated_cycles":"0"}
}
"""


def compiled_to(text, memory):
    """A lowered program that compiles to a text and takes some bytes."""
    planned = types.SimpleNamespace(
        argument_size_in_bytes=memory // 2,
        output_size_in_bytes=memory // 4 + 1000,
        alias_size_in_bytes=1000,
        temp_size_in_bytes=memory // 8,
        generated_code_size_in_bytes=memory // 8,
    )
    compiled = types.SimpleNamespace(as_text=lambda: text, memory_analysis=lambda: planned)
    return types.SimpleNamespace(compile=lambda options: compiled)


def test_a_tpus_step_takes_its_cycles(plan):
    found = compile_train_step(plan, compiled_to(PROGRAM, 8 * GIB), two_of(TPUS["v5e"]))
    assert (found.memory, found.temporary) == (8 * GIB, GIB)
    assert found.cycles == 30000 and found.seconds == pytest.approx(20e-6)
    assert found.sending == pytest.approx(3e-6)  # one pass, and two
    assert [one.kind for one in found.collectives] == ["all-gather", "all-reduce"]


def test_what_is_planned_beyond_the_memory_does_not_fit(plan):
    two = two_of(TPUS["v5e"])
    with pytest.raises(ConfigError, match=r"at least 16\.00 GiB of a device's 15\.75, 0\.25 too"):
        compile_train_step(plan, compiled_to(PROGRAM, 16 * GIB), two)


def refusing(message):
    def refuse(options):
        raise jax.errors.JaxRuntimeError(message)

    return types.SimpleNamespace(compile=refuse)


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (19.33G) exceeds available HBM (15.75G).",
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 19.33G of 15.75G hbm. Exceeded hbm capacity by 3.58G.\n\nTotal hbm usage >= ...",
    ],
)
def test_what_a_compiler_refuses_does_not_fit(plan, message):
    with pytest.raises(ConfigError) as raised:
        compile_train_step(plan, refusing(message))
    assert str(raised.value) == (
        "the training step does not fit: it takes at least 19.33 GiB of a device's 15.75, 3.58 too "
        "much (0.00 is the state); what helps: --config.dtype=bfloat16, --config.accumulate=2, a "
        "smaller --config.batch_size, more devices, --config.shard_state"
    )


def test_other_errors_of_a_compiler_are_its_own(plan):
    with pytest.raises(jax.errors.JaxRuntimeError, match="no such op"):
        compile_train_step(plan, refusing("INVALID_ARGUMENT: no such op"))


def remedies(plan, *, large_state=False, **fields):
    config = plan.config.copy_and_resolve_references()
    with config.unlocked():
        config.update_from_flattened_dict(
            {name.replace("__", "."): value for name, value in fields.items()}
        )
    found = types.SimpleNamespace(config=config, mesh=plan.mesh)
    return compiled_step._remedies(found, large_state=large_state)


def test_fields_that_help_are_those_that_are_left(plan):
    always = ["a smaller --config.batch_size", "more devices", "--config.shard_state"]
    bfloat16 = {"dtype": "bfloat16"}
    assert remedies(plan, **bfloat16, batch_size=2) == always  # an image on each device
    # Micro-batches that the two devices can share: of 12 images 2, then 3, then 6.
    for accumulate, more in ((1, 2), (2, 3), (3, 6)):
        found = remedies(plan, **bfloat16, batch_size=12, accumulate=accumulate)
        assert found == [f"--config.accumulate={more}", *always]
    # And groups of 4 examples that have to fill them: 24 images in 6 groups.
    grouped = {**bfloat16, "batch_size": 24, "model__bn_group_size": 4}
    assert remedies(plan, **grouped, accumulate=3) == ["--config.accumulate=6", *always]
    remat = {**bfloat16, "batch_size": 2, "model__remat": "none"}
    assert remedies(plan, **remat) == ["--config.model.remat=cells", *always]
    assert remedies(plan, **remat | {"model__remat": "cells"}) == always


def test_a_large_state_is_cut_first(plan):
    whole = {"dtype": "bfloat16", "batch_size": 2, "shard_state": False}
    cut = "--config.shard_state"
    assert remedies(plan, **whole)[-1] == cut
    assert remedies(plan, **whole, large_state=True)[0] == cut
    assert cut not in remedies(plan, **whole | {"shard_state": True}, large_state=True)


def said(seconds=0.02, sending=0.005, chip="v5e", memory=12 * GIB):
    collectives = [
        hlo.Collective("all-reduce", 4_000_000, 1),
        hlo.Collective("all-reduce", 1_000, 10),
        hlo.Collective("all-gather", 2_000_000, 3),
    ]
    found = CompiledStep(61.04, memory, 3 * GIB, collectives, 7, 2, 30e6, seconds, sending)
    config = types.SimpleNamespace(batch_size=64)
    plan = types.SimpleNamespace(config=config, platform="tpu", abstract_state=[])
    return compiled_step.report(found, plan, two_of({**TPUS, **GPUS}[chip])).splitlines()


def test_what_is_said_of_a_step():
    assert said() == [
        "seconds to compile the training step: 61.0",
        "memory of each device, as XLA plans it for tpu: 12.00 GiB of 15.75, 0.00 of it the state, "
        "3.00 temporary",
        "collectives of a step:",
        "  all-gather: 3, 6.00 MB",
        "  all-reduce: 11, 4.01 MB",
        "loops: 7, 2 of them as often as data says",
        "estimated cycles: 30,000,000, 20.00 ms at 1.5 GHz",
        "least time of the collectives, at 100 GB/s from each chip: 5.00 ms",
        # 64 images in 20 ms, in 25 ms.
        "images/s at most: 3,200 (1,600 on each chip); 2,560 if nothing runs beside the "
        "collectives (80.0%)",
    ]
    assert "least time by the bytes and convolutions of the kernels: 20.00 ms" in said(chip="h100")


def test_a_gpu_is_told_to_give_more_than_jax_takes():
    memory = GPUS["h100"].memory
    line = "  which is more than JAX takes: set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"
    assert line not in said(chip="h100", memory=int(0.74 * memory))
    assert line == said(chip="h100", memory=int(0.76 * memory))[2]
    assert line not in said(chip="v5e", memory=int(0.9 * TPUS["v5e"].memory))


def test_what_is_sent_may_be_what_limits():
    assert said(sending=0.08)[-1].startswith("images/s at most: 800 (400 on each chip); 640 if")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="there is no libtpu")
def test_the_command_compiles_for_a_tpu_that_is_not_there():
    command = [sys.executable, "train.py", "--config", "tests/tiny.py", "--dry_run=compile"]
    command += ["--config.model.bn_group_size=2", "--topology", "v5e:2x4"]
    done = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "\nv5e:2x4: 8 TPU v5 lite on 2 hosts (jax " in done.stdout
    # Gradients alone: groups of two lie on one chip each.
    (count,) = re.findall(r"\n  all-reduce: (\d+), 0\.\d\d MB\n", done.stdout)
    assert int(count) <= 4
    (cycles,) = re.findall(r"\nestimated cycles: ([\d,]+), ", done.stdout)
    assert int(cycles.replace(",", "")) > 10_000
    assert re.search(r"\nimages/s at most: [\d,]+ \(", done.stdout)
