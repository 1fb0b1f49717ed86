"""Fully convolutional segmentation network on our ResNet-FPN; docs/paper.md section 6."""

import jax
import jax.numpy as jnp
from flax import nnx

from models import dropping
from models.convolution import conv_general_dilated
from models.fpn import FPN, NORM, PyramidHead, backbone_levels, upsample
from models.resnet import Norm, ResNet


class FCN(nnx.Module):
    """ResNet-FPN with one head for all levels, whose outputs are summed at the finest of them.

    Drop sites: those of the ResNet, `fpn.p<level>`, and `head.conv<n>.p<level>` after each of the
    head's rectified convolutions. The paper's place is `{"head": 1.0}` (docs/paper.md section 7).

    Cell i of the logits lies on row (or column) `2^min_level * i` of the image.

    Args:
      depth: a key of `resnet.DEPTHS`.
      num_classes: classes of pixels, the background among them.
      in_channels, stem, stem_stride, width_multiplier: as of `ResNet`. The backbone's strides,
        and with them its levels, follow from the stem: 4 to 32, levels 2 to 5, with "imagenet";
        1 to 8, levels 0 to 3, with "small" at stride 1.
      min_level, max_level: levels of the pyramid, of strides `2^level`; max_level is at least the
        backbone's coarsest.
      fpn_channels: channels of each level.
      head_convs, head_channels: convolutions of the head before its last, and all their channels.
      drop: what is dropped, and where.
      norm: BatchNorm's constants.
      dtype: dtype of the computation; parameters, BN statistics and logits are float32.
      rngs: the stream `params`.

    Raises:
      ValueError: an argument out of range, or a place of `drop` that matches no site.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        *,
        in_channels: int = 3,
        stem: str = "imagenet",
        stem_stride: int = 1,
        width_multiplier: float = 1.0,
        min_level: int = 3,
        max_level: int = 5,
        fpn_channels: int = 256,
        head_convs: int = 3,
        head_channels: int = 256,
        drop: dropping.Drop = dropping.Drop(),  # noqa: B008, it is frozen
        norm: Norm = NORM,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.drop = nnx.static(drop)
        plan = dropping.SitePlan(drop)
        self.backbone = ResNet(
            depth,
            None,
            in_channels=in_channels,
            stem=stem,
            stem_stride=stem_stride,
            width_multiplier=width_multiplier,
            plan=plan,
            norm=norm,
            dtype=dtype,
            rngs=rngs,
        )
        levels = backbone_levels(self.backbone)
        self.feature_names = nnx.static(tuple((level, name) for level, (name, _) in levels.items()))
        self.fpn = FPN(
            {level: channels for level, (_, channels) in levels.items()},
            min_level=min_level,
            max_level=max_level,
            channels=fpn_channels,
            upsampling="bilinear",
            plan=plan,
            norm=norm,
            dtype=dtype,
            rngs=rngs,
        )
        self.head = PyramidHead(
            "head",
            self.fpn.levels,
            fpn_channels,
            head_channels,
            num_convs=head_convs,
            channels=head_channels,
            plan=plan,
            norm=norm,
            dtype=dtype,
            rngs=rngs,
        )
        self.sum_norm = norm.make(head_channels, dtype=dtype, rngs=rngs)
        self.output = nnx.Conv(
            head_channels,
            num_classes,
            (3, 3),
            kernel_init=nnx.initializers.normal(0.01),
            conv_general_dilated=conv_general_dilated,
            dtype=dtype,
            rngs=rngs,
        )
        plan.check()

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
          `kept`, `expected`, `maps`: what the drop sites did, see `dropping.report`.

        Raises:
          ValueError: `train=True` with a drop kind and no key.
        """
        dropping.check_key(self.drop, train, rng)
        out = self.backbone(x, train=train, keep_prob=keep_prob, rng=rng)
        features = {level: out[name] for level, name in self.feature_names}
        maps, reports = self.fpn(features, train, keep_prob, rng)
        outputs, sites = self.head(maps, train, keep_prob, rng)
        finest, *coarser = outputs.values()
        size = finest.shape[1:3]
        summed = finest + sum(upsample(y, size, "bilinear") for y in coarser)
        summed = nnx.relu(self.sum_norm(summed, use_running_average=not train))
        logits = self.output(summed).astype(jnp.float32)
        own = dropping.report(reports | sites)
        return out | maps | {"logits": logits} | {name: out[name] | own[name] for name in own}
