"""AmoebaNet-B (6, 256) on ImageNet: the paper's Table 2.

    python train.py --config configs/imagenet_amoebanet_b.py:dropblock --config.data.dir DIR

DIR holds the TFDS set `imagenet2012` in ArrayRecord form, or, with --config.data.name image_folder
--config.data.eval_split val, plain folders. The batch of 2048 is meant for 32 TPU cores of 16 GB.

Expected top-1 (the paper's, the best over training; we have not run ImageNet):

    :baseline  82.25    :dropblock  82.52

:drop_path is ScheduledDropPath, which the paper does not have. Constants: docs/paper.md section 4;
what the paper leaves open, section 7.5.
"""

from configs import amoebanet, data_sets, defaults


def get_config(variant: str = "dropblock"):
    config = amoebanet.get_config()
    config.batch_size = 2048
    config.epochs = 340.0
    config.dtype = "bfloat16"
    config.model.cells_per_stack = 6
    config.model.filters = 256
    config.model.bn_group_size = 32  # C's 256 on 8 cores
    config.model.remat = "cells"  # for 64 images in 16 GB: experiments/results/amoebanet.md
    config.drop.block_size = 11
    config.ema_decay = 0.9999

    config.schedule.kind = "exponential"
    config.schedule.learning_rate = 0.64
    config.schedule.reference_batch = 256
    config.schedule.warmup_epochs = 5.0
    config.schedule.factor = 0.97
    config.schedule.decay_epochs = 2.4
    config.schedule.final_fraction = 1e-4

    data_sets.use_imagenet(config)
    config.data.image_size = 331
    config.data.augment = "inception"
    config.data.mean = (0.5, 0.5, 0.5)  # pixels to [-1, 1]
    config.data.std = (0.5, 0.5, 0.5)

    config.log_every_steps = 100
    config.checkpoint_every_steps = 625
    return defaults.choose(amoebanet.VARIANTS, variant, config)
