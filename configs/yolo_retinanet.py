"""A small RetinaNet on your own boxes in YOLO's form.

DIR holds images/train/*, images/val/*, labels/train/*.txt, labels/val/*.txt and data.yaml, as
Ultralytics has it; or train/images/*, train/labels/*.txt and so on, as Roboflow writes it; or lists
train.txt and val.txt of images, labels beside them; the names of the classes are in data.yaml or
classes.txt.

    python train.py --config configs/yolo_retinanet.py --config.data.dir DIR

A folder without splits is the split "all": --config.data.train_split "all[:80%]"
--config.data.eval_split "all[80%:]".

All else is as in configs/coco_json_retinanet.py: what to set for larger sets, smaller or larger
objects, and many objects in an image stands there.

Expected: depends on your images.
"""

from configs import coco_json_retinanet


def get_config(variant: str = "dropblock"):
    config = coco_json_retinanet.get_config(variant)
    config.data.name = "yolo"
    return config
