"""What docs/extending.md adds, taken from that page and run."""

import importlib
import json
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from PIL import Image

import evaluate
import predict
import tiny_detection
import train
from models import drop as drop_lib
from models.fpn import FPN
from models.layers import Layers, Norm
from prediction import open_run
from processes import ROOT, once, records
from tasks import make_task
from training import config as config_lib
from training import init_from
from training.config import ConfigError
from training.dry_run import dry_run
from training.plan import make_plan

BLOCK = re.compile(r"^```python\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def page():
    """The page's files among the modules, and its rows in the tables that are there."""
    with pytest.MonkeyPatch.context() as patch:
        one = jax.devices()[:1]  # quicker to compile for than eight
        patch.setattr(jax, "devices", lambda: one)
        for path, code in BLOCK.findall((ROOT / "docs" / "extending.md").read_text()):
            name = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            if not (ROOT / path).exists():
                module = types.ModuleType(name)
                patch.setitem(sys.modules, name, module)
                exec(compile(code, path, "exec"), vars(module))
                continue
            there = vars(importlib.import_module(name))
            added = dict(there)
            exec(compile(code, path, "exec"), added)
            (table,) = (x for x in there if added[x] is not there[x])
            for row, value in added[table].items():
                assert row not in there[table]
                patch.setitem(there[table], row, value)
        yield


def small(name, variant, **fields):
    """One of the page's configs, of few and small images, channels and steps."""
    config = importlib.import_module(f"configs.{name}").get_config(variant)
    fields = {
        "data__train_split": "train[:64]",
        "data__eval_split": "test[:50]",  # a last batch that is not full
        "data__num_threads": 0,
        "batch_size": 16,
        "log_every_steps": 1,
        "eval_every_epochs": 100.0,  # at the end
        "schedule__kind": "constant",
        "schedule__warmup_epochs": 0.0,
    } | fields
    config.update_from_flattened_dict({name.replace("__", "."): v for name, v in fields.items()})
    return config


def small_classifier(**fields):
    fields = {
        "model__widths": (4, 8, 8, 16),
        "drop__kind": "stripes",
        "drop__keep_prob": 0.5,
        "epochs": 2.0,
    } | fields
    return small("mnist_plain", "dropblock", **fields)


def small_pyramid(name, **fields):
    fields = {
        "data__train_split": "train[:32]",
        "data__eval_split": "test[:10]",
        "data__image_size": 64,
        "data__scenes__size": 64,
        "data__scenes__digit_size": (20, 32),
        "batch_size": 8,
        "epochs": 2.0,
        "model__widths": (4, 8, 8, 16),
        "model__min_level": 3,
        "model__max_level": 4,
        "model__fpn_channels": 8,
        "model__head_channels": 8,
        "model__head_convs": 1,
        "drop__block_size": 2,
    } | fields
    return small(name, "dropblock", **fields)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The workdir of a classifier of the page's network with the page's regulariser."""

    def make(workdir):
        assert train.train(small_classifier(), workdir) == 0
        return ""

    return once(tmp_path_factory, "classifier", make)[0]


# --- The regulariser.


def test_stripes_drop_whole_rows_and_report_it(key):
    drop = drop_lib.Drop(kind="stripes", places={"group4": 0.5})
    site = drop_lib.Sites(drop).add("group4", "conv")
    x = jax.random.uniform(key, (50, 12, 5, 3), jnp.bfloat16, 0.5, 1.0)
    y, reports = site(x, 0.4, key)
    report = reports["group4"]
    kept = np.asarray(y != 0).reshape(50, 12, -1)
    assert (kept.all(-1) == kept.any(-1)).all() and y.dtype == x.dtype
    np.testing.assert_allclose(report.kept, kept[:, :, 0].mean(1), rtol=1e-6)
    np.testing.assert_allclose(y[kept.any(-1)], (x / 0.7)[kept.any(-1)], rtol=0.01)
    # The factor is half: 0.7 is kept of 600 rows.
    assert report.expected == pytest.approx(0.7) and report.seeds == pytest.approx(180)
    assert report.kept.mean() == pytest.approx(0.7, abs=0.1)
    np.testing.assert_array_equal(site(x, 1.0, key)[0], x)


def test_what_it_drops_is_scheduled_and_logged(classifier):
    lines = records(classifier)
    assert [line["step"] for line in lines] == list(range(1, 9))
    for number, line in enumerate(lines):
        drops = 0.5 * number / 8
        assert line["expected_kept/group4"] == pytest.approx(1 - drops)
        assert line["expected_kept/group3"] == pytest.approx(1 - 0.25 * drops)
    result = json.loads((classifier / "result.json").read_text())
    assert result["kept"].keys() == {"group3", "group4"}
    for kept in result["kept"].values():
        assert kept["kept"] == pytest.approx(kept["expected"], abs=0.1) and kept["kept"] < 0.98


def test_it_drops_at_inference_too(classifier):
    config = config_lib.from_json(classifier / "config.json")
    found = evaluate.evaluate(config, classifier / "checkpoints", keep_prob=0.5)
    assert found["examples"] == 50
    assert found["expected_kept/group4"] == 0.5
    assert found["kept/group4"] == pytest.approx(0.5, abs=0.15)


def test_one_that_never_drops_stops_the_run(tmp_path, monkeypatch):
    stripes = drop_lib.KINDS["stripes"].function

    def off(rng, x, keep_prob, drop):
        return x, jnp.ones(len(x)), *stripes(rng, x, keep_prob, drop)[2:]

    monkeypatch.setitem(drop_lib.KINDS, "off", drop_lib.Kind(off))
    config = small_classifier(drop__kind="off", drop__schedule="constant")
    with pytest.raises(ConfigError, match="group4 has dropped nothing, where 32 seeds"):
        train.train(config, tmp_path / "run")


def test_dry_run_lists_its_sites(capsys):
    dry_run(small_classifier(), make_task, jax.devices())
    printed = capsys.readouterr().out
    assert "stripes sites: 2, group3: 1, group4: 1\n  group3: 4 x 4\n  group4: 2 x 2" in printed
    assert "step 8: 0.5000 (group3 0.8750, group4 0.5000)" in printed


# --- The network.


@pytest.mark.parametrize(
    ("name", "metric"), [("scenes_plain_retinanet", "AP"), ("scenes_plain_fcn", "mIoU")]
)
def test_pyramids_stand_on_it(classifier, tmp_path, name, metric):
    config = small_pyramid(name, init_from=str(classifier))
    config.drop.places.update(group3=0.5, group4=1.0)
    plan = make_plan(config, make_task, jax.devices())
    loaded = init_from.load(plan, make_task).arrays
    source = make_plan(small_classifier(), make_task, jax.devices(), train=False)
    trained = source.restore(classifier / "checkpoints")
    trained = flatten_dict({part: trained[part] for part in ("params", "batch_stats")})
    expected = {(p[0], "backbone", *p[1:]): x for p, x in trained.items() if p[1] != "head"}
    assert loaded.keys() == expected.keys()
    for path, x in expected.items():
        np.testing.assert_array_equal(loaded[path], x)

    assert train.train(config, tmp_path / "run") == 0
    lines = records(tmp_path / "run")
    assert len(lines) == 8 and lines[-1]["train/loss"] < 0.95 * lines[0]["train/loss"]
    assert lines[-1]["eval/examples"] == 10 and 0 <= lines[-1][f"eval/{metric}"] <= 100
    assert lines[-1]["kept/group4"] < 1 and "kept/group3" in lines[-1]


def test_its_configs_are_whole():
    """The page's configs as they stand: their sizes, levels and places go together."""
    for name in ("mnist_plain", "scenes_plain_retinanet", "scenes_plain_fcn", "mnist_brightness"):
        module = importlib.import_module(f"configs.{name}")
        assert f"python train.py --config configs/{name}.py" in module.__doc__
        plan = make_plan(module.get_config("dropblock"), make_task, jax.devices())
        assert plan.task.drop.kind == "dropblock"
    config = importlib.import_module("configs.scenes_plain_fcn").get_config("backbone")
    assert make_plan(config, make_task, jax.devices()).task.stride == 2


def test_a_backbone_without_running_statistics(tmp_path, monkeypatch):
    class ConvScale(nnx.Module):
        """In the place of BatchNorm a norm of each position by itself."""

        def __init__(self, inputs, outputs, size, stride, *, layers):
            padding = [((size - 1) // 2, size // 2)] * 2
            self.conv = layers.conv(inputs, outputs, (size, size), stride, padding=padding)
            self.norm = nnx.LayerNorm(outputs, rngs=layers.rngs)

        def __call__(self, x, train):
            return self.norm(self.conv(x))

    monkeypatch.setattr(importlib.import_module("models.plain"), "ConvNorm", ConvScale)
    state = tiny_detection.save_classifier(tmp_path, small_classifier())
    assert not state["batch_stats"]
    config = small_pyramid("scenes_plain_fcn", init_from=str(tmp_path), ema_decay=0.9)
    plan = make_plan(config, make_task, jax.devices())
    new = jax.tree.map(
        lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), plan.abstract_state
    )
    loaded = init_from.start_from(new, init_from.load(plan, make_task))
    assert jax.tree.map(np.shape, loaded) == jax.tree.map(np.shape, new)
    for of in (loaded, loaded["ema"]):
        jax.tree.map(
            np.testing.assert_array_equal,
            of["params"]["backbone"]["convs"],
            state["params"]["convs"],
        )


def test_what_does_not_fit_is_named(classifier):
    def plan(**fields):
        config = small_pyramid("scenes_plain_fcn", init_from=str(classifier), **fields)
        return make_plan(config, make_task, jax.devices())

    message = r"another network \(model.widths is .*16.* there, .*8.* here\)"
    with pytest.raises(ConfigError, match=message):
        init_from.load(plan(model__widths=(4, 8, 8, 8)), make_task)
    with pytest.raises(ConfigError, match=r"levels \[1, 2, 3, 4\] and max_level at least 4"):
        plan(model__max_level=3)
    with pytest.raises(ConfigError, match="match no drop_path site of the model"):
        plan(drop__places__group3=1.0, drop__kind="drop_path")


def test_configs_of_other_networks_are_refused():
    config = importlib.import_module("configs.scenes_fcn").get_config()
    config.model.backbone = "plain"
    message = "not of model.backbone 'plain': it has no model.widths"
    with pytest.raises(ConfigError, match=message):
        make_plan(config, make_task, jax.devices())


def test_strides_without_a_gap():
    layers = Layers(Norm(0.9, 1e-5), jnp.float32, None, nnx.Rngs(0))
    sites = drop_lib.Sites(drop_lib.Drop())
    with pytest.raises(ValueError, match=r"each level from 2 to 5, got none of \[3, 4\]"):
        FPN({2: 8, 5: 8}, min_level=2, max_level=5, channels=4, sites=sites, layers=layers)


# --- The task.


def test_a_task_of_ones_own(tmp_path):
    config = small(
        "mnist_brightness",
        "dropblock",
        data__train_split="train[:256]",
        epochs=2.0,
    )
    config = importlib.import_module("configs.mnist_plain").use_plain(config)  # it compiles quickly
    config.model.widths = (4, 8, 8, 16)
    workdir = tmp_path / "run"
    assert train.train(config, workdir) == 0
    losses = [line["train/loss"] for line in records(workdir)]
    assert len(losses) == 32 and np.mean(losses[-8:]) < 0.5 * np.mean(losses[:8])
    last = records(workdir)[-1]
    evaluated = {k.removeprefix("eval/"): v for k, v in last.items() if k.startswith("eval/")}
    assert evaluated["examples"] == 50 and evaluated["close"] > 10
    assert json.loads((workdir / "result.json").read_text())["best"]["close"] == evaluated["close"]
    assert (workdir / "plots" / "examples.png").exists() and last["kept/group4"] < 1

    def saved():
        return config_lib.from_json(workdir / "config.json"), workdir / "checkpoints", "best"

    assert evaluate.evaluate(*saved()) == {"step": 32} | evaluated

    # The evaluation's sums once more, of the predictions for all its images as files.
    truth, names = [], {}
    for index in range(50):
        image = make_task(config).eval[index]["image"]
        truth.append(image.mean() / 255)
        names[str(tmp_path / f"{index}.png")] = f"{index}.png"
        Image.fromarray(image[..., 0]).save(tmp_path / f"{index}.png")
    out = tmp_path / "out"
    counts = predict.predict(open_run(workdir, "best"), names, out, draw=False)
    assert counts == {"images": 50, "skipped": 0}
    images = json.loads((out / "predictions.json").read_text())["images"]
    errors = np.array([image["brightness"] for image in images]) - truth
    assert evaluated["loss"] == pytest.approx(np.mean(errors**2), rel=1e-4)
    assert evaluated["close"] == pytest.approx(100 * np.mean(abs(errors) < 0.02))
