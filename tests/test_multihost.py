"""Several processes as several hosts, of one device each: the same run as that of one process."""

import json
import signal
import sys
import time

import jax
import pytest
from PIL import Image

from photos import photo
from processes import (
    ON_FOLDER,
    addresses,
    after_step,
    end,
    finish_hosts,
    once,
    records,
    run,
    saved_shapes,
    saved_steps,
    start_command,
    start_hosts,
    state,
    untimed,
)

slow = pytest.mark.slow

# Steps of a run, and examples of an evaluation whose last batch is not full.
STEPS = {"tiny": 12, "tiny_detection": 6, "tiny_segmentation": 6}
EXAMPLES = {"tiny": 50, "tiny_detection": 20, "tiny_segmentation": 11}


def of(task):
    return {"config": f"tests/{task}.py"}


def assert_same(these, those):
    """Lines of two runs: the same masks to the last element, counts, and losses to 1e-4."""
    assert [r["step"] for r in these] == [r["step"] for r in those]
    difference = 0.0
    for this, that in zip(these, those, strict=True):
        assert not {name for name in this.keys() ^ that.keys() if not name.startswith("time/")}
        assert "train/loss" in that and any(name.startswith("kept/") for name in that)
        for name in that:
            if name.startswith(("kept/", "expected_kept/", "sched/", "eval/examples")):
                assert this[name] == that[name], (this["step"], name)
            elif name.endswith("loss"):
                # Sums over devices are taken in another order.
                assert this[name] == pytest.approx(that[name], rel=1e-4), (this["step"], name)
                difference = max(difference, abs(this[name] / that[name] - 1))
    print(f"losses differ by {difference:.1e} at most")


def numbers(found):
    """All numbers in what JSON holds, in order."""
    if isinstance(found, dict | list):
        parts = found.values() if isinstance(found, dict) else found
        return [number for part in parts for number in numbers(part)]
    return [found] if isinstance(found, int | float) else []


# --- Parts of all tasks in a row, in processes that are joined once.


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Seven pictures, and a file that is none."""

    def make(folder):
        for index in range(7):
            Image.fromarray(photo(28, 28, seed=index)).save(folder / f"{index}.png")
        (folder / "broken.png").write_bytes(b"no image")
        return ""

    return once(tmp_path_factory, "images", make)[0]


@pytest.fixture(scope="module")
def parts(tmp_path_factory, images):
    """Makes what tests/many_hosts.py leaves, of so many processes."""

    def make(count, *tasks):
        def start_all(folder):
            command = [sys.executable, "tests/many_hosts.py"]
            rest = [str(folder), str(images), *tasks]
            hows = ["false"] if count == 1 else addresses(count)
            return "\n".join(finish_hosts([start_command([*command, how, *rest]) for how in hows]))

        name = f"parts_{count}_{'_'.join(tasks)}"
        return once(tmp_path_factory, name, start_all)[0]

    return make


QUICK = ("tiny", "tiny_segmentation")


@pytest.mark.parametrize(
    ("count", "task", "together"),
    [
        *((2, task, QUICK) for task in QUICK),
        pytest.param(2, "tiny_detection", ("tiny_detection",), marks=slow),
        *(pytest.param(4, task, tuple(STEPS), marks=slow) for task in STEPS),
    ],
)
def test_many_processes_are_one(count, task, together, parts):
    one, many = parts(1, *together) / task, parts(count, *together) / task
    assert [r["step"] for r in records(many)] == [1, 2, 3]
    assert_same(records(many), records(one))

    (that,) = (json.loads(path.read_text()) for path in one.glob("found_*.json"))
    these = [json.loads(path.read_text()) for path in sorted(many.glob("found_*.json"))]
    assert len(these) == count
    assert that["evaluated"]["examples"] == EXAMPLES[task] and that["evaluated"]["step"] == 3
    for this in these:  # all decide by it
        assert this["evaluated"] == these[0]["evaluated"]
        assert this["evaluated"]["examples"] == EXAMPLES[task]
        assert this["evaluated"] == pytest.approx(that["evaluated"], rel=1e-4, abs=1e-6)
    if "predicted" in that:
        counts = {"images": 7, "skipped": 1}
        assert all(this["predicted"] == counts for this in (*these, that))
        this, that = (  # which process 0 writes
            json.loads((workdir / "predicted" / "predictions.json").read_text())
            for workdir in (many, one)
        )
        assert len(this["images"]) == 7 and len(this["skipped"]) == 1
        assert this["skipped"] == that["skipped"]
        files = [[image["file_name"] for image in found["images"]] for found in (this, that)]
        assert files[0] == files[1]
        assert numbers(this) == pytest.approx(numbers(that), rel=1e-3, abs=1e-3)

    def left(workdir):
        paths = (path.relative_to(workdir) for path in workdir.rglob("*") if path.is_file())
        kept = {path for path in paths if path.parts[0] not in ("checkpoints", "tensorboard")}
        return {str(path) for path in kept if not path.name.startswith("found_")}

    assert left(many) == left(one)


# --- Whole runs by the command.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undisturbed runs of a task in so many processes."""

    def make(task, count):
        def train(folder):
            if count == 1:
                return run(folder, **of(task))
            return "\n".join(finish_hosts(start_hosts(folder, count, **of(task))))

        return once(tmp_path_factory, f"{task}_in_{count}", train)[0]

    return make


