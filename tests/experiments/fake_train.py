"""Takes the place of train.py: its arguments, files, exit codes and resuming, without the training.

Its accuracy follows from its arguments. `trace.txt` has every step that was really made. A step
takes SLEEP seconds.
"""

import argparse
import json
import os
import pathlib
import signal
import sys
import time
import zlib

STEPS = 10

options = argparse.ArgumentParser(allow_abbrev=False)
options.add_argument("--workdir", type=pathlib.Path)
arguments, rest = options.parse_known_args()
fields = dict(word.removeprefix("--").split("=", 1) for word in rest)
workdir = arguments.workdir
metrics = workdir / "metrics.jsonl"
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))

if fields.get("config.drop.keep_prob") == "2":
    print("error: keep_prob must be in [0, 1]")
    sys.exit(2)
if fields.get("config.schedule.learning_rate") == "1e30":
    print("error: loss is nan at step 1")
    sys.exit(3)

(workdir / "config.json").write_text(json.dumps({"epochs": float(STEPS), "steps": None}))
first = len(metrics.read_text().splitlines()) if metrics.exists() else 0
for step in range(first + 1, STEPS + 1):
    time.sleep(float(os.environ.get("SLEEP", 0)))
    with metrics.open("a") as file:
        line = {"step": step, "epoch": float(step), "time/seconds": float(step)}
        file.write(json.dumps(line) + "\n")
    with (workdir / "trace.txt").open("a") as file:
        file.write(f"{step}\n")
    if stopping:
        sys.exit(143)
top1 = 70 + zlib.crc32(repr(sorted(fields.items())).encode()) % 1000 / 100
best = {"step": STEPS, "top1": top1, "top5": 95.0}
result = {
    "best": best,
    "final": best | {"top1": top1 - 0.5},
    "best_metric": "top1",
    "seconds": time.monotonic(),
    "commit": "abc",
}
(workdir / "result.json").write_text(json.dumps(result))
