"""What a dry run prints, of the config of tests/tiny.py with a schedule in steps."""

import contextlib
import io
import re

import jax
import pytest

import tiny
from tasks import make_task
from training.dry_run import dry_run


@pytest.fixture(scope="module")
def text():
    config = tiny.get_config()
    config.accumulate, config.epochs = 4, 6.0
    config.data.update(name="nowhere", num_train_examples=64, num_eval_examples=1050)
    config.schedule.update(kind="step", boundaries=(3.0, 5.0), warmup_epochs=0.5)
    config.schedule.update(learning_rate=0.8, reference_batch=16, warmup_start=0.25)
    config.drop.places.group2 = 0.0
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        dry_run(config, make_task, jax.devices()[:2])
    return printed.getvalue()


def numbers(text, pattern):
    return [int(number.replace(",", "")) for number in re.findall(pattern, text)]


def test_the_state_is_counted(text):
    assert "stem/conv/kernel" in text and "| Mean" not in text
    assert "parameters: 19,830\n" in text and "auxiliary" not in text
    # 19,830 parameters, a momentum and an average of each; the statistics of 360 channels twice.
    for name, size in (
        ("params", 79_320),
        ("opt_state", 79_320),
        ("batch_stats", 1_440),
        ("ema", 80_760),
        ("step", 4),
        ("state", 240_844),
    ):
        assert f"bytes of {name}: {size:,}\n" in text


def test_the_data_is_told(text):
    assert "global batch:\n  image: uint8[16, 28, 28, 1]\n  label: int32[16]\n" in text
    assert "training examples: 64, evaluation: 1,050\n" in text
    assert re.search("the data is missing, its counts are the config's: .*nowhere", text)


def test_the_sites_are_listed_with_their_maps(text):
    sites = [
        f"group{group}.block1.{part}" for group in (3, 4) for part in ("conv1", "conv2", "skip")
    ]
    listed = [
        f"  {site}: {size} x {size}" for site, size in zip(sites, [4] * 3 + [2] * 3, strict=True)
    ]
    expected = ["dropblock sites: 6, group3: 3, group4: 3", *listed]
    assert "\n".join(["", *expected, ""]) in text and "the network's own" not in text


def test_a_variant_that_drops_nothing_says_so(capsys):
    config = tiny.get_config()
    config.drop.kind = "none"
    dry_run(config, make_task, jax.devices()[:2])
    text = capsys.readouterr().out
    assert "\nno drop sites: this variant drops nothing\n" in text and "sites: 0" not in text


def test_the_schedules_are_told_at_their_turns(text):
    """24 steps, 4 an epoch; warm-up to 0.8 in two steps, and a tenth of it after 3 and 5 epochs."""
    rates = {0: 0.2, 2: 0.8, 8: 0.8, 12: 0.08, 16: 0.08, 23: 0.008}
    lines = [f"  epoch {step / 4:g} (step {step}): {rate:g}" for step, rate in rates.items()]
    head = "24 steps, 4 an epoch\nlearning rate:\n"
    assert head + "\n".join([*lines, "keep_prob:", ""]) in text
    assert text.split("keep_prob:\n")[1].split("\n\n")[0].splitlines() == [
        "  step 0: 1.0000 (group3 1.0000, group4 1.0000)",
        "  step 12: 0.9500 (group3 0.9875, group4 0.9500)",
        "  step 24: 0.9000 (group3 0.9750, group4 0.9000)",
    ]


def test_the_memory_is_shared_but_for_the_state_and_the_gradients(text):
    whole = 240_844 + 79_320
    (one,) = numbers(text, r"\nestimated bytes on each device .*:\n  1 device: ([\d,]+)\n")
    (two,) = numbers(text, r"\n  2 devices: ([\d,]+)\n")
    shared = one - whole
    assert two - whole == shared // 2
    # At least the batch, and the inputs of all layers for the 4 examples of a micro-batch: of 784
    # numbers for four layers and the projection, and so on; not many times that.
    inputs = 5 * 784 + 3 * 392 + 3 * 256 + 128 + 32
    assert 12_608 + 4 * 4 * inputs < shared < 12_608 + 5 * 4 * 4 * inputs
    assert "8 devices" not in text  # which 4 micro-batches of 4 cannot be divided over


def test_nothing_is_compiled_where_nobody_asks_for_it(text):
    assert re.search(r"\nFLOPs of a training step, before XLA optimises: \d", text)
    assert "to compile" not in text and "collectives" not in text
