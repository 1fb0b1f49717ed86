"""The examples run, with what they say they print."""

import importlib
import pathlib
import re
import subprocess
import sys

import jax
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
NAMES = ["linen_network", "mc_dropblock", "nnx_network", "plain_jax", "schedule"]
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def promised(name):
    """What the docstring says is printed."""
    docstring = (EXAMPLES / f"{name}.py").read_text().split('"""')[1]
    _, output = docstring.split(f"    python examples/{name}.py\n\nIt prints\n\n")
    return [line.removeprefix("    ") for line in output.splitlines() if line]


def test_each_example_is_tried():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*NAMES, "shapes"}


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_print_lines_of_the_promised_form(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    few = {"steps": 4} | ({"samples": 2} if name == "mc_dropblock" else {})
    with jax.numpy_rank_promotion("allow"):  # as it is at our users'
        importlib.import_module(name).main(**few)
    printed = capsys.readouterr().out.splitlines()
    shapes = [[NUMBER.sub("#", line) for line in lines] for lines in (printed, promised(name))]
    assert shapes[0] == shapes[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_example_prints_what_it_promises(name):
    run = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, check=True
    )
    printed, said = run.stdout, "\n".join(promised(name))
    assert NUMBER.sub("#", printed.strip()) == NUMBER.sub("#", said)
    numbers = [list(map(float, NUMBER.findall(text))) for text in (printed, said)]
    # Other versions and processors round in other ways; a network that learns nothing has 0.2.
    assert numbers[0] == pytest.approx(numbers[1], abs=0.06)
