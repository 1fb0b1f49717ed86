"""What all tasks share: the splits of a data set, batches of them, and normalised images."""

import abc
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dropblock import checks
from inputs import found as found_lib
from inputs import pipeline
from inputs.bad import Skipped
from inputs.class_names import parse_class_names
from inputs.found import Found, found_in
from inputs.images import DataError
from inputs.sources import Source
from inputs.transforms import ExampleTransform
from tasks.architectures import Architecture
from tasks.drop import make_drop
from training.config import ConfigError
from training.monte_carlo import Moments, Spread

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure


class PixelMap(NamedTuple):
    """A number for each pixel of an image.

    Attributes:
      values: uint16 `[height, width]`.
      scale: what they are to be multiplied by.
    """

    values: np.ndarray
    scale: float


class Task(abc.ABC):
    """A problem, as the training loop sees it: what is abstract here is what a new one gives.

    Attributes:
      best_metric: the evaluation metric whose highest value is kept.
      num_drawn: the examples of the evaluation split that `draw` is given, or all where there are
        fewer.
      collects: whether `score` needs the predictions of all examples, or sums are enough.
      architecture: what `config.model` names: the network, or its backbone.
      class_layers: of the network, those with an output for each class: they are new where the
        network starts from one of other classes.
      num_train, num_eval: examples of the two splits, from the data, else from the config.
      class_names: what labels index.
      found: what each split that is open holds.
      skipped: what could not be used so far, where the config says to skip.
      missing: what is missing of the data, or None.
      legend: what one has to know to read predictions.
      first_category: the id of the first class in predictions, as COCO's files or masks have it.
    """

    best_metric: str
    num_drawn = 8
    legend = ""
    first_category = 0
    collects = False
    architecture: Architecture
    class_layers: tuple[str, ...] = ("head",)

    def __init__(
        self, config, *, need_data: bool = True, train: bool = True, evaluate: bool = True
    ):
        """Checks the fields that all tasks have, and opens the data.

        Args:
          config: see `configs/defaults.py`.
          need_data: if False, and the data is not there, its counts are taken from the config.
          train, evaluate: whether to open the training and the evaluation split; if not, its
            count and the class names are those of the config, where `facts` of the training run
            were written.

        Raises:
          ValueError: a field out of range, or data that is not there (`DataError`).
        """
        data = config.data
        checks.choice("dtype", config.dtype, ("float32", "bfloat16"))
        if data.image_size < 1:
            raise ValueError(f"data.image_size must be positive, got {data.image_size}")
        checks.choice("data.on_error", data.on_error, pipeline.ON_ERROR)
        for name in ("mean", "std"):
            if len(getattr(data, name)) != data.channels:
                raise ValueError(
                    f"data.{name} must have one value for each of the {data.channels} channels, "
                    f"got {tuple(getattr(data, name))}"
                )
        self.config = config
        self.drop = make_drop(config.drop)
        self.missing = None
        self.found: dict[str, Found] = {}
        self.skipped = Skipped()
        names: Any = parse_class_names(data.class_names, data.dir)  # None until data is open
        self.class_names = names
        try:
            self._open(train, evaluate)
        except DataError as error:
            if need_data:
                raise
            self._assume(error)

    @property
    def facts(self) -> dict:
        """What `config.data` says of the data, as it was found."""
        return {
            "class_names": self.class_names,
            "num_classes": len(self.class_names),
            "num_train_examples": self.num_train,
            "num_eval_examples": self.num_eval,
        }

    @property
    def data_found(self) -> str:
        """What was found of the data, and what looks like a slip, for people to read."""
        if self.missing is not None:
            what = "cannot be used as it is" if self._data_is_there else "is missing"
            return f"the data {what}, its counts are the config's: {self.missing}"
        data = self.config.data
        lines = [f"data: {data.name}" + (f" in {data.dir}" if data.dir is not None else "")]
        lines.append(found_lib.table(self.found, self.class_names))
        lines += [f"warning: {said}" for said in found_lib.slips(self.found, self.class_names)]
        return "\n".join(lines)

    def _open(self, train, evaluate):
        data = self.config.data
        self.num_train, self.num_eval = data.num_train_examples, data.num_eval_examples
        if train:
            self.train = self._split(data.train_split)
            self.num_train, self.class_names = len(self.train), self.train.class_names
            self.check_example(self.train, train=True)
        if evaluate:
            self.eval = self._split(data.eval_split)
            self.num_eval, self.class_names = len(self.eval), self.eval.class_names
            self.check_example(self.eval, train=False)

    def _split(self, split):
        source = self.open_split(split)
        if not len(source):
            raise DataError(f"split {split!r} of {self.config.data.name} has no examples")
        self.found[split] = found_in(source)
        self.skipped.know(self.found[split].bad)
        return source

    def _assume(self, error):
        data = self.config.data
        self.missing = str(error)
        counts = (data.num_classes, data.num_train_examples, data.num_eval_examples)
        if None in counts:
            if self._data_is_there:  # what is wrong is with it
                raise error
            raise ValueError(
                f"{error} Without the data, data.num_classes, data.num_train_examples and "
                "data.num_eval_examples must be set."
            ) from error
        num_classes, self.num_train, self.num_eval = counts
        self.class_names = self.class_names or tuple(map(str, range(num_classes)))

    @property
    def _data_is_there(self) -> bool:
        folder = self.config.data.dir
        return folder is not None and os.path.isdir(os.path.expanduser(folder))

    # --- Data.

    @abc.abstractmethod
    def open_split(self, split: str) -> Source:
        """The source of a split, of the classes `self.class_names` where they are known."""

    @abc.abstractmethod
    def transform(self, train: bool) -> ExampleTransform:
        """What makes an example one of a batch, in training or evaluation."""

    @abc.abstractmethod
    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a training batch."""

    def check_example(self, source: Source, *, train: bool):  # noqa: B027, not all have one
        """Holds a split's first examples to the config, where there is something to hold."""

    def train_batches(self, *, start_step: int, rows: slice):
        """Batches from step `start_step` on, without end; see `pipeline.train_batches`."""
        data = self.config.data
        return pipeline.train_batches(
            self.train,
            self.transform(train=True),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            rows=rows,
            on_error=data.on_error,
            skipped=self.skipped,
            num_threads=data.num_threads,
            num_workers=data.num_workers,
        )

    def eval_batches(self, *, batch_size: int, rows: slice):
        """The evaluation split once; see `pipeline.eval_batches`."""
        data = self.config.data
        return pipeline.eval_batches(
            self.eval,
            self.transform(train=False),
            batch_size=batch_size,
            rows=rows,
            on_error=data.on_error,
            skipped=self.skipped,
            num_threads=data.num_threads,
        )

    def image_shape(self, batch_size: int) -> jax.ShapeDtypeStruct:
        """Of a batch's `image`."""
        data = self.config.data
        shape = (batch_size, data.image_size, data.image_size, data.channels)
        return jax.ShapeDtypeStruct(shape, jnp.uint8)

    def inputs(self, batch: dict) -> jax.Array:
        """A batch's images as the model takes them: normalised, on the device."""
        mean = jnp.asarray(self.config.data.mean, jnp.float32).reshape(1, 1, 1, -1)
        std = jnp.asarray(self.config.data.std, jnp.float32).reshape(1, 1, 1, -1)
        return (batch["image"].astype(jnp.float32) / 255.0 - mean) / std

    # --- Model, loss and metrics. What is traced: `loss`, `predict` and `eval_sums`.

    @abc.abstractmethod
    def make_model(self, platform: str | None, rngs: nnx.Rngs) -> nnx.Module:
        """The network, with the forms of its layers that are quick on a platform."""

    @abc.abstractmethod
    def loss(self, out: dict, batch: dict) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of a training batch, a scalar, and sums that `summarize` makes metrics of."""

    @abc.abstractmethod
    def summarize(self, sums: dict) -> dict[str, float]:
        """Metrics of a training step, `loss` among them, from `loss`'s sums."""

    @abc.abstractmethod
    def predict(self, out: dict, batch: dict, by_device: Callable) -> dict[str, jax.Array]:
        """What is evaluated, drawn and described, for each example.

        `out` is the network's, or of `averaged`, where the spread of samples is to be told too.
        `by_device` makes of a function of arrays by example one that each device runs on its own.
        """

    def sampled(self, out: dict) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What of a network's `out`, one of several with dropping on, is averaged.

        Returns:
          Log probabilities `[batch, ..., classes]`, and by name what is averaged as it is.

        Raises:
          ConfigError: the task has not said it.
        """
        raise ConfigError(f"{self.config.task} has no samples: its task lacks sampled and averaged")

    def averaged(self, spread: Spread, moments: dict[str, Moments]) -> dict:
        """The `out` that `predict` takes, of the mean of what `sampled` gave, with its `spread`."""
        raise NotImplementedError

    @abc.abstractmethod
    def eval_sums(self, predictions: dict, batch: dict) -> dict[str, jax.Array]:
        """Sums over the examples that `batch["mask"]` keeps; `count`, of these, is among them."""

    @abc.abstractmethod
    def score(self, sums: dict, collected: dict) -> dict[str, float]:
        """The metrics of an evaluation, `best_metric` among them.

        Args:
          sums: `eval_sums`, added over all batches.
          collected: with `collects`, the predictions of all examples; else empty.
        """

    # --- How far one may trust the predictions: `to_judge` is traced.

    def to_judge(self, out: dict, batch: dict, by_device: Callable) -> dict[str, jax.Array]:
        """What `judge` takes of each example; arguments as of `predict`."""
        return {}

    def judge(self, collected: dict) -> dict[str, Any]:
        """Calibration, and how well each of `monte_carlo.SCORES` tells right from wrong.

        Args:
          collected: `to_judge` of all examples that were read, and with `collects` what `predict`
            gave for them.
        """
        return {}

    # --- Pictures and files, and predictions for images of one's own.

    @abc.abstractmethod
    def draw(self, predictions: dict, batch: dict) -> "matplotlib.figure.Figure":
        """Examples of the evaluation split, with what is known and what is predicted.

        Args:
          predictions: what `predict` gives of them.
          batch: as they were evaluated: `num_drawn` of them from all over the split, the same in
            every evaluation, in its order; at least one, and none that could not be read.
        """

    def files(self, collected: dict) -> dict[str, str]:
        """Texts by file name that an evaluation leaves in the workdir."""
        return {}

    @abc.abstractmethod
    def unlabeled(self, image: np.ndarray, index: int) -> Mapping[str, Any]:
        """An example of an image of which nothing else is known."""

    @property
    def categories(self) -> list[dict[str, Any]]:
        """The classes and their ids in predictions, as COCO has them."""
        names = enumerate(self.class_names, start=self.first_category)
        return [{"id": id, "name": name} for id, name in names]

    @abc.abstractmethod
    def describe(self, prediction: dict) -> dict[str, Any]:
        """One image's prediction, as `predict` gives it, in JSON's types.

        What is found at places is a list `annotations`, as COCO has it but for the ids.
        """

    def mask(self, prediction: dict) -> np.ndarray | None:
        """The class of each pixel of one image, uint8 of its own size, where a task tells that."""
        return None

    def maps(self, prediction: dict) -> dict[str, PixelMap]:
        """What samples say of each pixel of one image, by name, where a task tells that."""
        return {}

    def probabilities(self, prediction: dict) -> np.ndarray | None:
        """The probability of each class for one image, where a task tells that."""
        return None

    @abc.abstractmethod
    def picture(self, image: np.ndarray, prediction: dict) -> "matplotlib.figure.Figure":
        """One image, uint8 as it was read, with its prediction."""


def unpadded(batch: dict, row: int) -> np.ndarray:
    """The image of an example that was scaled into a square, without what fills the square."""
    height, width = np.round(batch["original_size"][row] * batch["scale"][row]).astype(int)
    return batch["image"][row][:height, :width]


def mean_color(data) -> tuple[int, ...]:
    """`data.mean` in 0 to 255: what is about 0 once normalised."""
    return tuple(round(255 * mean) for mean in data.mean)
