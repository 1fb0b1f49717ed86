"""Where and how a network drops: one description for every model.

A model declares its possible sites, in order, through `Sites`; a `Drop` says which of them are
active and how. `Site.__call__` drops and reports. A new regulariser is a function and a row of
`KINDS`: docs/extending.md.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

import dropblock as db
from dropblock import checks
from dropblock.gamma import GAMMA_RULES
from dropblock.op import NORMALIZE, dropblock_expecting

SITES = ("conv", "skip")


def _dropblock(rng, x, keep_prob, drop: "Drop"):
    return dropblock_expecting(
        rng,
        x,
        keep_prob,
        drop.block_size,
        shared_mask=drop.shared_mask,
        gamma_rule=drop.gamma_rule,
        normalize=drop.normalize,
    )


def _dropout(rng, x, keep_prob, drop: "Drop"):
    y, kept = db.dropout(rng, x, keep_prob, return_kept=True)
    return y, kept, keep_prob, (1.0 - keep_prob) * float(x.size)


def _spatial_dropout(rng, x, keep_prob, drop: "Drop"):
    y, kept = db.spatial_dropout(rng, x, keep_prob, return_kept=True)
    return y, kept, keep_prob, (1.0 - keep_prob) * (x.shape[0] * x.shape[-1])


def _drop_path(rng, x, keep_prob, drop: "Drop"):
    y, kept = db.drop_path(rng, x, keep_prob, return_kept=True)
    return y, kept, keep_prob, (1.0 - keep_prob) * x.shape[0]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One regulariser.

    Attributes:
      function: `(rng, x, keep_prob, drop) -> (y, kept, expected, seeds)`: x is floating `[batch,
        *spatial, channels]`, keep_prob a float32 scalar, drop the `Drop`; y is like x, and of the
        others see `SiteReport`.
      ends_branches: it acts once in a residual branch, at its end, whatever `Drop.sites` says.
    """

    function: Callable
    ends_branches: bool = False


KINDS: dict[str, Kind | None] = {
    "none": None,
    "dropblock": Kind(_dropblock),
    "dropout": Kind(_dropout),
    "spatial_dropout": Kind(_spatial_dropout),
    "drop_path": Kind(_drop_path, ends_branches=True),
}


