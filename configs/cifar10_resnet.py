"""A DropBlock ResNet-18 on CIFAR-10 (TFDS, ArrayRecord).

    python train.py --config configs/cifar10_resnet.py --config.data.dir DIR

Expected: not measured in full; the paper has no result on this set.
"""

from configs import methods, small


def get_config(variant: str = "dropblock"):
    config = small.get_config()
    config.epochs = 100.0

    config.data.name = "cifar10"
    config.data.image_size = 32
    config.data.num_train_examples = 50_000
    config.data.num_eval_examples = 10_000
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    return methods.choose(variant, config, policy="cifar")
