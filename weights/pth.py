"""PyTorch's own files, .pth: pickles, of which nothing is run and nothing but arrays is taken.

A pickle calls what it names. Here the few names that tensors are made of stand for inert tuples of
ours, and any other is refused before it is looked up. So PyTorch is not needed either.
"""

import argparse
import collections
import io
import math
import pathlib
import pickle
import pickletools
import zipfile
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from inputs.images import DataError

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class _Tensor(NamedTuple):
    """The arguments of `torch._utils._rebuild_tensor_v2`."""

    storage: Any  # (dtype's name in `_DTYPES`, file's name, elements)
    offset: Any
    shape: Any
    strides: Any
    requires_grad: Any
    hooks: Any
    metadata: Any = None


def _parameter(data, requires_grad, hooks):
    return data


_KNOWN = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch._utils._rebuild_tensor_v2": _Tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": tuple,
    # Numbers and texts, with which training scripts save their options.
    "argparse.Namespace": argparse.Namespace,
} | {f"torch.{name}": name for name in _DTYPES}


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a state_dict, or of a checkpoint that holds one as "state_dict" or "model".

    The prefix "module." of networks that were trained on several GPUs is left out.

    Raises:
      DataError: the file is not there, damaged, names what makes no tensor, or has no state_dict.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not there")
    try:
        with zipfile.ZipFile(path) as file:
            arrays = _arrays(file)
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is damaged, or in PyTorch's form of before 1.6, which PyTorch itself makes "
            "anew by torch.save(torch.load(path, weights_only=True), path)"
        ) from error
    except _RefusedError as error:
        raise DataError(
            f"{path} would run {error}, which makes no tensor: nothing was run, and nothing read; "
            "have the state_dict() saved alone"
        ) from error
    except Exception as error:  # what a damaged file raises is many things
        raise DataError(f"{path} is damaged, or no file of PyTorch's ({error})") from error
    if not arrays:
        raise DataError(f"{path} holds no state_dict")
    return arrays


class _RefusedError(Exception):
    """A pickle names something else than what tensors are made of."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name, global_name):
        name = f"{module_name}.{global_name}"
        if name not in _KNOWN:
            raise _RefusedError(name)
        return _KNOWN[name]

    def persistent_load(self, pid):
        _, dtype, name, _, size = pid  # "storage", .., where it was, ..
        return dtype, name, size


def _arrays(file: zipfile.ZipFile) -> dict[str, np.ndarray]:
    if any(member.compress_type != zipfile.ZIP_STORED for member in file.infolist()):
        raise ValueError("it is compressed")
    (pickled,) = (name for name in file.namelist() if name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    if f"{folder}byteorder" in file.namelist() and file.read(f"{folder}byteorder") != b"little":
        raise ValueError("it is of a machine of another byte order")
    data = file.read(pickled)
    # CPython makes room for the highest place in which a pickle says that it keeps something.
    for opcode, argument, _ in pickletools.genops(data):
        if "PUT" in opcode.name and int(argument or 0) > len(data):
            raise ValueError("its pickle asks for more memory than it could fill")
    state = dict(_Unpickler(io.BytesIO(data)).load())
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), dict):
            state = dict(state[key])
    tensors = {name: x for name, x in state.items() if isinstance(x, _Tensor)}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): x for name, x in tensors.items()}
    return {name: _array(file, folder, tensor) for name, tensor in tensors.items()}


def _array(file, folder, tensor: _Tensor) -> np.ndarray:
    """A tensor: element i of an axis lies `stride * i` elements further on in its storage."""
    dtype, name, _ = tensor.storage
    storage = np.frombuffer(file.read(f"{folder}data/{name}"), _DTYPES[dtype])
    offset, shape, strides = tensor.offset, tensor.shape, tensor.strides
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    size = math.prod(shape)
    if (
        min((offset, *shape, *strides)) < 0
        or size > storage.size
        or (size and last >= storage.size)
    ):
        raise ValueError(f"a tensor of {shape} is not in {storage.size} numbers from {offset} on")
    part = np.lib.stride_tricks.as_strided(
        storage[offset:], shape, [stride * storage.itemsize for stride in strides]
    )
    return np.ascontiguousarray(part).reshape(shape)
