"""Figure 6: where networks trained without and with DropBlock look, and how widely.

    python -m experiments.figure6 --dataset fashion_mnist --config.data.dir DIR --block 3

Class activation maps (Zhou et al., CVPR 2016) of the last group, for the image's own class. The
picture shows them for the images of --images (positions in the evaluation split), or for --sample
drawn ones. The number is over the whole split: a map's positive part, normalised to the sum 1, has
the entropy H; exp(H) / positions is the share of the image that speaks, 1 where all of it speaks
alike. Writes figure6.csv, figure6.json and figure6.png into the workdir. The paper has no number.
"""

import json
import sys

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np

from experiments import trained
from experiments.runner import Run, make_runs, parse, parser, run_all
from experiments.tables import compared, heading, provenance, to_csv, warn
from prediction.cam import make_maps, overlay
from training.files import write
from training.plots import save_figure


def effective_share(maps: jax.Array) -> jax.Array:
    """exp(entropy) of the positive part, divided by the positions: `[batch]`, in (0, 1].

    NaN for a map without a positive part.
    """
    positive = jnp.maximum(maps, 0).reshape(len(maps), -1)
    share = positive / positive.sum(-1, keepdims=True)
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0), -1)
    entropy = jnp.where(positive.sum(-1) > 0, entropy, jnp.nan)
    return jnp.exp(entropy) / positive.shape[-1]


def look(run: Run, chosen: set[int]) -> tuple[np.ndarray, dict[int, tuple]]:
    """The effective share of each image of the split, and (image, label, map) of the chosen."""
    plan, variables = trained.load(run)
    make = make_maps(plan)

    @jax.jit
    def maps_of(variables, batch):
        maps = make(variables, batch, batch["label"])
        return maps, effective_share(maps)

    shares, shown, position = [], {}, 0
    for batch in plan.task.eval_batches(batch_size=plan.batch_size, rows=plan.rows):
        maps, own = jax.device_get(maps_of(variables, plan.put_batch(batch)))
        shares.append(own[batch["mask"]])
        for row in np.flatnonzero(batch["mask"]):
            if position in chosen:
                shown[position] = batch["image"][row], int(batch["label"][row]), maps[row]
            position += 1
    return np.concatenate(shares), shown


def measure(shares: dict[tuple[str, int], np.ndarray]) -> list[dict]:
    """A record for each row: its mean share over seeds, and the difference to the baseline.

    Args:
      shares: `(row, seed)` -> those of the images.
    """
    means: dict[str, dict[int, float]] = {}
    for (row, seed), own in shares.items():
        means.setdefault(row, {})[seed] = float(np.nanmean(own))
    records = compared("share", means)
    for record in records:
        record["maps_without_positive_part"] = sum(
            int(np.isnan(own).sum()) for (row, _), own in shares.items() if row == record["row"]
        )
    return records


def draw(shown: dict[str, dict[int, tuple]]) -> matplotlib.figure.Figure:
    """Rows as in the paper: the images, then the maps of each way to train, over them."""
    first = next(iter(shown.values()))
    positions = sorted(first)
    size = 1.6 * len(positions), 1.7 * (1 + len(shown))
    figure = matplotlib.figure.Figure(size, layout="constrained")
    axes = figure.subplots(1 + len(shown), len(positions), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for column, position in enumerate(positions):
        image, _, _ = first[position]
        axes[0, column].imshow(image.squeeze(), cmap="gray")
        axes[0, column].set_title(f"image {position}", fontsize=8)
        for line, (row, pictures) in enumerate(shown.items(), start=1):
            image, _, own = pictures[position]
            overlay(axes[line, column], image, own)
            axes[line, 0].set_ylabel(row, fontsize=8)
    axes[0, 0].set_ylabel("input", fontsize=8)
    return figure


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, "runs/figure6")
    options.add_argument("--block", type=int, default=7, help="the larger block")
    options.add_argument("--images", type=int, nargs="+", help="positions in the split")
    options.add_argument("--sample", type=int, default=6, help="how many to draw otherwise")
    arguments = parse(options, argv)
    runs = make_runs(trained.make_rows(arguments.block), arguments)
    code = 0 if arguments.collect else run_all(runs, arguments.shard)
    if code >= 128:
        return code
    if not arguments.whole:
        print("this shard's runs are done: --collect draws the figure of all")
        return code
    done = [run for run in runs if run.result()]
    if not done:
        sys.exit("error: no run is finished yet")

    images = trained.make_plan_of(done[0]).task.num_eval
    drawn = np.random.default_rng(0).choice(images, min(arguments.sample, images), replace=False)
    chosen = set(arguments.images or drawn.tolist())
    if not all(0 <= position < images for position in chosen):
        sys.exit(f"error: --images must be from 0 to {images - 1}, got {sorted(chosen)}")
    shares, shown = {}, {}
    for run in done:
        shares[run.row.name, run.seed], pictures = look(run, chosen)
        shown.setdefault(run.row.name, pictures)  # of the first seed

    records, folder = measure(shares), arguments.workdir
    write(folder / "figure6.csv", to_csv(records))
    content = {"what": heading("figure6", runs), "rows": records} | provenance(runs)
    write(folder / "figure6.json", json.dumps(content, indent=1) + "\n")
    save_figure(draw(shown), folder / "figure6.png")
    print(f"{heading('figure6', runs)}\n{to_csv(records)}{folder / 'figure6'}.csv, .json, .png")
    warn(runs)
    return code


if __name__ == "__main__":
    sys.exit(main())
