"""A small RetinaNet on your own boxes in PASCAL VOC's form.

DIR holds JPEGImages/, Annotations/*.xml, ImageSets/Main/train.txt and ImageSets/Main/val.txt.

    python train.py --config configs/voc_xml_retinanet.py --config.data.dir DIR

All else is as in configs/coco_json_retinanet.py: what to set for larger sets, smaller or larger
objects, and many objects in an image stands there.

Expected: depends on your images.
"""

from configs import coco_json_retinanet


def get_config(variant: str = "dropblock"):
    config = coco_json_retinanet.get_config(variant)
    config.data.name = "voc_xml"
    return config
