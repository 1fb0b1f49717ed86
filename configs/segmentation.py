"""What the segmentation configs share, and the rows of the paper's Table 4 as their variants.

Constants: docs/paper.md sections 6 and 7.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import defaults

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
    config = defaults.get_config()
    config.task = "segmentation"
    # Workdir of a classification run (or its checkpoints folder): its ResNet is what the backbone
    # starts from. It has to be of the same depth, width and stem.
    config.pretrained = placeholder(str)

    # --- Model. depth, stem, stem_stride and width_multiplier are the backbone's.
    config.model.backbone = "resnet"  # one of tasks/architectures.py
    config.model.name = "fcn"
    config.model.min_level = 3  # of the pyramid; level l has stride 2^l, the logits the finest's
    config.model.max_level = 5
    config.model.fpn_channels = 256
    config.model.head_convs = 3  # before its last
    config.model.head_channels = 256
    config.model.bn_momentum = 0.997  # a run of few steps wants less: they lag by 1 / (1 - this)
    config.model.bn_epsilon = 1e-4

    config.drop.keep_prob = 0.2
    config.drop.block_size = 16
    config.drop.places = ConfigDict({"head": 1.0, "group3": 0.0, "group4": 0.0})

    # --- Data.
    config.data.name = "mask_folder"  # or "scenes"
    config.data.eval_split = "val"
    config.data.image_size = 513  # of the square that images are brought into
    config.data.scale = (0.75, 1.5)  # in training: the longer side, of image_size
    # The list of a split's names, and the folders of images and masks, all in data.dir.
    config.data.names = "{split}.txt"
    config.data.images = "images"
    config.data.masks = "masks"
    config.data.scenes = ConfigDict()  # see inputs/scenes.py
    config.data.scenes.size = 65
    config.data.scenes.digit_size = (20, 36)
    config.data.scenes.digits = (1, 3)
    config.data.scenes.max_overlap = 0.1
    config.data.scenes.seed = 0

    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-5
    config.schedule.learning_rate = 0.02
    config.schedule.reference_batch = 64
    config.schedule.warmup_epochs = 1.0
    config.schedule.warmup_start = 0.1

    defaults.leave_out_classification(config)
    return config


def get_small_config() -> Any:
    """Of small images: a small network whose finest maps are fine enough for small objects."""
    config = get_config()
    config.model.depth = 18
    config.model.stem = "small"
    config.model.width_multiplier = 0.25
    config.model.fpn_channels = 24
    config.model.head_convs = 2
    config.model.head_channels = 24
    config.model.bn_momentum = 0.9
    config.drop.keep_prob = 0.9  # a head of so few channels has none to spare for the paper's 0.2
    config.data.num_threads = 2
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 1e-4
    config.schedule.kind = "cosine"
    config.schedule.reference_batch = 16
    config.schedule.learning_rate = 0.4
    return config


def choose(variant: str, config: Any, **more: dict) -> Any:
    """Applies one of `VARIANTS`, or of `more` like them, to `config`.

    Raises:
      ValueError: no such variant.
    """
    return defaults.choose(more | VARIANTS, variant, config)
