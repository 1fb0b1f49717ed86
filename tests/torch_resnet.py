"""PyTorch's side of its ResNets, written without it: names, files, and what the networks compute.

From torchvision's and timm's sources. tests/weights/test_torch.py holds it to both, where they are.
"""

import collections
import io
import pickle
import sys
import types
import zipfile
from unittest import mock

import numpy as np

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
EPSILON = 1e-5


def shapes(depth, classes=1000, width=64, channels=3, stem=7):
    """The state_dict's shapes by name, of torchvision's `resnet<depth>`."""
    found = {}

    def conv(name, inputs, outputs, size):
        found[f"{name}.weight"] = (outputs, inputs, size, size)

    def norm(name, channels):
        for array in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{array}"] = (channels,)
        found[f"{name}.num_batches_tracked"] = ()

    conv("conv1", channels, width, stem)
    norm("bn1", width)
    inputs = width
    for group, count in enumerate(BLOCKS[depth]):
        planes = width * 2**group
        outputs = planes if depth < 50 else 4 * planes
        for block in range(count):
            name = f"layer{group + 1}.{block}"
            basic, bottleneck = ((planes, 3), (planes, 3)), ((planes, 1), (planes, 3), (outputs, 1))
            last = inputs
            for number, (out, size) in enumerate(basic if depth < 50 else bottleneck, start=1):
                conv(f"{name}.conv{number}", last, out, size)
                norm(f"{name}.bn{number}", out)
                last = out
            if block == 0 and (group > 0 or inputs != outputs):
                conv(f"{name}.downsample.0", inputs, outputs, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    found["fc.weight"], found["fc.bias"] = (classes, inputs), (classes,)
    return found


def random_weights(depth, seed=0, **options):
    """Arrays of these shapes, such that what is computed neither dies nor explodes."""
    random = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes(depth, **options).items():
        if name.endswith("num_batches_tracked"):
            array = np.int64(7)
        elif name.endswith("running_var"):
            array = random.uniform(0.5, 2.0, shape)
        elif len(shape) > 1:
            array = random.normal(size=shape) * np.prod(shape[1:]) ** -0.5
        elif name.endswith("weight"):
            array = random.uniform(0.3, 1.0, shape)
        else:
            array = 0.2 * random.normal(size=shape)
        arrays[name] = np.asarray(array, array.dtype if array.dtype == np.int64 else np.float32)
    return arrays


def features(depth, arrays, images):
    """The maps of `layer1` .. `layer4`, `[batch, channels, height, width]`, and the logits."""

    def windows(x, size, stride, fill):
        """What lies under a window, as many cells beyond the map on all sides: two axes more."""
        pads = [(0, 0), (0, 0), (size // 2, size // 2), (size // 2, size // 2)]
        padded = np.pad(x, pads, constant_values=fill)
        return np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))[
            :, :, ::stride, ::stride
        ]

    def conv(name, x, stride=1):
        kernel = arrays[f"{name}.weight"]
        return np.einsum(
            "bihwyx,oiyx->bohw", windows(x, kernel.shape[-1], stride, 0), kernel, optimize=True
        )

    def norm(name, x):
        scale, bias, mean, var = (
            arrays[f"{name}.{array}"][:, None, None]
            for array in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(var + EPSILON) * scale + bias

    def relu(x):
        return np.maximum(x, 0)

    out = {}
    x = relu(norm("bn1", conv("conv1", images, 2)))
    x = windows(x, 3, 2, -np.inf).max((4, 5))
    for group, blocks in enumerate(BLOCKS[depth], start=1):
        for block in range(blocks):
            name = f"layer{group}.{block}"
            stride = 2 if group > 1 and block == 0 else 1
            skip = x
            if f"{name}.downsample.0.weight" in arrays:
                skip = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, stride))
            # The stride is that of the 3x3 convolution, of the first where there are two.
            strides = (stride, 1) if depth < 50 else (1, stride, 1)
            for number, by in enumerate(strides, start=1):
                x = norm(f"{name}.bn{number}", conv(f"{name}.conv{number}", x, by))
                x = relu(x) if number < len(strides) else x
            x = relu(x + skip)
        out[f"layer{group}"] = x
    out["logits"] = x.mean((2, 3)) @ arrays["fc.weight"].T + arrays["fc.bias"]
    return out


# --- A file as `torch.save` writes it.


class Storage:
    """Numbers in a file of their own."""

    def __init__(self, array):
        self.array = array


class Call:
    """What a pickle has called when it is read."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def tensor(array, storage=None, offset=0, strides=None):
    """A tensor as PyTorch pickles it: a part of a storage, by default all of its own."""
    strides = strides or tuple(stride // array.itemsize for stride in array.strides)
    return Call(
        sys.modules["torch._utils"]._rebuild_tensor_v2,
        storage or Storage(array),
        offset,
        array.shape,
        strides,
        False,
        collections.OrderedDict(),
    )


def save(path, value, compression=zipfile.ZIP_STORED):
    """Writes what `value()` returns as `torch.save` does; it is called where torch is there."""
    names = {np.float32: "FloatStorage", np.int64: "LongStorage", np.float16: "HalfStorage"}
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch._utils = utils
    for name in names.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda *_: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    storages = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if not isinstance(obj, Storage):
                return None
            storages.append(obj.array)
            kind = getattr(torch, names[obj.array.dtype.type])
            return "storage", kind, str(len(storages) - 1), "cpu", obj.array.size

    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        stream = io.BytesIO()
        Pickler(stream, 2).dump(value())
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", stream.getvalue())
        file.writestr("archive/byteorder", "little")
        for number, array in enumerate(storages):
            file.writestr(f"archive/data/{number}", np.ascontiguousarray(array).tobytes())
        file.writestr("archive/version", "3\n")


def save_state_dict(path, arrays):
    save(path, lambda: collections.OrderedDict((name, tensor(x)) for name, x in arrays.items()))
