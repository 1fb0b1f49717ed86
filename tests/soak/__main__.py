"""Kills, full disks, damaged checkpoints: nothing is lost, nothing hangs, nothing read wrongly.

    make soak                          # within an hour on 2 cores
    make soak ARGS="--kills 6 --only kills --seed 1"

Prints a line for each failure and ends with a table of counts; the exit status is 1 if there was
one. What was tried on lies in runs/soak, and stays there where it failed.
"""

import argparse
import collections
import pathlib
import shutil
import sys
import time

from soak import damage, disks, kills

PARTS = ("kills", "disks", "damage")


class Table:
    """Counts of what was tried."""

    def __init__(self):
        self._tried = collections.Counter()
        self._failed = collections.Counter()
        self._notes = []

    def add(self, part: str, name: str, failure: str | None):
        self._tried[part, name] += 1
        if failure:
            self._failed[part, name] += 1
            print(f"FAILED: {part}: {name}: {failure}", flush=True)

    def note(self, part: str, text: str):
        self._notes.append(f"| {part} | {text} | | |")

    def print(self) -> int:
        print("| part | what | tried | failures |\n|---|---|---|---|")
        for (part, name), count in sorted(self._tried.items()):
            print(f"| {part} | {name} | {count} | {self._failed[part, name]} |")
        print(*self._notes, sep="\n", end="\n" if self._notes else "")
        print(f"| all | | {self._tried.total()} | {self._failed.total()} |")
        return self._failed.total()


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--kills", type=int, default=54, help="Of all runs together.")
    options.add_argument("--fills", type=int, default=12, help="Sizes of disks that are too small.")
    options.add_argument("--flips", type=int, default=4, help="Of each file of each checkpoint.")
    options.add_argument("--seed", type=int, default=0, help="Of what is drawn.")
    options.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="Parts.")
    options.add_argument("--jobs", default="", help="Only configs whose name has this in it.")
    options.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/soak"))
    asked = options.parse_args()
    folder, began, table = asked.folder.absolute(), time.monotonic(), Table()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    jobs = [job for job in (*kills.TINY, *kills.REAL) if asked.jobs in job.config]
    if "kills" in asked.only:
        for index, job in enumerate(jobs):
            share = asked.kills // len(jobs) + (index < asked.kills % len(jobs))
            part = f"kills, {pathlib.Path(job.config).stem}"
            place = folder / str(index)
            for told in kills.soak(job, place, share, asked.seed + index):
                table.add(part, *told)
            print(f"{part}: {share}, {time.monotonic() - began:.0f} s", flush=True)
    if {"disks", "damage"} & {*asked.only}:
        whole = kills.undisturbed(kills.TINY[0], folder / "whole")
        (folder / "copies").mkdir()
        (folder / "mounted").mkdir()
        if "damage" in asked.only:
            for told in damage.soak(whole, folder / "copies", asked.flips, asked.seed):
                table.add("damage", *told)
        if "disks" in asked.only and disks.possible(folder / "mounted"):
            shares = [index / asked.fills for index in range(asked.fills)]
            for told in disks.soak(whole, folder / "mounted", shares):
                table.add("disks", *told)
        elif "disks" in asked.only:
            table.note("disks", "not possible here: this user may not mount")
    failures = table.print()
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