@slow
def test_a_whole_run_is_that_of_one_process_and_stays_finished(whole):
    one, many = whole("tiny", 1), whole("tiny", 2)
    assert_same(records(many), records(one))
    evaluated = [r["step"] for r in records(many) if r.get("eval/examples") == 50]
    assert evaluated == [6, 12]
    assert json.loads((many / "result.json").read_text())["devices"].startswith("2 x")
    before = records(many)
    finish_hosts(start_hosts(many, 2, **of("tiny")))
    assert records(many) == before


@slow
@pytest.mark.parametrize(
    ("task", "before", "after"),
    [("tiny", 4, 1), ("tiny", 1, 4), ("tiny_detection", 4, 1), ("tiny_segmentation", 1, 4)],
)
def test_another_number_of_processes_goes_on(task, before, after, whole, tmp_path):
    processes = start_hosts(tmp_path, before, **of(task))
    after_step(processes[0], tmp_path, 2)
    processes[-1].send_signal(signal.SIGTERM)
    finish_hosts(processes, code=143)
    saved = saved_steps(tmp_path / "checkpoints")[-1]
    assert saved < STEPS[task]
    out = finish_hosts(start_hosts(tmp_path, after, **of(task)))[0]
    assert f"going on from step {saved} of {STEPS[task]}" in out
    assert_same(records(tmp_path), records(whole(task, 1)))


@slow
def test_a_state_cut_over_processes_is_that_of_one_and_goes_on_whole(tmp_path):
    wide = "--config.model.width_multiplier=0.125"  # whose largest kernels are cut
    one, many = tmp_path / "one", tmp_path / "many"
    run(one, wide)
    processes = start_hosts(many, 2, wide, "--config.shard_state")
    after_step(processes[0], many, 5)
    processes[1].send_signal(signal.SIGTERM)
    finish_hosts(processes, code=143)
    saved = saved_steps(many / "checkpoints")[-1]
    arrays = jax.tree.leaves(saved_shapes(many, saved))
    assert any("data" in array.sharding_metadata.partition_spec for array in arrays)
    assert f"going on from step {saved} of" in run(many, wide)
    assert_same(records(many), records(one))


