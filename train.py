"""Trains what a config describes.

    python train.py --config configs/mnist_resnet.py --workdir runs/mnist
    python train.py --config configs/imagenet_resnet50.py:dropblock --dry_run

The same command goes on with a run that was stopped. Exit codes: 0 done, 2 bad input, 3 diverged,
143 pre-empted after saving.
"""

import contextlib
import json
import pathlib
import time

import jax
from absl import flags
from ml_collections import config_flags

from inputs.images import DataError
from tasks import make_task
from training import config as config_lib
from training import logging as log_lib
from training import memory, multihost, plots, pretrained, sharding, telemetry
from training.checkpoints import Checkpoints
from training.dry_run import dry_run
from training.evaluation import make_evaluate
from training.plan import make_plan
from training.preemption import StopSignals
from training.result import make_result, report
from training.state import variables

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with :variant after it.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run. Default: runs/<config>.")
_CHECKPOINT_DIR = flags.DEFINE_string(
    "checkpoint_dir", None, "Where checkpoints go, may be a bucket. Default: WORKDIR/checkpoints."
)
_ALLOW_CHANGE = flags.DEFINE_bool(
    "allow_config_change", False, "Go on with the run in the workdir though the config differs."
)
_DRY_RUN = flags.DEFINE_flag(
    flags.Flag(
        flags.EnumParser(["false", "true", "compile"]),
        None,
        "dry_run",
        "false",
        "Build everything by shape, print it, and stop; --dry_run=compile also compiles.",
        boolean=True,  # so that the bare flag means "true"
    )
)
flags.mark_flag_as_required("config")


def main(_) -> int:
    multihost.initialize()
    if _DRY_RUN.value != "false":
        dry_run(_CONFIG.value, make_task, compile_step=_DRY_RUN.value == "compile")
        return 0
    memory.keep_freed()
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    return train(
        _CONFIG.value,
        pathlib.Path(_WORKDIR.value or f"runs/{pathlib.Path(name.split(':')[0]).stem}"),
        checkpoint_dir=_CHECKPOINT_DIR.value,
        allow_config_change=_ALLOW_CHANGE.value,
    )


