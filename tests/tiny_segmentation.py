"""A config of seconds: 24 scenes of digits, and an FCN on the ResNet of tests/tiny.py."""

from configs import scenes_fcn


def get_config(variant: str = "block4"):
    config = scenes_fcn.get_config(variant)
    config.data.train_split = "train[:24]"
    config.data.eval_split = "test[:11]"  # a last batch that is not full
    config.data.image_size = 33
    config.data.scenes.size = 40
    config.batch_size = 8
    config.epochs = 2.0
    config.model.depth = 10
    config.model.width_multiplier = 1 / 16
    config.model.fpn_channels = 8
    config.model.head_convs = 1
    config.model.head_channels = 8
    config.log_every_steps = 1
    config.checkpoint_every_steps = 2
    return config
