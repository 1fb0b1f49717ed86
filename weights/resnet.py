"""PyTorch's ResNets, as torchvision and timm name them, beside ours.

Both give a plain ResNet-18 to 152 the same names, shapes, strides and padding of convolutions, and
these are ours. In two things they differ, the padding of the max pool and BatchNorm's epsilon under
a pyramid: `convention` of `models.resnet.ResNet`.
"""

import re
from collections.abc import Collection, Mapping

import ml_dtypes
import numpy as np

from inputs.images import DataError
from models.resnet import DEPTHS
from weights.files import Stored

LAYERS = {
    # ours, whose blocks count from 1: PyTorch's, whose blocks count from 0
    "stem/conv": "conv1",
    "stem/norm": "bn1",
    "groups/group{group}/block{block}/convs/conv{conv}/conv": "layer{group}.{block}.conv{conv}",
    "groups/group{group}/block{block}/convs/conv{conv}/norm": "layer{group}.{block}.bn{conv}",
    "groups/group{group}/block{block}/project/conv": "layer{group}.{block}.downsample.0",
    "groups/group{group}/block{block}/project/norm": "layer{group}.{block}.downsample.1",
    "head": "fc",
}
ARRAYS = {
    # layer and array, ours: PyTorch's, and which of its axes are ours
    "conv/kernel": ("weight", (2, 3, 1, 0)),  # [height, width, in, out] of [out, in, height, width]
    "norm/scale": ("weight", (0,)),
    "norm/bias": ("bias", (0,)),
    "norm/mean": ("running_mean", (0,)),
    "norm/var": ("running_var", (0,)),
    "head/kernel": ("weight", (1, 0)),  # [in, out] of [out, in]
    "head/bias": ("bias", (0,)),
}
# What RGB in [0, 1] was normalised by for torchvision's and nearly all of timm's weights.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Of no use here: how many batches BatchNorm has seen.
_COUNTER = ".num_batches_tracked"


def name_of(path: str) -> tuple[str, tuple[int, ...]]:
    """What PyTorch calls the array that we call `path`, "stem/conv/kernel", and its axes in ours.

    The array there is transposed by these axes.
    """
    layer, array = path.rsplit("/", 1)
    name, axes = ARRAYS[f"{layer.split('/')[-1]}/{array}"]
    for ours, theirs in LAYERS.items():
        if found := re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>\\d+)", ours), layer):
            numbers = found.groupdict()
            if "block" in numbers:
                numbers["block"] = int(numbers["block"]) - 1
            return f"{theirs.format(**numbers)}.{name}", axes
    raise KeyError(path)


def depth_of(names: Collection[str]) -> int | None:
    """The key of `DEPTHS` that names of arrays tell; None where they are no such ResNet's."""
    blocks = tuple(
        len({name.split(".")[1] for name in names if name.startswith(f"layer{group}.")})
        for group in range(1, 5)
    )
    bottleneck = "layer1.0.conv3.weight" in names
    return next((depth for depth, row in DEPTHS.items() if row == (blocks, bottleneck)), None)


def read(
    file: str, stored: Mapping[str, Stored], wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The arrays of a file, ours by name and layout, float32.

    Args:
      file: its name, for what is said.
      stored: its arrays, by PyTorch's names.
      wanted: shapes of all our arrays but perhaps the head's, by path.

    Raises:
      DataError: all names and shapes that do not fit, or all arrays that hold what is no weight.
    """
    names = {path: name_of(path) for path in wanted}
    faults = []
    for path, (name, axes) in names.items():
        shape = tuple(wanted[path][axes.index(axis)] for axis in range(len(axes)))
        if name not in stored:
            faults.append(f"{name} is missing")
        elif stored[name].shape != shape:
            faults.append(f"{name} is {list(stored[name].shape)}, not {list(shape)}")
    known = {name for name, _ in names.values()}
    faults += [
        f"{name} is too many"
        for name in sorted(stored.keys() - known)
        if not name.endswith(_COUNTER) and not name.startswith("fc.")
    ]
    if faults:
        raise DataError(f"{file} does not fit this network: {'; '.join(faults)}")

    arrays = {}
    for path, (name, axes) in names.items():
        array = stored[name].read()
        fault = _fault(name, array)
        if fault:
            faults.append(f"{name} {fault}")
        else:
            arrays[path] = np.ascontiguousarray(array.transpose(axes), np.float32)
    if faults:
        raise DataError(f"{file} holds what are no weights: {'; '.join(faults)}")
    return arrays


def _fault(name: str, array: np.ndarray) -> str | None:
    """Why an array cannot be weights."""
    if not np.issubdtype(array.dtype, np.floating) and array.dtype != ml_dtypes.bfloat16:
        return f"is of {array.dtype.name}"
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        return "is not finite"
    if name.endswith(".running_var") and (array < 0).any():
        return "is negative"
    return None
