"""One file for each problem: what it adds to the training loop."""

from tasks.classification import Classification

TASKS = {"classification": Classification}


def make_task(config, *, need_data: bool = True, train: bool = True):
    """The task that `config.task` names; for the other arguments see the task.

    Raises:
      ValueError: there is no such task, or what the task says of the config.
    """
    if config.task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {config.task!r}")
    return TASKS[config.task](config, need_data=need_data, train=train)
