"""From the command line to a config, and from an error to one sentence and an exit code."""

import contextlib
import json
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging
from etils import epath
from flax.traverse_util import flatten_dict
from ml_collections import config_flags

from training.files import WriteError, read_object

EXIT_BAD_INPUT = 2
EXIT_DIVERGED = 3
EXIT_NOT_WRITTEN = 4

# Fields that say where a run is computed, not what: the same run may have others.
_FREE = {"shard_state"}

# Fields that change no parameter of a run: it may go on with others. Where the data has moved to is
# held to the same classes and counts of examples, which are fields too.
_MAY_CHANGE = {
    "log_every_steps",
    "eval_every_epochs",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "data.dir",
    "data.on_error",
    "data.num_threads",
    "data.num_workers",
    "detection.picture_score",
}

# Fields that had another name before.
RENAMED = {"pretrained": "init_from"}


class ConfigError(ValueError):
    """The config, or what it is to work on, is wrong; the message says what would be right."""


class Diverged(FloatingPointError):
    """The loss or the gradient is no longer finite."""


@contextlib.contextmanager
def arguments_are_config():
    """Within it, a ValueError or TypeError about an argument is an error of the config."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def optional_value(name: str, values: Sequence[str] | None, help: str) -> flags.Flag:
    """A flag that may stand bare, which means "true", or with a value; "false" without it.

    Args:
      name: of the flag.
      values: besides "false" and "true"; None for any.
      help: what it does.
    """
    allowed = None if values is None else ["false", "true", *values]
    parser = flags.ArgumentParser() if allowed is None else flags.EnumParser(allowed)
    flag = flags.Flag(parser, None, name, "false", help, boolean=True)
    flag.default_as_str = "'false'"  # absl takes any text for true
    return flag


def run(main, *bad_data: type[Exception], leave: Callable = lambda code, error, sentence: None):
    """Parses the flags and runs `main(argv)`; `main` returns the exit code.

    What comes of it is told to `leave(code, error, sentence)`, with an error of None where it ended
    as it should.

    Bad input (ConfigError, `bad_data`, a path that is not there or not permitted) ends in one
    sentence and exit code 2, divergence in 3, a disk that is full or cannot be written to in 4;
    --verbosity=1 adds the stack trace. Any other exception shows its own.
    """
    bad_input = (
        ConfigError,
        *bad_data,
        FileNotFoundError,
        FileExistsError,
        NotADirectoryError,
        PermissionError,
    )

    def parse(argv):
        # absl and ml_collections raise many things for a misspelt field, variant or value.
        with _exits({Exception: EXIT_BAD_INPUT}):
            try:
                rest = flags.FLAGS(argv)
            except SystemExit:  # --help, which is no failure, though absl has it end in 1
                raise SystemExit(0) from None
            if not flags.FLAGS["verbosity"].present:
                logging.set_verbosity(logging.WARNING)  # Orbax tells a lot at INFO
                logging.get_absl_logger().addFilter(_is_news)
            if "config" in flags.FLAGS:
                _settle_length(flags.FLAGS)
            return rest

    def guarded(argv):
        codes = {Diverged: EXIT_DIVERGED, WriteError: EXIT_NOT_WRITTEN}
        try:
            with _exits(codes | dict.fromkeys(bad_input, EXIT_BAD_INPUT)), fields_are_there():
                code = main(argv)
        except SystemExit as ended:
            leave(ended.code, ended.__cause__ or ended, _sentence(ended.__cause__ or ended))
            raise
        except BaseException as error:
            leave(1, error, _sentence(error))
            raise
        leave(code, None, "")
        return code

    app.run(guarded, flags_parser=parse)


def _is_news(record) -> bool:
    """Whether a message is more than what Orbax tells, with stack traces, and raises then."""
    return not (record.exc_info and "/orbax/" in record.pathname.replace(os.sep, "/"))


@contextlib.contextmanager
def _exits(codes: dict[type[Exception], int]):
    try:
        yield
    except tuple(codes) as error:
        logging.debug("", exc_info=True)
        print(f"error: {_sentence(error)}", file=sys.stderr, flush=True)
        code = next(code for kind, code in codes.items() if isinstance(error, kind))
        raise SystemExit(code) from error


@contextlib.contextmanager
def fields_are_there():
    """Within it, a field that a config lacks is an error of the config, or of its file."""
    try:
        yield
    except (AttributeError, KeyError) as error:
        sentence = _missing_field(error)
        if sentence is None:
            raise
        if "config" not in flags.FLAGS and "workdir" in flags.FLAGS:
            sentence = f"{pathlib.Path(flags.FLAGS.workdir) / 'config.json'}: {sentence}"
        raise ConfigError(sentence) from error


def _missing_field(error: BaseException) -> str | None:
    """What ml_collections says of a field that is not there; None of another error."""
    text = str(error)
    for old, new in RENAMED.items():
        if re.search(rf"'{old}'|\"{old}\"", text) and isinstance(error, AttributeError):
            return f"config.{old} is called config.{new} now"
    if meant := re.search(r'Did you mean "(.+)" instead of "(.+)"', text):
        return f"there is no config field {meant[2]!r} here: did you mean {meant[1]!r}?"
    if _is_of_config(error) and (unlike := re.fullmatch(r"\"?'(\w+)'\"?", text)):
        return f"there is no config field {unlike[1]!r} here"
    return None


def _is_of_config(error: BaseException) -> bool:
    """Whether it was raised within ml_collections."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "ml_collections" in pathlib.PurePath(frames[-1].filename).parts


