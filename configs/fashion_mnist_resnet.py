"""A DropBlock ResNet-18 on Fashion-MNIST (TFDS, ArrayRecord).

    python train.py --config configs/fashion_mnist_resnet.py --config.data.dir DIR

Expected: not measured in full; the paper has no result on this set.
"""

from configs import methods, small


def get_config(variant: str = "dropblock"):
    config = small.get_config()
    config.epochs = 30.0
    config.model.width_multiplier = 0.5

    config.data.name = "fashion_mnist"
    config.data.image_size = 28
    config.data.channels = 1
    config.data.num_train_examples = 60_000
    config.data.num_eval_examples = 10_000
    config.data.crop_padding = 2
    config.data.mean = (0.286,)
    config.data.std = (0.353,)
    return methods.choose(variant, config, policy="cifar")
