"""Processes that judge inputs, and are replaced where one hangs or dies of an input."""

import logging
import multiprocessing
import multiprocessing.connection
import resource
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fuzz.cases import BYTES, CLOCK, FAILED, judge
from fuzz.forms import make


def judged(wanted: Sequence[tuple[str, int]], count: int) -> Iterator[tuple[str, int, str, str]]:
    """Form, number, outcome and detail of each input, as `count` processes come to it."""
    context = multiprocessing.get_context("spawn")
    queue, at_work = list(wanted)[::-1], {}

    def start():
        connection, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        give(connection, process)

    def give(connection, process):
        if queue:
            task = queue.pop()
            connection.send(task)
            at_work[connection] = (process, task, time.monotonic())
        else:
            connection.close()
            process.join()

    for _ in range(min(count, len(queue))):
        start()
    while at_work:
        ready: list[Any] = multiprocessing.connection.wait(list(at_work), timeout=1)
        for connection in ready:
            process, task, _ = at_work.pop(connection)
            try:
                outcome = connection.recv()
            except EOFError:
                process.join()
                yield *task, FAILED, f"the process died: {process.exitcode}"
                start()
                continue
            yield *task, *outcome
            give(connection, process)
        for connection, (process, task, since) in list(at_work.items()):
            # Nothing interrupts it: it is in native code. (The first input waits for imports.)
            if time.monotonic() - since > 5 * CLOCK:
                del at_work[connection]
                process.kill()
                process.join()
                yield *task, FAILED, f"hangs for {5 * CLOCK} s"
                start()


def _serve(connection):
    warnings.simplefilter("ignore")  # of Pillow, of what it repairs itself
    logging.getLogger("absl").propagate = False  # its warnings are read, not shown
    logging.getLogger("absl").addHandler(logging.NullHandler())
    # For the machine's sake: what takes as much has failed.
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    used = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_DATA, (used + 6 * BYTES, most))
    while True:
        try:
            form, number = connection.recv()
        except EOFError:
            return
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            connection.send(judge(make(form, number, Path(folder))))