@slow
@pytest.mark.parametrize(
    ("task", "count", "number", "to"),
    [
        ("tiny", 2, signal.SIGTERM, [1]),
        ("tiny", 2, signal.SIGINT, [0]),
        ("tiny_detection", 2, signal.SIGTERM, [0, 1]),
        ("tiny_segmentation", 4, signal.SIGTERM, [0, 1, 2, 3]),
    ],
)
def test_a_signal_stops_all_and_changes_nothing(task, count, number, to, whole, tmp_path):
    processes = start_hosts(tmp_path, count, **of(task))
    after_step(processes[0], tmp_path, 2)
    began = time.monotonic()
    for index in to:
        processes[index].send_signal(number)
    outputs = finish_hosts(processes, code=143)
    seconds = time.monotonic() - began
    print(f"{seconds:.1f} s to stop")
    assert seconds < 30 and "is saved" in outputs[0]
    assert records(tmp_path)[-1]["step"] < STEPS[task]
    outputs = finish_hosts(start_hosts(tmp_path, count, **of(task)))
    assert "going on from step" in outputs[0]
    assert untimed(tmp_path) == untimed(whole(task, count))
    assert state(tmp_path, STEPS[task]) == state(whole(task, count), STEPS[task])


@slow
@pytest.mark.parametrize(
    ("task", "count", "victim"),
    [
        ("tiny", 2, 0),
        ("tiny", 2, 1),
        ("tiny_detection", 2, 1),
        ("tiny_segmentation", 4, 2),
    ],
)
def test_none_waits_for_the_dead(task, count, victim, whole, tmp_path):
    processes = start_hosts(tmp_path, count, **of(task))
    after_step(processes[0], tmp_path, 2)
    began = time.monotonic()
    processes[victim].kill()
    processes[victim].communicate()
    survivors = {index: process for index, process in enumerate(processes) if index != victim}
    try:
        outputs = {index: end(process) for index, process in survivors.items()}
    finally:
        for process in survivors.values():
            process.kill()
    seconds = time.monotonic() - began
    print(f"{seconds:.1f} s to stop")
    assert seconds < 30
    # Of three and more Gloo may abort one before it has said anything: docs/scaling.md.
    aborted = [i for i, process in survivors.items() if process.returncode == -signal.SIGABRT]
    assert count > 2 or not aborted
    for index in survivors.keys() - aborted:
        assert survivors[index].returncode == 1
        last = outputs[index][1].splitlines()[-1]
        assert any(
            f"error: process {died} of {count} has died" in last for died in (victim, *aborted)
        )
    finish_hosts(start_hosts(tmp_path, count, **of(task)))
    assert untimed(tmp_path) == untimed(whole(task, count))
    assert state(tmp_path, STEPS[task]) == state(whole(task, count), STEPS[task])


@slow
@pytest.mark.parametrize("broken", [0, 1])
def test_what_one_host_cannot_read_ends_all(broken, tmp_path):
    for host in (0, 1):
        for index in range(24):
            for split in ("train", "val"):
                folder = tmp_path / f"host{host}" / split / "ab"[index % 2]
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(photo(28, 28, seed=index)).save(folder / f"{index}.png")
    # But for the first, which is looked at before the run begins.
    for path in (tmp_path / f"host{broken}" / "train").rglob("*[1-9].png"):
        path.write_bytes(b"no image")
    arguments = [
        f"--config.data.dir={tmp_path}/hostINDEX",
        *ON_FOLDER,
        "--config.data.num_threads=0",
    ]
    began = time.monotonic()
    outputs = finish_hosts(start_hosts(tmp_path / "run", 2, *arguments), code=2)
    print(f"{time.monotonic() - began:.1f} s")
    own, other = outputs[broken].splitlines()[-1], outputs[1 - broken].splitlines()[-1]
    assert own.startswith(f"error: {tmp_path}/host{broken}/train/")
    assert other == f"error: process {broken} has stopped: {own.removeprefix('error: ')}"


@slow
def test_another_config_and_another_folder_are_refused(tmp_path):
    outputs = finish_hosts(start_hosts(tmp_path, 2, "--config.seed=INDEX"), code=2)
    assert "process 1 has another config than process 0 (seed was 0, is 1)" in outputs[1]
    assert "process 1 has stopped: process 1 has another config" in outputs[0]
    arguments = ("--checkpoint_dir", f"{tmp_path}/INDEX")
    outputs = finish_hosts(start_hosts(tmp_path / "run", 2, *arguments), code=2)
    assert all("give a --checkpoint_dir that all hosts share" in output for output in outputs)
