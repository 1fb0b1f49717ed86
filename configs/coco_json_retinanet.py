"""A small RetinaNet on your own boxes in COCO's form.

DIR holds annotations/instances_train.json, annotations/instances_val.json and images/.

    python train.py --config configs/coco_json_retinanet.py --config.data.dir DIR

Files elsewhere: --config.data.annotations "boxes/{split}.json" --config.data.images "{split}".

Classes and counts are read from the files; nothing else needs to be said. For larger sets or
machines: --config.model.depth 50 --config.model.width_multiplier 1 --config.data.image_size 512
--config.model.fpn_channels 256 --config.model.head_channels 256 --config.model.head_convs 4.

Anchors of 16 to 200 pixels of the 256 are tried: for other objects see --config.model.anchor_scale
and --config.model.max_level. More than 100 objects in an image:
--config.data.max_boxes 300 --config.detection.max_detections "(100, 500)".

Expected: depends on your images.
"""

from configs import defaults, detection


def get_config(variant: str = "dropblock"):
    config = detection.get_small_config()
    config.epochs = 100.0
    config.schedule.warmup_epochs = 5.0
    config.data.name = "coco_json"
    config.data.eval_split = "val"
    config.data.on_error = "skip"  # named and counted; one bad file should not cost a night

    config.log_every_steps = 20
    config.eval_every_epochs = 10.0
    config.checkpoint_every_steps = 200
    return defaults.choose(detection.VARIANTS, variant, config)
