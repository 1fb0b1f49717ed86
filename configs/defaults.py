"""Every field a config has, with its default. Each config file is a difference from this."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> Any:  # a ConfigDict; to a type checker its fields could be anything
    config: Any = ConfigDict()
    config.task = "classification"
    config.seed = 0
    # What the network starts from: the workdir of a run (or its checkpoints folder), or weights of
    # a PyTorch ResNet, .safetensors or .npz. See docs/weights.md.
    config.init_from = placeholder(str)
    # "all", or "backbone"; by default all where that network is of the same kind.
    config.init_part = placeholder(str)
    # The dtype of the computation; parameters, statistics and the optimizer stay float32.
    config.dtype = "float32"

    # Cuts large parameters, their momenta and averages over the devices (FSDP): for networks that
    # are too large to be on each. Numbers stay the same, checkpoints fit either form.
    config.shard_state = False

    # --- Length. Either epochs, of num_train_examples // batch_size steps, or steps.
    config.batch_size = 128  # global
    config.accumulate = 1  # micro-batches that one step's batch is cut into
    config.epochs = placeholder(float)
    config.steps = placeholder(int)

    # --- Model.
    config.model = ConfigDict()
    config.model.name = "resnet"
    config.model.depth = 50
    config.model.width_multiplier = 1.0
    config.model.stem = "imagenet"  # or "small": 3x3, and nothing else that makes maps smaller
    config.model.stem_stride = 1  # of the small stem
    # "tensorflow" as the paper's, or "pytorch": how the ResNet pads and normalises, see
    # models/resnet.py. Default: as the weights have it that it starts from.
    config.model.convention = placeholder(str)
    # Consecutive examples whose BatchNorm statistics are taken together; 0: the whole batch.
    config.model.bn_group_size = 0

    # --- Dropping, see models/drop.py. A place of factor 0 is off. A key holds no dot, so the
    # place group4.block1 is "group4/block1": --config.drop.places "{'group4/block1': 1.0}"
    config.drop = ConfigDict()
    config.drop.kind = "none"
    config.drop.keep_prob = 0.9
    config.drop.schedule = "linear"
    config.drop.block_size = placeholder(object)  # an int, or one for each axis
    config.drop.block_size = 7
    config.drop.places = ConfigDict({"group1": 0.0, "group2": 0.0, "group3": 0.25, "group4": 1.0})
    config.drop.sites = ("conv", "skip")
    config.drop.shared_mask = False
    config.drop.gamma_rule = "paper"
    config.drop.normalize = placeholder(str)  # "batch", "sample", "map", or "none"
    config.drop.normalize = "batch"

    # --- Data.
    config.data = ConfigDict()
    config.data.name = placeholder(str)  # "mnist", "image_folder", or a TFDS set's name
    config.data.dir = placeholder(str)
    config.data.train_split = "train"
    config.data.eval_split = "test"
    config.data.image_size = 224
    config.data.channels = 3
    # What the data has, for --dry_run without the data; a run's config.json has what was found.
    # What labels index: names, "sky,tree", or "@classes.txt"; default: the training split's.
    config.data.class_names = placeholder(object)
    config.data.num_classes = placeholder(int)
    config.data.num_train_examples = placeholder(int)
    config.data.num_eval_examples = placeholder(int)
    config.data.augment = "imagenet"  # or "inception", "small", "none"
    config.data.quick_crops = True  # of files in training: almost the same pixels, in half the time
    config.data.crop_padding = 4  # pixels, of the small augmentation
    config.data.flip = True
    config.data.autoaugment = "none"  # or "imagenet", "cifar": the policy, after crop and flip
    config.data.cutout = 0.0  # side of the covered square, as a fraction of image_size
    config.data.mean = (0.485, 0.456, 0.406)  # of pixels in [0, 1]
    config.data.std = (0.229, 0.224, 0.225)
    config.data.on_error = "raise"  # or "skip", for examples that cannot be read
    config.data.cache = False  # keep decoded examples in memory: for small images
    config.data.num_threads = 16
    config.data.num_workers = 0  # reading processes besides the threads

    # --- Loss and optimizer, see training/optimizer.py.
    config.label_smoothing = 0.0
    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # with momentum; or "rmsprop", TensorFlow's
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.rms_decay = 0.9  # rmsprop's, of the mean square
    config.optimizer.rms_epsilon = 1.0  # rmsprop's, inside the root
    config.optimizer.weight_decay = 1e-4  # L2 on everything but BatchNorm
    config.optimizer.decay_biases = True  # whether on biases too
    config.optimizer.clip_norm = placeholder(float)
    config.ema_decay = placeholder(float)  # of parameters and BN statistics; used to evaluate

    # --- Learning rate: linear warm-up, then `kind`.
    config.schedule = ConfigDict()
    config.schedule.kind = "step"  # or "cosine", "exponential", "constant"
    config.schedule.learning_rate = 0.1  # at a batch of `reference_batch`, scaled linearly
    config.schedule.reference_batch = 256
    config.schedule.warmup_epochs = 5.0
    config.schedule.warmup_start = 0.0  # what the warm-up starts from, of the peak
    config.schedule.boundaries = (30.0, 60.0, 80.0)  # epochs, step
    config.schedule.factor = 0.1  # step: at each boundary; exponential: at each `decay_epochs`
    config.schedule.decay_epochs = 2.4  # exponential, in a staircase
    config.schedule.final_fraction = 0.0  # of the peak: cosine's end, exponential's floor

    # --- What is written when.
    config.log_every_steps = 100
    config.eval_every_epochs = 1.0
    config.checkpoint_every_steps = 1000
    config.keep_checkpoints = 3  # before the newest, besides the best
    return config


def choose(variants: dict, variant: str, config: Any) -> Any:
    """Applies the named one of `variants`, `{name: {dotted field: value}}`, to `config`.

    Raises:
      ValueError: no such variant.
    """
    if variant not in variants:
        raise ValueError(f"no variant {variant!r} in this config; it has {', '.join(variants)}")
    with config.unlocked():
        config.update_from_flattened_dict(variants[variant])
    return config
