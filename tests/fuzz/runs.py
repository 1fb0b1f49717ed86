"""Broken files of a run: config.json, metrics.jsonl, and what lies beside a checkpoint's arrays."""

import functools
import json
import random
import re
import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import tiny
from fuzz.cases import READ, SKIPPED, Case, Wrong, warnings_of
from fuzz.damage import damaged, mutated
from tasks import make_task
from training import config as config_lib
from training.checkpoints import Checkpoints
from training.config import ConfigError
from training.logging import MetricsLog
from training.plan import make_plan


def config(rng: random.Random, folder: Path) -> Case:
    """A config.json, up to the plan of a run that is evaluated by it."""
    path = folder / "config.json"
    tree = json.loads(config_lib.to_json(tiny.get_config()))
    data = mutated(rng, tree).encode()
    if rng.random() < 0.3:
        data = damaged(rng, config_lib.to_json(tiny.get_config()).encode())
    path.write_bytes(data)

    def read() -> str:
        found = config_lib.from_json(path)
        if _plain(found.to_dict()) != _plain(json.loads(data)):
            raise Wrong("the config has other fields than the file")
        try:
            with config_lib.fields_are_there():  # as within every command
                make_plan(found, make_task, jax.devices()[:1], train=False, evaluate=False)
        except ConfigError as error:
            # What a field may be is said by its name: the file is that of --workdir.
            raise ConfigError(f"{path}: {error}") from error
        return READ

    return Case(read, (str(path),))


def _plain(tree: dict) -> str:
    """Without what JSON does not tell apart; NaN is as good as itself."""
    return json.dumps(tree, sort_keys=True)


def metrics(rng: random.Random, folder: Path) -> Case:
    """A metrics.jsonl that a run goes on with: no good line may be lost without a word."""
    path = folder / "metrics.jsonl"
    records = [
        {"step": step, "epoch": step / 4, "time/seconds": step / 2, "train/loss": 1 / step}
        for step in range(1, 7)
    ]
    lines = [json.dumps(record).encode() for record in records]
    bad, way = rng.randrange(6), rng.randrange(6)
    if way < 2:
        lines[bad] = mutated(rng, records[bad]).encode()
    elif way < 4:
        lines[bad] = damaged(rng, lines[bad])
    elif way == 4:
        lines.insert(bad, rng.choice((b"", b"null", b"[]", b"\xff", b"{", lines[0], b"[" * 5000)))
    data = b"\n".join(lines) + b"\n"
    if way == 5:
        data = damaged(rng, data)
    path.write_bytes(data)
    shutil.copy(path, folder / "before")

    def read() -> str:
        with warnings_of() as messages:
            log = MetricsLog(folder, 6)
            log.close()
        if way < 5:  # all lines but one are as they were
            kept = [r for i, r in enumerate(records) if i != bad or way == 4]
            if not all(record in log.records for record in kept):
                raise Wrong(f"lines are lost: steps {[r.get('step') for r in log.records]}")
        steps = [record["step"] for record in log.records]
        if steps != sorted(set(steps)) or any(type(step) is not int for step in steps):
            raise Wrong(f"steps {steps}")
        written = [json.loads(line) for line in path.read_bytes().splitlines()]
        if written != log.records and not any(r != r for r in map(str, written)):
            raise Wrong("the file has other records than the log")
        told = any(str(path) in message for message in messages)
        if told:
            asides = [p for p in folder.glob("metrics*") if p.read_bytes() == data]
            if not asides:
                raise Wrong("what was damaged is not kept")
        lines_of_now = len([line for line in data.split(b"\n") if line.strip()])
        cut = not data.endswith(b"\n")  # the last line, which a kill may have cut short
        if not told and len(log.records) < lines_of_now - cut:
            raise Wrong(f"{lines_of_now - len(log.records)} lines are lost without a word")
        return SKIPPED if told else READ

    return Case(read, (str(path),))


def checkpoint(rng: random.Random, folder: Path) -> Case:
    """A file beside the arrays of a checkpoint, of the newest, the best, or another."""
    shutil.copytree(_whole(), folder, dirs_exist_ok=True)
    step = rng.choice((1, 2, 3))
    files = [p for p in sorted((folder / str(step)).rglob("*")) if p.is_file()]
    file = rng.choice([p for p in files if p.stat().st_size < 4000 and "/d/" not in str(p)])
    data = file.read_bytes()
    if rng.random() < 0.5:
        try:
            data = mutated(rng, json.loads(data)).encode()
        except (ValueError, TypeError, AttributeError):
            data = damaged(rng, data)
    else:
        data = damaged(rng, data)
    before = file.read_bytes()
    file.unlink()
    if rng.random() < 0.8:
        file.write_bytes(data)
    elif rng.random() < 0.5:
        (file.symlink_to if rng.random() < 0.5 else lambda _: file.mkdir())("nowhere")
    same = file.is_file() and file.read_bytes() == before

    def read() -> str:
        with warnings_of() as messages, Checkpoints(folder, keep=None, best_metric="top1") as c:
            state = c.restore(_abstract())
            found, best = int(state["step"]), c.best
        if not np.array_equal(state["w"], np.full((4, 4), float(found))):
            raise Wrong(f"step {found} has {state['w'][0, 0]}")
        if found not in (3, 2 if step == 3 else 3):
            raise Wrong(f"step {found} is restored, where {step} is damaged")
        # The best is that of step 2, else of the next.
        if best not in ((2,) if step != 2 or same else (2, 3)):
            raise Wrong(f"the best is step {best}, where {file.name} of {step} is damaged")
        told = any(re.search(rf"\b{step}\b", message) for message in messages)
        if found != 3 and not told:
            raise Wrong(f"step 3 is passed over; the warnings say {messages}")
        return SKIPPED if found != 3 else READ

    return Case(read, (str(folder), str(file)))


def _state(step: int) -> dict:
    return {"step": jnp.int32(step), "w": jnp.full((4, 4), float(step))}


def _abstract() -> dict:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _state(0)
    )


@functools.cache
def _whole() -> Path:
    """Checkpoints of steps 1 to 3, the second with the best metric."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-checkpoints-"))
    with Checkpoints(folder, keep=5, best_metric="top1") as checkpoints:
        for step, top1 in ((1, 10.0), (2, 30.0), (3, 20.0)):
            checkpoints.save(step, _state(step), {"top1": top1})
    return folder
