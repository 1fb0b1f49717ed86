"""A small AmoebaNet-B on CIFAR-10 (TFDS, ArrayRecord).

    python train.py --config configs/cifar10_amoebanet.py --config.data.dir DIR

Expected: not measured in full; on 2,000 images for 12 epochs 38 top-1 without DropBlock, see
experiments/results/amoebanet.md.
"""

from configs import amoebanet, data_sets, defaults


def get_config(variant: str = "dropblock"):
    config = amoebanet.get_config()
    config.batch_size = 64
    config.epochs = 30.0
    config.model.stem = "small"
    config.model.stem_stride = 2
    config.model.cells_per_stack = 1
    config.model.filters = 16
    # Of all five cells the last two, on maps of 8 and 4: of three normal cells, half is one.
    config.drop.places["first_half/reduction1"] = 1.0
    config.drop.block_size = 3
    config.ema_decay = 0.99

    config.schedule.kind = "cosine"
    config.schedule.learning_rate = 0.16
    config.schedule.reference_batch = 64
    config.schedule.warmup_epochs = 2.0

    data_sets.use_cifar10(config)
    config.data.augment = "small"
    config.data.cache = True
    config.data.num_threads = 0
    return defaults.choose(amoebanet.VARIANTS, variant, config)
