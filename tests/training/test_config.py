"""Which run a workdir holds, how long a run is, and what an error says."""

import json
import subprocess
import sys

import ml_collections
import pytest
from absl import flags

import processes
from configs import defaults
from training import config as config_lib
from training.config import ConfigError
from training.files import write
from training.plan import lengths


@pytest.fixture
def config():
    config = defaults.get_config()
    config.epochs = 2.0
    return config


def test_a_folder_keeps_its_config(tmp_path, config):
    folder = tmp_path / "new"
    config_lib.check_same(folder, config)  # there is none
    write(folder / "config.json", config_lib.to_json(config))
    config_lib.check_same(folder, config)
    assert json.loads((folder / "config.json").read_text())["drop"]["sites"] == ["conv", "skip"]
    config.drop.keep_prob = 0.8
    config.drop.places.group3 = 0.5
    with pytest.raises(
        ConfigError,
        match=r"drop.keep_prob was 0.9, is 0.8; drop.places.group3 was 0.25, is 0.5.*--workdir",
    ):
        config_lib.check_same(folder, config)
    assert config_lib.from_json(folder / "config.json").drop.keep_prob == 0.9


def test_what_changes_no_parameter_may_change_and_is_told(tmp_path, config):
    config.data.update(dir="here", class_names=("a", "b"), num_train_examples=9)
    write(tmp_path / "config.json", config_lib.to_json(config))
    config.update(log_every_steps=7, eval_every_epochs=2.0, keep_checkpoints=9)
    config.data.update(dir="there", on_error="skip", num_threads=3, num_workers=1)
    assert config_lib.check_same(tmp_path, config) == [
        "data.dir was 'here', is 'there'",
        "data.num_threads was 16, is 3",
        "data.num_workers was 0, is 1",
        "data.on_error was 'raise', is 'skip'",
        "eval_every_epochs was 1.0, is 2.0",
        "keep_checkpoints was 3, is 9",
        "log_every_steps was 100, is 7",
    ]
    # Other data there, or another order of the same classes, is another run.
    for fields, message in (
        ({"num_train_examples": 8}, "num_train_examples was 9, is 8"),
        ({"class_names": ("b", "a")}, r"class_names was \['a', 'b'\], is \['b', 'a'\]"),
        ({"flip": False}, "flip was True"),
    ):
        other = config.copy_and_resolve_references()
        other.data.update(fields)
        with pytest.raises(ConfigError, match=rf"\(data.{message}"):
            config_lib.check_same(tmp_path, other)


def test_a_damaged_or_missing_config_is_named(tmp_path):
    with pytest.raises(ConfigError, match="holds no training run"):
        config_lib.from_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[1]",
        b"3",
        b"\xff\xfe",
        b"{}",
        b'{"task": "classification"}',
        b"[" * 100_000,
        b'{"a":' * 400 + b"1" + b"}" * 400,
        b'{"a.b": 1}',
    ],
)
def test_what_is_no_config_is_named(tmp_path, config, data):
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=f"{path} is damaged .*restore it, or start anew"):
        config_lib.from_json(path)
    with pytest.raises(ConfigError, match=f"{path} is damaged"):
        config_lib.check_same(tmp_path, config)
    saved = config.to_dict()
    for name in ("model", "drop", "data", "optimizer", "schedule"):
        write(path, json.dumps(saved | {name: [1]}))
        with pytest.raises(ConfigError, match=f"{path} is damaged .it holds no {name}"):
            config_lib.from_json(path)


def test_a_field_that_a_runs_config_lacks_is_named_with_its_file():
    script = (
        "from absl import flags\nfrom training import config\nimport ml_collections\n"
        "flags.DEFINE_string('workdir', None, '')\n"
        "def main(_): ml_collections.ConfigDict({'tusk': 1}).%s\nconfig.run(main)"
    )
    for field, sentence in (
        ("task", "there is no config field 'task' here: did you mean 'tusk'?"),
        ("epochs", "there is no config field 'epochs' here"),
        ("to_dict()['epochs']", None),
        ("__getitem__('epochs')", "there is no config field 'epochs' here"),
    ):
        command = [sys.executable, "-c", script % field, "--workdir=runs/here"]
        result = subprocess.run(command, capture_output=True, text=True)
        if sentence is None:  # a bug of ours
            assert result.returncode == 1 and "Traceback" in result.stderr
        else:
            assert result.stderr == f"error: runs/here/config.json: {sentence}\n"
            assert result.returncode == 2


@pytest.mark.parametrize(
    ("words", "epochs", "steps"),
    [
        ([], 3.0, None),
        (["--config.steps=60"], None, 60),
        (["--config.steps", "60"], None, 60),
        (["--config.epochs=2"], 2.0, None),
        (["--config.epochs=2", "--config.steps=60"], 2.0, 60),  # which `lengths` refuses
    ],
)
def test_the_length_that_the_command_line_gives_wins(words, epochs, steps):
    config = config_lib.from_words([f"--config={processes.TINY}", *words])
    assert (config.epochs, config.steps) == (epochs, steps)


def test_epochs_win_over_the_steps_of_a_file(tmp_path):
    path = tmp_path / "by_steps.py"
    path.write_text(
        "from configs import defaults\n"
        "def get_config():\n    config = defaults.get_config()\n    config.steps = 7\n"
        "    return config\n"
    )
    config = config_lib.from_words([f"--config={path}", "--config.epochs=2"])
    assert (config.epochs, config.steps) == (2.0, None)


