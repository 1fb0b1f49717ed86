"""What a trained network finds in images of one's own: a picture of each, and one JSON.

    python predict.py --workdir runs/scenes --out found --images photo.jpg FOLDER ...

Takes image files, and folders with all images below them. Writes OUT/<image>.png and
OUT/predictions.json. Images that cannot be read are named and counted, and the others done. Exit
codes: 0 done, 2 bad input, also where some images could not be read.
"""

import functools
import json
import pathlib
import sys

import jax
from absl import flags

from inputs import pipeline
from inputs.files import pictures_of
from inputs.images import DataError, read_image
from tasks import make_task
from training import config as config_lib
from training import memory, plots, sharding
from training.checkpoints import Checkpoints
from training.plan import make_plan
from training.state import variables
from training.step import make_eval_step

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_IMAGES = flags.DEFINE_multi_string("images", [], "Image files and folders; more may follow it.")
_OUT = flags.DEFINE_string("out", None, "Folder for pictures and predictions.json.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best, or a step.")
_CHECKPOINT_DIR = flags.DEFINE_string(
    "checkpoint_dir", None, "Where the checkpoints are. Default: WORKDIR/checkpoints."
)


def main(argv) -> int:
    memory.keep_freed()
    workdir, out = pathlib.Path(_WORKDIR.value), pathlib.Path(_OUT.value)
    # The shell expands a pattern to several words, of which the flag takes the first.
    paths = pictures_of([*_IMAGES.value, *argv[1:]])
    result = predict(
        config_lib.from_json(workdir / "config.json"),
        _CHECKPOINT_DIR.value or workdir / "checkpoints",
        _CHECKPOINT.value,
        paths,
        out,
    )
    config_lib.write(out / "predictions.json", json.dumps(result, indent=1) + "\n")
    skipped = result["skipped"]
    print(f"{len(result['images'])} images predicted, in {out}")
    if skipped:
        print(f"error: {len(skipped)} images could not be read, see above", file=sys.stderr)
    return 2 if skipped else 0


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
    """Predicts for images, and draws each.

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
    mesh = sharding.make_mesh()
    batch_size = -(-min(config.batch_size, len(paths)) // mesh.size) * mesh.size
    plan = make_plan(config, functools.partial(make_task, train=False, evaluate=False))
    task = plan.task
    with Checkpoints(checkpoint_dir, keep=None, best_metric=task.best_metric) as checkpoints:
        step = checkpoints.step_of(checkpoint)
        state = checkpoints.restore(plan.abstract_state(mesh), step=step)
    replicated, by_batch = sharding.replicated(mesh), sharding.by_batch(mesh)
    eval_step = jax.jit(
        make_eval_step(task, plan.network, by_device=sharding.by_device(mesh)),
        in_shardings=(replicated, by_batch, replicated),
        out_shardings=replicated,
    )
    batches = pipeline.eval_batches(
        _Images(task, paths),
        task.transform(train=False),
        batch_size=batch_size,
        on_error="skip",
        num_threads=config.data.num_threads,
    )
    result = {"step": int(state["step"]), "images": [], "skipped": []}
    key = jax.random.key(config.seed)
    for number, batch in enumerate(batches):
        _, predictions = eval_step(variables(state), sharding.put_batch(mesh, batch), key)
        predictions = jax.device_get(predictions)
        for row, path in enumerate(paths[number * batch_size : (number + 1) * batch_size]):
            if not batch["mask"][row]:
                result["skipped"].append(path)
                continue
            prediction = {name: values[row] for name, values in predictions.items()}
            image = read_image(path, config.data.channels)
            plots.save_figure(task.picture(image, prediction), out / files[path])
            found = {"file": path, "picture": files[path]}
            found |= {"height": image.shape[0], "width": image.shape[1]}
            result["images"].append(found | task.describe(prediction))
    return result


if __name__ == "__main__":
    config_lib.run(main, DataError)
