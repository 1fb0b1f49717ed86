"""Joining the other hosts of a pod or a cluster."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from training.config import ConfigError

HELP = (
    "Join the other hosts: of a Cloud TPU pod, Slurm, MPI or Kubernetes as they are found, or by "
    "--multihost=COORDINATOR:PORT,PROCESSES,INDEX anywhere else."
)


def initialize(how: str):
    """Does what --multihost says; to be called before jax is asked for its devices.

    Args:
      how: "false", "true", or "COORDINATOR:PORT,PROCESSES,INDEX".

    Raises:
      ConfigError: it cannot be read, or no cluster is found.
    """
    if how == "false":
        return
    if how == "true":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ConfigError(
                f"--multihost finds no pod or cluster around this host ({error}): leave it out, or "
                "say --multihost=COORDINATOR:PORT,PROCESSES,INDEX"
            ) from error
        return
    try:
        address, processes, index = how.split(",")
        processes, index = int(processes), int(index)
    except ValueError:
        raise ConfigError(
            f"--multihost must be COORDINATOR:PORT,PROCESSES,INDEX, got {how!r}"
        ) from None
    jax.distributed.initialize(address, processes, index)


def as_process_0_sees_it(found: bool) -> bool:
    """Process 0's answer, on all: only it has the run's files. To be asked by all at one point."""
    return bool(multihost_utils.broadcast_one_to_all(found)) if jax.process_count() > 1 else found


def from_process_0(make: Callable[[], Any]) -> Any:
    """What process 0 makes, on all, as JSON has it. To be asked by all at one point."""
    if jax.process_count() == 1:
        return make()
    text = json.dumps(make()).encode() if jax.process_index() == 0 else b""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    data = np.frombuffer(text.ljust(length), np.uint8)
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(data)))