def train(config, workdir, *, checkpoint_dir=None, allow_config_change=False) -> int:
    """Trains to the end of the config, from the last checkpoint if there is one.

    Args:
      config: see `configs/defaults.py`; what is found of the data is written into it.
      workdir: folder of the run; what it holds is in the README.
      checkpoint_dir: where the checkpoints, and their config, go if not into the workdir.
      allow_config_change: go on with a run that was begun with another config.

    Returns:
      0 when done, 128 + the signal's number when stopped by one, after saving.

    Raises:
      ConfigError, DataError: bad input; raised before anything is compiled, but for examples
        that turn out to be unreadable.
      Diverged: a loss or gradient is not finite; the last checkpoint is good.
    """
    began = time.monotonic()
    lead = jax.process_index() == 0

    # --- Everything that can be wrong is found here, by shape, before the first compile.
    plan = make_plan(config, make_task)
    task, total_steps = plan.task, plan.total_steps
    mesh = sharding.make_mesh()
    sharding.check_batch(mesh, config.batch_size, config.accumulate)
    config.data.update(task.facts)  # for evaluate.py, and to notice data that has changed
    # A run that has logged or saved nothing yet has nothing to lose by another config.
    checking = lead and not allow_config_change
    if checking and (workdir / "metrics.jsonl").exists():
        config_lib.check_same(workdir, config)

    train_step = plan.train_step(mesh)
    evaluate = make_evaluate(plan, mesh)
    eval_every = max(round(config.eval_every_epochs * plan.steps_per_epoch), 1)
    key = jax.random.key(config.seed)

    def evaluating_at(step):
        return step == total_steps or step % eval_every == 0

    with contextlib.ExitStack() as stack:
        # --- The state: the latest whole checkpoint, or a new one.
        stop = stack.enter_context(StopSignals())
        checkpoints = stack.enter_context(
            Checkpoints(
                checkpoint_dir or workdir / "checkpoints",
                keep=config.keep_checkpoints,
                best_metric=task.best_metric,
            )
        )
        if checkpoints.steps and checking:
            config_lib.check_same(checkpoints.directory, config)
        state = checkpoints.restore(plan.abstract_state(mesh))
        backbone = None
        if state is None and config.get("pretrained") is not None:
            backbone = pretrained.load_backbone(plan, make_task, mesh)
        if lead:  # not before the restore: it may find that the config is of another model
            for folder in (workdir, checkpoints.directory):
                config_lib.write(folder / "config.json", config_lib.to_json(config))
        if state is None:
            state = jax.jit(plan.create, out_shardings=sharding.replicated(mesh))(key)
            if backbone is not None:
                state = pretrained.with_backbone(state, backbone)
        first = int(state["step"])
        log = stack.enter_context(contextlib.closing(log_lib.MetricsLog(workdir, first)))
        progress = stack.enter_context(log_lib.Progress(total_steps, first, config.batch_size))
        if first:
            progress.print(f"going on from step {first} of {total_steps}")
        best = checkpoints.best_value(until=first)
        # Of the whole run: what was before the last line counts, what a kill undid does not.
        before = log.records[-1]["time/seconds"] if log.records else 0.0

        def seconds():
            return before + time.monotonic() - began

        def evaluated_at(step, state):
            """The metrics of an evaluation, None where a stop signal cuts it short."""
            evaluation = evaluate(variables(state), key, stop.received)
            if evaluation is None:
                return None
            if lead:
                path = workdir / "plots" / "examples.png"
                plots.save_figure(evaluation.picture, path)
                log.picture("examples", path, step)
                for name, text in evaluation.files.items():
                    config_lib.write(workdir / name, text)
            return evaluation.metrics

        # --- A stop signal saves at once: the evaluation that was due at that step is made up for.
        # (And so is that of a finished run whose checkpoints alone are left.)
        lost = first == total_steps and not log.records
        owed = first > 0 and evaluating_at(first) and (lost or not checkpoints.evaluated(first))
        if owed:
            evaluated = evaluated_at(first, state)
            if evaluated is None:
                return 128 + stop.received()
            best = max(best, evaluated[task.best_metric])
            record = {"step": first, "epoch": first / plan.steps_per_epoch}
            record |= _eval_fields(evaluated) | {"time/seconds": seconds()}
            log.write(record)
            progress.log(record)
            log.flush()
            checkpoints.save(first, state, evaluated)
        watch = telemetry.SiteWatch()
        batches = task.train_batches(
            start_step=first, rows=sharding.local_rows(mesh, config.batch_size)
        )
        pending = None
        # Unreadable examples that process 0 passed over since it was started. (The others name
        # theirs in warnings; a total over restarts would have to be part of the state.)
        skipped = 0

        # --- The loop. THE ORDER MATTERS: a step's loss and gradient norm are read and found
        # finite, then its line is on the disk, then its checkpoint is committed. So a checkpoint
        # never holds a diverged state, and no logged step is lost or written twice.
        for step in range(first + 1, total_steps + 1):
            batch = next(batches)
            skipped += int(batch.pop("skipped").sum())
            state, metrics = train_step(state, sharding.put_batch(mesh, batch), key)
            # Metrics are read one step late, so that the devices need not wait for the host.
            if pending is not None:
                telemetry.read(*pending, watch)
            pending = step, metrics
            progress.step(step)

            last = step == total_steps
            stopping = stop.received()
            logging = step % config.log_every_steps == 0
            evaluating = evaluating_at(step)
            saving = last or stopping or step % config.checkpoint_every_steps == 0
            if not (logging or evaluating or saving):
                continue

            metrics = telemetry.read(*pending, watch)
            pending, evaluated = None, None
            record: dict[str, float] = {"step": step, "epoch": step / plan.steps_per_epoch}
            record |= telemetry.flat(metrics, task)
            record["data/skipped_since_start"] = skipped
            record["time/images_per_second"] = progress.images_per_second(step)
            if evaluating and not stopping:
                evaluated = evaluated_at(step, state)
                stopping = stop.received()
                saving = saving or stopping
            if evaluated is not None:
                record |= _eval_fields(evaluated)
                saving = saving or evaluated[task.best_metric] >= best
                best = max(best, evaluated[task.best_metric])
            if logging or evaluating:
                record["time/seconds"] = seconds()
                log.write(record)
                progress.log(record)
            if saving:
                log.flush()
                checkpoints.save(step, state, evaluated)
            progress.resume(step)
            if stopping:
                progress.print(f"stopped by signal {stopping}; step {step} is saved")
                return 128 + stopping

        # --- The end.
        checkpoints.finish()
        records = log.records
    if lead:
        plots.save_figure(plots.curves(records), workdir / "plots" / "curves.png")
        path = workdir / "result.json"
        if first == total_steps and not owed and path.exists():  # nothing was done: it stands
            result = json.loads(path.read_text())
        else:
            result = make_result(records, task.best_metric)
            config_lib.write(path, json.dumps(result, indent=2) + "\n")
        print(report(result, workdir))
    return 0


def _eval_fields(evaluated: dict) -> dict:
    return {f"eval/{name}": value for name, value in evaluated.items()}


if __name__ == "__main__":
    config_lib.run(main, DataError)
