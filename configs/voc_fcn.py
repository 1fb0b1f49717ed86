"""ResNet-101 FCN on PASCAL VOC 2012: the paper's Table 4.

    python train.py --config configs/voc_fcn.py:block16 --config.data.dir DIR

DIR is VOC2012 with the augmented masks beside its own, as they are commonly unpacked:
JPEGImages/*.jpg, SegmentationClassAug/*.png (class indices, 255 is ignored), and the lists
ImageSets/Segmentation/trainaug.txt (10,582 names) and val.txt (1,449). Other names:
--config.data.names, --config.data.images, --config.data.masks, --config.data.train_split.

:finetune begins with the backbone of PyTorch's weights, `--config.init_from resnet101.safetensors`,
or of a classification run, `--config.init_from WORKDIR`, such as

    python train.py --config configs/imagenet_resnet50.py --config.model.depth 101 \\
        --workdir runs/imagenet_resnet101 --config.data.dir IMAGENET

Expected mIoU (the paper's; we have not run VOC):

    :finetune  74.6    from an ImageNet ResNet-101, see above; no DropBlock
    :scratch   47.2    from random initialisation; no DropBlock
    :block1    51.0    the same with DropBlock in the head, block size 1, 4 and 16
    :block4    53.2
    :block16   53.4

:backbone has DropBlock in groups 3 and 4 instead, which the paper found to help less. Constants:
docs/paper.md sections 6 and 7.
"""

from configs import defaults, segmentation

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def get_config(variant: str = "block16"):
    config = segmentation.get_config()
    # Section 4.4: 500 epochs; from ImageNet 45, x0.1 at 25 and 35. Here in proportion (section 7).
    config.epochs = 500.0
    config.schedule.boundaries = (278.0, 389.0)
    config.dtype = "bfloat16"
    config.model.bn_group_size = 8  # 64 on C's 8 cores
    config.model.depth = 101

    config.data.train_split = "trainaug"
    config.data.names = "ImageSets/Segmentation/{split}.txt"
    config.data.images = "JPEGImages"
    config.data.masks = "SegmentationClassAug"
    config.data.class_names = CLASSES
    config.data.num_classes = 21
    config.data.num_train_examples = 10_582
    config.data.num_eval_examples = 1_449

    config.eval_every_epochs = 5.0
    finetune = {
        "epochs": 45.0,
        "schedule.boundaries": (25.0, 35.0),
        "init_from": "runs/imagenet_resnet101",
    }
    return defaults.choose({"finetune": finetune} | segmentation.VARIANTS, variant, config)
