"""What the configs of detection and of segmentation share: a backbone under a feature pyramid."""

from typing import Any

from ml_collections import ConfigDict

from configs import defaults


def get_config() -> Any:
    """The fields of both tasks, with the constants that docs/paper.md sections 5 and 6 share."""
    config = defaults.get_config()

    # --- Model. depth, stem, stem_stride and width_multiplier are the backbone's.
    config.model.backbone = "resnet"  # or another row of tasks/architectures.py
    config.model.min_level = 3  # of the pyramid; level l has stride 2^l
    config.model.fpn_channels = 256
    config.model.head_channels = 256
    config.model.bn_momentum = 0.997  # a run of few steps wants less: they lag by 1 / (1 - this)
    config.model.bn_epsilon = 1e-4

    # --- Data.
    config.data.images = "images"  # their folder in data.dir; for coco_json perhaps with {split}
    config.data.scenes = ConfigDict()  # see inputs/scenes.py
    config.data.scenes.max_overlap = 0.1
    config.data.scenes.seed = 0

    config.batch_size = 64
    config.optimizer.nesterov = False
    config.schedule.reference_batch = 64
    config.schedule.warmup_epochs = 1.0
    config.schedule.warmup_start = 0.1

    # What these tasks have no use for, so that nobody sets it in vain.
    del config.label_smoothing
    for name in ("augment", "quick_crops", "crop_padding", "autoaugment", "cutout", "cache"):
        del config.data[name]
    return config


def make_small(config: Any):
    """Makes the network one of few channels, for sets of hundreds or thousands of images."""
    config.model.depth = 18
    config.model.width_multiplier = 0.25
    config.model.head_convs = 2
    config.schedule.kind = "cosine"
