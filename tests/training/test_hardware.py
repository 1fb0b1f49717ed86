"""Topologies by name; the compilers for them need not be there."""

import types

import pytest

from training import hardware
from training.config import ConfigError


@pytest.fixture
def compilers(monkeypatch):
    """Both compilers, of which a topology is its name's devices, four on a host."""
    asked = []

    def described(name, platform, *, topology="", target_config=""):
        asked.append((name or topology, platform, target_config))
        count = 1
        for axis in (name.partition(":")[2] or topology).split("x"):
            count *= int(axis)
        chips = 8 if platform == "cuda" else 4
        devices = [types.SimpleNamespace(process_index=i // chips) for i in range(count)]
        return types.SimpleNamespace(devices=devices)

    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(hardware.os, "environ", {})
    monkeypatch.setattr(hardware.topologies, "get_topology_desc", described)
    monkeypatch.setattr(hardware, "_lower_without_a_gpu", lambda: None)
    return asked


@pytest.mark.parametrize(
    ("name", "chips", "hosts", "gigabytes", "hops"),
    [
        # Links of 50 GB/s: both ways around a ring of 16, one way along anything shorter.
        ("v5e:16x16", 256, 64, 200, 16),
        ("v5e:2x4", 8, 2, 100, 1 + 3),
        ("v5e:4x16", 64, 16, 150, 3 + 8),
        # Of 100 GB/s, on three axes, rings of a multiple of four; an axis of one has no link.
        ("v5p:4x4x8", 128, 32, 600, 2 + 2 + 4),
        ("v5p:2x2x1", 4, 1, 200, 2),
        ("v6e:16x16", 256, 64, 400, 16),
        ("V6E:2x2", 4, 1, 200, 2),
        ("h100:8", 8, 1, 450, 1),
        # Each of 8 GPUs sends an eighth to other hosts, at 50 GB/s.
        ("h100:16", 16, 2, 1 / (1 / 450 + 1 / 400), 2),
        ("a100:2", 2, 1, 300, 1),
    ],
)
def test_what_joins_the_chips(compilers, name, chips, hosts, gigabytes, hops):
    found = hardware.topology(name)
    assert (len(found.devices), found.hosts, found.hops) == (chips, hosts, hops)
    assert found.send == pytest.approx(gigabytes * 1e9)


@pytest.mark.parametrize("name", ["v5e", "v5p", "h100", "a100:1"])
def test_one_chip_sends_nothing(compilers, name):
    found = hardware.topology(name)
    assert len(found.devices) == 1 and found.transfer(1e9, passes=2) == 0


def test_the_compiler_is_asked_for_the_topology(compilers):
    hardware.topology("V5E:04x8")
    hardware.topology("v5p")
    hardware.topology("h200:24")
    (tpu, platform, _), one, (gpus, cuda, target) = compilers
    assert (tpu, platform) == ("v5e:4x8", "tpu") and one[0] == "v5p:2x2x1"
    assert (gpus, cuda) == ("1x3x8", "cuda")
    assert 'name: "NVIDIA H200 141GB HBM3e"' in target
    assert "device_memory_size: 151397597184\n" in target and "core_count: 132\n" in target


def test_transfers_take_as_long_as_their_bytes_or_their_hops(compilers):
    pod = hardware.topology("v5e:16x16")
    # 255 of 256 parts of 100 MB come from elsewhere, at 200 GB/s.
    assert pod.transfer(100e6) == pytest.approx(100e6 * 255 / 256 / 200e9)
    assert pod.transfer(100e6, passes=2) == pytest.approx(2 * pod.transfer(100e6))
    # The farthest chip is 8 + 8 links away, a microsecond each.
    assert pod.transfer(512) == pytest.approx(16e-6)
    two = hardware.topology("h100:2")
    assert two.transfer(9e9, passes=2) == pytest.approx(9e9 / 450e9)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("v7:2x2", "there is no topology 'v7:2x2' here: .*v5e, v5p, v6e.*h100, h200, a100"),
        ("", "there is no topology '' here"),
        ("v5e:16", "'v5e:16' is no shape of a v5e: it is such as v5e:2x2"),
        ("v5p:4x4", "no shape of a v5p: it is such as v5p:2x2x1"),
        ("v5e:4y4", "'v5e:4y4' is no shape of a v5e"),
        ("v5e:-4x4", "'v5e:-4x4' is no shape of a v5e"),
        ("v5e:3x4", "no v5e:3x4: its first two sides are even, .* at most 256 chips"),
        ("v5e:16x32", "no v5e:16x32: .* at most 256 chips"),
        ("v5e:0x2", "no v5e:0x2"),
        ("h100:0", "no h100:0: a number of GPUs up to 8, .* or a multiple"),
        ("h100:12", "no h100:12"),
        ("h100:2x4", "no h100:2x4"),
    ],
)
def test_a_wrong_name_is_said_to_be_wrong(compilers, name, meant):
    with pytest.raises(ConfigError, match=meant):
        hardware.topology(name)
    assert not compilers


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("v5e:2x4", "there is no libtpu here to compile with: pip install -e '.[train,tpu]' "),
        ("h100:8", "there is no jax_cuda12_plugin here to compile with: pip install -e "),
    ],
)
def test_a_compiler_that_is_missing_is_named_with_what_brings_it(monkeypatch, name, meant):
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as raised:
        hardware.topology(name)
    text = str(raised.value)
    assert text.startswith(meant) and text.endswith("-c constraints.txt") and "\n" not in text


def test_the_libraries_errors_are_sentences(compilers, monkeypatch):
    def refuse(*_, **__):
        raise hardware.jax.errors.JaxRuntimeError("INVALID_ARGUMENT: odd layout\nstack trace")

    monkeypatch.setattr(hardware.topologies, "get_topology_desc", refuse)
    with pytest.raises(ConfigError, match="^libtpu has no v5e:2x6: INVALID_ARGUMENT: odd layout$"):
        hardware.topology("v5e:2x6")
