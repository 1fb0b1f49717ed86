"""The rows of the paper's Table 1, as variants of any config of a ResNet classifier.

Constants: docs/paper.md sections 2.4, 3.4 and 7.
"""

from typing import Any

from configs import defaults

# Dropout and SpatialDropout act on convolution branches only, DropPath at a branch's end.
_BRANCHES = ("conv",)
VARIANTS = {
    "baseline": {},
    "dropout": {"drop.kind": "dropout", "drop.keep_prob": 0.7, "drop.sites": _BRANCHES},
    # In group 4 only, which the paper found best; below, the other placements it tried.
    "drop_path": {"drop.kind": "drop_path", "drop.keep_prob": 0.9, "drop.places.group3": 0.0},
    "drop_path_groups34": {"drop.kind": "drop_path", "drop.keep_prob": 0.9},
    "drop_path_all": {
        "drop.kind": "drop_path",
        "drop.keep_prob": 0.9,
        "drop.places.group1": 1 / 64,
        "drop.places.group2": 1 / 16,
    },
    "spatial_dropout": {
        "drop.kind": "spatial_dropout",
        "drop.keep_prob": 0.9,
        "drop.sites": _BRANCHES,
    },
    "cutout": {"data.cutout": 0.5},  # 112 pixels of 224
    "autoaugment": {},  # see `choose`
    "label_smoothing": {"label_smoothing": 0.1},
    "dropblock": {"drop.kind": "dropblock", "drop.keep_prob": 0.9},
    "dropblock_label_smoothing": {
        "drop.kind": "dropblock",
        "drop.keep_prob": 0.9,
        "label_smoothing": 0.1,
    },
}


def choose(variant: str, config: Any, *, policy: str) -> Any:
    """Applies one of `VARIANTS` to `config`.

    Args:
      variant: its name.
      config: of the baseline.
      policy: AutoAugment's, "imagenet" or "cifar", for images like these.

    Raises:
      ValueError: no such variant.
    """
    defaults.choose(VARIANTS, variant, config)
    if variant == "autoaugment":
        config.data.autoaugment = policy
    if variant == "dropblock_label_smoothing":
        lengthen(config)
    return config


def lengthen(config: Any):
    """The paper trains DropBlock with label smoothing for 290 epochs where all else has 270."""
    config.epochs = config.epochs * 290 / 270
    config.schedule.boundaries = tuple(epoch * 290 / 270 for epoch in config.schedule.boundaries)
