"""PyTorch's names and layouts in ours: every array, and the same logits."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

import torch_resnet
from inputs.images import DataError
from models.resnet import ResNet
from weights import convert, files, resnet

WIDTH = 4  # of the small networks' first group


def make(depth, classes=10, width=WIDTH, **options):
    return ResNet(
        depth, classes, width_multiplier=width / 64, platform="cpu", rngs=nnx.Rngs(0), **options
    )


@functools.cache
def arrays_of(depth, classes=10, width=WIDTH, **options):
    """Shapes of our arrays by path."""
    model = nnx.eval_shape(lambda: make(depth, classes, width, **options))
    state = nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {path: x.shape for path, x in flatten_dict(state, sep="/").items()}


def stored(arrays):
    return {name: files.Stored(x.shape, lambda x=x: x) for name, x in arrays.items()}


SLOW = pytest.mark.slow


@pytest.mark.parametrize("depth", [18, 34, 50, pytest.param(101, marks=SLOW)])
def test_the_table_has_every_name_and_shape(depth):
    theirs = torch_resnet.shapes(depth, classes=10, width=WIDTH)
    theirs = {name: x for name, x in theirs.items() if "num_batches" not in name}
    mapped = {}
    for path, shape in arrays_of(depth).items():
        name, axes = resnet.name_of(path)
        assert name not in mapped and tuple(theirs[name][axis] for axis in axes) == shape, path
        mapped[name] = path
    assert mapped.keys() == theirs.keys()
    assert resnet.depth_of(theirs) == depth


def test_names_side_by_side():
    """Pairs written down from both sides' sources."""
    pairs = {
        "stem/conv/kernel": ("conv1.weight", (2, 3, 1, 0)),
        "stem/norm/var": ("bn1.running_var", (0,)),
        "groups/group1/block1/convs/conv1/norm/scale": ("layer1.0.bn1.weight", (0,)),
        "groups/group3/block12/convs/conv2/norm/bias": ("layer3.11.bn2.bias", (0,)),
        "groups/group4/block1/project/conv/kernel": ("layer4.0.downsample.0.weight", (2, 3, 1, 0)),
        "groups/group2/block1/project/norm/mean": ("layer2.0.downsample.1.running_mean", (0,)),
        "head/kernel": ("fc.weight", (1, 0)),
        "head/bias": ("fc.bias", (0,)),
    }
    assert {path: resnet.name_of(path) for path in pairs} == pairs
    for path in ("fpn/laterals/p3/kernel", "stem/conv/bias", "groups/group1/kernel"):
        with pytest.raises(KeyError):
            resnet.name_of(path)


def ours_of(depth, stored, images, classes=10, width=WIDTH):
    """What our network computes with PyTorch's arrays; images `[batch, channels, ...]`."""

    @jax.jit
    def forward(values, x):
        model = nnx.eval_shape(lambda: make(depth, classes, width, convention="pytorch"))
        graphdef, *parts = nnx.split(model, nnx.Param, nnx.BatchStat)
        paths = (flatten_dict(nnx.to_pure_dict(part), sep="/") for part in parts)
        parts = [unflatten_dict({path: values[path] for path in part}, sep="/") for part in paths]
        return nnx.merge(graphdef, *parts)(x, train=False)

    values = resnet.read("file", stored, arrays_of(depth, classes, width))
    return forward(values, images.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    "depth", [18, pytest.param(34, marks=SLOW), 50, pytest.param(101, marks=SLOW)]
)
def test_logits_are_pytorchs(depth):
    arrays = torch_resnet.random_weights(depth, classes=10, width=WIDTH)
    # The stem's map is even one way and odd the other, and so are those of all groups.
    images = np.random.default_rng(1).normal(size=(2, 3, 64, 33)).astype(np.float32)
    out = ours_of(depth, stored(arrays), images)
    expected = torch_resnet.features(depth, arrays, images)
    assert 0.1 < np.abs(expected["logits"]).max() < 20
    np.testing.assert_allclose(out["logits"], expected["logits"], atol=1e-4)
    for group in range(1, 5):
        maps = expected[f"layer{group}"].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(out[f"group{group}"], maps, atol=1e-4, rtol=1e-4)


