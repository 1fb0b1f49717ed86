"""What the library needs to be imported, and the names that it promises."""

import ast
import inspect
import pathlib
import subprocess
import sys

import pytest

import dropblock

FOLDER = pathlib.Path(dropblock.__file__).parent

# Runs with flax and optax hidden, as on a machine that never had them.
JAX_ALONE = """
import sys
for hidden in ("flax", "optax"):
    sys.modules[hidden] = None
import jax, jax.numpy, numpy
before = set(sys.modules)
import dropblock
assert dropblock.block_gamma(0.9, (7, 7), 7) > 0
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names)))
try:
    import dropblock.nnx
except ImportError as error:
    print(error)
"""


def test_the_functions_need_jax_alone():
    run = subprocess.run(
        [sys.executable, "-c", JAX_ALONE], cwd=FOLDER.parent, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    imported, error = run.stdout.splitlines()
    assert imported == "['dropblock']"
    assert "flax" in error


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_imports_of_each_file(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module.partition(".")[0])
    allowed = {"jax", "numpy", "dropblock", *sys.stdlib_module_names}
    if path.name in ("nnx.py", "linen.py"):
        allowed.add("flax")
    if path.name == "show.py":  # which nothing imports
        allowed |= {"matplotlib", "PIL"}
    assert names <= allowed


def test_no_module_hides_the_function():
    assert not (FOLDER / "dropblock.py").exists()
    assert inspect.isfunction(dropblock.dropblock)
    assert (FOLDER / "py.typed").exists()


@pytest.mark.parametrize(
    "name, signature",
    [
        (
            "dropblock",
            "(rng, x, keep_prob, block_size, *, shared_mask=False, gamma_rule='paper', "
            "normalize='batch', return_kept=False)",
        ),
        (
            "dropblock_mask",
            "(rng, shape, keep_prob, block_size, *, shared_mask=False, gamma_rule='paper')",
        ),
        ("block_gamma", "(keep_prob, spatial_shape, block_size, gamma_rule='paper')"),
        ("expected_keep", "(gamma, spatial_shape, block_size)"),
        ("keep_prob_schedule", "(target, num_steps, kind='linear', start=1.0)"),
        ("dropout", "(rng, x, keep_prob, *, return_kept=False)"),
        ("spatial_dropout", "(rng, x, keep_prob, *, return_kept=False)"),
        ("drop_path", "(rng, x, keep_prob, *, return_kept=False)"),
    ],
)
def test_signatures_are_a_promise(name, signature):
    # No default for rng: a default key would draw the same mask for ever.
    function = getattr(dropblock, name)
    promised = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in promised.parameters.values()]
    assert str(inspect.Signature(bare)) == signature
    assert name in dropblock.__all__
    assert function.__doc__


def test_all_lists_what_there_is():
    assert sorted(dropblock.__all__) == list(dropblock.__all__)
    assert all(callable(getattr(dropblock, name)) for name in dropblock.__all__)
