"""Checkpoints of which one file is damaged: never loaded wrongly, named and passed over."""

import logging
import os
import pathlib
import random
import shutil
from collections.abc import Iterator

import jax
import numpy as np

import tiny
from processes import saved_steps
from tasks import make_task
from training.plan import make_plan


def _flip(path: pathlib.Path, draw: random.Random):
    data = bytearray(path.read_bytes())
    bit = draw.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def _cut(path: pathlib.Path, draw: random.Random):
    os.truncate(path, draw.randrange(path.stat().st_size))


def _delete(path: pathlib.Path, _):
    path.unlink()


def _folder(path: pathlib.Path, _):
    path.unlink()
    path.mkdir()


def _link(path: pathlib.Path, _):
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def _other(path: pathlib.Path, draw: random.Random):
    path.write_bytes(draw.choice((b"[]", b"null", b"{}", b'{"top1": 99.0}', b"[" * 10_000)))


DAMAGES = {
    "a flipped bit": _flip,
    "cut short": _cut,
    "deleted": _delete,
    "replaced by a folder": _folder,
    "replaced by a dangling link": _link,
    "replaced by other bytes": _other,
}


def soak(whole: pathlib.Path, folder: pathlib.Path, times: int, seed: int) -> Iterator:
    """Damages each file of each checkpoint of a run of tests/tiny.py in each way.

    Args:
      whole: the run.
      folder: for copies.
      times: how often each file is damaged in a way that is drawn.
      seed: of what is drawn.

    Yields:
      `(damage, failure or None)`.
    """
    draw = random.Random(seed)
    plan = make_plan(tiny.get_config(), make_task, jax.devices()[:1])
    heard = _Heard()
    logger = logging.getLogger("absl")
    logger.addHandler(heard)
    logger.propagate = False  # hundreds of warnings that are meant
    source = whole / "checkpoints"
    states = {step: _load(plan, source, str(step)) for step in saved_steps(source)}
    for step in saved_steps(source):
        for path in sorted(path for path in (source / str(step)).rglob("*") if path.is_file()):
            for name, damage in DAMAGES.items():
                if path.stat().st_size == 0 and name in ("a flipped bit", "cut short"):
                    continue  # there is nothing in it
                drawn = name in ("a flipped bit", "cut short", "replaced by other bytes")
                for _ in range(times if drawn else 1):
                    copy = folder / "checkpoints"
                    shutil.copytree(source, copy)
                    damaged = copy / path.relative_to(source)
                    damage(damaged, draw)
                    changed = not damaged.is_file() or damaged.read_bytes() != path.read_bytes()
                    heard.texts.clear()
                    failure = _judge(plan, copy, step, states, heard.texts) if changed else None
                    yield name, failure and f"{path.relative_to(source)}: {failure}"
                    shutil.rmtree(copy)
    logger.removeHandler(heard)
    logger.propagate = True


class _Heard(logging.Handler):
    """Keeps the warnings."""

    def __init__(self):
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def _load(plan, folder, checkpoint) -> dict:
    return jax.tree.map(np.asarray, plan.restore(folder, checkpoint))


def _judge(plan, folder, step: int, states: dict, heard: list[str]) -> str | None:
    """What is wrong with how a damaged checkpoint is taken."""
    right = max(other for other in states if other != step)
    newest = step == max(states)
    try:
        # A run starts from the newest: of an old one it looks at what is to be the best.
        latest = _same(_load(plan, folder, "latest"), states)
        if latest != (right if newest else max(states)):
            return f"latest was {latest}"
        best = _same(_load(plan, folder, "best"), states)
        if best == step:
            return "the damaged one was loaded as the best"
        if best is None:
            return "arrays that were never saved were loaded as the best"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    looked_at = newest or any(f"step {step} " in text for text in heard)
    interrupted = any("interrupted" in text for text in heard)
    if looked_at and not interrupted and not any(f"{folder / str(step)}" in text for text in heard):
        return f"it was not named: {heard}"
    return None


def _same(state: dict, states: dict) -> int | None:
    """The step whose arrays these are."""
    for step, other in states.items():
        if jax.tree.all(jax.tree.map(np.array_equal, state, other)):
            return step
    return None
