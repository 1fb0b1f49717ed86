"""ResNet-50 on ImageNet: the paper's Table 1.

    python train.py --config configs/imagenet_resnet50.py:dropblock --config.data.dir DIR

DIR holds the TFDS set `imagenet2012` in ArrayRecord form. Plain folders (train/ and val/ of class
folders, as most people have them) need two fields more:

    --config.data.name image_folder --config.data.eval_split val

Expected (the paper's, average of 3 runs; we have not run ImageNet): baseline 76.51 +- 0.07 top-1,
93.20 +- 0.05 top-5; dropblock 78.13 +- 0.05, 94.02 +- 0.02; the best over training.

Constants: docs/paper.md sections 2 and 3.
"""

from configs import defaults

VARIANTS = {
    "baseline": {},
    "dropblock": {"drop.kind": "dropblock"},  # section 4.1: keep_prob 0.9, block 7, linear
}


def get_config(variant: str = "dropblock"):
    config = defaults.get_config()
    config.batch_size = 1024
    # Section 4.1: 270 epochs, x0.1 at 125, 200 and 250. The rest is the authors' public code.
    config.epochs = 270.0
    config.schedule.boundaries = (125.0, 200.0, 250.0)
    config.dtype = "bfloat16"

    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    config.data.num_classes = 1000
    config.data.num_train_examples = 1_281_167
    config.data.num_eval_examples = 50_000

    config.log_every_steps = 100
    config.checkpoint_every_steps = 1251
    return defaults.choose(VARIANTS, variant, config)
