"""Seconds from the command to the first step, the first time and with compiled programs kept.

    python -m benchmarks.start_up                                   # of `make train`
    python -m benchmarks.start_up --config configs/scenes_fcn.py --repeats 3

Each pair of starts has a folder of its own, so that the first of them finds nothing. Seconds are of
the clock, and of the CPU time of all threads, which other work on the machine hardly changes.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.timing import cpu_seconds_of


def start(config: str, workdir: pathlib.Path) -> tuple[float, float]:
    """Trains until the first step is there; seconds of the clock and of the CPU until then."""
    command = [sys.executable, "train.py", "--config", config, "--workdir", str(workdir)]
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    began = time.monotonic()
    with subprocess.Popen(
        [*command, "--config.log_every_steps=1"],
        env=environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        found = next((line for line in process.stdout if line.startswith("step 1/")), None)
        seconds = time.monotonic() - began
        used = cpu_seconds_of(process.pid)
        process.kill()
        if found is None:
            sys.exit(f"no first step was seen:\n{process.stderr.read()}")
    return seconds, used


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/mnist_resnet.py:dropblock_label_smoothing")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    times = []  # [repeat][first, second][clock, CPU]
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            times.append([start(args.config, pathlib.Path(folder, name)) for name in ("a", "b")])
    for index, what in enumerate(("by the clock", "of CPU time")):
        first, second = ([repeat[n][index] for repeat in times] for n in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(first, second, strict=True))
        print(
            f"{what}: first start {statistics.median(first):.1f} s, second "
            f"{statistics.median(second):.1f} s, ratio {ratio:.3f} (medians of {args.repeats})"
        )


if __name__ == "__main__":
    main()
