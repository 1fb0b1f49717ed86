"""A DropBlock ResNet-10 of a quarter of the width on 1,000 small photographs, for a laptop's core.

    python train.py --config configs/imagenette_small_resnet.py --config.data.dir DIR

All as in `imagenette_resnet`, but for the size: its stem has a stride of 2, so the maps of 16 and 8
pixels, where DropBlock acts with the factors of the paper's groups 3 and 4, are groups 2 and 3. The
other half of the training images is there to choose by: --config.data.eval_split "train[50%:]".

Expected: see experiments/results/imagenette.md.
"""

from configs import imagenette_resnet, methods


def get_config(variant: str = "dropblock"):
    config = imagenette_resnet.get_config("baseline")
    config.epochs = 160.0  # after 80 it does not know its images by heart
    config.model.depth = 10
    config.model.width_multiplier = 0.25
    config.model.stem_stride = 2
    config.data.train_split = "train[:50%]"
    config.data.num_train_examples = 1000
    methods.choose(variant, config, policy="imagenet")
    # One group earlier than the methods have it, on maps as large as theirs.
    places = config.drop.places
    places.group1, places.group2, places.group3, places.group4 = (
        places.group2,
        places.group3,
        places.group4,
        0.0,
    )
    return config
