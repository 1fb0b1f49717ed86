"""A DropBlock ResNet-18 on CIFAR-10 (TFDS, ArrayRecord).

    python train.py --config configs/cifar10_resnet.py --config.data.dir DIR

Expected: not measured in full; the paper has no result on this set.
"""

from configs import data_sets, methods, small


def get_config(variant: str = "dropblock"):
    config = small.get_config()
    config.epochs = 100.0

    data_sets.use_cifar10(config)
    return methods.choose(variant, config, policy="cifar")
