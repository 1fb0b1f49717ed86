"""A config of seconds: 64 digits, a ResNet-10 of 4 filters, with everything switched on."""

from configs import mnist_resnet


def get_config(variant: str = "dropblock"):
    config = mnist_resnet.get_config(variant)
    config.data.train_split = "train[:64]"
    config.data.eval_split = "test[:50]"  # a last batch that is not full
    config.batch_size = 16
    config.epochs = 3.0
    config.model.depth = 10
    config.model.width_multiplier = 1 / 16
    config.ema_decay = 0.9
    config.schedule.warmup_epochs = 1.0
    config.log_every_steps = 1
    config.eval_every_epochs = 1.5
    config.checkpoint_every_steps = 3
    return config
