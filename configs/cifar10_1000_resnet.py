"""A narrow DropBlock ResNet-18 on the first 1,000 images of CIFAR-10, not augmented.

    python train.py --config configs/cifar10_1000_resnet.py --config.data.dir DIR
    python -m experiments.table1 --dataset cifar10_1000 --config.data.dir DIR

Expected: 31 top-1 in about a minute and a half on a CPU core; see
experiments/results/classification_1000.md.
"""

from configs import cifar10_resnet, methods, small


def get_config(variant: str = "dropblock"):
    config = cifar10_resnet.get_config("baseline")
    small.take_few(config)
    return methods.choose(variant, config, policy="cifar")
