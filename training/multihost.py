"""Joining the other hosts of a pod or a cluster, and holding all of them to one run."""

import itertools
import json
import os
import pathlib
import secrets
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
from etils import epath
from jax._src import distributed
from jax.experimental import multihost_utils

from training.config import ConfigError, changes, from_json
from training.peers import HEARTBEAT_SECONDS, Peers

HELP = (
    "Join the other hosts: of a Cloud TPU pod, Slurm, MPI or Kubernetes as they are found, or by "
    "--multihost=COORDINATOR:PORT,PROCESSES,INDEX anywhere else (or JAX_COORDINATOR_ADDRESS, "
    "JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment)."
)

_JOIN_SECONDS = 300
_SEEN_SECONDS = 30  # until a file that one host has written is seen by all, on NFS
_peers: Peers | None = None
_questions = itertools.count()  # to process 0; all processes count alike


def initialize(how: str):
    """Does what --multihost says; to be called before jax is asked for its devices.

    Args:
      how: "false", "true", or "COORDINATOR:PORT,PROCESSES,INDEX".

    Raises:
      ConfigError: it cannot be read, or no cluster is found.
    """
    global _peers
    if how == "false":
        return
    address, processes, index = _from_environment() if how == "true" else _read(how)
    joined = threading.Event()
    threading.Thread(target=_wait, args=(joined,), daemon=True).start()
    try:
        jax.config.update("jax_enable_recoverability", True)  # see Peers
        jax.config.update("jax_enable_preemption_service", False)  # and Peers.catch_sigterm
        jax.distributed.initialize(
            address,
            processes,
            index,
            # Jax ends the process with a stack trace; `_wait` comes before.
            initialization_timeout=_JOIN_SECONDS + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--multihost finds no pod or cluster around this host ({error}): leave it out, or "
            "say --multihost=COORDINATOR:PORT,PROCESSES,INDEX"
            if address is None
            else f"--multihost cannot join {address} ({error})"
        ) from error
    finally:
        joined.set()
    _peers = Peers()


def _read(how: str) -> tuple[str, int, int]:
    try:
        address, processes, index = how.split(",")
        _, port = address.rsplit(":", 1)
        count, number = int(processes), int(index)
        if int(port) > 0 and 0 <= number < count:
            return address, count, number
    except ValueError:
        pass
    raise ConfigError(
        "--multihost must be COORDINATOR:PORT,PROCESSES,INDEX with INDEX from 0 to PROCESSES - 1, "
        f"got {how!r}"
    )


def _from_environment() -> tuple[str | None, int | None, int | None]:
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    values = [os.environ.get(name) for name in names]
    if None in values:  # jax takes what there is, and finds the rest
        return None, None, None
    return _read(",".join(map(str, values)))


def _wait(joined: threading.Event):
    """Says what the others are waited for, and gives up in time."""
    if joined.wait(15):
        return
    print("waiting for all processes to join (--multihost)", file=sys.stderr, flush=True)
    if not joined.wait(_JOIN_SECONDS - 15):
        print(
            f"error: not all processes have joined within {_JOIN_SECONDS} s: start the same "
            "command on every host, where each must reach the coordinator's port",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)


def catch_sigterm():
    """Lets `told_to_stop` hear of SIGTERM from now on."""
    if _peers is not None:
        _peers.catch_sigterm()


def told_to_stop(question: int) -> bool:
    """Whether any process has received SIGTERM; see `Peers.told_to_stop`."""
    return _peers is not None and _peers.told_to_stop(question)


def leave(code: int, error: BaseException | None, sentence: str):
    """Parts from the other hosts, where there are any; see `Peers.leave`."""
    if _peers is not None:
        _peers.leave(code, error, sentence)


def from_process_0(make: Callable[[], Any]) -> Any:
    """What process 0 makes, which has the run's files, on all, as JSON has it.

    To be asked by all at one point.
    """
    if jax.process_count() == 1:
        return make()
    client: Any = distributed.global_state.client
    key = f"dropblock/from_process_0/{next(_questions)}"
    if jax.process_index() == 0:
        client.key_value_set(key, json.dumps(make()))
    # As long as it takes: should process 0 fail, this one is ended too.
    return json.loads(client.blocking_key_value_get(key, 24 * 3600 * 1000))


def read_config(path: pathlib.Path | epath.Path) -> Any:
    """The config of a run, which only process 0 need have.

    Raises:
      ConfigError: see `config.from_json`.
    """
    return ml_collections.ConfigDict(from_process_0(lambda: from_json(path).to_dict()))


def hold_config_to_process_0(config: Any):
    """As `hold_to_process_0`; the data may lie elsewhere on each host."""
    fields = config.to_dict()
    hold_to_process_0("config", fields | {"data": fields["data"] | {"dir": None}})


def hold_to_process_0(what: str, mine: dict):
    """Makes sure that all processes work on the same.

    Args:
      what: its name.
      mine: what this one has.

    Raises:
      ConfigError: process 0 has another.
    """
    if jax.process_count() == 1:
        return
    changed = changes(from_process_0(lambda: mine), json.loads(json.dumps(mine)))
    if changed:
        more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ConfigError(
            f"process {jax.process_index()} has another {what} than process 0 "
            f"({'; '.join(changed[:3])}{more}): start the same command on the same files everywhere"
        )


def check_shared(folder: epath.Path):
    """Makes sure that all processes see one folder under this name.

    Raises:
      ConfigError: this one does not see process 0's.
    """
    if jax.process_count() == 1:
        return

    def write() -> str:
        folder.mkdir(parents=True, exist_ok=True)
        name = f".seen_by_all.{secrets.token_hex(8)}"
        (folder / name).write_text("")
        return name

    path = folder / from_process_0(write)
    until = time.monotonic() + _SEEN_SECONDS
    while not path.exists():
        if time.monotonic() > until:
            raise ConfigError(
                f"process {jax.process_index()} does not see the files of process 0 in {folder}: "
                "give a --checkpoint_dir that all hosts share"
            )
        time.sleep(0.5)
    multihost_utils.sync_global_devices("seen by all")
    if jax.process_index() == 0:
        path.unlink()
