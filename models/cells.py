"""The cells of AmoebaNet as modules; their tables are in models/cell_tables.py.

Source: the authors' public AmoebaNet code; docs/paper.md section 4.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from models import dropping, pooling
from models.cell_tables import Table
from models.convolution import conv_general_dilated

# TensorFlow contrib's variance_scaling_initializer(mode="FAN_OUT"): factor 2, truncated normal.
INIT = nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
# A depthwise kernel is [height, width, channels, 1] there and [height, width, 1, channels] here, so
# what TensorFlow calls its fan-out is the fan-in of ours.
_DEPTHWISE_INIT = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class Keys:
    """Gives what `nnx.Rngs` gives for parameters, but counts in Python.

    `nnx.Rngs` counts in a variable. Traced, each count costs a walk over all that has been traced
    (jax 0.10): half a minute for a large network.
    """

    def __init__(self, key: jax.Array):
        self._key = key
        self._count = 0

    def params(self) -> jax.Array:
        """The next key."""
        self._count += 1
        return jax.random.fold_in(self._key, self._count)


class Kernel(NamedTuple):
    """One convolution without bias."""

    shape: tuple[int, int]
    outputs: int
    stride: tuple[int, int] = (1, 1)
    depthwise: bool = False


def _stages(name: str, inputs: int, filters: int, stride: int) -> list[list[Kernel]]:
    """The convolutions of an operation; each list of them has a ReLU before and BN after it."""
    if name == "1x1":
        return [[Kernel((1, 1), filters, (stride, stride))]]
    # The authors' code takes dil_2_separable_5x5_2 for a separable too: nothing is dilated.
    if matched := re.fullmatch(r"(?:dil_2_)?separable_(\d+)x(\d+)_(\d+)", name):
        height, width, repeats = map(int, matched.groups())
        stages = []
        for channels, step in [(inputs, stride)] + [(filters, 1)] * (repeats - 1):
            depthwise = Kernel((height, width), channels, (step, step), depthwise=True)
            stages.append([depthwise, Kernel((1, 1), filters)])
        return stages
    middle = {
        "3x3": [Kernel((3, 3), filters // 4, (stride, stride))],
        "1x7_7x1": [
            Kernel((1, 7), filters // 4, (1, stride)),
            Kernel((7, 1), filters // 4, (stride, 1)),
        ],
    }[name]
    return [[Kernel((1, 1), filters // 4)], middle, [Kernel((1, 1), filters)]]


class Dropping(NamedTuple):
    """What a call drops by.

    Attributes:
      keep_prob: of the drop sites, before their places' factors.
      path_keep_prob: of ScheduledDropPath, None where it is off.
      rng: a JAX key, or None.
      path_rng: ScheduledDropPath's own.
    """

    keep_prob: jax.Array | float
    path_keep_prob: jax.Array | float | None
    rng: jax.Array | None
    path_rng: jax.Array | None


class Stage(nnx.Module):
    """ReLU (where asked for), convolutions without bias, BatchNorm, and then a drop site."""

    def __init__(self, inputs, kernels, *, relu=True, padding="SAME", site, dtype, rngs):
        convs = []
        for kernel in kernels:
            conv = nnx.Conv(
                inputs,
                kernel.outputs,
                kernel.shape,
                kernel.stride,
                padding=padding,
                feature_group_count=inputs if kernel.depthwise else 1,
                use_bias=False,
                kernel_init=_DEPTHWISE_INIT if kernel.depthwise else INIT,
                conv_general_dilated=conv_general_dilated,
                dtype=dtype,
                rngs=rngs,
            )
            convs.append(conv)
            inputs = kernel.outputs
        self.convs = nnx.List(convs)
        self.norm = norm(inputs, dtype, rngs)
        self.relu = relu
        self.site = nnx.static(site)

    def __call__(self, x, train, drops):
        if self.relu:
            x = nnx.relu(x)
        for conv in self.convs:
            x = conv(x)
        x = self.norm(x, use_running_average=not train)
        return dropping.at_site(self.site, x, drops.keep_prob, drops.rng)


def norm(channels, dtype, rngs):
    """BatchNorm with the constants of the authors' flags."""
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)