def _sentence(error: BaseException) -> str:
    """What an error means, in one line."""
    if missing := _missing_field(error):
        return missing
    text = str(error)
    if notes := getattr(error, "__notes__", ()):
        text = "; ".join([text.removesuffix("."), *notes])
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [repr(error)]
    if "Traceback" in text or "earlier failure" in text:
        # ml_collections puts a whole stack trace into the text; the last line is what it means.
        return re.sub(r"^\w+Error: ", "", lines[-1])
    return " ".join(lines)


def from_words(words: Sequence[str]) -> Any:
    """The config that `train.py` makes of these words, of which one is `--config=FILE:VARIANT`.

    Raises:
      ConfigError: there is no such file, variant or field, or a value is of another type.
    """
    argv, values = ["train.py", *words], flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv)
        return _settle_length(values)
    except Exception as error:  # absl and ml_collections raise many things
        raise ConfigError(_sentence(error)) from error


def _settle_length(values: flags.FlagValues) -> Any:
    """The config of the flags; epochs or steps of the command line win over the file's."""
    config, given = values.config, config_flags.get_override_values(values["config"])
    _ = config.task  # a config that failed to load says so only now
    for length, other in (("epochs", "steps"), ("steps", "epochs")):
        if length in given and other not in given:
            config[other] = None
    return config


def to_json(config: Any) -> str:
    """The resolved config, sorted, so that two of them can be compared line by line."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(path: pathlib.Path | epath.Path) -> Any:
    """Reads a config that `to_json` wrote.

    Raises:
      ConfigError: there is none, or it is damaged.
    """
    try:
        config = ml_collections.ConfigDict(read_object(path))
        flat(config.to_dict())
        for name in ("model", "drop", "data", "optimizer", "schedule"):
            if not isinstance(config.get(name), ml_collections.ConfigDict):
                raise ValueError(f"it holds no {name}")
        return config
    except FileNotFoundError:
        raise ConfigError(f"{path} is not there: {path.parent} holds no training run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error}): restore it, or start anew") from None


def check_same(folder: pathlib.Path | epath.Path, config: Any) -> list[str]:
    """Holds `config` to the `config.json` in `folder`, if there is one.

    Returns:
      What differs of the fields that may: intervals, threads, where the data is, and the like.

    Raises:
      ConfigError: the run there has another config.
    """
    path = folder / "config.json"
    if not path.exists():
        return []
    was, now = from_json(path).to_dict(), json.loads(to_json(config))
    if changed := changes(was, now, but=_MAY_CHANGE):
        raise ConfigError(
            f"{folder} holds a run of another config ({'; '.join(changed)}): give another "
            "--workdir (or --checkpoint_dir), or go on with the new config by "
            "--allow_config_change"
        )
    return changes(was, now)


def flat(config: dict) -> dict:
    """The fields of nested dicts under dotted names."""
    return flatten_dict(config, sep=".")


def changes(was: dict, now: dict, *, but: Collection[str] = ()) -> list[str]:
    """Each field, but those named, in which the runs of two configs, as JSON has them, differ."""
    was, now = flat(was), flat(now)
    return [
        f"{field} was {was.get(field)!r}, is {now.get(field)!r}"
        for field in sorted((was.keys() | now.keys()) - _FREE.union(but))
        if was.get(field) != now.get(field)
    ]
