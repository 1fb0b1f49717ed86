"""Where and how a network drops: one description for every model.

A model declares its possible sites, in order, through a `SitePlan`; a `Drop` says which of them
are active and how. `Site.__call__` drops and reports.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

import dropblock as db
from dropblock import checks
from dropblock.gamma import GAMMA_RULES
from dropblock.op import NORMALIZE

KINDS = ("none", "dropblock", "dropout", "spatial_dropout", "drop_path")
SITES = ("conv", "skip")


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
        checks.choice("drop.kind", self.kind, KINDS)
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

    def __call__(self, x, keep_prob, rng) -> tuple[jax.Array, dict[str, "SiteReport"]]:
        """Drops from `x`, `[batch, height, width, channels]`, with a key of its own.

        Returns:
          What is left of `x`, and `{name: report}`.
        """
        drop = self.drop
        rng = jax.random.fold_in(rng, self.index)
        keep_prob = 1.0 - self.factor * (1.0 - jnp.asarray(keep_prob, jnp.float32))
        batch, *spatial, channels = x.shape
        if drop.kind == "dropblock":
            x, kept = db.dropblock(
                rng,
                x,
                keep_prob,
                drop.block_size,
                shared_mask=drop.shared_mask,
                gamma_rule=drop.gamma_rule,
                normalize=drop.normalize,
                return_kept=True,
            )
            gamma = db.block_gamma(keep_prob, spatial, drop.block_size, drop.gamma_rule)
            expected = db.expected_keep(gamma, spatial, drop.block_size)
            block = checks.block_shape(drop.block_size, spatial)
            legal = math.prod(size - b + 1 for size, b in zip(spatial, block, strict=True))
            seeds = gamma * (batch * legal * (1 if drop.shared_mask else channels))
        else:
            function = {
                "dropout": db.dropout,
                "spatial_dropout": db.spatial_dropout,
                "drop_path": db.drop_path,
            }[drop.kind]
            x, kept = function(rng, x, keep_prob, return_kept=True)
            draws = {
                "dropout": x.size,
                "spatial_dropout": batch * channels,
                "drop_path": batch,
            }[drop.kind]
            expected, seeds = keep_prob, (1.0 - keep_prob) * draws
        return x, {self.name: SiteReport(kept, expected, seeds, MapShape(tuple(spatial)))}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MapShape:
    """Height and width of what a site sees; a pytree without leaves, so it costs nothing."""

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


class SitePlan:
    """Numbers a model's possible sites while it is built, and makes the active ones."""

    def __init__(self, drop: Drop):
        self.drop = drop
        self._names = []
        self._matched = set()

    def site(self, name: str, kind: str, *, ends_branch: bool = False) -> Site | None:
        """Declares the next possible site; returns it if it is active, else None.

        Args:
          name: dotted, such as "group4.block1.conv2".
          kind: "conv" or "skip".
          ends_branch: whether this is the end of a residual branch, where DropPath acts.
        """
        index = len(self._names)
        self._names.append(name)
        place = self.drop.place_of(name)
        if self.drop.kind == "none" or place is None:
            return None
        factor = dict(self.drop.places)[place]
        active = ends_branch if self.drop.kind == "drop_path" else kind in self.drop.sites
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


def report(reports: dict[str, SiteReport]) -> dict[str, dict]:
    """What a model adds to its output about its drop sites.

    Returns:
      `kept`: `{site: float32 [batch]}`, the fraction of each example really kept;
      `expected`: `{site: {"kept", "seeds"}}`, scalars, see `SiteReport`;
      `maps`: `{site: MapShape}`, for --dry_run.
    """
    return {
        "kept": {name: site.kept for name, site in reports.items()},
        "expected": {
            name: {"kept": site.expected, "seeds": site.seeds} for name, site in reports.items()
        },
        "maps": {name: site.map_shape for name, site in reports.items()},
    }


def check_key(drop: Drop, train: bool, rng):
    """Raises ValueError for training with a drop kind and no key: it would be silently off."""
    if train and drop.kind != "none" and rng is None:
        raise ValueError(f"rng must be a JAX key: train=True with drop.kind={drop.kind!r}")
