"""Building a run at full size by shape alone, and printing what it would be."""

import collections
import time
from typing import Any

import jax
from clu import parameter_overview

from training import sharding
from training.plan import Plan, make_plan


def dry_run(config: Any, make_task, *, compile_step: bool = False):
    """Prints parameters, FLOPs, bytes, batch shapes and schedules of a config; trains nothing.

    Args:
      config: see `configs/defaults.py`.
      make_task: `(config, need_data=...) -> task`.
      compile_step: also compile the training step, and print how long that takes and XLA's
        memory analysis.

    Raises:
      ConfigError: what is wrong with the config.
    """
    plan = make_plan(config, lambda config: make_task(config, need_data=False))
    mesh = sharding.make_mesh()
    sharding.check_batch(mesh, config.batch_size, config.accumulate)
    state = plan.abstract_state(mesh)

    print(parameter_overview.get_parameter_overview(state["params"], include_stats=False))
    count = sum(x.size for x in jax.tree.leaves(state["params"]))
    print(f"parameters: {count:,}")
    if "aux" in state["params"]:
        aux = sum(x.size for x in jax.tree.leaves(state["params"]["aux"]))
        print(f"parameters without the auxiliary head: {count - aux:,}")
    for name, part in state.items():
        print(f"bytes of {name}: {_bytes(part):,}")
    print(f"bytes of state: {_bytes(state):,}")

    batch = plan.task.batch_shapes(config.batch_size)
    print("\nglobal batch:")
    for name, array in batch.items():
        print(f"  {name}: {array.dtype}{list(array.shape)}")
    print(f"training examples: {plan.task.num_train:,}, evaluation: {plan.task.num_eval:,}")
    if plan.task.missing:
        print(f"the data is missing, its counts are the config's: {plan.task.missing}")

    _print_sites(plan, state, batch)
    _print_schedules(plan)

    sharded = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.by_batch(mesh))
        for name, x in batch.items()
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    began = time.monotonic()
    lowered = plan.train_step(mesh).lower(state, sharded, key)
    traced = time.monotonic() - began
    flops = (lowered.cost_analysis() or {}).get("flops", float("nan"))
    print(f"\nFLOPs of a training step, before XLA optimises: {flops:.4g}")
    _print_memory(plan, state, batch)
    if compile_step:
        began = time.monotonic()
        memory = lowered.compile().memory_analysis()
        compiled = time.monotonic() - began
        print(f"seconds to trace the training step: {traced:.1f}, to compile it: {compiled:.1f}")
        print(f"bytes on each device, as XLA plans them for {jax.default_backend()}:")
        for name in ("argument", "output", "alias", "temp"):
            print(f"  {name}: {getattr(memory, f'{name}_size_in_bytes'):,}")


def _bytes(tree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _print_memory(plan: Plan, state, batch):
    """An estimate of what a training step holds on each device.

    The state, gradients, a part of the batch, and a part of all that a trace of the loss keeps for
    its gradient. XLA merges some of that: on a CPU it planned 16 % less for `mnist_resnet` and 27 %
    less for `scenes_retinanet` with four convolutions in its heads.
    """
    config = plan.config
    micro = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((x.shape[0] // config.accumulate, *x.shape[1:]), x.dtype),
        batch,
    )

    def kept(state, batch, key):
        def loss(params):
            out, _ = plan.network.apply(
                params,
                state["batch_stats"],
                plan.task.inputs(batch),
                train=True,
                rng=key if plan.task.drops else None,
                **{name: schedule(state["step"]) for name, schedule in schedules.items()},
            )
            return plan.task.loss(out, batch)[0]

        return jax.vjp(loss, state["params"])[1]  # a pytree of what the backward pass needs

    schedules = {"keep_prob": plan.keep_prob} | plan.own_keep_probs
    residuals = jax.tree.leaves(jax.eval_shape(kept, state, micro, jax.random.key(0)))
    examples = micro["image"].shape[0]
    # The rest are the parameters, which the state holds already, or small.
    cut = _bytes([x for x in residuals if x.shape[:1] == (examples,)])
    whole = _bytes(state) + _bytes(state["params"])
    print("estimated bytes on each device (state, gradients, batch, and what they are made from):")
    for devices in sorted({1, 8, jax.device_count()}):
        if config.batch_size % (devices * config.accumulate) == 0:
            name = "device" if devices == 1 else "devices"
            print(f"  {devices} {name}: {whole + (_bytes(batch) + cut) // devices:,}")


def _print_sites(plan: Plan, state, batch):
    """The drop sites and the maps they see, as a trace of the network finds them."""

    def maps(state, batch, key):
        out, _ = plan.network.apply(
            state["params"],
            state["batch_stats"],
            plan.task.inputs(batch),
            train=True,
            rng=key if plan.task.drops else None,
            **{name: schedule(state["step"]) for name, schedule in plan.own_keep_probs.items()},
        )
        return out["maps"]

    sites = jax.eval_shape(maps, state, batch, jax.random.key(0))
    places = collections.defaultdict(list)
    for site in sites:
        places[plan.task.drop.place_of(site)].append(site)
    own = places.pop(None, [])
    listed = "".join(f", {place}: {len(places[place])}" for place in sorted(places))
    print(f"\n{plan.config.drop.kind} sites: {len(sites) - len(own)}{listed}")
    if own:
        print(f"{len(own)} sites of the network's own besides")
    for site, seen in sites.items():
        print(f"  {site}: {' x '.join(map(str, seen.shape)) or 'no map'}")


def _print_schedules(plan: Plan):
    """Learning rate at the schedule's turns, and keep_prob of each place along the run."""
    per_epoch, total = plan.steps_per_epoch, plan.total_steps
    schedule = plan.config.schedule
    turns = {0, schedule.warmup_epochs}
    if schedule.kind == "step":
        turns |= {epoch + side for epoch in schedule.boundaries for side in (-1, 1)}
    print(f"\n{total:,} steps, {per_epoch:,} an epoch\nlearning rate:")
    steps = {round(epoch * per_epoch) for epoch in turns} | {total // 2, total - 1}
    for step in sorted(step for step in steps if 0 <= step < total):
        print(f"  epoch {step / per_epoch:g} (step {step:,}): {plan.learning_rate(step):.6g}")
    print("keep_prob:")
    for step in (0, total // 2, total):
        keep_prob = plan.keep_prob(step)
        places = ", ".join(
            f"{place} {1 - factor * (1 - keep_prob):.4f}"
            for place, factor in plan.task.drop.places
            if factor and plan.task.drop.kind != "none"
        )
        own = "".join(f", {name} {kept(step):.4f}" for name, kept in plan.own_keep_probs.items())
        print(f"  step {step:,}: {keep_prob:.4f}" + (f" ({places})" if places else "") + own)
