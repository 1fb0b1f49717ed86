"""Fine-tuning on your own images: a ResNet-50 from ImageNet's weights, a new head, and DropBlock.

    python -m weights.convert resnet50-11ad3fa6.pth resnet50.safetensors
    python train.py --config configs/finetune_resnet50.py --config.init_from resnet50.safetensors \\
        --config.data.dir DIR

The weights are torchvision's or timm's: docs/weights.md. DIR holds train/CLASS/*.jpg and
val/CLASS/*.jpg. Weights of another depth: --config.model.depth 18, 34, 101 or 152.

Expected: depends on your images.
"""

from configs import image_folder_resnet, methods


def get_config(variant: str = "dropblock"):
    config = image_folder_resnet.get_config("baseline")
    config.init_from = "resnet50.safetensors"
    config.batch_size = 64
    config.epochs = 30.0
    # A tenth of what a network from scratch is given; the head learns what it has to in an epoch.
    config.schedule.learning_rate = 0.01
    config.schedule.warmup_epochs = 1.0
    return methods.choose(variant, config, policy="imagenet")
