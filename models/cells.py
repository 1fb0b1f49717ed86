"""The cells of AmoebaNet as modules; their tables are in models/cell_tables.py.

Source: the authors' public AmoebaNet code; docs/paper.md section 4.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from models import drop as drop_lib
from models import pooling
from models.cell_tables import Table
from models.layers import Layers

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


class Stage(nnx.Module):
    """ReLU (where asked for), convolutions without bias, BatchNorm, and then a drop site."""

    def __init__(self, inputs, kernels, *, relu=True, padding="SAME", site, layers):
        convs = []
        for kernel in kernels:
            conv = layers.conv(
                inputs,
                kernel.outputs,
                kernel.shape,
                kernel.stride,
                padding=padding,
                feature_group_count=inputs if kernel.depthwise else 1,
                use_bias=False,
                kernel_init=_DEPTHWISE_INIT if kernel.depthwise else INIT,
            )
            convs.append(conv)
            inputs = kernel.outputs
        self.convs = nnx.List(convs)
        self.norm = layers.batch_norm(inputs)
        self.relu = relu
        self.site = nnx.static(site)

    def __call__(self, x, train, keep_prob, rng):
        if self.relu:
            x = nnx.relu(x)
        for conv in self.convs:
            x = conv(x)
        x = self.norm(x, use_running_average=not train)
        return drop_lib.at_site(self.site, x, keep_prob, rng)


class FactorizedReduction(nnx.Module):
    """Halves a map: two 1x1 convolutions, on every second pixel and on those beside them; BN."""

    def __init__(self, inputs, outputs, *, relu, site, layers):
        self.convs = nnx.List(
            layers.conv(inputs, half, (1, 1), use_bias=False, kernel_init=INIT)
            for half in (outputs // 2, outputs - outputs // 2)
        )
        self.norm = layers.batch_norm(outputs)
        self.relu = relu
        self.site = nnx.static(site)

    def __call__(self, x, train, keep_prob, rng):
        if self.relu:
            x = nnx.relu(x)
        # The shifted map is as large as the other: a row and a column of zeros come in.
        shifted = jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
        halves = [conv(y[:, ::2, ::2]) for conv, y in zip(self.convs, (x, shifted), strict=True)]
        x = self.norm(jnp.concatenate(halves, -1), use_running_average=not train)
        return drop_lib.at_site(self.site, x, keep_prob, rng)


class Operation(nnx.Module):
    """One operation of a table, with its drop sites and its end, where DropPath acts."""

    def __init__(self, operation, inputs, filters, stride, *, name, sites, layers):
        self.pool = None
        changes = inputs != filters
        if operation == "none":
            relu, kernels = True, [[Kernel((1, 1), filters, (stride, stride))]]
            kernels = kernels if changes or stride > 1 else []
        elif "pool" in operation:
            kind, size = operation.split("_pool_")
            height, width = map(int, size.split("x"))
            self.pool = (kind, (height, width), (stride, stride), layers.platform)
            relu, kernels = False, [[Kernel((1, 1), filters)]] if changes else []
        else:
            relu, kernels = True, _stages(operation, inputs, filters, stride)
        stages = []
        for number, stage in enumerate(kernels, start=1):
            site = None if operation == "none" else sites.add(f"{name}.norm{number}", "conv")
            stages.append(Stage(inputs, stage, relu=relu, site=site, layers=layers))
            inputs = stage[-1].outputs
        self.stages = nnx.List(stages)
        # Skip connections are the 'none' branches (docs/paper.md section 7.5). DropPath acts after
        # every other operation, as ScheduledDropPath does: a site of no kind in `drop.sites`.
        if operation == "none":
            site = sites.add(f"{name}.skip", "skip")
        else:
            site = sites.add(f"{name}.path", "path", ends_branch=True)
        self.end_site = nnx.static(site)

    def __call__(self, x, train, keep_prob, rng):
        reports = {}
        if self.pool is not None:
            kind, window, strides, platform = self.pool
            x = {"max": pooling.max_pool, "avg": pooling.avg_pool}[kind](
                x, window, strides, platform
            )
        for stage in self.stages:
            x, report = stage(x, train, keep_prob, rng)
            reports |= report
        x, report = drop_lib.at_site(self.end_site, x, keep_prob, rng)
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
        sites: drop_lib.Sites,
        layers: Layers,
        remat: bool = False,
    ):
        def match(feature, halvings, name, relu):
            """What brings a state to `filters` channels and to this size; None if nothing must."""
            site = sites.add(f"{name}.norm", "conv") if feature != (filters, halvings) else None
            options = {"relu": relu, "site": site, "layers": layers}
            if feature.halvings != halvings:
                return FactorizedReduction(feature.channels, filters, **options)
            if feature.channels != filters:
                return Stage(feature.channels, [Kernel((1, 1), filters)], **options)
            return None

        self.h0 = Stage(
            current.channels,
            [Kernel((1, 1), filters)],
            site=sites.add(f"{name}.h0.norm", "conv"),
            layers=layers,
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
                    sites=sites,
                    layers=layers,
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

    def __call__(self, current, previous, train: bool, keep_prob, rng):
        h0, reports = self.h0(current, train, keep_prob, rng)
        h1 = current if previous is None else previous
        if self.h1 is not None:
            h1, report = self.h1(h1, train, keep_prob, rng)
            reports |= report
        operate = Operation.__call__
        if self.remat and train:
            operate = nnx.remat(operate, static_argnums=2)
        states = [h0, h1]
        for number, pair in enumerate(self.table.operations, start=2):
            branches = []
            for side, (_, index) in zip(("left", "right"), pair, strict=True):
                operation = self.operations[f"h{number}_{side}"]
                branch, report = operate(operation, states[index], train, keep_prob, rng)
                branches.append(branch)
                reports |= report
            states.append(branches[0] + branches[1])
        outputs = []
        for index in self.table.outputs:
            state, match = states[index], self.matches[f"h{index}"]
            if match is not None:
                state, report = match(state, train, keep_prob, rng)
                reports |= report
            outputs.append(state)
        return jnp.concatenate(outputs, -1), reports
