"""Fully convolutional segmentation network on a feature pyramid; docs/paper.md section 6."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from models import drop as drop_lib
from models.fpn import NORM, PyramidHead, PyramidNetwork, upsample
from models.layers import Layers, Norm


class FCN(PyramidNetwork):
    """Feature pyramid with one head for all levels, whose outputs are summed at the finest of them.

    Drop sites: those of the backbone, `fpn.p<level>`, and `head.conv<n>.p<level>` after each of the
    head's rectified convolutions. The paper's place is `{"head": 1.0}` (docs/paper.md section 7).

    Cell i of the logits lies on row (or column) `2^min_level * i` of the image.

    Args:
      backbone: such as `functools.partial(ResNet, 101)`, see `PyramidNetwork`.
      num_classes: classes of pixels, the background among them.
      in_channels: channels of the images.
      min_level, max_level: levels of the pyramid, of strides `2^level`; max_level is at least the
        backbone's coarsest.
      fpn_channels: channels of each level.
      head_convs, head_channels: convolutions of the head before its last, and all their channels.
      drop: what is dropped, and where.
      norm: BatchNorm's constants.
      dtype: dtype of the computation; parameters, BN statistics and logits are float32.
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
        in_channels: int = 3,
        min_level: int = 3,
        max_level: int = 5,
        fpn_channels: int = 256,
        head_convs: int = 3,
        head_channels: int = 256,
        drop: drop_lib.Drop = drop_lib.Drop(),  # noqa: B008, it is frozen
        norm: Norm = NORM,
        dtype=jnp.float32,
        platform: str | None = None,
        rngs: nnx.Rngs,
    ):
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        sites, layers = drop_lib.Sites(drop), Layers(norm, dtype, platform, rngs)
        super().__init__(
            backbone,
            in_channels=in_channels,
            min_level=min_level,
            max_level=max_level,
            fpn_channels=fpn_channels,
            upsampling="bilinear",
            sites=sites,
            layers=layers,
        )
        self.head = PyramidHead(
            "head",
            self.fpn.levels,
            fpn_channels,
            head_channels,
            num_convs=head_convs,
            channels=head_channels,
            sites=sites,
            layers=layers,
        )
        self.sum_norm = layers.batch_norm(head_channels)
        self.output = layers.conv(
            head_channels, num_classes, (3, 3), kernel_init=nnx.initializers.normal(0.01)
        )
        sites.check()

    def __call__(
        self, x: jax.Array, *, train: bool, keep_prob=1.0, rng: jax.Array | None = None
    ) -> dict:
        """Computes the class logits of every `2^min_level`-th pixel.

        Args:
          x: images `[batch, height, width, channels]`, normalised. Aligned corners fit exactly
            where both sides are a multiple of `2^max_level` and one pixel more, as 513 is.
          train: BatchNorm's mode: batch statistics, and an update of the running ones.
          keep_prob: number or scalar array in [0, 1], before the places' factors.
          rng: a JAX key. Dropping happens if and only if it is given.

        Returns:
          `logits`: float32 `[batch, ceil(height / 2^min_level), ..., num_classes]`;
          `p<level>`: the pyramid, `[batch, height, width, fpn_channels]`;
          `stem`, `group1` .. `group4`: the backbone's features;
          `kept`, `sites`: what the drop sites did, see `drop.outputs`.

        Raises:
          ValueError: `train=True` with a drop kind and no key.
        """
        out, maps, reports = self.pyramid(x, train, keep_prob, rng)
        outputs, report = self.head(maps, train, keep_prob, rng)
        finest, *coarser = outputs.values()
        size = finest.shape[1:3]
        summed = finest + sum(upsample(y, size, "bilinear") for y in coarser)
        summed = nnx.relu(self.sum_norm(summed, use_running_average=not train))
        logits = self.output(summed).astype(jnp.float32)
        return out | maps | {"logits": logits} | drop_lib.outputs(reports | report)
