"""ResNet-50 on ImageNet: the paper's Table 1.

    python train.py --config configs/imagenet_resnet50.py:dropblock --config.data.dir DIR

DIR holds the TFDS set `imagenet2012` in ArrayRecord form. Plain folders (train/ and val/ of class
folders, as most people have them) need two fields more:

    --config.data.name image_folder --config.data.eval_split val

Expected top-1 (the paper's, mean of 3 runs, the best over training; we have not run ImageNet):

    :baseline         76.51 +- 0.07    :cutout                     76.52 +- 0.07
    :dropout          76.80 +- 0.04    :autoaugment                77.63
    :drop_path        77.10 +- 0.08    :label_smoothing            77.17 +- 0.05
    :spatial_dropout  77.41 +- 0.04    :dropblock                  78.13 +- 0.05
                                       :dropblock_label_smoothing  78.35 +- 0.05 (290 epochs)

DropPath acts in group 4; :drop_path_groups34 and :drop_path_all are the other places the paper
tried. Constants: docs/paper.md sections 2 and 3.
"""

from configs import data_sets, defaults, methods


def get_config(variant: str = "dropblock"):
    config = defaults.get_config()
    config.batch_size = 1024
    # Section 4.1: 270 epochs, x0.1 at 125, 200 and 250. The rest is the authors' public code.
    config.epochs = 270.0
    config.schedule.boundaries = (125.0, 200.0, 250.0)
    config.dtype = "bfloat16"
    config.model.bn_group_size = 128  # 1024 on C's 8 cores

    data_sets.use_imagenet(config)

    config.log_every_steps = 100
    config.checkpoint_every_steps = 1251
    return methods.choose(variant, config, policy="imagenet")
