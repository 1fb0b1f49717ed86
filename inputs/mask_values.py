"""What the values of masks mean: class indices, or indices and colours that a list names."""

import dataclasses
import functools
import os
import re
from collections.abc import Sequence

import numpy as np

from inputs.bad import NAMED
from inputs.files import read_lines
from inputs.images import decode_mask
from inputs.joint_transforms import IGNORE
from inputs.reading import DataError, is_name, shown
from inputs.splits import listed

# What a list may call pixels that are neither trained on nor scored, where no classes are chosen.
IGNORED = ("ignore", "ignored", "void", "unlabeled", "unlabelled")


@dataclasses.dataclass(frozen=True)
class MaskValues:
    """Which class each value of a mask is.

    Attributes:
      class_names: of the classes.
      pairs: (value, class index or `IGNORE`); a colour's value is `red | green << 8 | blue << 16`.
      colours: whether values are colours.
      named: whether a list names them.
    """

    class_names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    colours: bool = False
    named: bool = False

    def read(self, encoded: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Decodes a mask.

        Returns:
          The classes, uint8 `[height, width]`, and how many pixels each of the values 0 to 255 has,
          int64 `[256]`.

        Raises:
          DataError: it is no mask, or has other values.
        """
        values = decode_mask(encoded, name, colours=self.colours)
        if values.dtype == bool:
            values = values.astype(np.uint8)
        table = _table(self.pairs, self.colours)
        if values.dtype == np.uint8:  # of the most masks: sooner
            of_value = np.bincount(values.reshape(-1), minlength=256)
            counts = np.bincount(table[:256], of_value, minlength=_UNKNOWN + 1).astype(np.int64)
            unknown = np.flatnonzero(of_value * (table[:256] == _UNKNOWN))
            classes = values if self._plain else table[:256].astype(np.uint8)[values]
        else:
            within = (values >= 0) & (values < len(table))
            classes = np.where(within, table[np.where(within, values, 0)], _UNKNOWN)
            counts = np.bincount(classes.reshape(-1), minlength=_UNKNOWN + 1)
            unknown = np.unique(values[classes == _UNKNOWN] if counts[_UNKNOWN] else values[:0])
        if len(unknown):
            raise DataError(f"{name} {self._beyond(unknown)}.")
        return classes.astype(np.uint8), counts[:_UNKNOWN]

    @property
    def _plain(self) -> bool:
        """Whether each value is its class."""
        return all(value == label for value, label in self.pairs)

    def _beyond(self, values: np.ndarray) -> str:
        names = listed(self.class_names)
        if self.colours:
            bytes_ = (value.to_bytes(3, "little").hex() for value in values.tolist())
            found = listed((f"#{text}" for text in bytes_), NAMED)
            return f"has the colour {found}, which config.data.mask_values does not name"
        found, count = listed(map(str, values.tolist())), len(self.class_names)
        if self.named:
            return f"has {found}, which config.data.mask_values does not name (classes: {names})"
        return (
            f"has class {found}, where there are {count} classes (0 to {count - 1}: {names};"
            f" {IGNORE} is ignored)"
        )


_UNKNOWN = 256


@functools.lru_cache(4)
def _table(pairs: tuple[tuple[int, int], ...], colours: bool) -> np.ndarray:
    """The class of each value, uint16."""
    table = np.full(2**24 if colours else 2**16, _UNKNOWN, np.uint16)
    for value, label in pairs:
        table[value] = label
    return table


def mask_values(
    class_names: Sequence[str] | None,
    listed_values: str | None = None,
    ignore_index: int | None = None,
    root: str = ".",
) -> MaskValues:
    """Which class each value is.

    Args:
      class_names: of the indices 0, 1, ...; or, of a list's names, those that are classes, in
        their order (others are ignored). Default: all names of the list but those of `IGNORED`.
      listed_values: "VALUE=NAME,VALUE=NAME", or a file of a value and a name on each line, in
        `root` or anywhere. A value is an index or a colour, `#rrggbb` or in a file three numbers.
        Several values may have one name.
      ignore_index: a value that is ignored, besides 255 where values are indices.
      root: the folder of the data.

    Raises:
      DataError: there is neither a list nor class names, or they are not understood.
    """
    if listed_values is None:
        if not class_names:
            raise DataError(
                "mask_folder needs config.data.class_names: the names of the classes 0, 1, ... of"
                " the masks, as background,nucleus; or a list config.data.mask_values."
            )
        found = [(value, name) for value, name in enumerate(class_names)]
        colours, names = False, tuple(class_names)
    else:
        found, colours = _parse(listed_values, root)
        listed_names = list(dict.fromkeys(name for _, name in found))
        names = tuple(
            class_names or [name for name in listed_names if name.casefold() not in IGNORED]
        )
        if absent := [name for name in names if name not in listed_names]:
            raise DataError(
                f"config.data.class_names has {listed(absent)}, and config.data.mask_values names"
                f" {listed(listed_names)}."
            )
    if not 0 < len(names) <= IGNORE:
        raise DataError(f"there are {len(names)} classes, expected 1 to {IGNORE}.")
    index = {name: i for i, name in enumerate(names)}
    pairs = {} if colours else {IGNORE: IGNORE}
    pairs |= {value: index.get(name, IGNORE) for value, name in found}
    if ignore_index is not None:
        if not 0 <= ignore_index < 2**16:
            raise DataError(f"config.data.ignore_index is {ignore_index}, expected 0 to 65535.")
        pairs[ignore_index] = IGNORE
    return MaskValues(names, tuple(pairs.items()), colours, named=listed_values is not None)


def _parse(text: str, root: str) -> tuple[list[tuple[int, str]], bool]:
    """The values and names of a list, and whether the values are colours."""
    if "=" in text:
        what, lines = "config.data.mask_values", [line for line in text.split(",") if line.strip()]
    else:
        beside = os.path.join(root, text)
        what = beside if os.path.exists(beside) else os.path.expanduser(text)
        lines = read_lines(what, "a value and a name of config.data.mask_values")
    found: list[tuple[int, str]] = []
    kinds = set()
    for number, line in enumerate(lines):
        parsed = _parse_line(line)
        if parsed is None:
            if number == 0 and "=" not in text:
                continue  # the names of the columns
            raise DataError(
                f"{what} has {shown(line)}, expected an index or a colour, and a name, as 1 sky or"
                " #8040ff sky."
            )
        value, name, colour = parsed
        kinds.add(colour)
        found.append((value, name))
    if len(kinds) != 1:
        raise DataError(f"{what} has {'both indices and colours' if kinds else 'no values'}.")
    if len(dict(found)) < len(found):
        values = [value for value, _ in found]
        twice = next(value for value in values if values.count(value) > 1)
        raise DataError(f"{what} has the value {twice} twice.")
    return found, kinds.pop()


def _parse_line(line: str) -> tuple[int, str, bool] | None:
    """A value, its name, and whether it is a colour; the value stands first or last."""
    words = [word for word in re.split(r"[\s,;:=]+", line.strip()) if word]
    for words_, back in ((words, False), (words[::-1], True)):
        run = next((i for i, w in enumerate(words_) if not _is_byte(w)), len(words_))
        if words_ and re.fullmatch(r"#[0-9a-fA-F]{6}", words_[0]):
            rgb, used, colour = bytes.fromhex(words_[0][1:]), 1, True
            value = int.from_bytes(rgb, "little")
        elif run >= 3 and len(words_) > 3:
            rgb = [int(word) for word in words_[:3]][:: -1 if back else 1]
            if max(rgb) > 255:
                return None
            value, used, colour = int.from_bytes(bytes(rgb), "little"), 3, True
        elif run >= 1:
            value, used, colour = int(words_[0]), 1, False
        else:
            continue
        rest = words_[used:][:: -1 if back else 1]
        name = " ".join(rest)
        return (value, name, colour) if is_name(name) and value < 2**24 else None
    return None


def _is_byte(word: str) -> bool:
    return bool(re.fullmatch(r"\d{1,5}", word, re.ASCII)) and int(word) < 2**16