@dataclasses.dataclass(frozen=True)
class Drop:
    """What is dropped in a network, and where.

    Attributes:
      kind: one of `KINDS`.
      places: prefix of site names -> factor on `1 - keep_prob`; 0 is off. The longest prefix wins.
        The paper's ResNet: `{"group3": 0.25, "group4": 1.0}`.
      block_size: DropBlock's block side, an int or one for each spatial axis.
      sites: which kinds of sites are active, from `SITES`: after convolutions, on skips.
        DropPath drops a whole residual branch, so it acts once a block whatever this says.
      shared_mask, gamma_rule, normalize: see `dropblock.dropblock`.
    """

    kind: str = "none"
    places: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    block_size: int | tuple[int, ...] = 7
    sites: tuple[str, ...] = SITES
    shared_mask: bool = False
    gamma_rule: str = "paper"
    normalize: str | None = "batch"

    def place_of(self, name: str) -> str | None:
        """The place that the site `name` belongs to: the longest prefix; None if there is none."""
        prefixes = [p for p, _ in self.places if name == p or name.startswith(p + ".")]
        return max(prefixes, key=len, default=None)

    def __post_init__(self):
        checks.choice("drop.kind", self.kind, tuple(KINDS))
        checks.choice("drop.gamma_rule", self.gamma_rule, GAMMA_RULES)
        checks.choice("drop.normalize", self.normalize, NORMALIZE)
        sides = checks.block_size(self.block_size)
        if len(sides) not in (1, 2):
            raise ValueError(
                f"drop.block_size must be an int or two ints for an image, got {self.block_size}"
            )
        for site in self.sites:
            checks.choice("drop.sites", site, SITES)
        # Held as a tuple, so that a Drop can be hashed with the model's static part.
        object.__setattr__(self, "places", tuple(dict(self.places).items()))
        for place, factor in self.places:
            checks.probability(f"drop.places[{place!r}]", factor)
        if self.kind != "none" and not any(factor for _, factor in self.places):
            raise ValueError(f"drop.places must name where {self.kind} acts, got none")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MapShape:
    """Height and width of what a site sees (nothing for a vector); a pytree without leaves."""

    shape: tuple[int, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SiteReport:
    """What a site did in one call.

    Attributes:
      kept: float32 `[batch]`, the fraction of each example really kept.
      expected: float32 scalar, the expectation of `kept`.
      seeds: float32 scalar, the expected number of seeds (or drops) in the batch.
      map_shape: of the site's input.
    """

    kept: jax.Array
    expected: Any
    seeds: Any
    map_shape: MapShape


@dataclasses.dataclass(frozen=True)
class Site:
    """One active place of a network where something is dropped.

    Attributes:
      name: such as "group4.block1.conv2".
      index: static number of the site in its network; folded into the key.
      factor: its place's, on `1 - keep_prob`.
      drop: the description it acts by.
    """

    name: str
    index: int
    factor: float
    drop: Drop

    def __call__(self, x, keep_prob, rng) -> tuple[jax.Array, dict[str, SiteReport]]:
        """Drops from `x`, `[batch, height, width, channels]`, with a key of its own.

        Args:
          x: the features.
          keep_prob: the network's, before this site's factor.
          rng: the network's key.

        Returns:
          What is left of `x`, and `{name: report}`.
        """
        kind = KINDS[self.drop.kind]
        assert kind is not None  # an active site has one
        site_keep_prob = 1.0 - self.factor * (1.0 - jnp.asarray(keep_prob, jnp.float32))
        site_rng = _site_keys(rng, self.index // _TOGETHER)[self.index % _TOGETHER]
        y, kept, expected, seeds = kind.function(site_rng, x, site_keep_prob, self.drop)
        return y, {self.name: SiteReport(kept, expected, seeds, MapShape(x.shape[1:-1]))}


# Sites whose keys are made together.
_TOGETHER = 64


def _site_keys(rng, chunk):
    """The keys of `_TOGETHER` sites, each the network's with the site's number folded in.

    Every site asks for all of them, which a compiler does but once: folded in one by one they are
    a hundred scalar operations of a TPU's program for each site.
    """
    numbers = chunk * _TOGETHER + jnp.arange(_TOGETHER)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, numbers)


class Sites:
    """Numbers a network's possible sites while it is built, and makes the active ones."""

    def __init__(self, drop: Drop):
        self.drop = drop
        self._names = []
        self._matched = set()

    def add(self, name: str, kind: str, *, ends_branch: bool = False) -> Site | None:
        """Declares the next possible site; returns it if it is active, else None.

        Args:
          name: dotted, such as "group4.block1.conv2".
          kind: "conv" or "skip"; any other is for what acts at the ends of branches alone.
          ends_branch: whether this is the end of a residual branch, where DropPath acts.
        """
        index = len(self._names)
        self._names.append(name)
        place, regulariser = self.drop.place_of(name), KINDS[self.drop.kind]
        if regulariser is None or place is None:
            return None
        factor = dict(self.drop.places)[place]
        active = ends_branch if regulariser.ends_branches else kind in self.drop.sites
        if not active or factor == 0:
            return None
        self._matched.add(place)
        return Site(name, index, factor, self.drop)

    def check(self):
        """Raises ValueError for a place that activates no site: it would be silently off."""
        unmatched = {place for place, factor in self.drop.places if factor} - self._matched
        if self.drop.kind != "none" and unmatched:
            tops = dict.fromkeys(name.split(".")[0] for name in self._names)
            raise ValueError(
                f"drop.places {sorted(unmatched)} match no {self.drop.kind} site of the model; "
                f"its places start with {', '.join(tops) or 'nothing: it has no sites'}"
            )


def at_site(site: Site | None, x, keep_prob, rng):
    """Applies `site` where there is one and a key is given.

    Returns:
      `x` after dropping, and `{site name: report}`, empty where nothing was dropped.
    """
    return (x, {}) if site is None or rng is None else site(x, keep_prob, rng)


def outputs(reports: dict[str, SiteReport]) -> dict[str, dict]:
    """What a model adds to its output about its drop sites.

    Returns:
      `sites`: the reports; `kept`: `{site: float32 [batch]}` of them, the fraction of each example
      really kept.
    """
    return {"sites": reports, "kept": {name: site.kept for name, site in reports.items()}}


def check_key(drop: Drop, train: bool, rng):
    """Raises ValueError for training with a drop kind and no key: it would be silently off."""
    if train and drop.kind != "none" and rng is None:
        raise ValueError(f"rng must be a JAX key: train=True with drop.kind={drop.kind!r}")
