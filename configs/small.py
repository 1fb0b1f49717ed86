"""What the configs of small images (28 to 64 pixels) share."""

from configs import defaults


def get_config():
    config = defaults.get_config()
    config.model.depth = 18
    config.model.stem = "small"
    config.drop.block_size = 3
    config.data.augment = "small"
    config.data.cache = True
    config.data.num_threads = 0  # reading ahead in threads costs more than so small an image
    config.data.num_classes = 10
    config.schedule.kind = "cosine"
    config.schedule.reference_batch = 128
    config.schedule.warmup_epochs = 2.0
    config.optimizer.weight_decay = 5e-4
    return config


def take_few(config):
    """Makes of a config one for 1,000 images, which its network learns by heart within a minute.

    That is where a regulariser is asked for, and cheap enough for the paper's tables and figures:
    experiments/results/classification_1000.md was measured so.
    """
    config.batch_size = 64
    config.epochs = 50.0
    config.eval_every_epochs = 1000.0  # at the end alone: the test set is ten times larger
    config.model.width_multiplier = 0.25
    config.model.stem_stride = 2
    config.data.train_split = "train[:1000]"
    config.data.num_train_examples = 1000
    config.data.augment = "none"
