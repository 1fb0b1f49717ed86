"""Disks that are full or may not be written to: one sentence, and with room the run goes on.

`python -m soak.disks FOLDER` in a user's own mount namespace, see `possible`.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

import processes
from soak import kills

_IN_A_NAMESPACE = ["unshare", "--map-root-user", "--mount"]
_NOT_WRITTEN = 4
_SENTENCE = re.compile(r"error: .* cannot be written: .*; (no checkpoint was saved yet|the same)")


def possible(folder: pathlib.Path) -> bool:
    """Whether this user may mount a tmpfs here."""
    if shutil.which("unshare") is None:
        return False
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    return subprocess.run(_IN_A_NAMESPACE + mount, capture_output=True).returncode == 0


def soak(whole: pathlib.Path, folder: pathlib.Path, fills: int) -> list[tuple[str, str | None]]:
    """Tries disks of so many sizes, and read-only ones.

    Args:
      whole: an undisturbed run of tests/tiny.py.
      folder: to mount disks under; empty.
      fills: how many sizes, evenly up to that of the run.

    Returns:
      What was tried, and what went wrong, None where nothing did.
    """
    command = [sys.executable, "-m", "soak.disks", str(whole), str(folder), str(fills)]
    paths = {"PYTHONPATH": f"{processes.ROOT}:{processes.ROOT / 'tests'}"}
    found = subprocess.run(
        _IN_A_NAMESPACE + command,
        cwd=processes.ROOT,
        env=processes.os.environ | paths,
        text=True,
        capture_output=True,
    )
    assert found.returncode == 0, found.stderr
    return [tuple(pair) for pair in json.loads(found.stdout.splitlines()[-1])]


def _mount(folder, options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def _remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def _try(job, workdir, whole, room, refused: bool) -> str | None:
    """Runs into the fault, makes room, and goes on; returns what went wrong."""
    began = time.monotonic()
    process = job.start(workdir)
    try:
        out, err = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"hung: {process.communicate()[1][-300:]}"
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    if process.returncode == 0 and refused:
        return "it ended as if nothing were wrong"
    if process.returncode not in (0, _NOT_WRITTEN) or "Traceback" in err:
        return (
            f"exit code {process.returncode} after {time.monotonic() - began:.0f} s: {err[-300:]}"
        )
    if process.returncode and (len(errors) != 1 or not _SENTENCE.match(errors[0])):
        return f"not one sentence: {err[-300:]}"
    room()
    try:
        processes.finish(job.start(workdir))
    except AssertionError as error:
        return f"with room: {error}"
    found = kills.differences(job, workdir, whole)
    return f"differs in {', '.join(found)}" if found else None


def _size(folder: pathlib.Path) -> int:
    """What a disk needs for it, in pages of 4 kB."""
    return sum(-(-path.stat().st_size // 4096) + 1 for path in folder.rglob("*")) * 4096


def main(whole: pathlib.Path, folder: pathlib.Path, fills: int):
    job, told = kills.TINY[0], []
    size = _size(whole)
    for index in range(fills):
        part = size * index // fills if index else 4096
        _mount(folder, f"size={part}")
        fault = _try(job, folder / "run", whole, lambda: _remount(folder, f"size={2 * size}"), True)
        told.append(
            ("disk full at the start" if index == 0 else "disk filled in the middle", fault)
        )
        subprocess.run(["umount", str(folder)], check=True)
    for name in ("read-only disk, new run", "read-only disk, run that goes on"):
        _mount(folder, f"size={2 * size}")
        if "goes on" in name:
            shutil.copytree(whole, folder / "run")
            shutil.rmtree(folder / "run" / "checkpoints" / str(job.last))
            (folder / "run" / "result.json").unlink()
        _remount(folder, "ro")
        told.append((name, _try(job, folder / "run", whole, lambda: _remount(folder, "rw"), True)))
        subprocess.run(["umount", str(folder)], check=True)
    print(json.dumps(told))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]))
