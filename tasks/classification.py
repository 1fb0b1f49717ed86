"""Image classification: data, model, loss, exact metrics, pictures."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from dropblock import checks
from inputs import autoaugment, sources, transforms
from tasks import pictures
from tasks.architectures import architecture_of
from tasks.base import Task, mean_color
from training import monte_carlo, reliability
from training.monte_carlo import Moments, Spread

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure


class Classification(Task):
    """What classification adds to the training loop."""

    best_metric = "top1"
    num_drawn = 32
    legend = "classes of each image by falling probability"
    class_layers = ("head", "aux/dense")

    def __init__(self, config, **options):
        """Opens the data and checks what can be checked before a model is built.

        Args:
          config, **options: as of `Task`.

        Raises:
          ValueError: a field out of range, or data that is not there (`DataError`).
        """
        if not 0.0 <= config.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1), got {config.label_smoothing}")
        data = config.data
        self.architecture = architecture_of(config)
        self._make_network = self.architecture.make(config)
        checks.choice("data.augment", data.augment, transforms.KINDS)
        checks.choice("data.autoaugment", data.autoaugment, autoaugment.NAMES)
        if data.autoaugment != "none" and data.channels not in (1, 3):
            raise ValueError(f"data.autoaugment needs 1 or 3 channels, got {data.channels}")
        checks.probability("data.cutout", data.cutout)
        if data.crop_padding < 0:
            raise ValueError(f"data.crop_padding must not be negative, got {data.crop_padding}")
        self._image_transforms = {
            train: transforms.make_transform(
                data.augment,
                image_size=data.image_size,
                train=train,
                quick=data.get("quick_crops", False),  # not in runs of before
                crop_padding=data.crop_padding,
                flip=data.flip,
                autoaugment=data.autoaugment,
                cutout=data.cutout,
                fill=mean_color(data),
            )
            for train in (True, False)
        }
        super().__init__(config, **options)

    # --- Data.

    def open_split(self, split: str) -> sources.Source:
        data = self.config.data
        source = sources.classification_source(
            data.name, data.dir, split, class_names=self.class_names, decode=data.cache
        )
        if not data.cache:
            return source
        return sources.Cached(source, transforms.fixed_part(data.augment, data.image_size))

    def transform(self, train: bool) -> transforms.ExampleTransform:
        return transforms.on_image(self._image_transforms[train])

    def check_example(self, source: sources.Source, *, train: bool):
        """Holds the first image that can be read to the shape the config gives."""
        expected = self.batch_shapes(1)["image"].shape[1:]
        for index in range(min(len(source), 10)):
            try:
                image = source[index]["image"]
                found = self._image_transforms[train](image, np.random.default_rng(0)).shape
            except sources.DataError:
                continue  # found again, and treated as the config says, when it is read
            if found != expected:
                raise ValueError(
                    f"images of {self.config.data.name} are {found} (height, width, channels), "
                    f"where the config says {expected}: set data.image_size, data.channels, and "
                    "an augmentation that resizes"
                )
            return

    def batch_shapes(self, batch_size: int) -> dict:
        """Shapes of a training batch."""
        return {
            "image": self.image_shape(batch_size),
            "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        }

    # --- Model and loss.

    def make_model(self, platform: str | None, rngs: nnx.Rngs) -> nnx.Module:
        """The network that `config.model.name` names."""
        return self._make_network(
            len(self.class_names),
            in_channels=self.config.data.channels,
            drop=self.drop,
            dtype=jnp.dtype(self.config.dtype),
            platform=platform,
            rngs=rngs,
        )

    def loss(self, out: dict, batch: dict) -> tuple[jax.Array, dict]:
        """Mean softmax cross-entropy with smoothed labels, and the metrics' sums.

        That of the auxiliary head, where there is one, is added with its weight; it is no metric.
        """
        logits, labels = out["logits"], batch["label"]
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, logits.shape[-1]), self.config.label_smoothing
        )
        losses = optax.softmax_cross_entropy(logits, targets)
        weights = jnp.ones_like(losses)
        loss = losses.mean()
        if "aux_logits" in out:
            aux = optax.softmax_cross_entropy(out["aux_logits"], targets)
            loss += self.config.aux_weight * aux.mean()
        return loss, _sums(losses, logits, labels, weights)

    def predict(self, out: dict, batch: dict, by_device: Callable) -> dict:
        """What is evaluated and drawn.

        Returns:
          `logits`: `[batch, classes]`; of samples the logarithm of the mean probability, and with
          it `std` `[batch, classes]`, `entropy`, `expected_entropy` and `mutual_information`
          `[batch]`, see `monte_carlo.Spread`.
        """
        found = {"logits": out["logits"]}
        if "spread" in out:
            found |= {k: v for k, v in out["spread"]._asdict().items() if k != "log_mean"}
        return found

    def sampled(self, out: dict) -> tuple[jax.Array, dict]:
        return jax.nn.log_softmax(out["logits"]), {}

    def averaged(self, spread: Spread, moments: dict[str, Moments]) -> dict:
        return {"logits": spread.log_mean, "spread": spread}

    def eval_sums(self, predictions: dict, batch: dict) -> dict:
        """Sums of the metrics over the examples that `batch["mask"]` keeps."""
        logits, labels = predictions["logits"], batch["label"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return _sums(losses, logits, labels, batch["mask"].astype(jnp.float32))

    def summarize(self, sums: dict) -> dict:
        """Metrics from sums: `loss`, `top1` and `top5` in percent."""
        count = float(sums["count"])
        # NaN, not a crash, where every example was masked.
        mean = {name: float(value) / count if count else math.nan for name, value in sums.items()}
        return {"loss": mean["loss"], "top1": 100 * mean["top1"], "top5": 100 * mean["top5"]}

    def score(self, sums: dict, collected: dict) -> dict:
        """The metrics of an evaluation."""
        return self.summarize(sums)

    def to_judge(self, out: dict, batch: dict, by_device: Callable) -> dict:
        log_p = jax.nn.log_softmax(out["logits"])
        own = jnp.take_along_axis(log_p, batch["label"][:, None], axis=-1)[:, 0]
        right = log_p.argmax(-1) == batch["label"]
        found = monte_carlo.scores(log_p, out.get("spread"))
        return found | {"nll": -own, "confidence": jnp.exp(log_p.max(-1)), "right": right}

    def judge(self, collected: dict) -> dict:
        """`nll` in nats, `ece`, and `auroc` of each score."""
        right = collected["right"]
        return {
            "nll": float(collected["nll"].mean(dtype=np.float64)),
            "ece": reliability.ece(*reliability.calibration(collected["confidence"], right)),
            "auroc": {
                name: reliability.auroc(collected[name], right, ~right)
                for name in monte_carlo.SCORES
                if name in collected
            },
        }

    # --- Pictures.

    def draw(self, predictions: dict, batch: dict) -> "matplotlib.figure.Figure":
        """Images with what is predicted, in red where it is wrong, and then what is right."""
        images, labels = np.asarray(batch["image"]), np.asarray(batch["label"])
        predictions = np.asarray(predictions["logits"]).argmax(-1)
        figure, axes = pictures.grid(math.ceil(len(images) / 8), 8, side=1.5, lines=2)
        for axis, image, label, prediction in zip(axes, images, labels, predictions, strict=False):
            pictures.show(axis, image)
            right = label == prediction
            # Of two lines always, so that the first stand side by side.
            title = f"{self.class_names[prediction]}\n"
            title += " " if right else f"({self.class_names[label]})"
            pictures.set_title(axis, title, fontsize=8, color="black" if right else _WRONG)
        pictures.add_key(figure, [("black", "right prediction"), (_WRONG, "wrong (truth)")])
        return figure

    # --- Predictions for images of one's own.

    def unlabeled(self, image: np.ndarray, index: int) -> dict:
        return {"image": image, "label": np.int32(0)}

    def probabilities(self, prediction: dict) -> np.ndarray:
        """The softmax of the logits, float64 `[classes]`."""
        logits = np.asarray(prediction["logits"], np.float64)
        powers = np.exp(logits - logits.max())
        return powers / powers.sum()

    def describe(self, prediction: dict) -> dict:
        """The five likeliest classes (or all) and their probabilities.

        Of samples also each one's standard deviation, and `uncertainty`: see `monte_carlo.Spread`.
        """
        probabilities = self.probabilities(prediction)
        best = np.argsort(-probabilities, kind="stable")[:5]
        top5: list[dict[str, Any]] = [
            {"class": self.class_names[label], "probability": float(probabilities[label])}
            for label in best
        ]
        if "std" not in prediction:
            return {"top5": top5}
        stds = prediction["std"][best].tolist()
        told = {name: float(prediction[name]) for name in monte_carlo.SCORES[1:-1]}
        return {
            "top5": [entry | {"std": std} for entry, std in zip(top5, stds, strict=True)],
            "uncertainty": told | {"std": stds[0]},
        }

    def picture(self, image: np.ndarray, prediction: dict) -> "matplotlib.figure.Figure":
        """The image with its likeliest classes as the title, a line for each."""
        figure, (axis,) = pictures.grid(1, 1, side=4.0, lines=3)
        pictures.show(axis, image)
        best = self.describe(prediction)["top5"][:3]
        title = "\n".join(f"{found['probability']:.2f} {found['class']}" for found in best)
        pictures.set_title(axis, title, fontsize=9)
        return figure


_WRONG = "#c00000"


def _sums(losses, logits, labels, weights) -> dict:
    """Weighted sums of the loss and of top-1 and top-5 hits, and the weights' sum."""
    # The rank of the label: how many logits are higher. Ties count against it only from one
    # side, so a constant output is not right for every label at once.
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    classes = jnp.arange(logits.shape[-1])[None, :]
    above = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    rank = above.sum(-1)
    # A logit that is NaN is above nothing and below nothing: such an example is wrong.
    finite = jnp.isfinite(logits).all(-1)
    return {
        "loss": jnp.sum(jnp.where(weights > 0, losses, 0.0) * weights),
        "top1": jnp.sum((finite & (rank < 1)) * weights),
        "top5": jnp.sum((finite & (rank < 5)) * weights),
        "count": jnp.sum(weights),
    }
