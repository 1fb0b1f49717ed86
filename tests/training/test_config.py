"""Which run a workdir holds, how long a run is, and what an error says."""

import json
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("config.ConfigError('no')", 2),
        ("EOFError('no')", 2),  # in the place of the entry point's DataError
        ("FileNotFoundError(2, 'no')", 2),
        ("PermissionError(13, 'no')", 2),
        ("config.Diverged('no')", 3),
        ("OSError(28, 'No space left on device')", 1),
        ("ValueError('no')", 1),
    ],
)
def test_only_bad_input_is_one_sentence(error, code):
    script = f"from training import config\ndef main(_): raise {error}\nconfig.run(main, EOFError)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == code
    assert result.stderr.startswith("error: ") == (code != 1)
    assert ("Traceback" in result.stderr) == (code == 1)


def test_a_damaged_or_missing_config_is_named(tmp_path):
    with pytest.raises(ConfigError, match="holds no training run"):
        config_lib.from_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        config_lib.from_json(tmp_path / "config.json")


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
