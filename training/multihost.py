"""Joining the other hosts of a pod or a cluster."""

import jax
from absl import flags

from training.config import ConfigError

_MULTIHOST = flags.DEFINE_flag(
    flags.Flag(
        flags.ArgumentParser(),
        None,
        "multihost",
        "false",
        "Join the other hosts: of a Cloud TPU pod, Slurm, MPI or Kubernetes as they are found, or "
        "by --multihost=COORDINATOR:PORT,PROCESSES,INDEX anywhere else.",
        boolean=True,  # so that the bare flag means "true"
    )
)


def initialize():
    """Does what --multihost says; to be called before jax is asked for its devices.

    Raises:
      ConfigError: the flag cannot be read, or no cluster is found.
    """
    if _MULTIHOST.value == "false":
        return
    if _MULTIHOST.value == "true":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ConfigError(
                f"--multihost finds no pod or cluster around this host ({error}): leave it out, or "
                "say --multihost=COORDINATOR:PORT,PROCESSES,INDEX"
            ) from error
        return
    try:
        address, processes, index = _MULTIHOST.value.split(",")
        processes, index = int(processes), int(index)
    except ValueError:
        raise ConfigError(
            f"--multihost must be COORDINATOR:PORT,PROCESSES,INDEX, got {_MULTIHOST.value!r}"
        ) from None
    jax.distributed.initialize(address, processes, index)
