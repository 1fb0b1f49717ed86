"""What the segmentation configs share, and the rows of the paper's Table 4 as their variants.

Constants: docs/paper.md sections 6 and 7.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import pyramid

_HEAD = {"drop.kind": "dropblock"}
_BACKBONE = {
    "drop.kind": "dropblock",
    "drop.places.head": 0.0,
    "drop.places.group3": 0.25,
    "drop.places.group4": 1.0,
}
VARIANTS = {
    "scratch": {},
    "block1": _HEAD | {"drop.block_size": 1},
    "block4": _HEAD | {"drop.block_size": 4},
    "block16": _HEAD | {"drop.block_size": 16},
    # Not in the table: the place that the paper found to help less.
    "backbone": _BACKBONE,
    # The names that classification's configs have: without, and with the config's own block.
    "baseline": {},
    "dropblock": _HEAD,
}


def get_config() -> Any:
    """The paper's FCN; a config says which data, and how long."""
    config = pyramid.get_config()
    config.task = "segmentation"

    # --- Model.
    config.model.name = "fcn"
    config.model.max_level = 5  # min_level's stride is that of the logits
    config.model.head_convs = 3  # before its last

    config.drop.keep_prob = 0.2
    config.drop.block_size = 16
    config.drop.places = ConfigDict({"head": 1.0, "group3": 0.0, "group4": 0.0})

    # --- Data.
    config.data.name = "mask_folder"  # or "scenes"
    config.data.eval_split = "val"
    config.data.image_size = 513  # of the square that images are brought into
    config.data.scale = (0.75, 1.5)  # in training: the longer side, of image_size
    config.data.names = "{split}.txt"  # the list of a split's names, in data.dir
    config.data.masks = "masks"  # their folder in data.dir
    config.data.ignore_index = placeholder(int)  # a value of masks that is ignored, besides 255
    # What values of masks are: "0=sky,1=tree,7=ignore", colours as "#8040ff=tree", or a file of a
    # value and a name on each line, see inputs/mask_values.py.
    config.data.mask_values = placeholder(str)
    config.data.scenes.size = 65
    config.data.scenes.digit_size = (20, 36)
    config.data.scenes.digits = (1, 3)

    config.optimizer.weight_decay = 1e-5
    config.schedule.learning_rate = 0.02
    return config


def get_small_config() -> Any:
    """Of small images: a small network whose finest maps are fine enough for small objects."""
    config = get_config()
    pyramid.make_small(config)
    config.model.stem = "small"
    config.model.fpn_channels = 24
    config.model.head_channels = 24
    config.model.bn_momentum = 0.9
    config.drop.keep_prob = 0.9  # a head of so few channels has none to spare for the paper's 0.2
    config.data.num_threads = 2
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 1e-4
    config.schedule.reference_batch = 16
    config.schedule.learning_rate = 0.4
    return config
