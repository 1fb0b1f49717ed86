"""RetinaNet-50 beside torchvision's, in training and inference, and what its detection part costs.

    python -m benchmarks.detection                        # 2 images of 640, 15 rounds

All cases run in the same rounds, in random order, on random images with ten boxes each and with
random weights, where torchvision is installed with its retinanet_resnet50_fpn among them:

- a training step: forward, backward, SGD with momentum. "Matching and losses" is that part of our
  step alone, with its gradients, on the network's outputs.
- inference: from images to at most 100 detections each. "Decoding and NMS" is that part of ours.

torchvision's network has no BatchNorm beyond the backbone. With weights at their start none of its
scores passes its threshold of 0.05, so its NMS has nothing to do, where ours has 5,000 candidates.
"""

import argparse
import functools
import importlib
import importlib.util
import os
import platform
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from detection import decode, losses, matching
from detection.anchors import make_anchors
from models.resnet import ResNet
from models.retinanet import RetinaNet
from training import state as state_lib

CLASSES, BOXES, MAX_BOXES = 80, 10, 100
LEARNING_RATE, MOMENTUM = 0.01, 0.9

# Of each case of ours: what it is held against.
RATIOS = {
    "training step": "torchvision's training step",
    "inference": "torchvision's inference",
    "matching and losses": "training step",
    "decoding and NMS": "inference",
}


def random_objects(size, batch_size):
    """Images in [0, 1], boxes and labels, padded, the same for both frameworks."""
    random = np.random.default_rng(0)
    images = random.random((batch_size, size, size, 3), np.float32)
    boxes = np.zeros((batch_size, MAX_BOXES, 4), np.float32)
    corners = random.uniform(0, size / 2, (batch_size, BOXES, 2))
    sides = random.uniform(size / 16, size / 2, (batch_size, BOXES, 2))
    boxes[:, :BOXES] = np.concatenate([corners, corners + sides], axis=-1)
    labels = np.full((batch_size, MAX_BOXES), -1, np.int32)
    labels[:, :BOXES] = random.integers(0, CLASSES, (batch_size, BOXES))
    return images, boxes, labels


def ours(size, batch_size, dtype, depth=50, **model):
    """Our cases by name: functions that wait for their result. `model`: RetinaNet's arguments."""
    images, boxes, labels = map(jnp.asarray, random_objects(size, batch_size))
    anchors = jnp.asarray(make_anchors(size, size))
    backbone, platform = functools.partial(ResNet, depth), jax.devices()[0].platform
    model = {"num_classes": CLASSES, "dtype": jnp.dtype(dtype), "platform": platform} | model
    network = state_lib.make_network(lambda rngs: RetinaNet(backbone, **model, rngs=rngs))
    optimizer = optax.sgd(LEARNING_RATE, MOMENTUM)

    def loss_fn(class_logits, box_codes, boxes, labels):
        targets = matching.make_targets(boxes, labels, anchors)
        return losses.detection_loss(class_logits, box_codes, targets)[0]

    def train_step(state, images, boxes, labels):
        def loss_of(params):
            out, stats = network.apply(params, state["batch_stats"], images, train=True)
            return loss_fn(out["class_logits"], out["box_codes"], boxes, labels), stats

        grads, stats = jax.grad(loss_of, has_aux=True)(state["params"])
        updates, opt_state = optimizer.update(grads, state["opt_state"])
        params = optax.apply_updates(state["params"], updates)
        return state | {"params": params, "batch_stats": stats, "opt_state": opt_state}

    def forward(variables, images):
        out, _ = network.apply(variables["params"], variables["batch_stats"], images, train=False)
        return out["class_logits"], out["box_codes"]

    def detect(class_logits, box_codes):
        return decode.decode(class_logits, box_codes, anchors, (size, size))

    create = jax.jit(lambda key: state_lib.create(network, optimizer, key, ema=False))
    state = create(jax.random.key(0))
    variables = jax.tree.map(jnp.copy, state_lib.variables(state))  # the step donates the others
    outputs = jax.jit(forward)(variables, images)
    step = jax.jit(train_step, donate_argnums=0)
    infer = jax.jit(lambda variables, images: detect(*forward(variables, images)))
    loss_and_grad = jax.jit(jax.value_and_grad(loss_fn, argnums=(0, 1)))
    detect = jax.jit(detect)

    def train():
        nonlocal state
        state = step(state, images, boxes, labels)
        return state

    return {
        "training step": train,
        "inference": lambda: infer(variables, images),
        "matching and losses": lambda: loss_and_grad(*outputs, boxes, labels),
        "decoding and NMS": lambda: detect(*outputs),
    }


def torchvisions(size, batch_size):
    """torchvision's cases by name, in float32 on the same kind of device."""
    torch = importlib.import_module("torch")  # which nothing else here needs
    retinanet = importlib.import_module("torchvision.models.detection").retinanet_resnet50_fpn
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    images, boxes, labels = random_objects(size, batch_size)
    images = [torch.from_numpy(image).permute(2, 0, 1).to(device) for image in images]
    targets = [
        {
            "boxes": torch.from_numpy(own[:BOXES, [1, 0, 3, 2]]).to(device),
            "labels": torch.from_numpy(label[:BOXES].astype(np.int64)).to(device),
        }
        for own, label in zip(boxes, labels, strict=True)
    ]
    trained, frozen = (
        retinanet(
            weights=None,
            weights_backbone=None,
            num_classes=CLASSES,
            min_size=size,
            max_size=size,
        ).to(device)
        for _ in range(2)
    )
    frozen.eval()
    optimizer = torch.optim.SGD(trained.parameters(), LEARNING_RATE, MOMENTUM)

    def train():
        optimizer.zero_grad()
        losses = trained(images, targets)
        (losses["classification"] + losses["bbox_regression"]).backward()
        optimizer.step()
        return next(trained.parameters()).sum().item()  # waits for the device

    def infer():
        with torch.inference_mode():
            return [found["scores"].cpu() for found in frozen(images)]

    return {"torchvision's training step": train, "torchvision's inference": infer}


def report(times: dict[str, list[float]]) -> list[str]:
    """Lines of the table: medians, and ratios of a round with their quartiles."""
    lines = ["| case | ms | ratio to | ratio | quartiles |", "|---|---|---|---|---|"]
    for name, seconds in times.items():
        cells = [name, f"{statistics.median(seconds) * 1e3:.1f}", "", "", ""]
        other = RATIOS.get(name)
        if other in times:
            of_rounds = [a / b for a, b in zip(seconds, times[other], strict=True)]
            low, middle, high = np.quantile(of_rounds, [0.25, 0.5, 0.75])
            cells[2:] = [other, f"{middle:.3f}", f"{low:.3f} to {high:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=640, help="side of the images, in pixels")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--dtype", default="float32", help="ours; torchvision has float32")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()

    cases = ours(args.size, args.batch_size, args.dtype)
    if importlib.util.find_spec("torchvision"):
        cases |= torchvisions(args.size, args.batch_size)
    else:
        print("torchvision is not installed: ours alone.")
    times = timing.rounds(cases, args.rounds)
    print(
        f"RetinaNet-50, {args.batch_size} images of {args.size}, {args.dtype}: "
        f"{jax.devices()[0].device_kind} ({platform.machine()}), {os.cpu_count()} CPU cores, "
        f"jax {jax.__version__}, {args.rounds} rounds"
    )
    print("\n".join(report(times)))


if __name__ == "__main__":
    main()
