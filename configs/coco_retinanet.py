"""RetinaNet with a ResNet-50 FPN on COCO: the paper's Table 3.

    python train.py --config configs/coco_retinanet.py:block5 --config.data.dir DIR

DIR holds the TFDS set `coco/2017` in ArrayRecord form. COCO's own files (annotations/, train2017/
and val2017/) need four fields more:

    --config.data.name coco_json --config.data.images "{split}" \
        --config.data.train_split train2017 --config.data.eval_split val2017

Expected AP, AP50 and AP75 on val2017 in percent (the paper's; we have not run COCO):

    :finetune   36.5  55.0  39.1    from an ImageNet ResNet-50, see below; no DropBlock
    :scratch    36.8  54.6  39.4    from random initialisation; no DropBlock
    :block1     37.9  56.1  40.6    the same with DropBlock, block size 1, 3, 5 and 7
    :block3     38.3  56.4  41.2
    :block5     38.4  56.4  41.2
    :block7     38.2  56.0  40.9

:finetune takes the backbone from a run of configs/imagenet_resnet50.py:baseline, by default the one
in runs/imagenet_resnet50; another, or PyTorch's weights: --config.init_from resnet50.safetensors.

Constants: docs/paper.md sections 5 and 7.
"""

from configs import defaults, detection


def get_config(variant: str = "block5"):
    config = detection.get_config()
    # Section 4.3: 150 epochs, x0.1 at 120 and 140; from ImageNet 28 epochs, x0.1 at 16 and 22.
    config.epochs = 150.0
    config.schedule.boundaries = (120.0, 140.0)
    config.dtype = "bfloat16"
    config.model.bn_group_size = 8  # 64 on C's 8 cores
    config.drop.block_size = 5

    config.data.name = "coco/2017"
    config.data.eval_split = "validation"
    config.data.num_classes = 80
    config.data.num_train_examples = 118_287
    config.data.num_eval_examples = 5000

    config.eval_every_epochs = 2.0
    config.checkpoint_every_steps = 1848
    finetune = {
        "init_from": "runs/imagenet_resnet50",
        "epochs": 28.0,
        "schedule.boundaries": (16.0, 22.0),
    }
    return defaults.choose({"finetune": finetune} | detection.VARIANTS, variant, config)
