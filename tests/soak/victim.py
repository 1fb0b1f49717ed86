"""train.py, which a signal meets at a chosen place.

    python tests/soak/victim.py --at=PLACE,CALL,SECONDS,SIGNAL --config ... --workdir ...

So many seconds after the CALL-th time, from 1, that what PLACES has under PLACE is called.
"""

import functools
import importlib
import os
import pathlib
import sys
import threading

ROOT = pathlib.Path(__file__).parents[2]

# What is called there, and the seconds that it may take.
PLACES = {
    "making the first state": ("training.plan:Plan.create", 1.0),
    "compiling": ("train:make_evaluate", 3.0),
    "in an evaluation": ("inputs.pipeline:eval_batches", 0.5),
    "between metrics and checkpoint": ("training.logging:MetricsLog.flush", 0.0),
    "as a save begins": ("training.checkpoints:Checkpoints.save", 0.0),
    "in a save": ("orbax.checkpoint:v1.save_async", 0.1),
    "before a manifest": ("training.manifest:seal", 0.0),
    "writing a file": ("training.files:write", 0.001),
    "adding a score": ("training.manifest:add_metrics", 0.001),
    "deleting a checkpoint": ("training.manifest:unseal", 0.002),
    "finishing": ("train:_finish", 0.2),
}


def main():
    place, call, seconds, number = sys.argv.pop(1).removeprefix("--at=").split(",")
    _signal_at(PLACES[place][0], int(call), float(seconds), int(number))
    import train

    train.main()


def _signal_at(target: str, call: int, seconds: float, number: int):
    module_name, qualified = target.split(":")
    module = importlib.import_module(module_name)
    *parts, name = qualified.split(".")
    owner = functools.reduce(getattr, parts, module)
    function, left = getattr(owner, name), [call]

    @functools.wraps(function)
    def wrapped(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            if seconds:
                threading.Timer(seconds, os.kill, (os.getpid(), number)).start()
            else:
                os.kill(os.getpid(), number)
        return function(*arguments, **options)

    setattr(owner, name, wrapped)
    # And under that name in modules that have imported it by itself.
    for other in list(sys.modules.values()):
        if other is not None and vars(other).get(name) is function:
            setattr(other, name, wrapped)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
