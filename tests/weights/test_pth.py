"""PyTorch's pickles: the arrays as they are, and nothing else of them."""

import argparse
import collections
import pickle
import sys
import zipfile

import numpy as np
import pytest

import torch_resnet
from inputs.images import DataError
from torch_resnet import Call, Storage, tensor
from weights import convert, files, pth

ARRAYS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "half": np.arange(3, dtype=np.float16),
    "bn1.num_batches_tracked": np.asarray(7),
}


def state_dict(arrays=ARRAYS):
    return collections.OrderedDict((name, tensor(x)) for name, x in arrays.items())


def saved(path, make):
    torch_resnet.save(path, make)
    return pth.read(path)


def check(found, arrays=ARRAYS):
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_arrays_are_as_they_were_without_pytorch(tmp_path, monkeypatch):
    torch_resnet.save(tmp_path / "w.pth", state_dict)
    monkeypatch.setitem(sys.modules, "torch", None)  # what imports it fails
    check(pth.read(tmp_path / "w.pth"))


def with_metadata():
    state = state_dict()
    state._metadata = {"": {"version": 1}}  # as a module's state_dict has it
    return state


def parameters():
    rebuild = sys.modules["torch._utils"]._rebuild_parameter
    return {
        name: Call(rebuild, x, True, collections.OrderedDict()) for name, x in state_dict().items()
    }


@pytest.mark.parametrize(
    "make",
    [
        with_metadata,
        parameters,
        lambda: {"epoch": 3, "model": state_dict(), "args": argparse.Namespace(lr=0.1)},
        lambda: {"state_dict": state_dict(), "best": 0.5, "optimizer": {"state": [1, None]}},
        lambda: {f"module.{name}": x for name, x in state_dict().items()},
    ],
)
def test_what_training_scripts_save_is_read_too(tmp_path, make):
    check(saved(tmp_path / "w.pth", make))


def test_tensors_that_are_parts_of_a_storage(tmp_path):
    def make():
        storage = Storage(np.arange(20, dtype=np.float32))
        like = np.zeros((2, 3), np.float32)
        return {
            "part": tensor(like, storage, 5, (3, 1)),
            "transposed": tensor(like, storage, 1, (1, 2)),
            "empty": tensor(np.zeros((0, 3), np.float32), storage, 20, (3, 1)),
        }

    found = saved(tmp_path / "w.pth", make)
    np.testing.assert_array_equal(found["part"], [[5, 6, 7], [8, 9, 10]])
    np.testing.assert_array_equal(found["transposed"], [[1, 3, 5], [2, 4, 6]])
    assert found["empty"].shape == (0, 3)


class Marker:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"model": state_dict(), "x": x}])
def test_nothing_is_run(tmp_path, wrap):
    marker, path = tmp_path / "ran", tmp_path / "w.pth"
    torch_resnet.save(path, lambda: wrap(Marker(marker)))
    with pytest.raises(DataError, match=r"w.pth would run (io|_io).open, .* nothing was run"):
        pth.read(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("offset", "strides", "shape"),
    [
        (15, (3, 1), (2, 3)),  # beyond its end
        (0, (30, 1), (2, 3)),
        (-1, (3, 1), (2, 3)),
        (10, (-3, 1), (2, 3)),
        (0, (0, 0), (5, 5)),  # one number again and again: more than is there
        (0, (1,), (2, 3)),
    ],
)
def test_tensors_reach_nowhere_else(tmp_path, offset, strides, shape):
    def make():
        storage = Storage(np.arange(20, dtype=np.float32))
        like = np.broadcast_to(np.float32(0), shape)
        return {"a": tensor(like, storage, offset, strides)}

    with pytest.raises(DataError, match=r"w.pth is damaged"):
        saved(tmp_path / "w.pth", make)


