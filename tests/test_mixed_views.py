"""Mixup and CutMix against loops in NumPy, and in training."""

from __future__ import annotations

import math
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_baselines import sigmoid, slope

import spml_tf
from spml_tf import losses
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system.errors import UserError
from spml_tf.training import methods, mixed_views, parts, recipes
from spml_tf.training.terms import LabelTerm


def made(kind, seed=0, **options):
    term = kind(**options)
    term.prepare(parts.Facts(num_images=8, num_classes=3, grid=2, seed=seed))
    return term


class TestShares:
    def test_of_alpha_1_are_uniform(self):
        """Beta(1, 1) is uniform: a draw is its own share, to the middle of one of 4,096 steps."""
        draws = tf.constant([0.0, 0.25, 0.9, 0.99999])
        shares = made(mixed_views.Mixup, alpha=1.0).drawn_shares(draws)
        np.testing.assert_allclose(shares, draws, atol=1 / 4096)

    @pytest.mark.parametrize("alpha", (0.2, 0.5, 4.0))
    def test_have_the_moments_of_beta(self, alpha):
        """Mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
        draws = (np.arange(100_000) + 0.5) / 100_000
        shares = made(mixed_views.Mixup, alpha=alpha).drawn_shares(tf.constant(draws, tf.float32))
        assert np.mean(shares) == pytest.approx(0.5, abs=1e-3)
        assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=1e-3)


def numpy_mixup(image, other, draws):
    share = (int(draws[0] * 4096) + 0.5) / 4096  # alpha = 1
    return share * image + (1 - share) * other, share


def numpy_cutmix(image, other, draws):
    side = np.sqrt(1 - (int(draws[0] * 4096) + 0.5) / 4096)
    mixed, kept = image.copy(), 0
    for y, x in np.ndindex(*image.shape[:2]):
        down, across = (abs((n + 0.5) / len(image) - draws[k]) for n, k in ((y, 1), (x, 2)))
        if max(down, across) < side / 2:
            mixed[y, x] = other[y, x]
        else:
            kept += 1
    return mixed, kept / image[..., 0].size


KINDS = {mixed_views.Mixup: numpy_mixup, mixed_views.CutMix: numpy_cutmix}


@pytest.mark.parametrize("kind", KINDS)
def test_mixtures_equal_numpy(kind):
    rng = np.random.default_rng(0)
    images, others = (rng.uniform(0, 255, (6, 7, 7, 3)).astype(np.float32) for _ in range(2))
    draws = rng.random((6, 3)).astype(np.float32)
    mixed, shares = made(kind, alpha=1.0).mixed(
        tf.constant(images), tf.constant(others), tf.constant(draws)
    )
    for row in range(6):
        wanted, share = KINDS[kind](images[row], others[row], draws[row])
        np.testing.assert_allclose(mixed[row], wanted, atol=1e-3)
        assert float(shares[row]) == pytest.approx(share, abs=1e-6)
    assert len(set(np.round(shares, 3))) > 3


def test_rectangle_by_hand():
    """Share 0.75 leaves sides of 1/2: of 4 x 4 pixels around the middle 2 x 2 are covered."""
    term = made(mixed_views.CutMix, alpha=1.0)
    draws = tf.constant([[0.75 - 1 / 4096, 0.5, 0.5]])
    mixed, share = term.mixed(tf.zeros([1, 4, 4, 3]), tf.ones([1, 4, 4, 3]), draws)
    wanted = np.zeros((4, 4))
    wanted[1:3, 1:3] = 1
    np.testing.assert_array_equal(mixed[0, ..., 0], wanted)
    assert float(share[0]) == 0.75


@pytest.mark.parametrize("weighted", (False, True))
def test_value_and_gradient_equal_numpy(weighted):
    """EN leaves label 2 out; image 0 is mixed with the last one, image 1 with image 0."""
    term = made(mixed_views.Mixup, alpha=1.0, weight=3.0)
    labels = np.array([[1, -1, 2], [0, 1, -1], [-1, -1, 1]], np.int8)
    logits = np.array([[0.2, -0.4, 1.0], [0.7, 0.9, -1.0], [0.1, 0.0, 2.0]])
    weight = np.array([[1.0, 2, 1], [0.5, 3, 1], [1, 1, 0]]) if weighted else np.ones((3, 3))
    index, epoch = tf.constant([4, 0, 2], tf.int64), tf.constant(2, tf.int64)
    shares = term.drawn_shares(term.draws(index, epoch)[:, 0]).numpy().astype(float)

    def of_label(z, logit):
        f = sigmoid(logit)
        return {1: -math.log(f), 0: -math.log(1 - f), -1: -math.log(1 - f), 2: 0.0}[z]

    def expected(logits):
        total = 0.0
        for i, j in np.ndindex(3, 3):
            other = i - 1  # -1 is the last one
            total += shares[i] * weight[i, j] * of_label(labels[i, j], logits[i, j])
            of_other = weight[other, j] * of_label(labels[other, j], logits[i, j])
            total += (1 - shares[i]) * of_other
        return total / 9

    variable = tf.Variable(logits, dtype=tf.float32)
    step = types.SimpleNamespace(
        labels=tf.constant(labels), index=index, epoch=epoch, image=tf.zeros([3, 4, 4, 3]),
        weight=tf.constant(weight, tf.float32) if weighted else None,
        network=lambda views, training: variable[:, None, None, :] + tf.zeros([1, 2, 2, 1]),
        label_loss=LabelTerm(loss=losses.ExpectedNegative()).value,
    )  # fmt: skip
    with tf.GradientTape() as tape:
        value = term.compute(step)
    assert float(value) == pytest.approx(expected(logits), abs=1e-5)
    gradient = tape.gradient(value, variable)
    np.testing.assert_allclose(gradient, slope(expected, logits), atol=1e-5)


def test_both_in_one_method_draw_apart():
    index, epoch = tf.range(50, dtype=tf.int64), tf.constant(1, tf.int64)
    one, other = (
        made(kind, alpha=1.0).draws(index, epoch).numpy()
        for kind in (mixed_views.Mixup, mixed_views.CutMix)
    )
    assert (one != other).all()


def train_once(method, **options):
    network = spml_tf.networks.small_residual_cam(3, image_size=32, width=16)
    model = spml_tf.SPMLModel(network, num_images=6, method=method, keep_scores=True, **options)
    model.compile("sgd")
    pixels = np.random.default_rng(1).uniform(0, 255, (6, 32, 32, 3)).astype(np.float32)
    x = {"image": pixels, "index": np.arange(6)}
    results = model.train_on_batch(
        x, np.eye(3, dtype=np.int8)[[0, 1, 2, 0, 1, 2]], return_dict=True
    )
    return model, results


@pytest.mark.parametrize("addition", ("mixup", "cutmix"))
def test_banks_are_of_plain_photos(addition):
    """The first step's scores, heatmaps and classification loss are those without mixtures."""
    found = {}
    for method in ("an+scl", f"an+scl+{addition}"):
        keras.utils.set_random_seed(3)
        found[method] = train_once(method)
    (plain, before), (mixed, after) = found.values()
    np.testing.assert_allclose(
        plain.ema_scores.values.numpy(), mixed.ema_scores.values.numpy(), atol=1e-6
    )
    np.testing.assert_allclose(
        plain.ema_heatmaps.values.numpy(), mixed.ema_heatmaps.values.numpy(), atol=1e-6
    )
    assert after["classification_loss"] == pytest.approx(before["classification_loss"], abs=1e-6)
    assert after[f"{addition}_loss"] > 0
    total = after["classification_loss"] + after["consistency_loss"] + after[f"{addition}_loss"]
    assert after["loss"] == pytest.approx(total, abs=1e-5)


