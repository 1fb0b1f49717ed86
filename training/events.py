"""TensorBoard events: a convenience, whose loss is a warning and never stops a run."""

import contextlib
import pathlib
import socket
import time
from typing import Any

import numpy as np
from absl import logging
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

_proto: Any = event_pb2  # whose names a type checker does not see
_FLUSH_SECONDS = 30.0


class Events:
    """An event file, written as it is called.

    tensorboardX's own SummaryWriter writes in a thread, and when that has died of a full disk its
    callers wait for ever.

    Args:
      folder: where the file goes.
      purge_step: steps from here on that other files in the folder have are hidden; None for none.
    """

    def __init__(self, folder: pathlib.Path, purge_step: int | None):
        self._folder = folder
        self._writer: Any = None
        self._flushed = time.time()
        with self._guarded():
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{int(self._flushed)}.{socket.gethostname()}"
            self._writer = RecordWriter(str(folder / name))
        self._write(_proto.Event(file_version="brain.Event:2"))
        if purge_step is not None:
            start = _proto.SessionLog(status=_proto.SessionLog.START)
            self._write(_proto.Event(step=purge_step, session_log=start))

    def scalar(self, name: str, value: float, step: int):
        """Adds a number."""
        self._write(_proto.Event(step=step, summary=summary.scalar(name, value)))

    def picture(self, name: str, pixels: np.ndarray, step: int):
        """Adds a picture, `uint8[height, width, 3]`."""
        self._write(_proto.Event(step=step, summary=summary.image(name, pixels, dataformats="HWC")))

    def flush(self):
        """Puts into the file what is not there yet."""
        if self._writer is not None:
            with self._guarded():
                self._writer.flush()

    def close(self):
        """Flushes, and ends."""
        if self._writer is not None:
            with self._guarded():
                self._writer.close()
            self._writer = None

    def _write(self, event):
        event.wall_time = time.time()
        if self._writer is not None:
            with self._guarded():
                self._writer.write(event.SerializeToString())
        if event.wall_time > self._flushed + _FLUSH_SECONDS:
            self._flushed = event.wall_time
            self.flush()

    @contextlib.contextmanager
    def _guarded(self):
        try:
            yield
        except OSError as error:
            logging.warning("no more TensorBoard events are written to %s: %s", self._folder, error)
            if self._writer is not None:
                with contextlib.suppress(OSError):
                    self._writer.close()
            self._writer = None
