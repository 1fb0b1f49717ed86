"""A small FCN on your own images and masks.

    python train.py --config configs/mask_folder_fcn.py --config.data.dir DIR \\
        --config.data.class_names background,nucleus

DIR/images holds the images, DIR/masks a PNG of class indices for each (0 is the first of the
class names; 255 is ignored), DIR/train.txt and DIR/val.txt the names of each split, one a line.
Other values are named, "0=background,255=nucleus" or "#408040=animal,#000000=ignore", or a file of
them is: --config.data.mask_values. One more value to ignore: --config.data.ignore_index 11.

Expected: depends on your images; what 404 microscope images of cell nuclei gave is in the README.
"""

from configs import defaults, segmentation


def get_config(variant: str = "scratch"):
    config = segmentation.get_small_config()
    config.batch_size = 16
    config.epochs = 20.0
    # Logits at stride 2, where the paper has 8: at a fourth of its input, as many as the paper's.
    config.model.stem_stride = 2
    config.model.min_level = 1
    config.model.max_level = 4

    config.data.image_size = 129
    config.data.on_error = "skip"  # named and counted; one bad file should not cost a night

    config.log_every_steps = 10
    config.eval_every_epochs = 5.0
    config.checkpoint_every_steps = 100
    return defaults.choose(segmentation.VARIANTS, variant, config)