def test_a_loss_given_to_compile_is_that_of_mixtures():
    """Of a loss that is 2 everywhere both shares together are 2."""

    class Two(losses.LabelLoss):
        @staticmethod
        def function(labels, logits, weights=None):
            return losses.mean_over_classes(0.0 * logits + 2.0, weights)

    network = spml_tf.networks.small_residual_cam(3, image_size=32, width=16)
    model = spml_tf.SPMLModel(network, num_images=4, method="an+mixup")
    model.compile("sgd", loss=Two())
    x = {"image": np.full([4, 32, 32, 3], 9.0, np.float32), "index": np.arange(4)}
    results = model.train_on_batch(x, np.eye(4, 3, dtype=np.int8), return_dict=True)
    assert results["mixup_loss"] == pytest.approx(2, abs=1e-5)


def test_in_a_recipe_it_needs_a_loss_of_labels():
    from spml_tf.training import Role

    with pytest.raises(ValueError, match="Mixup trains by a loss of labels, and the recipe has"):
        recipes.Recipe((Role(positives_per_image=1.0), mixed_views.Mixup()))


@pytest.mark.parametrize("method", ("role+mixup", "gr+cutmix", "em_apl+mixup"))
def test_methods_without_such_a_loss_are_refused(method):
    first, addition = method.split("+")
    with pytest.raises(UserError, match=f"--method={first}.{addition}: method .*{first} has none"):
        resolve(Settings(method=method))
    assert [x.load() for x in methods.parts_of("en+scl+mixup")][-1] is mixed_views.Mixup


def test_a_saved_model_goes_on(tmp_path):
    model, _ = train_once("an+cutmix", cutmix_alpha=0.7)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    term = loaded.terms[-1]
    assert isinstance(term, mixed_views.CutMix) and term.alpha == 0.7
    np.testing.assert_array_equal(term.shares, model.terms[-1].shares)
