"""ResNet-18 to 152 (v1.5: the stride sits on the 3x3), with the authors' constants.

Constants: the authors' public ResNet code; docs/paper.md section 3.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from dropblock import checks
from models import drop as drop_lib
from models import pooling
from models.layers import ConvNorm, Layers, Norm

# Blocks in each of the four groups, and whether they are bottlenecks.
DEPTHS = {
    10: ((1, 1, 1, 1), False),  # not of the papers: the smallest of this form, to try things on
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
STEMS = ("imagenet", "small")
NORM = Norm(momentum=0.9, epsilon=1e-5)
# In what ResNets of the same arrays differ: the padding of the max pool, in the order of
# `pooling.max_pool`, and the epsilon of BatchNorm, where a pyramid's is not to be the backbone's.
CONVENTIONS = {
    "tensorflow": ("SAME", None),
    "pytorch": (((1, 1), (1, 1)), 1e-5),
}


class Block(nnx.Module):
    """Residual block: 1x1, 3x3, 1x1 convolutions (bottleneck), or two 3x3.

    Sites, as in the authors' code: after each convolution (+ BN, + ReLU but for the last), and
    on the skip, identity or projection; none after the sum.
    """

    def __init__(self, inputs, filters, stride, bottleneck, *, name, sites, layers):
        if bottleneck:
            outputs = 4 * filters
            shapes = [(filters, 1, 1), (filters, 3, stride), (outputs, 1, 1)]
        else:
            outputs = filters
            shapes = [(filters, 3, stride), (filters, 3, 1)]

        projected = stride != 1 or inputs != outputs
        self.project = nnx.data(
            ConvNorm(inputs, outputs, 1, stride, layers=layers) if projected else None
        )
        self.skip_site = nnx.static(sites.add(f"{name}.skip", "skip"))

        convs, conv_sites, channels = {}, [], inputs
        for number, (width, size, conv_stride) in enumerate(shapes, start=1):
            last = number == len(shapes)
            # The last BN starts at zero: the block starts as the identity.
            convs[f"conv{number}"] = ConvNorm(
                channels, width, size, conv_stride, zero_scale=last, layers=layers
            )
            conv_sites.append(sites.add(f"{name}.conv{number}", "conv", ends_branch=last))
            channels = width
        self.convs = nnx.Dict(convs)
        self.conv_sites = nnx.static(tuple(conv_sites))
        self.outputs = outputs

    def __call__(self, x, train, keep_prob, rng):
        skip = x if self.project is None else self.project(x, train)
        skip, reports = drop_lib.at_site(self.skip_site, skip, keep_prob, rng)
        for number, (conv, site) in enumerate(
            zip(self.convs.values(), self.conv_sites, strict=True), start=1
        ):
            x = conv(x, train)
            if number < len(self.convs):
                x = nnx.relu(x)
            x, report = drop_lib.at_site(site, x, keep_prob, rng)
            reports |= report
        return nnx.relu(x + skip), reports


class ResNet(nnx.Module):
    """ResNet with drop sites named `group<g>.block<b>.<conv1|conv2|conv3|skip>`.

    Args:
      depth: a key of `DEPTHS`.
      num_classes: size of the logits; None for a backbone, which has none.
      in_channels: channels of the images.
      stem: "imagenet" (7x7 at stride 2, 3x3 max pool at stride 2), or "small" for images of 28 to
        64 pixels (3x3, no pool).
      stem_stride: stride of the small stem.
      width_multiplier: on the 64 filters of the first group, and so on every other width.
      drop: what is dropped, and where.
      sites: of the network that this is the backbone of, which then checks them; instead of `drop`.
      norm: BatchNorm's constants.
      convention: "tensorflow", or "pytorch" to compute what torchvision's and timm's networks do:
        there the max pool pads alike on both sides, where TensorFlow pads even sizes after them
        alone, and BatchNorm's epsilon is 1e-5 whatever `norm` says. All else is the same.
      dtype: dtype of the computation; parameters, BN statistics and logits are float32.
      platform: where the network will run, see `Layers`.
      rngs: the stream `params`.

    Attributes:
      features: (name, stride, channels) of `group1` .. `group4`.

    Raises:
      ValueError: an argument out of range, or a place of `drop` that matches no site.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int | None,
        *,
        in_channels: int = 3,
        stem: str = "imagenet",
        stem_stride: int = 1,
        width_multiplier: float = 1.0,
        drop: drop_lib.Drop = drop_lib.Drop(),  # noqa: B008, it is frozen
        sites: drop_lib.Sites | None = None,
        norm: Norm = NORM,
        convention: str = "tensorflow",
        dtype=jnp.float32,
        platform: str | None = None,
        rngs: nnx.Rngs,
    ):
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {tuple(DEPTHS)}, got {depth}")
        if stem not in STEMS:
            raise ValueError(f"stem must be one of {STEMS}, got {stem!r}")
        checks.choice("convention", convention, tuple(CONVENTIONS))
        if stem_stride < 1:
            raise ValueError(f"stem_stride must be at least 1, got {stem_stride}")
        width = round(64 * width_multiplier)
        if width < 1:
            raise ValueError(f"width_multiplier must leave a channel, got {width_multiplier}")
        blocks, bottleneck = DEPTHS[depth]
        outer_sites, sites = sites, sites or drop_lib.Sites(drop)
        padding, epsilon = CONVENTIONS[convention]
        self.pool_padding = nnx.static(padding)
        if epsilon is not None:
            norm = dataclasses.replace(norm, epsilon=epsilon)
        layers = Layers(norm, dtype, platform, rngs)
        self.drop = nnx.static(sites.drop)
        self.platform = platform
        self.pool = stem == "imagenet"
        stem_size, stem_stride = (7, 2) if stem == "imagenet" else (3, stem_stride)
        self.stem = ConvNorm(in_channels, width, stem_size, stem_stride, layers=layers)

        stride = 2 * stem_stride if self.pool else stem_stride
        features, groups, channels = [], {}, width
        for group, count in enumerate(blocks, start=1):
            members = {}
            for number in range(1, count + 1):
                block = Block(
                    channels,
                    width * 2 ** (group - 1),
                    stride=2 if group > 1 and number == 1 else 1,
                    bottleneck=bottleneck,
                    name=f"group{group}.block{number}",
                    sites=sites,
                    layers=layers,
                )
                members[f"block{number}"] = block
                channels = block.outputs
            groups[f"group{group}"] = nnx.Dict(members)
            features.append((f"group{group}", stride * 2 ** (group - 1), channels))
        if outer_sites is None:
            sites.check()
        self.groups = nnx.Dict(groups)
        self.features = nnx.static(tuple(features))
        self.head = nnx.data(
            None
            if num_classes is None
            else nnx.Linear(
                channels,
                num_classes,
                kernel_init=nnx.initializers.normal(0.01),
                dtype=jnp.float32,
                rngs=rngs,
            )
        )

    def __call__(
        self, x: jax.Array, *, train: bool, keep_prob=1.0, rng: jax.Array | None = None
    ) -> dict:
        """Computes features and logits.

        Args:
          x: images `[batch, height, width, channels]`, normalised.
          train: BatchNorm's mode: batch statistics, and an update of the running ones.
          keep_prob: number or scalar array in [0, 1], before the places' factors.
          rng: a JAX key. Dropping happens if and only if it is given, so that it can be done with
            BatchNorm in eval mode too (Figure 5, Monte-Carlo uncertainty).

        Returns:
          `stem`, `group1` .. `group4`: features `[batch, height, width, channels]`, each at its
            own stride;
          `logits`: float32 `[batch, num_classes]`, where the network has them;
          `kept`: `{site name: float32 [batch]}`, what each site kept, empty without `rng`;
          `sites`: the whole reports, see `drop.outputs`.

        Raises:
          ValueError: `train=True` with a drop kind and no key.
        """
        drop_lib.check_key(self.drop, train, rng)
        out = {}
        x = nnx.relu(self.stem(x, train))
        if self.pool:
            x = pooling.max_pool(x, (3, 3), (2, 2), self.platform, self.pool_padding)
        out["stem"] = x
        reports = {}
        for name, blocks in self.groups.items():
            for number in range(1, len(blocks) + 1):  # a merged nnx.Dict has 10 before 2
                x, report = blocks[f"block{number}"](x, train, keep_prob, rng)
                reports |= report
            out[name] = x
        if self.head is not None:
            out["logits"] = self.head(x.astype(jnp.float32).mean((1, 2)))
        return out | drop_lib.outputs(reports)
