"""A config of seconds: 16 scenes of digits, and a detector on the ResNet of tests/tiny.py."""

import random_runs
import tiny
from configs import scenes_retinanet


def get_config(variant: str = "dropblock"):
    config = scenes_retinanet.get_config(variant)
    config.data.train_split = "train[:16]"
    config.data.eval_split = "test[:20]"  # a last batch that is not full
    config.data.image_size = 64
    config.data.scenes.size = 64
    config.data.scenes.digit_size = (20, 32)
    config.data.num_threads = 0
    config.batch_size = 8
    config.epochs = 3.0
    backbone = tiny.get_config().model
    config.model.update({name: backbone[name] for name in ("depth", "stem", "stem_stride")})
    config.model.width_multiplier = backbone.width_multiplier
    config.model.max_level = 4
    config.model.fpn_channels = 8
    config.model.head_convs = 1
    config.model.head_channels = 8
    config.drop.block_size = 2
    config.detection.max_candidates = 100
    config.detection.max_detections = (20, 50)
    config.ema_decay = 0.9
    config.log_every_steps = 1
    config.eval_every_epochs = 1.5
    config.checkpoint_every_steps = 2
    return config


def save_classifier(workdir, config=None):
    """A run (of tests/tiny.py) whose only checkpoint holds random numbers, which are returned."""
    config = config or tiny.get_config()
    return random_runs.save(config, workdir / "checkpoints", 12, {"top1": 50.0})