def test_all_that_does_not_fit_is_listed():
    arrays = torch_resnet.random_weights(18, classes=10, width=WIDTH)
    wanted = arrays_of(18)
    arrays["layer1.0.se.weight"] = np.zeros(3, np.float32)
    arrays["conv1.weight"] = arrays["conv1.weight"][:, :1]
    arrays["bn1.bias"] = np.zeros(5, np.float32)
    del arrays["layer4.1.bn2.running_mean"]
    with pytest.raises(DataError) as caught:
        resnet.read("some.npz", stored(arrays), wanted)
    text = str(caught.value)
    assert text.startswith("some.npz does not fit this network: ")
    assert set(text.split(": ", 1)[1].split("; ")) == {
        "conv1.weight is [4, 1, 7, 7], not [4, 3, 7, 7]",
        "bn1.bias is [5], not [4]",
        "layer4.1.bn2.running_mean is missing",
        "layer1.0.se.weight is too many",
    }


def test_no_array_is_read_before_all_shapes_fit():
    def read():
        raise AssertionError

    arrays = {
        name: files.Stored(x.shape, read)
        for name, x in torch_resnet.random_weights(18, classes=10, width=WIDTH).items()
    }
    arrays["bn1.bias"] = files.Stored((10**12,), read)
    with pytest.raises(DataError, match=r"bn1.bias is \[1000000000000\], not \[4\]"):
        resnet.read("some.npz", arrays, arrays_of(18))


def test_what_is_no_weight_is_listed():
    arrays = torch_resnet.random_weights(18, classes=10, width=WIDTH)
    arrays["conv1.weight"][0, 0, 0, 0] = np.nan
    arrays["bn1.running_var"][2] = -1e-3
    arrays["bn1.bias"] = arrays["bn1.bias"].astype(np.int32)
    arrays["layer1.0.bn1.bias"] = arrays["layer1.0.bn1.bias"] + np.float64(1e60)
    with pytest.raises(DataError) as caught:
        resnet.read("some.npz", stored(arrays), arrays_of(18))
    assert set(str(caught.value).split(": ", 1)[1].split("; ")) == {
        "conv1.weight is not finite",
        "bn1.running_var is negative",
        "bn1.bias is of int32",
        "layer1.0.bn1.bias is not finite",
    }


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_precisions_become_float32(dtype):
    arrays = torch_resnet.random_weights(18, classes=10, width=WIDTH)
    kernel = arrays["conv1.weight"].astype(dtype)
    found = resnet.read("some.npz", stored(arrays | {"conv1.weight": kernel}), arrays_of(18))
    assert {x.dtype for x in found.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(
        found["stem/conv/kernel"], kernel.astype(np.float32).transpose(2, 3, 1, 0)
    )


@pytest.mark.parametrize("names", [["conv1.weight"], ["layer1.0.conv1.weight"], ["layer1."], []])
def test_other_networks_have_no_depth(names):
    assert resnet.depth_of(names) is None


# --- PyTorch's libraries themselves, where they are installed.


@functools.cache
def network(library, depth):
    """A ResNet whose BatchNorm has random scales and statistics too, in eval mode."""
    torch, module = pytest.importorskip("torch"), pytest.importorskip(library)
    make = module.models.get_model if library == "torchvision" else module.create_model
    net = make(f"resnet{depth}").eval()
    arrays = torch_resnet.random_weights(depth)
    net.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in arrays.items()})
    return net


def logits_of(net, images):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return net(torch.from_numpy(images)).numpy()


LIBRARIES = pytest.mark.parametrize("library", ["torchvision", "timm"])


@SLOW
@LIBRARIES
@pytest.mark.parametrize("depth", [18, 34, 50, 101])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_logits_are_the_librarys(tmp_path, library, depth, suffix):
    net = network(library, depth)
    shapes = {name: tuple(x.shape) for name, x in net.state_dict().items()}
    assert shapes == torch_resnet.shapes(depth)
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(net.state_dict(), path)
    elif suffix == ".npz":
        np.savez(path, **{name: x.numpy() for name, x in net.state_dict().items()})
    else:
        pytest.importorskip("torch").save(net.state_dict(), path)
        path = tmp_path / "w.safetensors"
        assert convert.main([str(tmp_path / "w.pth"), str(path)]) == 0
    images = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    expected = logits_of(net, images)
    with files.opened(path) as stored:
        found = ours_of(depth, stored, images, classes=1000, width=64)["logits"]
    print(f"{library} {depth} {suffix}: {np.abs(found - expected).max():.2e}")
    assert 0.1 < np.abs(expected).max() < 20
    np.testing.assert_allclose(found, expected, atol=1e-4)


@SLOW
def test_what_the_reference_computes_is_the_librarys():
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 33)).astype(np.float32)
    found = torch_resnet.features(50, torch_resnet.random_weights(50), images)["logits"]
    np.testing.assert_allclose(found, logits_of(network("torchvision", 50), images), atol=1e-4)
