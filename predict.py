"""What a trained network finds in images of one's own: a picture of each, and one JSON.

    python predict.py --workdir runs/scenes --out found --images photo.jpg FOLDER ...

Takes image files, and folders with all images below them. Writes OUT/<image>.png and
OUT/predictions.json. Images that cannot be read are named and counted, and the others done. Exit
codes: 0 done, 2 bad input, also where some images could not be read.
"""

import json
import pathlib
import sys

import jax
from absl import flags

from inputs import memory, pipeline
from inputs.files import IMAGE_SUFFIXES
from inputs.images import DataError, read_image
from tasks import make_task
from training import compilation, multihost, plots
from training import config as config_lib
from training.files import write
from training.plan import make_plan
from training.state import variables


def main():
    """The command: its flags, and what they say."""
    workdir = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    images = flags.DEFINE_multi_string("images", [], "Image files and folders; more may follow it.")
    out = flags.DEFINE_string(
        "out", None, "Folder for pictures and predictions.json.", required=True
    )
    checkpoint = flags.DEFINE_string("checkpoint", "latest", "latest, best, or a step.")
    checkpoint_dir = flags.DEFINE_string(
        "checkpoint_dir", None, "Where the checkpoints are. Default: WORKDIR/checkpoints."
    )
    hosts = flags.DEFINE_flag(config_lib.optional_value("multihost", None, multihost.HELP))

    def command(argv) -> int:
        multihost.initialize(hosts.value)
        memory.keep_freed()
        run, folder = pathlib.Path(workdir.value), pathlib.Path(out.value)
        compilation.keep_compiled(run.parent)
        # The shell expands a pattern to several words, of which the flag takes the first.
        files = pictures_of([*images.value, *argv[1:]])
        result = predict(
            multihost.read_config(run / "config.json"),
            checkpoint_dir.value or run / "checkpoints",
            checkpoint.value,
            files,
            folder,
        )
        skipped = result["skipped"]
        if jax.process_index() == 0:
            write(folder / "predictions.json", json.dumps(result, indent=1) + "\n")
            print(f"{len(result['images'])} images predicted, in {folder}")
            if skipped:
                print(f"error: {len(skipped)} images could not be read, see above", file=sys.stderr)
        return 2 if skipped else 0

    config_lib.run(command, DataError, leave=multihost.leave)


def pictures_of(names: list[str]) -> dict[str, str]:
    """A picture's name for each image file: `{path: name}`.

    Args:
      names: of files, and of folders whose images (by suffix) are taken, those of subfolders too.

    Raises:
      DataError: nothing is given, or a folder holds no image.
    """
    files: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        folder = pathlib.Path(name)
        found = [folder]
        if folder.is_dir():
            found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise DataError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
        for path in found:
            below = path.relative_to(folder) if folder.is_dir() else pathlib.Path(path.name)
            stem = "_".join(below.with_suffix("").parts)
            unique, number = f"{stem}.png", 1
            while unique in taken:
                number += 1
                unique = f"{stem}-{number}.png"
            taken.add(unique)
            files.setdefault(str(path), unique)
    if not files:
        raise DataError("no images are given: name files or folders after --images.")
    return files


class _Images:
    """Image files as a source of examples of which nothing but the image is known."""

    def __init__(self, task, paths: list[str]):
        self._task, self._paths = task, paths
        self.class_names = task.class_names

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int):
        image = read_image(self._paths[index], self._task.config.data.channels)
        return self._task.unlabeled(image, index)


def predict(config, checkpoint_dir, checkpoint: str, files: dict[str, str], out) -> dict:
    """Predicts for images, and draws each: process 0 does, the others only predict.

    Args:
      config: of the run.
      checkpoint_dir: where its checkpoints are.
      checkpoint: "latest", "best", or a step.
      files: see `pictures_of`.
      out: the folder for pictures.

    Returns:
      `step`, of the checkpoint; `images`, for each the `file`, its `picture`, `height`, `width` and
      what the task describes; `skipped`, the files that could not be read.

    Raises:
      ConfigError, DataError: bad input.
    """
    paths = list(files)
    config.batch_size = min(config.batch_size, len(paths))
    plan = make_plan(config, make_task, jax.devices(), train=False, evaluate=False)
    multihost.hold_config_to_process_0(config)
    multihost.hold_to_process_0("list of images", files)
    task, eval_step, batch_size = plan.task, plan.eval_step(), plan.batch_size
    state = plan.restore(checkpoint_dir, checkpoint)
    batches = pipeline.eval_batches(
        _Images(task, paths),
        task.transform(train=False),
        batch_size=batch_size,
        rows=plan.rows,
        on_error="skip",
        num_threads=config.data.num_threads,
    )
    result = {"step": int(state["step"]), "images": [], "skipped": []}
    for number, batch in enumerate(batches):
        _, predictions = eval_step(variables(state), plan.put_batch(batch), plan.key, 1.0)
        predictions = jax.device_get(predictions)
        for row, path in enumerate(paths[number * batch_size : (number + 1) * batch_size]):
            if not predictions["mask"][row]:
                result["skipped"].append(path)
            elif jax.process_index() == 0:
                prediction = {name: values[row] for name, values in predictions.items()}
                image = read_image(path, config.data.channels)
                plots.save_figure(task.picture(image, prediction), out / files[path])
                found = {"file": path, "picture": files[path]}
                found |= {"height": image.shape[0], "width": image.shape[1]}
                result["images"].append(found | task.describe(prediction))
    return result


if __name__ == "__main__":
    main()
