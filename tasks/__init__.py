"""One file for each problem: what it adds to the training loop.

A new task is its file here, a row of `TASKS`, and a config: docs/extending.md.
"""

from tasks.classification import Classification
from tasks.detection import Detection
from tasks.segmentation import Segmentation

TASKS = {
    "classification": Classification,
    "detection": Detection,
    "segmentation": Segmentation,
}


def make_task(config, **options):
    """The task that `config.task` names; for `options` see `tasks.base.Task`.

    Raises:
      ValueError: there is no such task, or what the task says of the config.
    """
    if config.task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {config.task!r}")
    return TASKS[config.task](config, **options)
