"""A broken input, and how it is judged."""

import contextlib
import dataclasses
import logging
import resource
import signal
import traceback
from collections.abc import Callable, Iterator

from inputs.images import DataError
from training.config import ConfigError

# Of a core, which others may share, and of memory; and of the clock, for what waits in vain.
SECONDS, BYTES, CLOCK = 10, 2**30, 60
REFUSED, SKIPPED, READ, FAILED = "refused", "skipped", "read", "FAILED"


@dataclasses.dataclass(frozen=True)
class Case:
    """A broken input that has been written.

    Attributes:
      read: reads it as the project does, holds what was read to what the input says, and returns
        READ, or SKIPPED where a part was left out and counted; raises `Wrong` where it does not
        agree, DataError or ConfigError where the project refuses it.
      named: what a refusal has to name, one of these.
    """

    read: Callable[[], str]
    named: tuple[str, ...]


class Wrong(AssertionError):
    """What was read is not what the input says."""


class TooLong(BaseException):
    """It takes too long. No Exception, so that no reader can take it for a fault of the data."""


def judge(case: Case) -> tuple[str, str]:
    """Reads a case within the limits; returns the outcome, and what is wrong or was refused."""
    before = _resident()
    _forget_peak()
    try:
        with _alarm():
            outcome, detail = case.read(), ""
    except (DataError, ConfigError) as error:
        outcome, detail = REFUSED, str(error)
        if not any(name in detail for name in case.named):
            outcome, detail = FAILED, f"a refusal that does not name the file: {detail[:300]}"
        elif len(detail) > 5000:
            outcome, detail = FAILED, f"a refusal of {len(detail)} letters"
    except TooLong:
        outcome, detail = FAILED, f"more than {SECONDS} s of a core, or {CLOCK} s"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
        outcome, detail = FAILED, f"{type(error).__name__} at {place}: {str(error)[:300]}"
    if (used := _peak() - before) > BYTES:
        outcome, detail = FAILED, f"{used / BYTES:.1f} GiB"
    return outcome, detail


def counted(messages: list[str], count: int, what: str) -> None:
    """Holds warnings to counting what was left out."""
    said = [message for message in messages if what in message]
    if (count > 0) != bool(said) or (said and f"{count} of " not in said[0]):
        raise Wrong(f"{count} left out, but the warnings say: {messages}")


@contextlib.contextmanager
def warnings_of() -> Iterator[list[str]]:
    """The warnings that are logged meanwhile."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("absl")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def _alarm():
    def stop(*_):
        raise TooLong

    limits = {
        signal.SIGALRM: (signal.ITIMER_REAL, CLOCK),
        signal.SIGPROF: (signal.ITIMER_PROF, SECONDS),
    }
    old = {number: signal.signal(number, stop) for number in limits}
    for timer, seconds in limits.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for number, (timer, _) in limits.items():
            signal.setitimer(timer, 0)
            signal.signal(number, old[number])


def _forget_peak():
    """Lets the system count the most memory from now on, where it can."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _peak() -> int:
    """The most bytes since `_forget_peak`; where the system does not say so, since the start."""
    return _status("VmHWM") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _resident() -> int:
    """Bytes now; where the system does not say so, the most there were."""
    return _status("VmRSS") or _peak()


def _status(name: str) -> int | None:
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None