@pytest.mark.parametrize(
    ("epochs", "steps", "batch", "examples", "expected"),
    [
        (270.0, None, 1024, 1_281_167, (1251, 337_770)),
        (None, 7, 10, 100, (10, 7)),
        (3.0, None, 64, 10, (1, 3)),  # a set smaller than a batch
        (0.5, None, 10, 100, (10, 5)),
        (None, 1, 1, 10, (10, 1)),
    ],
)
def test_lengths(config, epochs, steps, batch, examples, expected):
    config.epochs, config.steps, config.batch_size = epochs, steps, batch
    assert lengths(config, examples) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": None}, "either epochs or steps"),
        ({"steps": 3}, "either epochs or steps"),
        ({"epochs": 0.0}, "at least one step"),
        ({"batch_size": 0}, "batch_size.*0"),
    ],
)
def test_wrong_lengths_are_refused(config, fields, message):
    config.update(fields)
    with pytest.raises(ConfigError, match=message):
        lengths(config, 1000)


def test_what_an_argument_says_is_what_the_config_says():
    for kind in (ValueError, TypeError):
        with pytest.raises(ConfigError, match="^no good$"), config_lib.arguments_are_config():
            raise kind("no good")
    with pytest.raises(KeyError), config_lib.arguments_are_config():
        raise KeyError("a fault")


def test_a_flag_may_stand_bare():
    def parse(*words, values=None):
        found = flags.FlagValues()
        flags.DEFINE_flag(config_lib.optional_value("dry", values, "Help."), found)
        found(["train.py", *words])
        return found.dry

    assert (parse(), parse("--dry"), parse("--nodry")) == ("false", "true", "false")
    assert (parse("--dry=compile"), parse("--dry=true")) == ("compile", "true")
    assert parse("--dry=compile", values=["compile"]) == "compile"
    assert parse("--dry", values=["compile"]) == "true"
    with pytest.raises(flags.IllegalFlagValueError, match="<false|true|compile>"):
        parse("--dry=run", values=["compile"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("modle.depth=18", "there is no config field 'modle' here: did you mean 'model'?"),
        ("zzz=18", "there is no config field 'zzz' here"),
        ("batch_size=many", "batch_size.*many"),
    ],
)
def test_a_misspelt_word_is_one_sentence(word, message):
    with pytest.raises(ConfigError, match=f"^[^\n]*{message}[^\n]*$"):
        config_lib.from_words([f"--config={processes.TINY}", f"--config.{word}"])


def test_words_are_a_config():
    config = config_lib.from_words([f"--config={processes.TINY}:baseline", "--config.seed=3"])
    assert (config.seed, config.drop.kind, config.batch_size) == (3, "none", 16)
    with pytest.raises(ConfigError, match="^no variant 'best' in this config; it has [^\n]*$"):
        config_lib.from_words([f"--config={processes.TINY}:best"])
    with pytest.raises(ConfigError, match="configs/nothing.py"):
        config_lib.from_words(["--config=configs/nothing.py"])


def test_the_order_of_fields_is_no_difference(tmp_path):
    one, other = ml_collections.ConfigDict({"a": 1, "b": 2}), ml_collections.ConfigDict()
    other.b, other.a = 2, 1
    assert config_lib.to_json(one) == config_lib.to_json(other)
    assert config_lib.to_json(one).endswith("}\n")


def test_fields_that_are_new_or_gone_are_changes():
    changes = config_lib.changes({"x": {"a": 1, "c": 3}}, {"x": {"b": 2, "c": 3}})
    assert changes == ["x.a was 1, is None", "x.b was None, is 2"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("config.ConfigError('no')", 2),
        ("EOFError('no')", 2),  # in the place of the entry point's DataError
        ("FileNotFoundError(2, 'no')", 2),
        ("PermissionError(13, 'no')", 2),
        ("config.Diverged('no')", 3),
        ("config.WriteError('no')", 4),
        ("OSError(28, 'No space left on device')", 1),  # of which no file is known
        ("ValueError('no')", 1),
    ],
)
def test_only_bad_input_is_one_sentence(error, code):
    script = f"from training import config\ndef main(_): raise {error}\nconfig.run(main, EOFError)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == code
    assert result.stderr.startswith("error: ") == (code != 1)
    assert ("Traceback" in result.stderr) == (code == 1)


def test_what_orbax_tells_and_stack_traces_are_told_where_they_are_asked_for():
    script = (
        "from absl import logging\nfrom training import config\n"
        "def main(_): logging.info('by the way'); raise config.ConfigError('no')\n"
        "config.run(main)"
    )

    def told(*words):
        command = [sys.executable, "-c", script, *words]
        return subprocess.run(command, capture_output=True, text=True).stderr

    assert told() == "error: no\n"
    text = told("--verbosity=1")
    assert "by the way" in text and "Traceback" in text and "error: no\n" in text


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ("return 143", 143, "143 None"),
        ("raise config.ConfigError('so')", 2, "2 ConfigError so"),
        ("raise config.Diverged('so')", 3, "3 Diverged so"),
        ("raise RuntimeError('so')", 1, "1 RuntimeError so"),
    ],
)
def test_others_are_told_what_a_command_ends_with(body, code, told):
    script = (
        "from training import config\n"
        f"def main(_): {body}\n"
        "def leave(code, error, sentence):\n"
        "    print(code, error and type(error).__name__, sentence)\n"
        "config.run(main, leave=leave)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == code and result.stdout.strip() == told
