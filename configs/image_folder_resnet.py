"""A DropBlock ResNet-50 on your own images: DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg.

    python train.py --config configs/image_folder_resnet.py --config.data.dir DIR

The classes and the number of images are read from the folders; nothing else needs to be said. For
small images or a small machine: --config.model.depth 18 --config.data.image_size 64
--config.model.stem small --config.model.width_multiplier 0.5 --config.batch_size 64.

Expected: depends on your images.
"""

from configs import defaults, methods


def get_config(variant: str = "dropblock"):
    config = defaults.get_config()
    config.batch_size = 128
    config.epochs = 90.0
    config.schedule.kind = "cosine"
    config.data.name = "image_folder"
    config.data.eval_split = "val"
    config.data.on_error = "skip"  # named and counted; one bad file should not cost a night
    return methods.choose(variant, config, policy="imagenet")
