"""What predict.py leaves: pictures, masks, and one JSON and CSV of all; see docs/predicting.md."""

import contextlib
import csv
import json
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from inputs.images import image_size
from prediction import cam
from prediction.predictor import Predictor, read
from tasks import pictures
from training.files import replacing, writing
from training.plots import save_figure


class Output:
    """A folder of predictions, finished at the end of its `with`, if nothing is raised there.

    What grows with the number of images is not in memory but on the disk, in files without a name:
    whatever kills this process, predictions.json and .csv are whole or as they were.

    Attributes:
      counts: entries of each list of predictions.json so far.
    """

    def __init__(
        self, folder: pathlib.Path, predictor: Predictor, *, draw: bool, all_classes: bool = False
    ):
        """Makes the folder.

        Args:
          folder: where all goes.
          predictor: what predicts.
          draw: whether to draw pictures.
          all_classes: of a classifier: tell the probability of each class, not of the likeliest.

        Raises:
          WriteError: it cannot be written to.
        """
        self._folder, self._task = folder, predictor.task
        self._draw, self._all_classes = draw, all_classes
        self._header = {
            "info": {
                "description": self._task.legend,
                "task": self._task.config.task,
                "step": predictor.step,
                "weights": predictor.weights,
            },
            "categories": self._task.categories,
        }
        self.counts = {"images": 0, "annotations": 0, "skipped": 0}
        with writing(folder), contextlib.ExitStack() as files:
            folder.mkdir(parents=True, exist_ok=True)
            self._lists = {name: files.enter_context(self._growing()) for name in self.counts}
            self._table = files.enter_context(self._growing())
            self._files = files.pop_all()

    def _growing(self):
        # Names of files come as the system has them, which need not be UTF-8.
        return tempfile.TemporaryFile(
            "w+", dir=self._folder, encoding="utf-8", errors="surrogateescape", newline=""
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        with self._files:
            if kind is None:
                self._finish()

    def add(self, file: str, name: str, prediction: dict[str, np.ndarray]):
        """Adds what is predicted for an image file; its pictures are called `name`."""
        task, id = self._task, self.counts["images"] + 1
        height, width = image_size(file, file, upright=True)
        entry = {"id": id, "file_name": file, "height": height, "width": width}
        mask = task.mask(prediction)
        if mask is not None:
            prediction = prediction | {"classes": mask}
            entry["mask"] = f"masks/{name}"
            _save_mask(mask, self._folder / "masks" / name, task.class_names)
        found = task.describe(prediction)
        for annotation in found.pop("annotations", ()):
            ids = {"id": self.counts["annotations"] + 1, "image_id": id}
            self._put("annotations", ids | annotation)
        probabilities = task.probabilities(prediction)
        if probabilities is not None:
            self._put_row(file, probabilities)
            if self._all_classes:
                each = zip(task.class_names, probabilities.tolist(), strict=True)
                found["probabilities"] = dict(each)
        if self._draw:
            entry["picture"] = name
            save_figure(task.picture(read(file, task), prediction), self._folder / name)
        if "cam" in prediction:
            entry["cam"] = f"cam/{name}"
            figure = cam.picture(task, read(file, task), prediction)
            save_figure(figure, self._folder / "cam" / name)
        self._put("images", entry | found)

    def skip(self, file: str, reason: str):
        """Adds a file that could not be read."""
        self._put("skipped", {"file_name": file, "reason": reason})

    def _put(self, name: str, entry: dict[str, Any]):
        with writing(self._folder):
            self._lists[name].write((",\n" if self.counts[name] else "\n") + json.dumps(entry))
        self.counts[name] += 1

    def _put_row(self, file: str, probabilities: np.ndarray):
        names, values = self._task.class_names, probabilities.tolist()
        best = np.argsort(-probabilities, kind="stable")[: 1 if self._all_classes else 5]
        row: list[tuple[str, Any]] = [("file", file)]
        for rank, label in enumerate(best, start=1):
            number = "" if rank == 1 else rank
            row += [(f"class{number}", names[label]), (f"probability{number}", values[label])]
        if self._all_classes:
            row += zip(names, values, strict=True)
        heads, cells = zip(*row, strict=True)
        with writing(self._folder):
            writer = csv.writer(self._table, lineterminator="\n")
            if not self.counts["images"]:
                writer.writerow(heads)
            writer.writerow(cells)

    def _finish(self):
        """Puts predictions.json, and .csv where there are classes to tell, in their places."""
        with replacing(self._folder / "predictions.json") as draft, draft.open("w") as file:
            for name, value in self._header.items():
                file.write(f'{"," if name != "info" else "{"}\n"{name}": {json.dumps(value)}')
            for name, entries in self._lists.items():
                file.write(f',\n"{name}": [')
                _copy(entries, file)
                file.write("]")
            file.write("\n}\n")
        if self._table.tell():
            with (
                replacing(self._folder / "predictions.csv") as draft,
                draft.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
            ):
                _copy(self._table, file)


def _copy(source, file):
    source.seek(0)
    shutil.copyfileobj(source, file)


def _save_mask(mask: np.ndarray, path: pathlib.Path, class_names: Sequence[str]):
    """Writes class indices, uint8 `[height, width]`, as a palette PNG, whose indices they are."""
    image = Image.fromarray(mask)
    image.putpalette(pictures.class_colors(class_names).tobytes())
    with replacing(path) as draft:
        image.save(draft, "PNG")
