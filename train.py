"""Trains what a config describes.

    python train.py --config configs/mnist_resnet.py --workdir runs/mnist
    python train.py --config configs/imagenet_resnet50.py:dropblock --dry_run
    python train.py --config configs/imagenet_resnet50.py --dry_run=compile --topology v5e:2x4

The same command goes on with a run that was stopped. Exit codes: 0 done, 2 bad input, 3 diverged,
4 the disk is full or cannot be written to, 143 stopped by SIGTERM after saving (130 by Ctrl-C).
"""

import contextlib
import functools
import itertools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from inputs import bad, memory
from inputs.found import as_json
from inputs.images import DataError
from tasks import make_task
from training import compilation, hardware, init_from, multihost, plots, telemetry
from training import config as config_lib
from training import logging as log_lib
from training.config import ConfigError, Diverged
from training.dry_run import dry_run
from training.evaluation import Evaluation, make_evaluate
from training.files import write
from training.plan import Plan, make_plan
from training.profiling import Trace
from training.result import make_result, report
from training.result import read as read_result
from training.state import variables
from training.stopping import StopSignals
from training.timing import Timing


def main():
    """The command: its flags, and what they say."""
    config = config_flags.DEFINE_config_file("config", None, "Config file, with :variant after it.")
    workdir = flags.DEFINE_string("workdir", None, "Folder of the run. Default: runs/<config>.")
    checkpoint_dir = flags.DEFINE_string(
        "checkpoint_dir",
        None,
        "Where checkpoints go, may be a bucket. Default: WORKDIR/checkpoints.",
    )
    allow_change = flags.DEFINE_bool(
        "allow_config_change", False, "Go on with the run in the workdir though the config differs."
    )
    dry = flags.DEFINE_flag(
        config_lib.optional_value(
            "dry_run",
            ["compile"],
            "Build everything by shape, print it, and stop; --dry_run=compile also compiles.",
        )
    )
    topology = flags.DEFINE_string(
        "topology", None, f"What --dry_run=compile is for, though it is not here: {hardware.HELP}."
    )
    profile = flags.DEFINE_bool(
        "profile",
        False,
        "Trace a few steps into WORKDIR/profile, for TensorBoard's or XProf's viewer.",
    )
    hosts = flags.DEFINE_flag(config_lib.optional_value("multihost", None, multihost.HELP))
    flags.mark_flag_as_required("config")

    def command(_) -> int:
        multihost.initialize(hosts.value)
        if topology.value is not None and dry.value != "compile":
            raise ConfigError("--topology is for --dry_run=compile: what is not here cannot train")
        if dry.value != "false":
            there = hardware.topology(topology.value) if topology.value is not None else None
            dry_run(
                config.value,
                make_task,
                jax.devices() if there is None else there.devices,
                compile_step=dry.value == "compile",
                topology=there,
            )
            return 0
        memory.keep_freed()
        name = config_flags.get_config_filename(flags.FLAGS["config"])
        run = pathlib.Path(workdir.value or f"runs/{pathlib.Path(name.split(':')[0]).stem}")
        compilation.keep_compiled(run.parent)
        return train(
            config.value,
            run,
            checkpoint_dir=checkpoint_dir.value,
            allow_config_change=allow_change.value,
            profile=profile.value,
        )

    config_lib.run(command, DataError, leave=multihost.leave)


