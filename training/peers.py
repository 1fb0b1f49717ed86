"""The other processes of a run: none waits for one that has stopped, and each says which it was."""

import json
import multiprocessing
import os
import socket
import sys
import threading
import time
from typing import Any

import jax
from jax._src import distributed
from jax._src.lib import _jax  # pyright: ignore[reportPrivateImportUsage]

# After so long without a heartbeat a process counts as dead.
HEARTBEAT_SECONDS = 20

_LEFT, _END = "dropblock/left", "dropblock/end"
_TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000


class Peers:
    """Watches the processes that `jax.distributed` has joined, from threads of its own.

    A process that waits for a dead one in a collective waits for ever on some devices, and on the
    others jax ends it with a stack trace. So this one ends as soon as another has died or stopped
    with an error: with a sentence that says which, and that one's exit code. It takes the service
    of jax in its recoverable form, which tells who is alive and leaves the rest to us.
    """

    def __init__(self):
        state: Any = distributed.global_state
        self._client, self._index = state.client, state.process_id
        self._all = list(range(state.num_processes))
        self._preemption: Any = None
        self._leaving = threading.Event()
        self._ending = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()
        if self._index:
            address = (state.coordinator_address,)
            threading.Thread(target=self._watch_process_0, args=address, daemon=True).start()

    def catch_sigterm(self):
        """Lets `told_to_stop` hear of SIGTERM from now on."""
        # Not jax's own: Orbax would ask that too, with the steps that it saves, and the last number
        # asked by anyone counts as where the run is.
        if self._preemption is None:
            self._preemption = _jax.create_preemption_sync_manager()
            self._preemption.initialize(self._client)

    def told_to_stop(self, question: int) -> bool:
        """Whether a process has received SIGTERM; all are told at one question, by its number."""
        return self._preemption.reached_sync_point(question)

    def leave(self, code: int, error: BaseException | None, sentence: str):
        """Leaves the others: at the end together with them, with an error at once.

        Args:
          code: the exit code.
          error: what this process stops with, None at the end of its work.
          sentence: what the others are to say of it.
        """
        if code == 1 and isinstance(error, Exception):
            # Neither bad input nor divergence but, say, a collective that failed: another process
            # may be gone, which `_watch` will know and say.
            time.sleep(HEARTBEAT_SECONDS + 5)
        if error is None:
            self._client.wait_at_barrier(_END, _TEN_YEARS_MS)
        note = json.dumps([code, sentence if error else None])
        self._client.key_value_set(f"{_LEFT}/{self._index}", note)
        self._depart()
        if error is not None:
            # What the exit of the interpreter waits for may never come.
            _daemon(threading.Timer(10, os._exit, [code]))

    def _depart(self):
        self._leaving.set()
        # In a thread: no answer is waited for longer than that.
        _daemon(threading.Thread(target=self._disconnect)).join(10)

    def _disconnect(self):
        if self._preemption is not None:
            self._preemption.shutdown()
        if self._index:
            jax.distributed.shutdown()
        else:  # the others are still asking the service that is in this process
            while self._client.get_live_nodes(self._all).keys() > {0}:
                pass

    def _watch(self):
        while not self._leaving.wait(1.0):
            try:
                live = self._client.get_live_nodes(self._all)  # waits for all that are alive
                notes = self._client.key_value_dir_get(_LEFT)
            except jax.errors.JaxRuntimeError:
                return  # the service has ended, with process 0
            left = {int(key.rpartition("/")[2]): json.loads(note) for key, note in notes}
            for index, (code, sentence) in left.items():
                if sentence is not None:
                    self._end(code, f"process {index} has stopped: {sentence}")
            if died := set(self._all) - live.keys() - left.keys():
                self._died(", ".join(map(str, sorted(died))))

    def _watch_process_0(self, address: str):
        """Jax ends this process with a stack trace when the service is gone: be quicker."""
        host, _, port = address.rpartition(":")
        while not self._leaving.is_set():
            try:
                with socket.create_connection((host.strip("[]"), int(port))) as connection:
                    while connection.recv(4096):
                        pass
            except ConnectionRefusedError:
                self._died("0", service=False)
            except OSError:
                time.sleep(0.1)

    def _died(self, processes: str, *, service: bool = True):
        self._end(
            1,
            f"process {processes} of {len(self._all)} has died; the same command on all goes on "
            "from the last checkpoint",
            service=service,
        )

    def _end(self, code: int, sentence: str, *, service: bool = True):
        """Ends this process, whatever its main thread is waiting for."""
        if self._leaving.is_set() or not self._ending.acquire(blocking=False):
            return
        print(f"error: {sentence}", file=sys.stderr, flush=True)
        # Nor is what the other threads fail with from now on of use to anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        for child in multiprocessing.active_children():  # readers of data
            child.kill()
        if service:
            self._depart()
        os._exit(code)


def _daemon(thread: threading.Thread) -> threading.Thread:
    thread.daemon = True
    thread.start()
    return thread
