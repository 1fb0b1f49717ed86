"""What pip installs: the package `dropblock` alone, and it needs jax alone."""

import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_the_library_and_runs_with_jax_alone(tmp_path):
    def run(*command):
        return subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("dropblock_jax-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dropblock", "dropblock_jax"}
    assert "dropblock/py.typed" in names

    python = str(tmp_path / "venv" / "bin" / "python")
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    run(python, "-m", "pip", "install", "-c", str(ROOT / "constraints.txt"), str(wheel))
    code = (
        "import jax, sys; from dropblock import dropblock; "
        "y = dropblock(jax.random.key(0), jax.numpy.ones((2, 8, 8, 4)), 0.5, 3); "
        "assert (y == 0).any() and 'flax' not in sys.modules; print('works')"
    )
    assert run(python, "-c", code).stdout == "works\n"
    packages = run(python, "-m", "pip", "list").stdout.lower()
    assert "flax" not in packages and "optax" not in packages
