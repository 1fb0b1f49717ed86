"""What the detection configs share, and the rows of the paper's Table 3 as their variants.

Constants: docs/paper.md sections 5 and 7.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import pyramid

VARIANTS = {
    "scratch": {},
    "block1": {"drop.kind": "dropblock", "drop.block_size": 1},
    "block3": {"drop.kind": "dropblock", "drop.block_size": 3},
    "block5": {"drop.kind": "dropblock", "drop.block_size": 5},
    "block7": {"drop.kind": "dropblock", "drop.block_size": 7},
    # The names that classification's configs have: without, and with the config's own block.
    "baseline": {},
    "dropblock": {"drop.kind": "dropblock"},
}


def get_config() -> Any:
    """The paper's RetinaNet; a config says which data, and how long."""
    config = pyramid.get_config()
    config.task = "detection"

    # --- Model.
    config.model.name = "retinanet"
    config.model.max_level = 7  # data.image_size has to be a multiple of its stride
    config.model.head_convs = 4  # of each head, before its output
    config.model.anchor_scale = 4.0  # side of a level's smallest square anchor, in strides
    config.model.anchors_per_octave = 3
    config.model.anchor_aspects = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))  # (width, height)

    # --- Data.
    config.data.name = placeholder(str)  # "coco_json", "voc_xml", "yolo", "scenes", or a TFDS set
    config.data.image_size = 640  # of the square that images are brought into
    config.data.scale = (0.8, 1.2)  # in training: the longer side, of image_size
    config.data.max_boxes = 100  # of an image in training: of more, the largest
    config.data.annotations = "annotations/instances_{split}.json"  # coco_json's, in data.dir
    config.data.scenes.size = 128
    config.data.scenes.digit_size = (20, 56)
    config.data.scenes.digits = (2, 6)

    # --- Targets, loss, and what is made of the outputs.
    config.detection = ConfigDict()
    config.detection.match_iou = 0.5  # an anchor with at least this IoU with an object is its
    config.detection.focal_alpha = 0.25
    config.detection.focal_gamma = 1.5
    config.detection.huber_delta = 0.1
    config.detection.box_weight = 50.0
    config.detection.max_candidates = 5000  # (anchor, class) pairs of an image that enter NMS
    config.detection.nms_iou = 0.5
    config.detection.min_score = 0.0
    # The best so many detections of an image are scored: the first number gives COCO's 12 metrics,
    # each other one AP@<number> and so on.
    config.detection.max_detections = (100,)
    config.detection.picture_score = 0.3  # what is drawn

    config.schedule.learning_rate = 0.08
    return config


def get_small_config() -> Any:
    """A detector of few channels for sets of hundreds or thousands of images, from scratch.

    Its anchors reach from 16 pixels to 200, on images of 256.
    """
    config = get_config()
    pyramid.make_small(config)
    config.batch_size = 16
    config.model.max_level = 6
    config.model.anchor_scale = 2.0
    config.model.fpn_channels = 64
    config.model.head_channels = 64
    config.model.bn_momentum = 0.98
    config.drop.block_size = 3
    config.data.image_size = 256
    config.detection.max_candidates = 1000
    return config
