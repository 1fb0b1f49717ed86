"""Disks that are full or may not be written to: one sentence, and with room the run goes on.

`python -m soak.disks FOLDER` in a user's own mount namespace, see `possible`.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import processes
from soak import kills

_IN_A_NAMESPACE = ["unshare", "--map-root-user", "--mount"]
_NOT_WRITTEN = 4
_SENTENCE = re.compile(r"error: .+ cannot be written: .+")
_READ_ONLY = (("read-only, new run", False), ("read-only, run that goes on", True))


def possible(folder: pathlib.Path) -> bool:
    """Whether this user may mount a tmpfs here."""
    if shutil.which("unshare") is None:
        return False
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    return subprocess.run(_IN_A_NAMESPACE + mount, capture_output=True).returncode == 0


def soak(whole: pathlib.Path, folder: pathlib.Path, shares, read_only: bool = True) -> list:
    """Tries disks that hold a share of a run, 0 for one page, and read-only ones.

    Args:
      whole: an undisturbed run of tests/tiny.py.
      folder: to mount disks at; empty.
      shares: of the run's size, below 1.
      read_only: whether to try those.

    Returns:
      Of each its name, and what went wrong, None where nothing did.
    """
    cases = json.dumps({"shares": shares, "read_only": read_only})
    command = [sys.executable, "-m", "soak.disks", str(whole), str(folder), cases]
    paths = {"PYTHONPATH": f"{processes.ROOT}:{processes.ROOT / 'tests'}"}
    found = subprocess.run(
        _IN_A_NAMESPACE + command,
        cwd=processes.ROOT,
        env=os.environ | paths,
        text=True,
        capture_output=True,
    )
    assert found.returncode == 0, found.stderr
    return [tuple(pair) for pair in json.loads(found.stdout.splitlines()[-1])]


def _try(job, workdir, whole, room: Callable) -> str | None:
    """Runs into the fault, makes room, and goes on; returns what went wrong."""
    process = job.start(workdir)
    try:
        _, err = processes.end(process)
    except AssertionError as error:
        return str(error)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    if process.returncode != _NOT_WRITTEN or "Traceback" in err:
        return f"exit code {process.returncode}: {err[-300:]}"
    if len(errors) != 1 or not _SENTENCE.match(errors[0]):
        return f"not one sentence: {err[-300:]}"
    room()
    try:
        processes.finish(job.start(workdir))
    except AssertionError as error:
        return f"with room: {error}"
    found = kills.differences(job, workdir, whole)
    return f"differs in {', '.join(found)}" if found else None


def _remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def _on_a_disk(folder, fault: str, job, whole, remedy: str, begun=False) -> str | None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    try:
        if begun:
            shutil.copytree(whole, folder / "run")
            shutil.rmtree(folder / "run" / "checkpoints" / str(job.last))
            (folder / "run" / "result.json").unlink()
        _remount(folder, fault)
        return _try(job, folder / "run", whole, lambda: _remount(folder, remedy))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _size(folder: pathlib.Path) -> int:
    """What a disk needs for it, in pages of 4 kB."""
    return sum(-(-path.stat().st_size // 4096) + 1 for path in folder.rglob("*")) * 4096


def main(whole: pathlib.Path, folder: pathlib.Path, shares, read_only: bool):
    job, told, size = kills.TINY[0], [], _size(whole)
    for share in shares:
        fault = f"size={max(round(share * size), 4096)}"
        name = "filled in the middle" if share else "full at the start"
        told.append((name, _on_a_disk(folder, fault, job, whole, "size=500m")))
    for name, begun in _READ_ONLY if read_only else ():
        told.append((name, _on_a_disk(folder, "ro", job, whole, "rw", begun)))
    print(json.dumps(told))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), **json.loads(sys.argv[3]))