class FactorizedReduction(nnx.Module):
    """Halves a map: two 1x1 convolutions, on every second pixel and on those beside them; BN."""

    def __init__(self, inputs, outputs, *, relu, site, dtype, rngs):
        self.convs = nnx.List(
            nnx.Conv(
                inputs,
                half,
                (1, 1),
                use_bias=False,
                kernel_init=INIT,
                dtype=dtype,
                rngs=rngs,
            )
            for half in (outputs // 2, outputs - outputs // 2)
        )
        self.norm = norm(outputs, dtype, rngs)
        self.relu = relu
        self.site = nnx.static(site)

    def __call__(self, x, train, drops):
        if self.relu:
            x = nnx.relu(x)
        # The shifted map is as large as the other: a row and a column of zeros come in.
        shifted = jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
        halves = [conv(y[:, ::2, ::2]) for conv, y in zip(self.convs, (x, shifted), strict=True)]
        x = self.norm(jnp.concatenate(halves, -1), use_running_average=not train)
        return dropping.at_site(self.site, x, drops.keep_prob, drops.rng)


class Operation(nnx.Module):
    """One operation of a table, with its drop sites and its end, where DropPath acts."""

    def __init__(self, operation, inputs, filters, stride, *, name, plan, paths, dtype, rngs):
        self.pool = None
        changes = inputs != filters
        if operation == "none":
            relu, kernels = True, [[Kernel((1, 1), filters, (stride, stride))]]
            kernels = kernels if changes or stride > 1 else []
        elif "pool" in operation:
            kind, size = operation.split("_pool_")
            height, width = map(int, size.split("x"))
            self.pool = (kind, (height, width), (stride, stride))
            relu, kernels = False, [[Kernel((1, 1), filters)]] if changes else []
        else:
            relu, kernels = True, _stages(operation, inputs, filters, stride)
        stages = []
        for number, stage in enumerate(kernels, start=1):
            site = None if operation == "none" else plan.site(f"{name}.norm{number}", "conv")
            stages.append(Stage(inputs, stage, relu=relu, site=site, dtype=dtype, rngs=rngs))
            inputs = stage[-1].outputs
        self.stages = nnx.List(stages)
        # Skip connections are the 'none' branches (docs/paper.md section 7.5). Paths are dropped
        # after every other operation: a site of no kind in `drop.sites`, for DropPath alone.
        if operation == "none":
            self.end_site = nnx.static(plan.site(f"{name}.skip", "skip"))
            self.path_site = nnx.static(None)
        else:
            self.end_site = nnx.static(plan.site(f"{name}.path", "path", ends_branch=True))
            self.path_site = nnx.static(paths.site(f"path.{name}", "path", ends_branch=True))

    def __call__(self, x, train, drops):
        reports = {}
        if self.pool is not None:
            kind, window, strides = self.pool
            x = {"max": pooling.max_pool, "avg": pooling.avg_pool}[kind](x, window, strides)
        for stage in self.stages:
            x, report = stage(x, train, drops)
            reports |= report
        x, report = dropping.at_site(self.end_site, x, drops.keep_prob, drops.rng)
        reports |= report
        x, report = dropping.at_site(self.path_site, x, drops.path_keep_prob, drops.path_rng)
        return x, reports | report


class Feature(NamedTuple):
    """What is known of a feature map before there is one: its channels and how often it halved."""

    channels: int
    halvings: int


class Cell(nnx.Module):
    """A cell of a table.

    Attributes:
      output: its `Feature`.
    """

    def __init__(
        self,
        table: Table,
        filters: int,
        stride: int,
        current: Feature,
        previous: Feature | None,
        *,
        name: str,
        plan: dropping.SitePlan,
        paths: dropping.SitePlan,
        remat: bool = False,
        dtype,
        rngs,
    ):
        def match(feature, halvings, name, relu):
            """What brings a state to `filters` channels and to this size; None if nothing must."""
            site = plan.site(f"{name}.norm", "conv") if feature != (filters, halvings) else None
            options = {"relu": relu, "site": site, "dtype": dtype, "rngs": rngs}
            if feature.halvings != halvings:
                return FactorizedReduction(feature.channels, filters, **options)
            if feature.channels != filters:
                return Stage(feature.channels, [Kernel((1, 1), filters)], **options)
            return None

        self.h0 = Stage(
            current.channels,
            [Kernel((1, 1), filters)],
            site=plan.site(f"{name}.h0.norm", "conv"),
            dtype=dtype,
            rngs=rngs,
        )
        states = [Feature(filters, current.halvings)]
        self.h1 = nnx.data(None)
        if previous is None:
            states.append(current)
        else:
            self.h1 = nnx.data(match(previous, current.halvings, f"{name}.h1", relu=True))
            states.append(states[0])

        halvings = current.halvings + stride - 1
        operations = {}
        for number, pair in enumerate(table.operations, start=2):
            for side, (operation, index) in zip(("left", "right"), pair, strict=True):
                operations[f"h{number}_{side}"] = Operation(
                    operation,
                    states[index].channels,
                    filters,
                    stride if index < 2 else 1,
                    name=f"{name}.h{number}.{side}",
                    plan=plan,
                    paths=paths,
                    dtype=dtype,
                    rngs=rngs,
                )
            states.append(Feature(filters, halvings))
        self.operations = nnx.Dict(operations)
        self.matches = nnx.Dict(
            {
                f"h{index}": nnx.data(
                    match(states[index], halvings, f"{name}.out{index}", relu=False)
                )
                for index in table.outputs
            }
        )
        self.table = nnx.static(table)
        self.remat = remat  # whether the backward pass computes each operation anew
        self.output = Feature(filters * len(table.outputs), halvings)

    def __call__(self, current, previous, train: bool, drops: Dropping):
        h0, reports = self.h0(current, train, drops)
        h1 = current if previous is None else previous
        if self.h1 is not None:
            h1, report = self.h1(h1, train, drops)
            reports |= report
        operate = Operation.__call__
        if self.remat and train:
            operate = nnx.remat(operate, static_argnums=2)
        states = [h0, h1]
        for number, pair in enumerate(self.table.operations, start=2):
            branches = []
            for side, (_, index) in zip(("left", "right"), pair, strict=True):
                operation = self.operations[f"h{number}_{side}"]
                branch, report = operate(operation, states[index], train, drops)
                branches.append(branch)
                reports |= report
            states.append(branches[0] + branches[1])
        outputs = []
        for index in self.table.outputs:
            state, match = states[index], self.matches[f"h{index}"]
            if match is not None:
                state, report = match(state, train, drops)
                reports |= report
            outputs.append(state)
        return jnp.concatenate(outputs, -1), reports
