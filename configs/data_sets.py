"""What the configs of one data set share, whatever the network: its name, sizes and counts."""

from typing import Any


def use_cifar10(config: Any):
    config.data.name = "cifar10"
    config.data.image_size = 32
    config.data.num_classes = 10
    config.data.num_train_examples = 50_000
    config.data.num_eval_examples = 10_000
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)


def use_imagenet(config: Any):
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    config.data.num_classes = 1000
    config.data.num_train_examples = 1_281_167
    config.data.num_eval_examples = 50_000


def use_scenes(config: Any):
    """Scenes of digits: inputs/scenes.py. The classes are 10, and in masks the background too."""
    config.data.name = "scenes"
    config.data.eval_split = "test"
    config.data.channels = 1
    config.data.num_train_examples = 4000
    config.data.num_eval_examples = 500
    config.data.flip = False  # a mirrored digit is another sign
    config.data.mean = (0.1,)
    config.data.std = (0.27,)
