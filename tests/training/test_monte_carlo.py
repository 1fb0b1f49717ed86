"""The mean and the spread of samples, against float64, and what of them each task tells."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import entr, log_softmax, softmax

import random_runs
import tiny
import tiny_detection
import tiny_segmentation
from detection import boxes as box_lib
from tasks import make_task
from training import monte_carlo
from training.plan import Plan, make_plan
from training.state import stream

# From tosses of a coin to classes sure to 1 in 10^30, which float32 holds as logarithms alone.
LOGITS = np.random.default_rng(0).normal(size=(7, 5, 4)) * np.array([0.01, 1, 5, 20, 70])[:, None]


def averaged(logits, values=0.0):
    """`monte_carlo.average` of samples that are given, `[samples, ..., classes]`."""
    logits = jnp.asarray(logits, jnp.float32)

    def sample(key):
        # The number of the sample, which its key was made from.
        numbers = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(np.arange(9))
        number = jnp.argmax(jax.vmap(lambda k: jnp.all(k == key))(jax.random.key_data(numbers)))
        return jax.nn.log_softmax(logits[number]), {"x": values + 10.0 * number}, number

    def by_data(key):
        return sample(jax.random.key_data(key))

    return jax.jit(lambda key: monte_carlo.average(by_data, key, len(logits)))(jax.random.key(3))


def test_mean_and_spread_are_those_of_all_samples_at_once():
    spread, moments, total = averaged(LOGITS, values=1e4)
    p = softmax(LOGITS, axis=-1)
    expected = entr(p).sum(-1).mean(0)
    np.testing.assert_allclose(np.exp(spread.log_mean), p.mean(0), rtol=2e-6)
    np.testing.assert_allclose(spread.std, p.std(0), rtol=1e-5, atol=2e-7)
    np.testing.assert_allclose(spread.entropy, entr(p.mean(0)).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(spread.expected_entropy, expected, rtol=1e-5)
    disagreement = entr(p.mean(0)).sum(-1) - expected
    np.testing.assert_allclose(spread.mutual_information, disagreement, rtol=1e-4, atol=3e-7)
    # Of ten thousand and more, where a sum of squares would have lost all.
    assert moments["x"].mean == pytest.approx(1e4 + 30, rel=1e-6)
    assert moments["x"].std == pytest.approx(20.0, rel=1e-6)
    assert total == sum(range(7))


def test_one_sample_and_samples_that_agree_have_no_spread():
    for logits in (LOGITS[:1], np.repeat(LOGITS[2:3], 6, axis=0)):
        spread, *_ = averaged(logits)
        log_p = log_softmax(logits[0], axis=-1)
        np.testing.assert_allclose(spread.log_mean, log_p, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(spread.std, 0.0, atol=2e-7)
        np.testing.assert_allclose(spread.mutual_information, 0.0, atol=5e-7)
        assert float(spread.mutual_information.min()) >= 0.0


def test_what_is_nearly_sure_stays_unlike_what_is_surer():
    logits = np.array([[0.0, -30.0], [0.0, -40.0], [0.0, -200.0]])
    found = monte_carlo.scores(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)))
    assert found.keys() == set(monte_carlo.SCORES[:2])
    np.testing.assert_allclose(
        found["max_probability"], [np.exp(-30.0), np.exp(-40.0), 0.0], rtol=1e-5
    )
    np.testing.assert_allclose(
        found["entropy"], [31 * np.exp(-30.0), 41 * np.exp(-40.0), 0.0], rtol=1e-5
    )


def test_a_diverged_network_has_no_entropy():
    assert np.isnan(monte_carlo.entropy(jnp.array([jnp.nan, 0.0])))
    assert monte_carlo.entropy(jnp.array([-jnp.inf, 0.0])) == 0.0


CONFIGS = {
    "classification": tiny.get_config,
    "detection": tiny_detection.get_config,
    "segmentation": tiny_segmentation.get_config,
}


SAMPLES = 3


@dataclasses.dataclass
class Drawn:
    """A plan with random weights and a batch, and its steps: plain, and with samples."""

    plan: Plan
    variables: dict
    batch: dict

    @functools.cached_property
    def steps(self):
        sampling = self.plan.eval_step(mc_samples=SAMPLES, judge=True)
        return {False: self.plan.eval_step(), True: sampling}

    def __call__(self, keep_prob, sampling=True, batch=None, key=5):
        batch = self.batch if batch is None else batch
        run = self.steps[sampling]
        arguments = (self.variables, batch, jax.random.key(key), np.float32(keep_prob))
        return jax.device_get(run(*arguments))

    def samples(self, keep_prob):
        """What the network gives for the keys of the samples, one at a time."""

        @jax.jit
        def forward(images, rng):
            parts = (self.variables["params"], self.variables["batch_stats"])
            apply = functools.partial(self.plan.network.apply, *parts)
            return apply(images, train=False, keep_prob=keep_prob, rng=rng)[0]

        key, images = stream(jax.random.key(5), "mc_samples"), self.plan.task.inputs(self.batch)
        outs = [forward(images, jax.random.fold_in(key, i)) for i in range(SAMPLES)]
        return jax.device_get(outs)


@functools.cache
def drawn(task, devices=8):
    plan = make_plan(CONFIGS[task](), make_task, jax.devices()[:devices], train=False)
    variables = random_runs.arrays(plan.abstract_state["params"])
    local = next(iter(plan.task.eval_batches(batch_size=plan.batch_size, rows=plan.rows)))
    stats = random_runs.arrays(plan.abstract_state["batch_stats"])
    return Drawn(plan, {"params": variables, "batch_stats": stats}, plan.put_batch(local))


@pytest.mark.parametrize("task", CONFIGS)
def test_where_nothing_is_dropped_samples_are_the_plain_prediction(task):
    draw = drawn(task)
    sums, plain = draw(1.0, sampling=False)
    sampled_sums, sampled = draw(1.0)
    judged = sampled.pop("judge")
    for name, values in plain.items():
        if name == "logits":  # up to what softmax does not see
            values, sampled[name] = log_softmax(values, axis=-1), log_softmax(sampled[name], -1)
        np.testing.assert_allclose(sampled[name], values, rtol=1e-4, atol=1e-4, err_msg=name)
    for name, value in sums["sums"].items():
        np.testing.assert_allclose(sampled_sums["sums"][name], value, rtol=1e-4, err_msg=name)
    for name in ("std", "score_std", "mutual_information"):
        found = sampled | judged
        if name in found:
            np.testing.assert_allclose(found[name], 0.0, atol=2e-6)
    for site in sampled_sums["sites"].values():
        assert (float(site.dropped), float(site.count)) == (0.0, SAMPLES * draw.plan.batch_size)


def test_the_classes_mean_is_that_of_passes_with_keys_of_their_own():
    draw = drawn("classification")
    p = np.stack([softmax(out["logits"], axis=-1) for out in draw.samples(0.5)])
    _, found = draw(0.5)
    np.testing.assert_allclose(np.exp(found["logits"]), p.mean(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found["std"], p.std(0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found["entropy"], entr(p.mean(0)).sum(-1), rtol=1e-4)
    expected = entr(p).sum(-1).mean(0)
    np.testing.assert_allclose(found["expected_entropy"], expected, rtol=1e-4)
    disagreement = entr(p.mean(0)).sum(-1) - expected
    np.testing.assert_allclose(found["mutual_information"], disagreement, atol=1e-5)
    assert disagreement.min() > 1e-3  # no two samples are alike
    labels = np.asarray(draw.batch["label"])
    own = p.mean(0)[np.arange(len(labels)), labels]
    np.testing.assert_allclose(found["judge"]["nll"], -np.log(own), rtol=1e-4)
    assert (found["judge"]["right"] == (p.mean(0).argmax(-1) == labels)).all()


def test_no_two_images_are_dropped_alike_and_a_key_draws_the_same_on_any_number_of_devices():
    draw, others = drawn("classification"), drawn("classification", devices=1)
    same = {name: np.repeat(np.asarray(x)[:1], len(x), 0) for name, x in draw.batch.items()}
    _, found = draw(0.5, batch=draw.plan.put_batch(same))
    assert len(np.unique(found["logits"][:, 0])) == len(found["logits"])
    _, elsewhere = others(0.5, batch=others.plan.put_batch(same))
    np.testing.assert_allclose(elsewhere["logits"], found["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(elsewhere["std"], found["std"], rtol=1e-3, atol=1e-6)
    _, again = draw(0.5, batch=draw.plan.put_batch(same), key=6)
    assert np.abs(again["logits"] - found["logits"]).min() > 0


def test_a_detections_spread_is_that_of_its_anchor_and_class():
    draw = drawn("detection")
    task, (_, found) = draw.plan.task, draw(0.5)
    outs = draw.samples(0.5)
    p = np.stack([1 / (1 + np.exp(-out["class_logits"].astype(float))) for out in outs])
    boxes = np.stack(
        [jax.vmap(box_lib.decode, (0, None))(out["box_codes"], task.anchors) for out in outs]
    )
    size = np.asarray(draw.batch["original_size"])[:, None, :]
    scale = np.asarray(draw.batch["scale"])
    seen = 0
    for row, column in np.argwhere(found["labels"] >= 0):
        label, score = found["labels"][row, column], found["scores"][row, column]
        anchor = np.abs(p.mean(0)[row, :, label] - score).argmin()
        at = (slice(None), row, anchor)
        np.testing.assert_allclose(score, p[(*at, label)].mean(), rtol=1e-4)
        np.testing.assert_allclose(
            found["score_std"][row, column], p[(*at, label)].std(), rtol=1e-3, atol=1e-6
        )
        both = np.stack([p[(*at, label)], 1 - p[(*at, label)]])
        disagreement = entr(both.mean(1)).sum() - entr(both).sum(0).mean()
        told = found["mutual_information"][row, column]
        np.testing.assert_allclose(told, disagreement, rtol=1e-2, atol=1e-6)
        factors = np.tile(scale[row], 2)
        np.testing.assert_allclose(
            found["box_std"][row, column], boxes[at].std(0) / factors, rtol=1e-3, atol=1e-3
        )
        mean = np.clip(boxes[at].mean(0) / factors, 0, np.tile(size[row, 0], 2))
        np.testing.assert_allclose(found["boxes"][row, column], mean, rtol=1e-3, atol=1e-2)
        seen += 1
    assert seen > 100


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_boxes_and_pixels_are_judged(task):
    draw = drawn(task)
    (_, plain), (_, found) = draw(1.0, sampling=False), draw(0.5)
    assert "judge" not in plain  # which was not asked for
    judge = found.pop("judge")
    if task == "detection":
        draw.plan.task.config.detection.picture_score = 0.0
    judged = draw.plan.task.judge(found | judge)
    assert judged["auroc"].keys() == set(monte_carlo.SCORES)
    for interval in judged["auroc"].values():
        assert interval is not None and interval["low"] <= interval["value"] <= interval["high"]
    assert judged["auroc"]["std"]["low"] < judged["auroc"]["std"]["high"]
    if task == "detection":
        assert judged["detections"] == (found["labels"] >= 0).sum()
        assert 0 < judged["precision"] < 50  # of random numbers, some are right
        assert judged["ece"] == pytest.approx(
            abs(found["scores"].sum() / judged["detections"] - judged["precision"] / 100), abs=0.1
        )
    else:
        right = np.trace(found["confusion"].sum(0)) / found["confusion"].sum()
        counts, hits, _ = judge["calibration"].sum(0)
        assert hits.sum() / counts.sum() == pytest.approx(right, abs=1e-3)
        assert judge["histograms"].sum() == len(monte_carlo.SCORES) * counts.sum()


def test_pixels_are_judged_by_their_own_probabilities():
    draw = drawn("segmentation")
    task = draw.plan.task
    size = -(-task.config.data.image_size // task.stride)
    logits = 4 * jax.random.normal(jax.random.key(0), (8, size, size, 11))
    own = {name: draw.batch[name] for name in ("label", "scale")}
    judged = jax.jit(lambda own: task.to_judge({"logits": logits}, own, lambda f: f))(own)
    predicted = jax.jit(lambda own: task.predict({"logits": logits}, own, lambda f: f))(own)
    np.testing.assert_allclose(judged["nll"], predicted["loss"], rtol=1e-4)
    assert judged["histograms"].shape[1] == 2  # no samples, no spread


def test_more_samples_are_no_larger_a_program():
    draw = drawn("classification")
    arguments = (draw.variables, draw.batch, jax.random.key(5), np.float32(0.5))
    few, many = (
        draw.plan.eval_step(mc_samples=count).lower(*arguments).as_text() for count in (2, 2000)
    )
    assert abs(len(many) - len(few)) < 20
