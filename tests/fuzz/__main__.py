"""Reads thousands of broken inputs, and counts what becomes of them.

    make fuzz                                        # all, in about two minutes
    make fuzz ARGS="--form 'coco json' --count 1000"
    make fuzz ARGS="--form image --first 17 --count 1"   # one again

Each is read in a process that other processes outlive, within 10 s of a core and 1 GiB. Printed
for each form: how many were made, refused (a DataError or ConfigError that names the file), skipped
(what could not be read was left out, and counted), and read properly; each failure with its number.
The exit status is 1 where there was one.
"""

import argparse
import collections
import sys

from fuzz.cases import FAILED, READ, REFUSED, SKIPPED
from fuzz.forms import FORMS
from fuzz.processes import judged


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--form", choices=FORMS, action="append", help="default: all")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, help="of inputs of each form")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    forms = args.form or list(FORMS)
    wanted = [
        (form, number)
        for form in forms
        for number in range(args.first, args.first + (args.count or FORMS[form][1]))
    ]
    counts = {form: collections.Counter() for form in forms}
    for form, number, outcome, detail in judged(wanted, args.processes):
        counts[form][outcome] += 1
        if outcome == FAILED:
            print(f"{form} {number}: {detail}", flush=True)
        done = sum(map(collections.Counter.total, counts.values()))
        if sys.stderr.isatty():
            print(f"\r{done} of {len(wanted)}", end="\r", file=sys.stderr)
    outcomes = (REFUSED, SKIPPED, READ, FAILED)
    print(f"{'form':15}{'made':>9}" + "".join(f"{outcome:>9}" for outcome in outcomes))
    total = sum(counts.values(), collections.Counter())
    for name, found in (*counts.items(), ("all", total)):
        print(f"{name:15}{found.total():9}" + "".join(f"{found[o]:9}" for o in outcomes))
    return 1 if total[FAILED] else 0


if __name__ == "__main__":
    sys.exit(main())
