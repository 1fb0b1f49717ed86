"""A DropBlock ResNet-18 of half the width on small photographs: Imagenette, 200 of each class.

    python train.py --config configs/imagenette_resnet.py --config.data.dir DIR

DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, a shorter side of 96 pixels or so. Groups 3 and 4 see
maps of 16 and 8 pixels, wide enough to hold blocks, and the training images are learned by heart.

Expected: see experiments/results/imagenette.md.
"""

from configs import methods, small


def get_config(variant: str = "dropblock"):
    config = small.get_config()
    config.batch_size = 64
    config.epochs = 60.0
    config.eval_every_epochs = 1000.0  # at the end alone
    config.model.width_multiplier = 0.5
    config.drop.block_size = 7

    config.data.name = "image_folder"
    config.data.eval_split = "val"
    config.data.image_size = 64
    config.data.crop_padding = 8
    config.data.num_train_examples = 2000
    config.data.num_eval_examples = 2000
    return methods.choose(variant, config, policy="imagenet")
