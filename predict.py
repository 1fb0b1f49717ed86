"""What a trained network finds in images of one's own: pictures, masks, one JSON and a CSV.

    python predict.py --workdir runs/scenes --out found --images photo.jpg FOLDER ...

    python predict.py --workdir runs/scenes --out found --mc_samples 30 --images FOLDER

Takes image files, and folders with all images below them, photographs upright; the workdir may be
an exported folder. Writes OUT/predictions.json, and by task boxes in it, OUT/masks/<image>.png or
OUT/predictions.csv, and a picture OUT/<image>.png of each: docs/predicting.md. With
--mc_samples it tells the mean and the spread of so many predictions with dropping on:
docs/uncertainty.md. Images that cannot
be read are named and counted, and the others done. Exit codes: 0 done, 2 bad input, also where
some images could not be read, 4 disk full or not to be written to.
"""

import contextlib
import itertools
import pathlib
import sys

import jax
from absl import flags

from inputs import memory
from inputs.images import DataError
from inputs.splits import counted
from prediction import Predictor, open_run
from prediction.images import pictures_of
from prediction.output import Output
from training import compilation, multihost
from training import config as config_lib
from training.logging import Progress

_NAMED = 10  # of the files that could not be read


def main():
    """The command: its flags, and what they say."""
    workdir = flags.DEFINE_string(
        "workdir", None, "Folder of the run, or one that was exported.", required=True
    )
    images = flags.DEFINE_multi_string("images", [], "Image files and folders; more may follow it.")
    out = flags.DEFINE_string("out", None, "Folder for all that is written.", required=True)
    checkpoint = flags.DEFINE_string("checkpoint", "latest", "latest, best, or a step.")
    checkpoint_dir = flags.DEFINE_string(
        "checkpoint_dir", None, "Where the checkpoints are. Default: WORKDIR/checkpoints."
    )
    pictures = flags.DEFINE_bool("pictures", True, "Draw a picture of each image.")
    min_score = flags.DEFINE_float(
        "min_score",
        None,
        "Least score of a box, in the JSON and in pictures. Default: the run's "
        "detection.min_score, and detection.picture_score for pictures.",
    )
    cam = flags.DEFINE_bool(
        "cam", False, "Draw class activation maps too, of a classifier, into OUT/cam."
    )
    all_classes = flags.DEFINE_bool(
        "all_classes", False, "Tell the probabilities of all classes, not of the five likeliest."
    )
    mc_samples = flags.DEFINE_integer(
        "mc_samples",
        None,
        "Tell the mean and the spread of so many predictions with dropping on. Default: nothing is "
        "dropped.",
        lower_bound=1,
    )
    keep_prob = flags.DEFINE_float(
        "keep_prob", None, "Of --mc_samples, before the places' factors. Default: the run's."
    )
    seed = flags.DEFINE_integer(
        "seed", None, "Of what --mc_samples drops. Default: the run's.", lower_bound=0
    )
    hosts = flags.DEFINE_flag(config_lib.optional_value("multihost", None, multihost.HELP))

    def command(argv) -> int:
        multihost.initialize(hosts.value)
        memory.keep_freed()
        folder = pathlib.Path(out.value)
        compilation.keep_compiled(pathlib.Path(workdir.value).parent)
        # The shell expands a pattern to several words, of which the flag takes the first.
        files = pictures_of([*images.value, *argv[1:]], folder)
        run = open_run(
            workdir.value,
            checkpoint.value,
            checkpoint_dir=checkpoint_dir.value,
            min_score=min_score.value,
            cam=cam.value,
            mc_samples=mc_samples.value,
            keep_prob=keep_prob.value,
            seed=seed.value,
        )
        counts = predict(run, files, folder, draw=pictures.value, all_classes=all_classes.value)
        return 2 if counts["skipped"] else 0

    config_lib.run(command, DataError, leave=multihost.leave)


def predict(
    run: Predictor,
    files: dict[str, str],
    folder: pathlib.Path,
    *,
    draw: bool = True,
    all_classes: bool = False,
) -> dict[str, int]:
    """Predicts for images and writes what is found: process 0 does, the others only predict.

    Args:
      run: what predicts.
      files: see `pictures_of`.
      folder, draw, all_classes: see `Output`.

    Returns:
      How many `images` were predicted, and how many were `skipped`, which could not be read.

    Raises:
      ConfigError: another process has other files.
      WriteError: the folder cannot be written to.
    """
    multihost.hold_to_process_0("list of images", files)
    paths, lead = list(files), jax.process_index() == 0
    counts = {"images": 0, "skipped": 0}
    writes = Output(folder, run, draw=draw, all_classes=all_classes) if lead else None
    with writes or contextlib.nullcontext(), Progress(len(paths), unit="image") as progress:
        progress.print(f"using the {run.weights}")
        if run.sampling:
            progress.print(
                "each prediction is the mean of {mc_samples} with dropping on, at keep_prob "
                "{keep_prob:g}".format_map(run.sampling)
            )
        predictions = run.each(paths)
        size = run.batch_size(len(paths))
        batches = f"batches of {counted(size, 'image')}"
        with progress.doing(f"compiling for {batches}, and reading the first"):
            first = next(predictions)
        predictions = itertools.chain([first], predictions)
        for done, (path, found) in enumerate(zip(paths, predictions, strict=True), start=1):
            if isinstance(found, DataError):
                counts["skipped"] += 1
                if counts["skipped"] <= _NAMED:
                    progress.print(f"skipped: {found}")
                if writes:
                    writes.skip(path, str(found))
            else:
                counts["images"] += 1
                if writes:
                    writes.add(path, files[path], found)
            progress.step(done)
    if lead:
        print(f"{counted(counts['images'], 'image')} predicted, in {folder}")
    if lead and counts["skipped"]:
        print(
            f"error: {counted(counts['skipped'], 'image')} could not be read, named in "
            f"{folder / 'predictions.json'}",
            file=sys.stderr,
        )
    return counts


if __name__ == "__main__":
    main()
