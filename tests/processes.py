"""Starting the commands of this repository in processes of their own, and what their runs leave."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

ROOT = pathlib.Path(__file__).parent.parent
TINY = "tests/tiny.py"
# Of a folder of colour images, whose place is said besides.
ON_FOLDER = [
    "--config.data.name=image_folder",
    "--config.data.train_split=train",
    "--config.data.eval_split=val",
    "--config.data.channels=3",
    "--config.data.mean=(0.5,0.5,0.5)",
    "--config.data.std=(0.25,0.25,0.25)",
]


def start(
    workdir, *arguments, config=TINY, script="train.py", devices=1, optimized=False, before=()
):
    """Starts `python train.py`, compiling lightly, or as its users do."""
    command = [sys.executable, script, *before, "--workdir", str(workdir)]
    if script == "train.py":
        command += ["--config", config]
    return start_command(command + list(arguments), devices=devices, optimized=optimized)


def start_command(command, *, devices=1, optimized=False):
    """Starts any command, compiling lightly, or as users do."""
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "COLUMNS": "200",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",  # whose configs import each other
    }
    if optimized:
        # What conftest.py has set goes too.
        for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"):
            environment.pop(name, None)
    else:
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def end(process, timeout=600):
    """Waits for a process; returns what it printed, and its errors."""
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"it hangs:\n{process.communicate()}") from None


def finish(process, code=0, timeout=300):
    """Waits for a process; returns its output, if it ended with `code`."""
    out, err = end(process, timeout)
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    return out + err


def run(workdir, *arguments, code=0, **options):
    return finish(start(workdir, *arguments, **options), code)


def evaluated(workdir, *arguments, **options) -> dict:
    """The JSON that `evaluate.py` prints; its errors and how far it is go elsewhere."""
    process = start(workdir, *arguments, script="evaluate.py", **options)
    out, err = end(process)
    assert process.returncode == 0, err
    return json.loads(out)


def addresses(count):
    """What --multihost says to each of `count` processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [f"127.0.0.1:{port},{count},{index}" for index in range(count)]


def start_hosts(workdir, count, *arguments, **options):
    """Starts `count` processes of one run; INDEX in an argument is the process's."""
    return [
        start(
            workdir,
            f"--multihost={address}",
            *(argument.replace("INDEX", str(index)) for argument in arguments),
            **options,
        )
        for index, address in enumerate(addresses(count))
    ]


def finish_hosts(processes, code=0):
    """Waits for all; returns the output of each, if they ended with `code`."""
    try:
        return [finish(process, code, timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()


def after_step(process, workdir, step):
    """Waits until a run has logged a step and saved something."""
    metrics = workdir / "metrics.jsonl"
    while process.poll() is None:
        logged = metrics.read_text().count("\n") if metrics.exists() else 0
        if logged >= step and list(workdir.glob("checkpoints/*/manifest.json")):
            return
        time.sleep(0.01)
    raise AssertionError(f"ended with {process.returncode}\n{process.communicate()}")


def once(tmp_path_factory, name, make):
    """Calls `make(folder)` in one of pytest's workers; returns the folder, and its text, in all.

    A fixture of any scope is made anew by each worker, and again when a module is returned to.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done, failed = (root / f"{name}{suffix}" for suffix in ("", ".done", ".failed"))
    try:
        folder.mkdir()
    except FileExistsError:
        while not done.exists():
            assert not failed.exists(), f"{name} has failed before"
            time.sleep(0.1)
    else:
        try:
            text = make(folder)
        except BaseException:
            failed.touch()
            raise
        draft = done.with_suffix(".draft")
        draft.write_text(text)
        draft.rename(done)
    return folder, done.read_text()


class StopsAt:
    """In the place of StopSignals: SIGTERM comes before the n-th time that it is asked."""

    def __init__(self, n):
        self.left = n

    def received(self):
        self.left -= 1
        return signal.SIGTERM if self.left <= 0 else 0


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def untimed(workdir):
    """All lines but for how long they took."""
    return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in records(workdir)]


def saved_steps(checkpoints) -> list[int]:
    """The steps that a folder of checkpoints has, in order."""
    return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())


def saved_shapes(workdir, step):
    """What a checkpoint says of every array: its shape, and how it lay on the devices."""
    path = workdir / "checkpoints" / str(step)
    return ocp.metadata(path, checkpointable_name="state").metadata


def arrays(workdir, step):
    """Every array of a checkpoint, by its path."""
    path = workdir / "checkpoints" / str(step)
    # Whatever devices they were on, of this process or of many.
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), saved_shapes(workdir, step)
    )
    tree = ocp.load(path, shapes, checkpointable_name="state")
    return {
        jax.tree_util.keystr(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def state(workdir, step):
    """The bytes of every array of a checkpoint."""
    return {name: array.tobytes() for name, array in arrays(workdir, step).items()}
