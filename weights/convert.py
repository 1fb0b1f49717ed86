"""Makes weights of PyTorch, .pth, a file that `config.init_from` takes.

    python -m weights.convert resnet50.pth resnet50.safetensors

A .pth file is a program that makes the weights when it is run. It is not run here: what it says of
arrays is read, and anything else in it refused (weights/pth.py). PyTorch is not needed. The
arrays keep their names. Exit codes: 0 done, 2 bad input.
"""

import argparse
import pathlib
import sys

from inputs.images import DataError
from weights import files, pth


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=pathlib.Path, help="PyTorch's file")
    parser.add_argument("target", type=pathlib.Path, help="OUT.safetensors or OUT.npz")
    arguments = parser.parse_args(argv)
    try:
        arrays = pth.read(arguments.source)
        files.save(arguments.target, arrays)
    except (DataError, FileNotFoundError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(arrays)} arrays in {arguments.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
