"""What pip installs: the package `dropblock` alone, in environments that hold nothing of ours.

The slow tests make them, by pip, with the Python that runs the tests: jax alone, then flax, then
the extra `show`. The quick one hides what would not be there.
"""

import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest

import dropblock

ROOT = pathlib.Path(__file__).parent.parent
FILES = {path.name for path in (ROOT / "dropblock").iterdir() if path.is_file()}

JAX_ALONE = """
import sys
import jax
from dropblock import dropblock
y, kept = dropblock(jax.random.key(0), jax.numpy.ones((2, 8, 8, 4)), 0.5, 3, return_kept=True)
assert 0 < kept.mean() < 1 and abs(y.mean() - 1) < 1e-5, (kept, y.mean())
assert not {"flax", "optax", "matplotlib"} & {name for name in sys.modules if sys.modules[name]}
print("works")
"""
MODULES = """
import jax
import jax.numpy as jnp
from flax import linen, nnx
import dropblock.linen
import dropblock.nnx
x = jnp.ones((2, 8, 8, 4))
layer = dropblock.nnx.DropBlock(0.5, 3, rngs=nnx.Rngs(0))
assert (layer(x) == 0).any()
layer.eval()
assert (layer(x) == x).all()
layer = dropblock.linen.DropBlock(0.5, 3, deterministic=False)
assert (layer.apply({}, x, rngs={"dropblock": jax.random.key(0)}) == 0).any()
print("works")
"""


def run(*command, cwd, **options):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def bare(wheel):
    """The Python of an environment of the wheel and what it asks for, and an empty folder."""
    folder = wheel.parent / "elsewhere"
    folder.mkdir()
    venv.create(wheel.parent / "venv", with_pip=True)
    python = wheel.parent / "venv" / "bin" / "python"
    install(python, str(wheel), folder)
    return python, folder


def install(python, what, folder):
    run(python, "-m", "pip", "install", "-c", ROOT / "constraints.txt", what, cwd=folder)


def packages(python, folder):
    lines = run(python, "-m", "pip", "list", "--format=freeze", cwd=folder).splitlines()
    return dict(line.split("==") for line in lines)


def test_one_version_and_its_changes():
    # hatchling reads it where it is; nothing else may say one.
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
    assert importlib.metadata.version("dropblock-jax") == dropblock.__version__
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall("^## (.*)", changes, re.MULTILINE)[0] in ("Unreleased", dropblock.__version__)


def test_the_folder_alone_runs_with_jax_alone(tmp_path):
    shutil.copytree(ROOT / "dropblock", tmp_path / "dropblock")
    ours = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"dropblock"}
    hide = f"import sys; sys.modules |= dict.fromkeys({[*ours, 'flax', 'optax', 'matplotlib']})"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    printed = run(sys.executable, "-c", hide + JAX_ALONE, cwd=tmp_path, env=environment)
    assert printed == "works\n"


@pytest.mark.slow
def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    assert wheel.name == f"dropblock_jax-{dropblock.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == {
        f"dropblock/{name}" for name in FILES
    }
    assert "dropblock/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_with_jax_alone(bare):
    python, folder = bare
    assert run(python, "-c", JAX_ALONE, cwd=folder) == "works\n"
    assert not {"flax", "optax", "matplotlib"} & set(packages(python, folder))
    done = subprocess.run([python, "-m", "dropblock.show"], cwd=folder, capture_output=True)
    assert done.returncode == 2 and b"dropblock-jax[show]" in done.stderr


@pytest.mark.slow
def test_with_flax_and_with_show(bare, wheel):
    python, folder = bare
    install(python, f"{wheel}[flax]", folder)
    assert run(python, "-c", MODULES, cwd=folder) == "works\n"
    install(python, f"{wheel}[show]", folder)
    printed = run(python, "-m", "dropblock.show", "--out", "masks.png", cwd=folder)
    assert "DropBlock, exact gamma: asked 0.75, expected 0.750" in printed
    assert (folder / "masks.png").read_bytes().startswith(b"\x89PNG")
    # A type checker takes the annotations of a package only where this file lies beside it.
    file = run(python, "-c", "import dropblock; print(dropblock.__file__)", cwd=folder).strip()
    assert pathlib.Path(file).is_relative_to(wheel.parent / "venv")
    assert pathlib.Path(file).with_name("py.typed").exists()