def rewritten(path, name, data, compression=zipfile.ZIP_STORED):
    """The file with another member in the place of one."""
    with zipfile.ZipFile(path) as file:
        members = {member: file.read(member) for member in file.namelist()}
    with zipfile.ZipFile(path, "w", compression) as file:
        for member, old in (members | {name: data}).items():
            file.writestr(member, old)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("archive/byteorder", b"big"),
        ("archive/data/0", b"short"),
        ("other/data.pkl", b""),
        ("archive/data.pkl", b""),
        ("archive/data.pkl", pickle.dumps([1, 2], 2)),
        # It has a place for 2^32 objects, which are not there.
        ("archive/data.pkl", b"\x80\x02}r\xff\xff\xff\xff."),
        # A billion of one another: none is ever looked at.
        ("archive/data.pkl", b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."),
    ],
)
def test_a_hostile_or_damaged_file_is_named(tmp_path, name, data):
    path = tmp_path / "w.pth"
    torch_resnet.save_state_dict(path, ARRAYS)
    rewritten(path, name, data)
    with pytest.raises(DataError, match=r"w.pth (is damaged|holds no state_dict)"):
        pth.read(path)


def test_what_is_compressed_is_not_unpacked(tmp_path):
    path = tmp_path / "w.pth"
    torch_resnet.save_state_dict(path, {"a": np.zeros(10**6, np.float32)})
    rewritten(path, "archive/version", b"3", zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"w.pth is damaged.*it is compressed"):
        pth.read(path)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_are_read_or_named(tmp_path, seed):
    path = tmp_path / "w.pth"
    torch_resnet.save_state_dict(path, ARRAYS)
    with zipfile.ZipFile(path) as file:
        pickled = bytearray(file.read("archive/data.pkl"))
    random = np.random.default_rng(seed)
    for place in random.integers(0, len(pickled), 2):
        pickled[place] = random.integers(0, 256)
    rewritten(path, "archive/data.pkl", bytes(pickled))
    try:
        pth.read(path)
    except DataError as error:
        assert "w.pth" in str(error)


def test_the_command(tmp_path, capsys):
    source = tmp_path / "w.pth"
    torch_resnet.save_state_dict(source, ARRAYS)
    for suffix in files.SUFFIXES:
        assert convert.main([str(source), str(tmp_path / f"w{suffix}")]) == 0
        assert capsys.readouterr().out == f"3 arrays in {tmp_path / f'w{suffix}'}\n"
        with files.opened(tmp_path / f"w{suffix}") as stored:
            check({name: x.read() for name, x in stored.items()})
    for words, message in (
        ([tmp_path / "no.pth", tmp_path / "w.npz"], "no.pth is not there"),
        ([source, tmp_path / "w.bin"], "w.bin does not end in"),
        ([tmp_path / "w.npz", tmp_path / "x.npz"], "w.npz is damaged, or no file of PyTorch's"),
        ([source, tmp_path / "nowhere" / "w.npz"], "nowhere"),
        ([source, tmp_path / "nowhere" / "w.safetensors"], "nowhere/w.safetensors cannot be"),
    ):
        assert convert.main([str(word) for word in words]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1


# --- Files of PyTorch itself, where it is installed.


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "bool"])
def test_tensors_that_pytorch_wrote(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    x = torch.arange(24).reshape(2, 3, 4).to(getattr(torch, dtype))
    tensors = {
        "plain": x,
        "transposed": x.transpose(0, 2),
        "part": x[1:, :, ::2],
        "scalar": x[0, 0, 1],
        "channels_last": x[None].contiguous(memory_format=torch.channels_last),
    }
    if x.is_floating_point():
        tensors["parameter"] = torch.nn.Parameter(x)
    torch.save(tensors, tmp_path / "w.pth")
    found = pth.read(tmp_path / "w.pth")
    assert found.keys() == tensors.keys()
    for name, written in tensors.items():
        assert found[name].dtype.name == dtype
        expected = written.detach().double().numpy()
        np.testing.assert_array_equal(found[name].astype(np.float64), expected)


@pytest.mark.slow
def test_the_form_of_before_is_named(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(3)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"w.pth is .* in PyTorch's form of before 1.6"):
        pth.read(tmp_path / "w.pth")
