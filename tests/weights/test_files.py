"""Files of weights: read as they were written, and what is damaged or hostile is named."""

import io
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from inputs.images import DataError
from weights import files

ARRAYS = {
    "layer1.0.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "half": np.arange(3, dtype=np.float16),
    "count": np.asarray(7),
}
SUFFIXES = pytest.mark.parametrize("suffix", files.SUFFIXES)


def read_all(path):
    with files.opened(path) as stored:
        arrays = {name: x.read() for name, x in stored.items()}
        assert {name: x.shape for name, x in stored.items()} == {
            name: x.shape for name, x in arrays.items()
        }
    return arrays


@SUFFIXES
def test_what_was_written_is_read(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    files.save(path, ARRAYS)
    found = read_all(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert list(tmp_path.iterdir()) == [path]


def test_bfloat16_is_read(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": ARRAYS["half"].astype(ml_dtypes.bfloat16)}, path)
    np.testing.assert_array_equal(read_all(path)["a"].astype(np.float32), [0, 1, 2])


def test_a_save_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "w.npz"
    files.save(path, ARRAYS)
    before = path.read_bytes()
    for bad in ({"a": np.asarray([{}], object)}, {"file": ARRAYS["half"]}):
        with pytest.raises(DataError, match="w.npz cannot be written"):
            files.save(path, bad)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match=r"w.txt does not end in .safetensors or .npz"):
        files.save(tmp_path / "w.txt", ARRAYS)


@SUFFIXES
def test_a_file_that_was_cut_short_is_named(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    files.save(path, ARRAYS)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"w{suffix} is damaged, or no {suffix[1:]} file"):
            read_all(path)


@SUFFIXES
@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_read_or_named(tmp_path, suffix, seed):
    path = tmp_path / f"w{suffix}"
    files.save(path, ARRAYS)
    whole, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for place in random.integers(0, len(whole), 3):
        whole[place] = random.integers(0, 256)
    path.write_bytes(whole)
    try:
        read_all(path)
    except DataError as error:
        assert f"w{suffix}" in str(error)


class Marker:
    """Leaves a file where a pickle is run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)


def npy(descr, shape):
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def test_nothing_of_an_npz_is_run(tmp_path):
    marker = tmp_path / "ran"
    data = npy("|O", (1,)) + pickle.dumps(np.asarray([Marker(marker)], object))
    npz(tmp_path / "w.npz", a=data)
    with pytest.raises(DataError, match=r"w.npz is damaged.*allow_pickle"):
        read_all(tmp_path / "w.npz")
    assert not marker.exists()


def test_a_shape_is_told_before_so_much_is_read(tmp_path):
    npz(tmp_path / "w.npz", a=npy("<f4", (10**15,)))
    (tmp_path / "w.safetensors").write_bytes(
        struct.pack("<Q", 64)
        + b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'.ljust(64)[:64]
    )
    with files.opened(tmp_path / "w.npz") as stored:
        assert stored["a"].shape == (10**15,)
        with pytest.raises(DataError, match="w.npz is damaged"):
            stored["a"].read()
    with pytest.raises(DataError, match="w.safetensors is damaged"):
        read_all(tmp_path / "w.safetensors")


def test_what_is_not_there_or_no_such_file(tmp_path):
    for name, message in (
        ("w.npz", "w.npz is not there"),
        ("w.h5", "w.h5 does not end in .safetensors or .npz"),
    ):
        with pytest.raises(DataError, match=message), files.opened(tmp_path / name):
            pass
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(DataError, match="d.npz is not there"), files.opened(tmp_path / "d.npz"):
        pass
