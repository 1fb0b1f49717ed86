"""Examples that cannot be used: refused or skipped, named shortly, and listed whole in a file."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

from absl import logging

from inputs.reading import DataError
from inputs.splits import counted, listed

FILE = "bad_files.txt"  # in the workdir
NAMED = 5  # so many are named in a message


class BadList(DataError):
    """Bad data of which there is a list: the message has the first, `items` all of them."""

    def __init__(self, message: str, items: Sequence[str]):
        super().__init__(message)
        self.items = tuple(items)

    def __reduce__(self):
        return type(self), (str(self), self.items)


def refuse_or_warn(
    bad: Mapping[int, str],
    count: int,
    what: str,
    on_error: str,
    *,
    root: str,
    cannot: str = "cannot be used",
) -> None:
    """Raises or warns of what is wrong with some of `count` examples, if anything is.

    Args:
      bad: a sentence for each that is bad, by its position.
      count: of all.
      what: names them in the message.
      on_error: "raise", or "skip" to warn, unless none is left.
      root: a folder that the message has once, in `what`, and not in each sentence.
      cannot: what is wrong with them all.

    Raises:
      BadList: see `on_error`.
    """
    if not bad:
        return
    sentences = [sentence.removesuffix(".") for sentence in bad.values()]
    short = [sentence.replace(os.path.join(root, ""), "") for sentence in sentences]
    message = f"{len(bad)} of {count} {what} {cannot}: {listed(short, NAMED)}"
    if len(bad) == count:
        raise BadList(f"{message}.", sentences)
    if on_error == "raise":
        raise BadList(f"{message}; --config.data.on_error skip goes on without them.", sentences)
    logging.warning("Skipped: %s.", message)


class Skipped:
    """What a run could not use and went on without: each is named once, and all are in a file.

    May be sent to other processes, which name theirs in the same file.
    """

    def __init__(self):
        self._path: str | None = None
        self._told: dict[str, object] = {}
        self._warnings = 0

    def know(self, sentences: Sequence[str]):
        """Takes what has been told already."""
        self._told |= {_line(sentence): None for sentence in sentences}

    def keep_in(self, path: str | os.PathLike):
        """Begins the file anew, where there is something to list, and adds to it from now on."""
        self._path = os.fspath(path)
        if self._told:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._append(*self._told, mode="w")
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def add(self, sentence: str):
        """Warns of an example that cannot be read, if it is the first time."""
        line, mine = _line(sentence), object()
        if self._told.setdefault(line, mine) is not mine:  # atomic: of two threads, one
            return
        self._warnings += 1
        if self._path is None or self._warnings < NAMED:
            logging.warning("Skipped: %s", sentence)
        elif self._warnings == NAMED:
            logging.warning("Skipped: %s More are named in %s alone.", sentence, self._path)
        if self._path is not None:
            self._append(line)

    @property
    def count(self) -> int:
        """How many there are, in other processes too."""
        lines = set(self._told)
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError), open(self._path) as file:
                lines |= set(file.read().splitlines())
        return len(lines)

    @property
    def total(self) -> str:
        """The sentence for the end of a run; none where nothing was skipped."""
        count = self.count
        where = f", all named in {self._path}" if self._path is not None else ""
        return f"skipped: {counted(count, 'example')} that cannot be used{where}" if count else ""

    def _append(self, *lines: str, mode: str = "a"):
        with contextlib.suppress(OSError), open(self._path or "", mode) as file:
            file.write("".join(f"{line}\n" for line in lines))


def _line(sentence: str) -> str:
    return " ".join(sentence.removesuffix(".").split())


@contextlib.contextmanager
def listed_in(path: str | os.PathLike) -> Iterator[None]:
    """Within it, of a refusal that has a longer list than its message all is written to a file."""
    try:
        yield
    except ValueError as error:
        found = error if isinstance(error, BadList) else error.__cause__
        if isinstance(found, BadList) and len(found.items) > NAMED:
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(os.fspath(path)), exist_ok=True)
                with open(path, "w") as file:
                    file.write("".join(f"{_line(item)}\n" for item in found.items))
                error.add_note(f"all {len(found.items)} are named in {path}")
        raise
