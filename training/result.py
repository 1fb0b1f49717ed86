"""`result.json`: what a run came to, and what made it."""

import importlib.metadata
import pathlib
import platform
import subprocess

import jax

from training.config import ConfigError
from training.files import read_object

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def make_result(records: list[dict], best_metric: str) -> dict:
    """Final and best metrics of a finished run, its versions, commit, devices and wall time.

    Args:
      records: of metrics.jsonl.
      best_metric: the evaluation metric whose highest value is best (the paper reports that).
    """
    evaluated = [record for record in records if f"eval/{best_metric}" in record]
    # The last of equals, which is the one whose checkpoint is kept.
    best = max(evaluated[::-1], key=lambda record: record[f"eval/{best_metric}"])
    device = jax.devices()[0]
    return {
        "final": _eval_part(evaluated[-1]),
        "best": _eval_part(best),
        "best_metric": best_metric,
        "kept": _kept(records),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "hosts": jax.process_count(),
        "seconds": round(records[-1]["time/seconds"], 1),
    }


def read(path: pathlib.Path) -> dict:
    """Reads the result of a run.

    Raises:
      ConfigError: it is damaged.
    """
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def report(result: dict, workdir: pathlib.Path) -> str:
    """The result in a few lines for a person.

    Raises:
      ConfigError: it is damaged.
    """
    path = workdir / "result.json"
    try:
        metric = result["best_metric"]
        lines = [
            f"{metric} {result['final'][metric]:.2f} at the end, best {result['best'][metric]:.2f} "
            f"at step {result['best']['step']}; {result['final']['examples']} examples; "
            f"{result['seconds']:.0f} s"
        ]
        lines += [
            f"{place}: kept {kept['kept']:.4f}, expected {kept['expected']:.4f}"
            for place, kept in result["kept"].items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    lines.append(f"plots: {workdir / 'plots'}   result: {path}")
    return "\n".join(lines)


def _damaged(path: pathlib.Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path} is damaged ({type(error).__name__}: {error}): remove it, and the command that "
        "trained the run writes it anew"
    )


def _eval_part(record):
    metrics = {k.removeprefix("eval/"): v for k, v in record.items() if k.startswith("eval/")}
    return {"step": record["step"], "epoch": record["epoch"]} | metrics


def _kept(records):
    """Kept fractions of the last ten records, where keep_prob is near its target."""
    last = records[-10:]
    places = [name.removeprefix("kept/") for name in last[-1] if name.startswith("kept/")]

    def mean(name):
        values = [record[name] for record in last if name in record]
        return sum(values) / len(values)

    return {
        place: {"kept": mean(f"kept/{place}"), "expected": mean(f"expected_kept/{place}")}
        for place in places
    }


def _commit() -> str:
    """The commit of this repository, with -dirty where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    folder = pathlib.Path(__file__).parent
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown: not a git checkout"
