"""Feature pyramid and the heads on it, with the authors' constants.

A map of level l, called `p<l>`, has stride 2^l. Constants: docs/paper.md sections 5 and 6.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dropblock import checks
from models import drop as drop_lib
from models.layers import Layers, Norm

UPSAMPLING = ("nearest", "bilinear")

# Of the authors' detection and segmentation code, whose backbone has them too.
NORM = Norm(momentum=0.997, epsilon=1e-4)


class PyramidNetwork(nnx.Module):
    """A backbone and the pyramid on it: what RetinaNet and FCN begin with.

    Args:
      backbone: makes it: `(num_classes, *, in_channels, sites, norm, dtype, platform, rngs)`, such
        as `functools.partial(ResNet, 50)`. It is called with num_classes None, and has `features`,
        `(name, stride, channels)` of the maps that it returns by these names, from fine to coarse.
        Strides, and with them levels, follow from it: 4 to 32, levels 2 to 5, for a ResNet's
        "imagenet" stem; 1 to 8, levels 0 to 3, for its "small" stem at stride 1.
      in_channels: channels of the images.
      min_level, max_level, fpn_channels, upsampling: of the pyramid, see `FPN`.
      sites, layers: the whole network's.

    Raises:
      ValueError: an argument out of range, or strides that are no powers of two.
    """

    def __init__(
        self,
        backbone: Callable,
        *,
        in_channels: int,
        min_level: int,
        max_level: int,
        fpn_channels: int,
        upsampling: str,
        sites: drop_lib.Sites,
        layers: Layers,
    ):
        self.drop = nnx.static(sites.drop)
        self.backbone = backbone(
            None,
            in_channels=in_channels,
            sites=sites,
            norm=layers.norm,
            dtype=layers.dtype,
            platform=layers.platform,
            rngs=layers.rngs,
        )
        levels = {_level(stride): (name, width) for name, stride, width in self.backbone.features}
        self.feature_names = nnx.static(tuple((level, name) for level, (name, _) in levels.items()))
        self.fpn = FPN(
            {level: width for level, (_, width) in levels.items()},
            min_level=min_level,
            max_level=max_level,
            channels=fpn_channels,
            upsampling=upsampling,
            sites=sites,
            layers=layers,
        )

    def pyramid(self, x, train, keep_prob, rng) -> tuple[dict, dict, dict]:
        """The backbone's output, the pyramid's maps, and the reports of the sites of both.

        Raises:
          ValueError: `train=True` with a drop kind and no key.
        """
        drop_lib.check_key(self.drop, train, rng)
        out = self.backbone(x, train=train, keep_prob=keep_prob, rng=rng)
        features = {level: out[name] for level, name in self.feature_names}
        maps, reports = self.fpn(features, train, keep_prob, rng)
        return out, maps, out["sites"] | reports


def _level(stride: int) -> int:
    """The level l of a stride 2^l."""
    if stride & (stride - 1):
        raise ValueError(f"the strides of a backbone must be powers of two, got {stride}")
    return stride.bit_length() - 1


class FPN(nnx.Module):
    """Feature pyramid network with drop sites named `fpn.p<level>`, after each level's BN.

    The backbone's levels are summed from coarse to fine; levels above its coarsest are strided
    convolutions of the one below.

    Args:
      backbone: `{level: channels}` of the backbone's maps.
      min_level, max_level: levels of the pyramid.
      channels: of each level.
      upsampling: "nearest", or "bilinear" with aligned corners, as segmentation has it.
      sites, layers: the whole network's.

    Attributes:
      levels: names of the pyramid's maps, from fine to coarse.

    Raises:
      ValueError: levels that the backbone does not have, or another argument out of range.
    """

    def __init__(
        self,
        backbone: Mapping[int, int],
        *,
        min_level: int = 3,
        max_level: int = 7,
        channels: int = 256,
        upsampling: str = "nearest",
        sites: drop_lib.Sites,
        layers: Layers,
    ):
        top = max(backbone)
        if min_level not in backbone or max_level < top:
            raise ValueError(
                f"min_level must be one of the backbone's levels {sorted(backbone)} and max_level "
                f"at least {top}, got {min_level} and {max_level}"
            )
        if gaps := set(range(min_level, top)) - backbone.keys():
            raise ValueError(
                f"a backbone must have a map of each level from {min_level} to {top}, got none of "
                f"{sorted(gaps)}"
            )
        if channels < 1:
            raise ValueError(f"the pyramid's channels must be at least 1, got {channels}")
        checks.choice("upsampling", upsampling, UPSAMPLING)
        self.upsampling = upsampling

        def conv(inputs, size, stride=1):
            # The authors name no initialiser here, which means TensorFlow's default.
            init = nnx.initializers.glorot_uniform()
            return layers.conv(inputs, channels, (size, size), stride, kernel_init=init)

        def maps(levels, make):
            return nnx.Dict({f"p{level}": make(level) for level in levels})

        summed, levels = range(min_level, top + 1), range(min_level, max_level + 1)
        self.laterals = maps(summed, lambda level: conv(backbone[level], 1))
        self.smooth = maps(summed, lambda _: conv(channels, 3))
        self.coarser = maps(range(top + 1, max_level + 1), lambda _: conv(channels, 3, stride=2))
        self.norms = maps(levels, lambda _: layers.batch_norm(channels))
        self.levels = nnx.static(tuple(f"p{level}" for level in levels))
        self.sites = nnx.static(tuple(sites.add(f"fpn.{name}", "conv") for name in self.levels))

    def __call__(
        self, features: Mapping[int, jax.Array], train: bool, keep_prob=1.0, rng=None
    ) -> tuple[dict[str, jax.Array], dict]:
        """Computes the pyramid.

        Args:
          features: the backbone's maps by level, `[batch, height, width, channels]`.
          train, keep_prob, rng: as of the model.

        Returns:
          The maps by name, from fine to coarse, and the reports of the drop sites.
        """
        summed = self.levels[: len(self.laterals)]
        maps, x = {}, None
        for name in reversed(summed):
            lateral = self.laterals[name](features[int(name[1:])])
            above = 0 if x is None else upsample(x, lateral.shape[1:3], self.upsampling)
            x = lateral + above
            maps[name] = self.smooth[name](x)
        # Two levels at most in the paper, whose second is of the rectified first.
        x = maps[summed[-1]]
        for name in self.levels[len(summed) :]:
            maps[name] = x = self.coarser[name](x)
            x = nnx.relu(x)

        reports = {}
        for name, site in zip(self.levels, self.sites, strict=True):
            x = self.norms[name](maps[name], use_running_average=not train)
            maps[name], report = drop_lib.at_site(site, x, keep_prob, rng)
            reports |= report
        return {name: maps[name] for name in self.levels}, reports


class PyramidHead(nnx.Module):
    """Convolutions shared by the levels of a pyramid, with BatchNorm for each level.

    `num_convs` times 3x3 convolution, BN and ReLU, then a 3x3 convolution to the output. Drop
    sites are named `<name>.conv<n>.p<level>`, after each ReLU.

    Args:
      name: of its sites.
      levels: names of the pyramid's maps.
      inputs: channels of the maps.
      outputs: channels of the output.
      num_convs, channels: of the convolutions before it.
      bias: what the output's bias starts at.
      sites, layers: the whole network's.

    Raises:
      ValueError: an argument out of range.
    """

    def __init__(
        self,
        name: str,
        levels: Sequence[str],
        inputs: int,
        outputs: int,
        *,
        num_convs: int,
        channels: int,
        bias: float = 0.0,
        sites: drop_lib.Sites,
        layers: Layers,
    ):
        if num_convs < 0 or min(channels, outputs) < 1:
            raise ValueError(
                "a head must have channels, outputs and a number of convolutions, got "
                f"{channels}, {outputs} and {num_convs}"
            )

        def conv(inputs, outputs, bias=0.0):
            return layers.conv(
                inputs,
                outputs,
                (3, 3),
                kernel_init=nnx.initializers.normal(0.01),
                bias_init=nnx.initializers.constant(bias),
            )

        self.levels = nnx.static(tuple(levels))
        self.convs = nnx.List()
        self.norms = nnx.List()
        conv_sites = []
        for number in range(1, num_convs + 1):
            self.convs.append(conv(inputs, channels))
            self.norms.append(nnx.Dict({level: layers.batch_norm(channels) for level in levels}))
            conv_sites.append(
                tuple(sites.add(f"{name}.conv{number}.{level}", "conv") for level in levels)
            )
            inputs = channels
        self.sites = nnx.static(tuple(conv_sites))
        self.output = conv(inputs, outputs, bias)

    def __call__(
        self, maps: Mapping[str, jax.Array], train: bool, keep_prob=1.0, rng=None
    ) -> tuple[dict[str, jax.Array], dict]:
        """Applies the head to each map; returns the outputs by level and the sites' reports."""
        outputs, reports = {}, {}
        for index, level in enumerate(self.levels):
            x = maps[level]
            for conv, norms, sites in zip(self.convs, self.norms, self.sites, strict=True):
                x = nnx.relu(norms[level](conv(x), use_running_average=not train))
                x, report = drop_lib.at_site(sites[index], x, keep_prob, rng)
                reports |= report
            outputs[level] = self.output(x)
        return outputs, reports


def upsample(x: jax.Array, size: Sequence[int], method: str) -> jax.Array:
    """Resizes maps to a larger size.

    Args:
      x: `[batch, height, width, channels]`.
      size: new (height, width); with "nearest" at most twice the old.
      method: "nearest" repeats each cell, "bilinear" interpolates so that the corner cells stay.

    Returns:
      `[batch, *size, channels]`, in x's dtype.
    """
    if method == "nearest":
        return x.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]]
    rows, columns = (_interpolation(old, new) for old, new in zip(x.shape[1:3], size, strict=True))
    return jnp.einsum("bhwc,yh,xw->byxc", x, rows, columns).astype(x.dtype)


def _interpolation(old: int, new: int) -> np.ndarray:
    """Weights float32 `[new, old]` of linear interpolation with aligned corners."""
    positions = np.linspace(0.0, old - 1.0, new)
    distance = np.abs(positions[:, None] - np.arange(old))
    return np.maximum(1.0 - distance, 0.0).astype(np.float32)
