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
