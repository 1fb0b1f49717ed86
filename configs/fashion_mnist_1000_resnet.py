"""A narrow DropBlock ResNet-18 on the first 1,000 images of Fashion-MNIST, not augmented.

    python train.py --config configs/fashion_mnist_1000_resnet.py --config.data.dir DIR
    python -m experiments.table1 --dataset fashion_mnist_1000 --config.data.dir DIR

Expected: 79 top-1 in about a minute on a CPU core; see experiments/results/classification_1000.md.
"""

from configs import fashion_mnist_resnet, methods, small


def get_config(variant: str = "dropblock"):
    config = fashion_mnist_resnet.get_config("baseline")
    small.take_few(config)
    return methods.choose(variant, config, policy="cifar")
