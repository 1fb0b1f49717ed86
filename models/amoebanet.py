"""AmoebaNet: stacks of cells, with the authors' constants.

Constants: the authors' public AmoebaNet code; docs/paper.md section 4.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from dropblock import checks
from models import drop as drop_lib
from models.cell_tables import Cells
from models.cells import INIT, Cell, Feature, Kernel, Keys, Stage
from models.layers import Layers, Norm

STEMS = ("imagenet", "small")
REMAT = ("none", "cells", "operations")
_STEM_FILTERS = 32

# BatchNorm's constants, of the authors' flags.
NORM = Norm(momentum=0.9, epsilon=1e-5)
# The head's own key: a number beyond any drop site's.
_HEAD = 2**31 - 1


class AuxiliaryHead(nnx.Module):
    """The classifier that training hangs on the middle of the network.

    Args:
      inputs: channels of the map.
      size: its height and width.
      num_classes: size of the logits.

    Raises:
      ValueError: the map is smaller than the window that is pooled.
    """

    def __init__(self, inputs, size, num_classes, *, layers):
        if size < 5:
            raise ValueError(
                f"the auxiliary head needs a map of at least 5 x 5, got {size} x {size}: take "
                "larger images, a smaller stem_stride, or no auxiliary head"
            )
        pooled = (size - 5) // 3 + 1
        options = {"padding": "VALID", "site": None, "layers": layers}
        # The authors' int(0.4 * 128) and int(0.4 * 768); one position is left.
        self.project = Stage(inputs, [Kernel((1, 1), 51)], relu=False, **options)
        self.reduce = Stage(51, [Kernel((pooled, pooled), 307)], **options)
        self.dense = nnx.Linear(307, num_classes, kernel_init=INIT, rngs=layers.rngs)

    def __call__(self, x, train):
        x = nnx.avg_pool(nnx.relu(x), (5, 5), (3, 3), "VALID")
        for stage in (self.project, self.reduce):
            x, _ = stage(x, train, 1.0, None)
        return self.dense(nnx.relu(x).astype(jnp.float32).mean((1, 2)))


class AmoebaNet(nnx.Module):
    """AmoebaNet (N, F): three stacks of N normal cells, a reduction cell between two stacks.

    The normal cells are `cell0` .. `cell<3N-1>`, the reduction cells before the second and third
    stack `reduction0` and `reduction1`, those of the ImageNet stem `stem0` and `stem1`. Drop sites
    are named `<half>.<cell>.<state>..`, half "last_half" for the last half of the normal cells and
    what stands between them, else "first_half": after every BatchNorm of a cell ("conv"), and on
    the 'none' branches, its skip connections ("skip").

    Args:
      cells: two tables, such as `cell_tables.CELLS["B"]`.
      cells_per_stack: N.
      filters: F, of the first stack; doubled at each reduction cell between stacks.
      num_classes: size of the logits.
      image_size: height and width of the images.
      in_channels: channels of the images.
      stem: "imagenet" (3x3 at stride 2 and two reduction cells: stride 8), or "small" for images of
        28 to 64 pixels (3x3 at `stem_stride`).
      stem_stride: stride of the small stem.
      aux_head: whether to have the auxiliary head, on the last cell of the second stack.
      head_keep_prob: of the dropout before the last layer.
      remat: what the backward pass computes anew instead of having it kept: "none", "cells", or
        "operations", which is the cells and then each operation in the one that is at hand.
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
        cells: Cells,
        cells_per_stack: int,
        filters: int,
        num_classes: int,
        *,
        image_size: int,
        in_channels: int = 3,
        stem: str = "imagenet",
        stem_stride: int = 1,
        aux_head: bool = True,
        head_keep_prob: float = 0.5,
        remat: str = "none",
        drop: drop_lib.Drop = drop_lib.Drop(),  # noqa: B008, it is frozen
        norm: Norm = NORM,
        dtype=jnp.float32,
        platform: str | None = None,
        rngs: nnx.Rngs,
    ):
        checks.choice("stem", stem, STEMS)
        checks.choice("remat", remat, REMAT)
        checks.probability("head_keep_prob", head_keep_prob)
        smallest = 16 if stem == "imagenet" else 4  # whose quarter (of a quarter) is a channel
        if filters < smallest:
            raise ValueError(f"filters must be at least {smallest}, got {filters}")
        for name, value in (("cells_per_stack", cells_per_stack), ("stem_stride", stem_stride)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        layers = Layers(norm, dtype, platform, Keys(rngs.params()))
        self.drop = nnx.static(drop)
        self.head_site = nnx.static(
            drop_lib.Site("head", _HEAD, 1.0, drop_lib.Drop("dropout", {"head": 1.0}))
        )
        self.head_keep_prob = head_keep_prob
        self.remat = remat != "none"

        if stem == "imagenet":
            stem_stride, size = 2, (image_size - 3) // 2 + 1
        else:
            size = -(-image_size // stem_stride)
        self.stem = Stage(
            in_channels,
            [Kernel((3, 3), _STEM_FILTERS, (stem_stride, stem_stride))],
            relu=False,
            padding="VALID" if stem == "imagenet" else "SAME",
            site=None,
            layers=layers,
        )
        sites = drop_lib.Sites(drop)
        built, previous, current = {}, None, Feature(_STEM_FILTERS, 0)
        for name, width, half in _layout(cells_per_stack, filters, stem):
            reduces = not name.startswith("cell")
            built[name] = Cell(
                cells.reduction if reduces else cells.normal,
                width,
                2 if reduces else 1,
                current,
                previous,
                name=f"{half}.{name}",
                sites=sites,
                layers=layers,
                remat=remat == "operations",
            )
            previous, current = current, built[name].output
        sites.check()
        self.cells = nnx.Dict(built)
        self.order = nnx.static(tuple(built))  # nnx.merge sorts what a Dict holds

        self.aux_cell = f"cell{2 * cells_per_stack - 1}"
        channels, halvings = built[self.aux_cell].output
        size = -(-size // 2**halvings)
        self.aux = nnx.data(
            AuxiliaryHead(channels, size, num_classes, layers=layers) if aux_head else None
        )
        self.head = nnx.Linear(
            current.channels, num_classes, kernel_init=INIT, dtype=jnp.float32, rngs=layers.rngs
        )

    def __call__(
        self, x: jax.Array, *, train: bool, keep_prob=1.0, rng: jax.Array | None = None
    ) -> dict:
        """Computes features and logits.

        Args:
          x: images `[batch, height, width, channels]`, normalised.
          train: BatchNorm's mode: batch statistics, and an update of the running ones. The
            auxiliary head is for training only.
          keep_prob: number or scalar array in [0, 1], before the places' factors.
          rng: a JAX key. Dropping, that before the last layer too, happens if and only if it is
            given.

        Returns:
          `stem`, `stem0` .. `cell<3N-1>`: the output of the first convolution and of each cell,
            `[batch, height, width, channels]`, each at its own stride;
          `logits`: float32 `[batch, num_classes]`; in training `aux_logits` too;
          `kept`: `{site name: float32 [batch]}`, what each site kept, empty without `rng`; "head"
            is the dropout before the last layer;
          `sites`: the whole reports, see `drop.outputs`.

        Raises:
          ValueError: `train=True` and no key, where something should be dropped.
        """
        drop_lib.check_key(self.drop, train, rng)
        if train and rng is None and self.head_keep_prob < 1:
            raise ValueError("rng must be a JAX key: train=True with dropout before the last layer")
        call = Cell.__call__
        if train:
            # Each cell is traced by itself in either case: an update of BatchNorm costs a walk over
            # all that has been traced with it (jax 0.10), minutes for all cells at once.
            call = (nnx.remat if self.remat else nnx.jit)(call, static_argnums=3)

        previous, (current, reports) = None, self.stem(x, train, keep_prob, rng)
        out = {"stem": current}
        for name in self.order:
            output = call(self.cells[name], current, previous, train, keep_prob, rng)
            previous, (current, report) = current, output
            out[name] = current
            reports |= report
            if name == self.aux_cell and train and self.aux is not None:
                out["aux_logits"] = self.aux(current, train)
        features = nnx.relu(current).astype(jnp.float32).mean((1, 2))
        if self.head_keep_prob < 1:
            features, report = drop_lib.at_site(self.head_site, features, self.head_keep_prob, rng)
            reports |= report
        out["logits"] = self.head(features)
        return out | drop_lib.outputs(reports)


def _layout(cells_per_stack: int, filters: int, stem: str):
    """Yields the name, the filters and the half of each cell, in order."""
    if stem == "imagenet":
        yield "stem0", filters // 4, "first_half"
        yield "stem1", filters // 2, "first_half"
    total = 3 * cells_per_stack
    last_half = total - total // 2  # its first normal cell
    for index in range(total):
        stack, place = divmod(index, cells_per_stack)
        width = filters * 2**stack
        if stack and not place:
            yield f"reduction{stack - 1}", width, _half(index > last_half)
        yield f"cell{index}", width, _half(index >= last_half)


def _half(last: bool) -> str:
    return "last_half" if last else "first_half"