def train(config, workdir, *, checkpoint_dir=None, allow_config_change=False, profile=False) -> int:
    """Trains to the end of the config, from the last checkpoint if there is one.

    Args:
      config: see `configs/defaults.py`; what is found of the data is written into it.
      workdir: folder of the run; what it holds is in the README.
      checkpoint_dir: where the checkpoints, and their config, go if not into the workdir.
      allow_config_change: go on with a run that was begun with another config.
      profile: trace a few steps into `workdir/profile`, see `training/profiling.py`.

    Returns:
      0 when done, 128 + the signal's number when stopped by one, after saving.

    Raises:
      ConfigError, DataError: bad input; raised before anything is compiled, but for examples
        that turn out to be unreadable.
      Diverged: a loss or gradient is not finite; the last checkpoint is good.
      WriteError: something cannot be written; the checkpoints before it are good.
    """
    began = time.monotonic()
    lead = jax.process_index() == 0

    # --- Everything that can be wrong is found here, by shape, before the first compile.
    if lead:
        print("opening the data and building the network", flush=True)
    init_from.settle(config)
    with bad.listed_in(workdir / bad.FILE):
        plan = make_plan(config, make_task, jax.devices())
    task, total_steps, eval_every = plan.task, plan.total_steps, plan.eval_every
    if lead:
        warnings = [f"warning: {said}" for said in plan.quiet_settings]
        print(task.data_found, *warnings, sep="\n", flush=True)
    config.data.update(task.facts)  # for evaluate.py, and to notice data that has changed
    multihost.hold_config_to_process_0(config)
    hold_to_config = lead and not allow_config_change
    # A run that has logged or saved nothing yet has nothing to lose by another config.
    changed = []
    if hold_to_config and (workdir / "metrics.jsonl").exists():
        changed = config_lib.check_same(workdir, config)

    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(log_lib.Progress(total_steps, batch_size=config.batch_size))
        # --- The state: the latest whole checkpoint, or a new one.
        stop = stack.enter_context(StopSignals(jax.process_count()))
        checkpoints = stack.enter_context(
            plan.checkpoints(
                checkpoint_dir or workdir / "checkpoints", keep=config.keep_checkpoints
            )
        )
        multihost.check_shared(checkpoints.directory)
        if hold_to_config and checkpoints.steps:
            changed = config_lib.check_same(checkpoints.directory, config)
        state = None
        if checkpoints.steps:
            with progress.doing("reading the last checkpoint"):
                state = checkpoints.restore(plan.abstract_state)
        if state is None:
            with progress.doing("initialising the network"):
                state = _new_state(plan, progress.print)
        if lead:  # not before the restore: it may find that the config is of another model
            for folder in (workdir, checkpoints.directory):
                write(folder / "config.json", config_lib.to_json(config))
            write(
                workdir / "data.json", json.dumps(as_json(task.found, task.class_names), indent=1)
            )
            task.skipped.keep_in(workdir / bad.FILE)
            if task.skipped.total:
                progress.print(task.skipped.total)
        first = int(state["step"])
        log = stack.enter_context(contextlib.closing(log_lib.MetricsLog(workdir, first)))
        stack.push(functools.partial(_draw_curves, log, workdir, task.best_metric))
        progress.begin(first)
        if first:
            progress.print(f"going on from step {first} of {total_steps}")
            if changed:
                progress.print(f"with another setting: {'; '.join(changed)}")
        # Of the whole run: what was before the last line counts, what a kill undid does not.
        began -= log.records[-1]["time/seconds"] if log.records else 0.0
        # A stop signal saves at once: the evaluation that was due at that step is made up for. (And
        # so is that of a finished run whose checkpoints are left, but not its line in the log.)
        lost = first == total_steps and multihost.from_process_0(
            lambda: not log.evaluated(first, task.best_metric)
        )
        evaluated = first == 0 or (checkpoints.evaluated(first) and not lost)
        evaluate = make_evaluate(plan, compiling=progress.compiling, tell=progress.evaluating)
        watch, timing = telemetry.SiteWatch(), Timing(config.batch_size)
        trace = stack.enter_context(
            Trace(workdir / "profile" if profile else None, first, progress.print)
        )
        best = checkpoints.best_value
        batches = task.train_batches(start_step=first, rows=plan.rows)
        if first < total_steps:
            with progress.doing("reading the first batch"):
                batches = itertools.chain([next(batches)], batches)  # the next are read meanwhile
            with progress.compiling("the training step"):
                train_step = plan.compiled_train_step
        pending: Any = None  # the last step's metrics, while they are not read
        # Unreadable examples that process 0 passed over since it was started. (The others name
        # theirs in warnings; a total over restarts would have to be part of the state.)
        skipped = 0

        timing.start(first)
        # --- The loop: what is due after `step` steps, then the next one. THE ORDER MATTERS: a
        # step's loss and gradient norm are read and found finite, then its line is on the disk,
        # then its checkpoint is committed. So a checkpoint never holds a diverged state, and no
        # logged step is lost or written twice.
        for step in range(first, total_steps + 1):
            last, new = step == total_steps, step > first  # else it was saved by another process
            stopping = new and stop.received()
            logging = new and step % config.log_every_steps == 0
            saving = new and (last or stopping or step % config.checkpoint_every_steps == 0)
            evaluating = (new or not evaluated) and (last or step % eval_every == 0)
            if logging or saving or evaluating:
                record: dict[str, float] = {"step": step, "epoch": step / plan.steps_per_epoch}
                if new:
                    with timing.waiting("devices"):
                        metrics = telemetry.read(step, pending, watch)
                    record |= telemetry.flat(metrics, task) | timing.record(step)
                    record["data/skipped_since_start"] = skipped
                    pending = None
                evaluation = None
                if evaluating and not stopping:
                    with progress.doing("evaluating", again=True):
                        evaluation = evaluate(variables(state), stopping=stop.received)
                        if evaluation is not None:
                            record |= _keep(evaluation, workdir, log, step)
                    stopping = stop.received()
                    saving = saving or (new and stopping)
                if evaluation is not None:
                    value = evaluation.metrics[task.best_metric]
                    saving = saving or not new or value >= best
                    best = max(best, value)
                if logging or evaluation is not None or (new and evaluating):
                    record["time/seconds"] = time.monotonic() - began
                    log.write(record)
                    progress.log(record)
                if saving:
                    with progress.doing("saving", again=True):
                        log.flush()
                        checkpoints.save(step, state, evaluation and evaluation.metrics)
                timing.start(step)
            if stopping:
                checkpoints.finish()
                progress.print(f"stopped by signal {stopping}; step {step} is saved")
                return 128 + stopping
            if last:
                break

            with timing.stopped():  # writing a trace takes seconds
                named = trace.step(step, state)
            with named:
                with timing.waiting("data"):
                    batch = next(batches)
                skipped += int(batch.pop("skipped").sum())
                state, metrics = train_step(state, plan.put_batch(batch), plan.key)
                # Metrics are read one step late, so that the devices need not wait for the host.
                if pending is not None:
                    with timing.waiting("devices"):
                        telemetry.read(step, pending, watch)
                pending = metrics
            progress.step(step)

        if first < total_steps:
            progress.print(timing.verdict())
            if task.skipped.total:
                progress.print(task.skipped.total)
        checkpoints.finish()
    if lead:
        _finish(log.records, workdir, task.best_metric, stands=first == total_steps and evaluated)
    return 0


