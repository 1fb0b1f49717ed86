"""RetinaNet on our ResNet, with the authors' constants; docs/paper.md section 5."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from models import drop as drop_lib
from models.fpn import NORM, PyramidHead, PyramidNetwork
from models.layers import Layers, Norm

# What an anchor's class probabilities start at: nearly all anchors are background.
PRIOR = 0.01


class RetinaNet(PyramidNetwork):
    """RetinaNet with the drop sites of its backbone, its FPN and its heads.

    Those of the heads are named `head.class.conv<n>.p<level>` and `head.box.conv<n>.p<level>`; the
    paper's places are `{"group3": 0.25, "group4": 1.0}` (docs/paper.md section 7).

    Args:
      backbone: such as `functools.partial(ResNet, 50)`, see `PyramidNetwork`.
      num_classes: classes of objects; background is none of them.
      anchors_per_cell: scales times aspects.
      in_channels: channels of the images.
      min_level, max_level: levels of the pyramid, of strides `2^level`.
      fpn_channels: channels of each level.
      head_convs, head_channels: convolutions of each head before its output.
      drop: what is dropped, and where.
      norm: BatchNorm's constants, in the backbone too.
      dtype: dtype of the computation; parameters, BN statistics and outputs are float32.
      platform: where the network will run, see `Layers`.
      rngs: the stream `params`.

    Raises:
      ValueError: an argument out of range, or a place of `drop` that matches no site.
    """

    def __init__(
        self,
        backbone: Callable,
        num_classes: int,
        *,
        anchors_per_cell: int = 9,
        in_channels: int = 3,
        min_level: int = 3,
        max_level: int = 7,
        fpn_channels: int = 256,
        head_convs: int = 4,
        head_channels: int = 256,
        drop: drop_lib.Drop = drop_lib.Drop(),  # noqa: B008, it is frozen
        norm: Norm = NORM,
        dtype=jnp.float32,
        platform: str | None = None,
        rngs: nnx.Rngs,
    ):
        if num_classes < 1 or anchors_per_cell < 1:
            raise ValueError(
                "num_classes and anchors_per_cell must be at least 1, got "
                f"{num_classes} and {anchors_per_cell}"
            )
        sites, layers = drop_lib.Sites(drop), Layers(norm, dtype, platform, rngs)
        super().__init__(
            backbone,
            in_channels=in_channels,
            min_level=min_level,
            max_level=max_level,
            fpn_channels=fpn_channels,
            upsampling="nearest",
            sites=sites,
            layers=layers,
        )
        self.num_classes = num_classes

        def head(name, outputs, bias=0.0):
            return PyramidHead(
                name,
                self.fpn.levels,
                fpn_channels,
                anchors_per_cell * outputs,
                num_convs=head_convs,
                channels=head_channels,
                bias=bias,
                sites=sites,
                layers=layers,
            )

        self.class_head = head("head.class", num_classes, bias=-math.log((1 - PRIOR) / PRIOR))
        self.box_head = head("head.box", 4)
        sites.check()

    def __call__(
        self, x: jax.Array, *, train: bool, keep_prob=1.0, rng: jax.Array | None = None
    ) -> dict:
        """Computes class logits and box codes of all anchors.

        Args:
          x: images `[batch, height, width, channels]`, normalised; `2^max_level` divides both
            sides.
          train: BatchNorm's mode: batch statistics, and an update of the running ones.
          keep_prob: number or scalar array in [0, 1], before the places' factors.
          rng: a JAX key. Dropping happens if and only if it is given.

        Returns:
          `class_logits`: float32 `[batch, anchors, num_classes]`;
          `box_codes`: float32 `[batch, anchors, 4]`, both in `detection.anchors`' order;
          `p<level>`: the pyramid, `[batch, height, width, fpn_channels]`;
          `stem`, `group1` .. `group4`: the backbone's features;
          `kept`, `sites`: what the drop sites did, see `drop.outputs`.

        Raises:
          ValueError: `train=True` with a drop kind and no key, or a size that the strides do not
            divide.
        """
        stride = 2 ** int(self.fpn.levels[-1][1:])
        if x.shape[1] % stride or x.shape[2] % stride:
            raise ValueError(
                f"height and width must be multiples of {stride}, the stride of "
                f"{self.fpn.levels[-1]}, got {x.shape[1]} and {x.shape[2]}"
            )
        out, maps, reports = self.pyramid(x, train, keep_prob, rng)
        for name, head, values in (
            ("class_logits", self.class_head, self.num_classes),
            ("box_codes", self.box_head, 4),
        ):
            outputs, report = head(maps, train, keep_prob, rng)
            reports |= report
            # A cell's channels are its anchors', each with its values.
            outputs = [y.reshape(y.shape[0], -1, values) for y in outputs.values()]
            out[name] = jnp.concatenate(outputs, axis=1).astype(jnp.float32)
        return out | maps | drop_lib.outputs(reports)
