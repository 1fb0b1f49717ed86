"""One step: the same on any number of devices, and the same as its parts done by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import mnist_resnet
from models.drop import Drop, MapShape, Site, SiteReport
from stepping import run
from tasks import make_task
from training import sharding
from training import state as state_lib
from training.optimizer import decays
from training.plan import make_plan
from training.step import make_eval_step, make_loss, make_train_step, site_sums

DROPPING = {"ema_decay": 0.9, "drop__keep_prob": 0.5}
NO_MOMENTUM = {
    "drop__kind": "none",
    "optimizer__momentum": 0.0,
    "optimizer__nesterov": False,
}


@functools.cache
def on(devices, **fields):
    """A plan; one for all tests that want the same, so that its step is compiled once."""
    config = mnist_resnet.get_config()
    config.data.train_split = "train[:64]"
    config.data.eval_split = "test[:50]"
    config.model.depth = 10
    config.model.width_multiplier = 1 / 16
    config.batch_size = 16
    config.epochs = 3.0
    config.schedule.warmup_epochs = 0.0
    config.schedule.kind = "constant"
    config.schedule.learning_rate = 0.3
    config.update_from_flattened_dict({name.replace("__", "."): v for name, v in fields.items()})
    return make_plan(config, make_task, jax.devices()[:devices])


def first_batch(plan, step=0):
    batch = next(iter(plan.task.train_batches(start_step=step, rows=slice(None))))
    batch.pop("skipped")
    return batch


@pytest.fixture(scope="module")
def plan():
    return on(1, **DROPPING)


@pytest.fixture(scope="module")
def one_device(plan):
    return run(plan, 5)


@pytest.mark.parametrize("group_size", [0, 4])
def test_eight_devices_do_what_one_does(group_size):
    fields = DROPPING | {"model__bn_group_size": group_size}
    state, metrics = run(on(8, **fields), 1)
    one_state, one_metrics = run(on(1, **fields), 1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *metrics, *one_metrics
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, one_state
    )


def test_the_step_compiles_once_over_a_schedule(plan, one_device):
    state, metrics = one_device
    keep_probs = [m["keep_prob"] for m in metrics]
    np.testing.assert_allclose(keep_probs, [1 - 0.5 * t / 12 for t in range(5)], rtol=1e-6)
    assert plan.train_step._cache_size() == 1
    assert int(state["step"]) == 5


def test_the_state_is_a_pytree_of_plain_dicts(one_device):
    state, _ = one_device
    assert set(state) == {"step", "params", "batch_stats", "opt_state", "ema"}
    assert type(state["params"]["groups"]["group4"]["block1"]) is dict
    assert {x.dtype for x in jax.tree.leaves(state["params"])} == {jnp.dtype("float32")}


def test_sites_report_what_they_dropped(one_device):
    _, metrics = one_device
    sites = metrics[-1]["sites"]
    assert len(sites) == 6  # a block of three sites in each of groups 3 and 4
    assert metrics[0]["sites"]["group4.block1.conv1"].dropped == 0  # keep_prob 1 at step 0
    dropped = sum(site.dropped for site in sites.values())
    expected = sum(site.expected_dropped for site in sites.values())
    assert dropped == pytest.approx(expected, rel=0.5) and expected > 1


def test_no_two_steps_drop_the_same(plan):
    """The chance that two keys let all six sites drop equally much is about 2e-12."""
    state = plan.create()
    # Beyond the schedule's end, so that the key is all that changes.
    state["step"] = jax.device_put(jnp.int32(plan.total_steps), state["step"].sharding)
    batch, dropped = plan.put_batch(first_batch(plan)), []
    for _ in range(4):
        state, metrics = plan.train_step(state, batch, plan.key)
        dropped.append(tuple(float(site.dropped) for site in metrics["sites"].values()))
        assert float(metrics["keep_prob"]) == 0.5
    assert len(set(dropped)) == 4, dropped


class OneSite:
    """A network and its task in one: a drop site, on an image of ones. It tells what it keeps."""

    site = Site("site", 0, 1.0, Drop("dropblock", {"site": 1.0}, block_size=1))

    def apply(self, params, batch_stats, x, *, train, keep_prob, rng):
        y, sites = self.site(x, keep_prob, rng)
        return {"kept": y > 0, "sites": sites}, batch_stats

    def inputs(self, batch):
        return jnp.ones((*batch["row"].shape, 8, 8, 1))

    def loss(self, out, batch):
        # Each row to its place: metrics are added over micro-batches.
        kept = jnp.zeros((16, 8, 8, 1), int).at[batch["row"]].set(out["kept"])
        return jnp.float32(0), {"kept": kept, "times": jnp.zeros(16, int).at[batch["row"]].set(1)}


@pytest.mark.parametrize("accumulate", [1, 4])
def test_no_two_examples_of_any_step_or_micro_batch_have_one_mask(accumulate):
    """Each mask is of 64 fair bits: that two of 48 are equal has a chance of 1e-16."""
    one = OneSite()
    step = make_train_step(
        make_loss(one, one),
        optax.sgd,
        learning_rate_schedule=lambda step: 0.1,
        keep_prob_schedule=lambda step: 0.5,
        accumulate=accumulate,
        ema_decay=None,
    )
    params = {"unused": jnp.zeros(())}
    state = {"step": jnp.int32(0), "params": params, "batch_stats": {}}
    state["opt_state"] = optax.sgd(0.1).init(params)
    masks = []
    for _ in range(3):
        state, metrics = jax.jit(step)(state, {"row": jnp.arange(16)}, jax.random.key(0))
        assert (metrics["sums"]["times"] == 1).all()
        masks.append(np.asarray(metrics["sums"]["kept"]).reshape(16, 64))
    masks = np.stack(masks)
    assert len(np.unique(masks.reshape(48, 64), axis=0)) == 48


def test_ema_is_the_recursion(plan):
    state = plan.create()
    average = jax.tree.map(np.array, state_lib.variables(state))
    for batch, _ in zip(
        plan.task.train_batches(start_step=0, rows=slice(None)), range(3), strict=False
    ):
        batch.pop("skipped")
        state, _ = plan.train_step(state, plan.put_batch(batch), plan.key)
        now = {name: state[name] for name in ("params", "batch_stats")}
        average = jax.tree.map(lambda a, x: 0.9 * a + 0.1 * np.asarray(x), average, now)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state["ema"], average
    )


def test_weight_decay_spares_batch_norm_and_nothing_else(plan):
    flat = jax.tree_util.tree_leaves_with_path(decays(plan.network.params, biases=True))
    spared = {jax.tree_util.keystr(path) for path, decayed in flat if not decayed}
    assert all("'norm'" in path for path in spared)
    decayed = {jax.tree_util.keystr(path) for path, decayed in flat if decayed}
    assert not any("'norm'" in path for path in decayed) and "['head']['bias']" in decayed


def test_accumulation_is_the_mean_of_micro_batches():
    plan = on(1, accumulate=2, **NO_MOMENTUM)
    state, metrics = run(plan, 1)

    @jax.jit
    def micro_step(params, stats, rows):
        def loss_fn(params):
            out, new = plan.network.apply(params, stats, plan.task.inputs(rows), train=True)
            return plan.task.loss(out, rows)[0], new

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    start, batch = plan.create(), first_batch(plan)
    stats, grads, losses = start["batch_stats"], [], []
    for index in range(2):  # row i belongs to micro-batch i % 2
        rows = {name: batch[name][index::2] for name in ("image", "label")}
        (loss, stats), grad = micro_step(start["params"], stats, rows)
        grads.append(grad)
        losses.append(loss)
    mean = jax.tree.map(lambda *g: sum(g) / 2, *grads)
    optimizer = plan.optimizer(plan.learning_rate_schedule(0))
    updates, _ = optimizer.update(mean, start["opt_state"], start["params"])
    literal = optax.apply_updates(start["params"], updates), stats
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        (state["params"], state["batch_stats"]),
        literal,
    )
    assert metrics[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics[0]["sums"]["count"] == 16


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_rate_that_is_logged_is_the_one_that_acts(accumulate):
    plan = on(
        1,
        accumulate=accumulate,
        optimizer__weight_decay=0.0,
        schedule__warmup_epochs=3.0,
        **NO_MOMENTUM,
    )
    start = plan.create()
    before = jax.tree.map(np.array, start["params"])
    # As a restart would find it, wherever it came from: the step alone says what the rate is.
    start["step"] = jax.device_put(jnp.int32(6), start["step"].sharding)
    batch = plan.put_batch(first_batch(plan, step=6))
    state, metrics = plan.train_step(start, batch, plan.key)
    moved = optax.tree.norm(jax.tree.map(lambda a, b: a - b, state["params"], before))
    rate = float(metrics["learning_rate"])
    # Half of the way up to 0.3, scaled by the batch.
    assert rate == pytest.approx(0.3 * 16 / 100 * 6 / 12)
    assert float(moved / metrics["grad_norm"]) == pytest.approx(rate, rel=1e-3)


def test_micro_batches_and_devices_together():
    _, one = run(on(1, accumulate=2, **NO_MOMENTUM), 1)
    _, eight = run(on(8, accumulate=2, **NO_MOMENTUM), 1)
    assert eight[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)


def test_a_network_learns_its_batch(plan):
    state, batch = plan.create(), plan.put_batch(first_batch(plan))
    losses = []
    for _ in range(60):
        state, metrics = plan.train_step(state, batch, plan.key)
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(np.log(10), abs=0.2) and min(losses[-5:]) < 0.7 * losses[0]


def test_site_sums_by_hand():
    kept = jnp.array([1.0, 0.5, 0.75])
    report = SiteReport(kept, jnp.float32(0.8), jnp.float32(7), MapShape((4, 4)))
    sums = dataclasses.asdict(site_sums({"a": report})["a"])
    expected = {"count": 3, "dropped": 0.75, "expected_dropped": 0.6, "seeds": 7}
    assert {k: float(v) for k, v in sums.items()} == pytest.approx(expected)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_by_hand(key, accumulate):
    """Of a loss whose gradient is keep_prob / 12 times the sum over the rows of `[4, 3]`."""

    def loss(params, stats, batch, key, keep_prob):
        value = keep_prob * jnp.mean(batch["x"] * params["w"][None])
        stats = {"seen": 2 * stats["seen"] + batch["x"].sum()}
        return value, (stats, {"loss": value, "sums": {"count": jnp.float32(len(batch["x"]))}})

    step = make_train_step(
        loss,
        optax.sgd,
        learning_rate_schedule=lambda step: 0.5 / step,
        keep_prob_schedule=lambda step: 1 - step / 10,
        accumulate=accumulate,
        ema_decay=0.75,
    )
    w, x = np.array([1.0, -2.0, 3.0]), np.arange(12.0).reshape(4, 3) ** 2
    start = {
        "step": jnp.int32(4),
        "params": {"w": jnp.float32(w)},
        "batch_stats": {"seen": jnp.float32(5)},
        "opt_state": optax.sgd(0.0).init(None),
    }
    average = {"params": {"w": jnp.ones(3)}, "batch_stats": {"seen": jnp.float32(1)}}
    state, metrics = jax.jit(step)(start | {"ema": average}, {"x": jnp.float32(x)}, key)
    grad = 0.6 * x.sum(0) / 12
    # With two micro-batches the statistics see the even rows, then the odd ones.
    seen = 10 + x.sum() if accumulate == 1 else 2 * (10 + x[::2].sum()) + x[1::2].sum()
    assert int(state["step"]) == 5
    np.testing.assert_allclose(state["params"]["w"], w - 0.125 * grad, rtol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["seen"], seen, rtol=1e-5)
    np.testing.assert_allclose(
        state["ema"]["params"]["w"], 0.75 + 0.25 * (w - 0.125 * grad), rtol=1e-5
    )
    np.testing.assert_allclose(state["ema"]["batch_stats"]["seen"], 0.75 + 0.25 * seen, rtol=1e-5)
    expected = {
        "loss": 0.6 * (w * x).mean(),
        "grad_norm": np.sqrt((grad**2).sum()),
        "learning_rate": 0.125,
        "keep_prob": 0.6,
    }
    assert metrics.pop("sums") == {"count": 4}
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected)


class Scale:
    """A network and a task of one weight, whose statistic is what it sees in training."""

    def apply(self, params, stats, x, *, train, keep_prob, rng):
        y = params["w"] * x * (1.0 if rng is None else keep_prob)
        report = SiteReport(jnp.full(2, keep_prob), keep_prob, jnp.float32(7), MapShape((4, 4)))
        return {"y": y, "sites": {} if rng is None else {"a": report}}, stats + x.sum() * train

    def inputs(self, batch):
        return batch["x"]

    def loss(self, out, batch):
        return out["y"].mean(), {"total": out["y"].sum()}

    def predict(self, out, batch, by_device):
        return {"y": by_device(lambda y: 2 * y)(out["y"])}

    def eval_sums(self, predictions, batch):
        return {"total": (predictions["y"] * batch["mask"]).sum()}


def test_a_loss_is_of_a_network_that_trains_and_drops(key):
    loss = make_loss(Scale(), Scale())
    value, (stats, metrics) = loss({"w": 3.0}, 1.0, {"x": jnp.array([1.0, 2.0])}, key, 0.5)
    assert (value, stats) == (2.25, 4.0)
    assert metrics["loss"] == 2.25 and metrics["sums"] == {"total": 4.5}
    assert (metrics["sites"]["a"].dropped, metrics["sites"]["a"].count) == (1, 2)


@pytest.mark.parametrize("drop", [False, True])
def test_an_evaluation_drops_where_it_is_asked_to(key, drop):
    step = jax.jit(make_eval_step(Scale(), Scale(), drop=drop))
    batch = {
        "x": jnp.array([1.0, 2.0]),
        "mask": jnp.array([True, False]),
        "skipped": jnp.array([0, 1]),
    }
    variables = {"params": {"w": 3.0}, "batch_stats": 1.0}
    sums, predictions = step(variables, batch, key, 0.5)
    assert sums["sums"] == {"total": 3.0 if drop else 6.0} and sums["skipped"] == 1
    assert set(sums["sites"]) == ({"a"} if drop else set())
    np.testing.assert_array_equal(predictions["y"], [3, 6] if drop else [6, 12])
    np.testing.assert_array_equal(predictions["mask"], batch["mask"])


@pytest.mark.parametrize(
    ("batch", "devices", "accumulate", "message"),
    [
        (12, 8, 1, "12 cannot be divided over 8 devices: use 8 or 16"),
        (16, 8, 4, "16 cannot be divided over 8 devices x 4 micro-batches: use 32"),
        (12, 8, 2, "12 cannot be divided over 8 devices x 2 micro-batches: use 16"),
        (80, 8, 4, "80 cannot be divided over 8 devices x 4 micro-batches: use 64 or 96"),
        (16, 1, 0, "accumulate must be at least 1"),
    ],
)
def test_batches_that_do_not_divide_are_refused(batch, devices, accumulate, message):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    with pytest.raises(ValueError, match=message):
        sharding.check_batch(mesh, batch, accumulate)


def test_batches_that_divide_are_taken_whole():
    mesh = sharding.make_mesh(jax.devices())
    for batch, accumulate in ((8, 1), (64, 4), (32, 4)):
        sharding.check_batch(mesh, batch, accumulate)
        assert sharding.local_rows(mesh, batch) == slice(0, batch)