def _new_state(plan: Plan, say: Callable[[str], None]) -> dict:
    """The state at step 0, with what the config says that it starts from, which is said."""
    if plan.config.init_from is None:
        return plan.create()
    start = init_from.load(plan, make_task)
    say(start.text)
    return init_from.start_from(plan.create(), start)


def _keep(evaluation: Evaluation, workdir, log: log_lib.MetricsLog, step: int) -> dict:
    """Writes the picture and the files of an evaluation; returns its part of the step's record."""
    if evaluation.picture is not None:
        path = workdir / "plots" / "examples.png"
        plots.save_figure(evaluation.picture, path)
        log.picture("examples", path, step)
    for name, text in evaluation.files.items():
        write(workdir / name, text)
    return {f"eval/{name}": value for name, value in evaluation.metrics.items()}


def _draw_curves(log: log_lib.MetricsLog, workdir, best_metric: str, kind, *_):
    """Draws the curves of a run that ends, is stopped, or has diverged."""
    if log.records and kind in (None, Diverged):
        plots.save_figure(plots.curves(log.records, best_metric), workdir / "plots" / "curves.png")


def _finish(records: list[dict], workdir, best_metric: str, *, stands: bool):
    """Writes the result, unless one is there that `stands`, and prints it."""
    path = workdir / "result.json"
    if stands and path.exists():
        result = read_result(path)
    else:
        result = make_result(records, best_metric)
        write(path, json.dumps(result, indent=2) + "\n")
    print(report(result, workdir))


if __name__ == "__main__":
    main()
