"""Losses of related work against loops in NumPy, written from the papers' formulas."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_network import tiny_cam

from spml_tf import SPMLModel, losses
from spml_tf.evaluation import missing_labels
from spml_tf.runs.checkpoint_contents import read_checkpoint
from spml_tf.training import methods, optimizers, recipes, rules

K, ALPHA = 1.7, 0.2
# Methods that are a term, and no Keras loss, alone.
OF_TERMS = ("role", "gr", "em_apl")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def nl(x):
    """-log f and -log(1 - f) of logits, exactly."""
    return np.log1p(np.exp(-x)), np.log1p(np.exp(x))


def regularizer(logits, weights=1.0):
    share = np.broadcast_to(weights, logits.shape).mean(axis=1)
    return (share * (sigmoid(logits).sum(axis=1).mean() - K) ** 2).mean() / logits.shape[1] ** 2


def known(labels, logits, weights=1.0):
    positive, negative = nl(logits)
    terms = (labels == 1) * positive + (labels == 0) * negative
    return (weights * terms).sum() / labels.size


def numpy_an_ls(labels, logits, weights=1.0):
    positive, negative = nl(logits)
    target = np.where(labels == 1, 0.9, 0.1)
    terms = (labels != 2) * (target * positive + (1 - target) * negative)
    return (weights * terms).mean()


def numpy_wan(labels, logits, weights=1.0):
    positive, negative = nl(logits)
    weight = {0: 1.0, -1: 1 / (labels.shape[1] - 1), 2: 0.0}
    factors = np.broadcast_to(weights, labels.shape)
    terms = [
        factors[place] * (positive[place] if z == 1 else weight[z] * negative[place])
        for place, z in np.ndenumerate(labels)
    ]
    return sum(terms) / labels.size


def numpy_epr(labels, logits, weights=1.0):
    return known(labels, logits, weights) + regularizer(logits, weights)


def numpy_em(labels, logits, weights=1.0):
    f = sigmoid(logits)
    entropy = -(f * np.log(f) + (1 - f) * np.log(1 - f))
    ignorance = (weights * (labels == -1) * entropy).sum() / labels.size
    return known(labels, logits, weights) - ALPHA * ignorance


def numpy_hill(labels, logits, weights=1.0):
    f, shifted = sigmoid(logits), sigmoid(logits - 1)
    positive = -((1 - shifted) ** 2) * np.log(shifted)
    negative = (1.5 - f) * f**2
    return (weights * np.where((labels == 1) | (labels == 2), positive, negative)).mean()


def numpy_asl(labels, logits, weights=1.0, weight_at=None):
    """The weight p^4 stays that of `weight_at` while a finite difference moves the logits."""
    p = np.maximum(sigmoid(logits) - 0.05, 0)
    fixed = np.maximum(sigmoid(logits if weight_at is None else weight_at) - 0.05, 0)
    terms = np.where(labels == 1, nl(logits)[0], -(fixed**4) * np.log(1 - p))
    return (weights * (labels != 2) * terms).mean()


CASES = {
    "an_ls": (losses.smoothed_assume_negative, {}, numpy_an_ls),
    "wan": (losses.weak_assume_negative, {}, numpy_wan),
    "epr": (
        losses.expected_positive_regularization, {"positives_per_image": K}, numpy_epr,
    ),
    "em": (losses.entropy_maximization, {"entropy_weight": ALPHA}, numpy_em),
    "hill": (losses.hill, {}, numpy_hill),
    "asl": (losses.asymmetric, {}, numpy_asl),
}  # fmt: skip


def random_case(seed: int, batch: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.choice([1, 0, -1, 2], (batch, classes)), rng.normal(0, 2, (batch, classes))


def drawn_weights(draw: bool, seed: int, shape: tuple[int, int]) -> tuple[dict, np.ndarray | float]:
    """What a loss is given, and what NumPy multiplies by."""
    if not draw:
        return {}, 1.0
    weights = np.random.default_rng(seed + 2).uniform(0, 3, shape)
    return {"weights": tf.constant(weights)}, weights


def slope(function, values: np.ndarray) -> np.ndarray:
    """Central differences."""
    step, result = 1e-6, np.zeros_like(values)
    for place in np.ndindex(*values.shape):
        up, down = values.copy(), values.copy()
        up[place] += step
        down[place] -= step
        result[place] = (function(up) - function(down)) / (2 * step)
    return result


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(CASES)),
    st.integers(1, 4),
    st.integers(2, 5),
    st.integers(0, 999),
    st.booleans(),
)
def test_value_and_gradient_equal_numpy(name, batch, classes, seed, weighted):
    function, options, expected = CASES[name]
    labels, logits = random_case(seed, batch, classes)
    if name == "asl":  # away from the kink at f = 0.05
        logits = np.where(np.abs(sigmoid(logits) - 0.05) < 1e-3, 0.0, logits)
    given_weights, weights = drawn_weights(weighted, seed, logits.shape)
    inputs = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = tf.reduce_mean(function(tf.constant(labels), inputs, **options, **given_weights))
    np.testing.assert_allclose(value, expected(labels, logits, weights), atol=1e-9)
    fixed = {"weight_at": logits} if name == "asl" else {}
    wanted = slope(lambda x: expected(labels, x, weights, **fixed), logits)
    np.testing.assert_allclose(tape.gradient(value, inputs), wanted, atol=1e-6)


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 999), st.booleans())
def test_role_equals_numpy(batch, classes, seed, weighted):
    labels, logits = random_case(seed, batch, classes)
    given_weights, weights = drawn_weights(weighted, seed, logits.shape)
    estimates = np.random.default_rng(seed + 1).normal(0, 2, logits.shape)

    def cross(target, x):
        positive, negative = nl(x)
        return (weights * (target * positive + (1 - target) * negative)).mean()

    def expected(f, g, f_fixed, g_fixed):
        total = known(labels, f, weights) + known(labels, g, weights)
        total += cross(sigmoid(g_fixed), f) + cross(sigmoid(f_fixed), g)
        return 0.5 * (total + regularizer(f, weights) + regularizer(g, weights))

    inputs = [tf.constant(logits), tf.constant(estimates)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = tf.reduce_mean(losses.role(tf.constant(labels), *inputs, K, **given_weights))
    np.testing.assert_allclose(value, expected(logits, estimates, logits, estimates), atol=1e-9)
    of_f, of_g = tape.gradient(value, inputs)
    wanted = slope(lambda x: expected(x, estimates, logits, estimates), logits)
    np.testing.assert_allclose(of_f, wanted, atol=1e-6)
    wanted = slope(lambda x: expected(logits, x, logits, estimates), estimates)
    np.testing.assert_allclose(of_g, wanted, atol=1e-6)


def test_by_hand():
    """Logits 0: f = 1/2, -log f = -log(1-f) = ln 2 = 0.6931; L = 4, one image with a positive, a
    negative, an unknown label and a marked one."""
    labels, logits, ln2 = tf.constant([[1, 0, -1, 2]]), tf.zeros([1, 4], tf.float64), math.log(2)
    values = {
        name: float(f(labels, logits, **options)[0]) for name, (f, options, _) in CASES.items()
    }
    assert values["an_ls"] == pytest.approx(3 * ln2 / 4)  # 0.9 ln 2 + 0.1 ln 2 of each
    assert values["wan"] == pytest.approx((1 + 1 + 1 / 3) * ln2 / 4)
    assert values["epr"] == pytest.approx(2 * ln2 / 4 + (4 / 2 - K) ** 2 / 16)
    assert values["em"] == pytest.approx((2 - ALPHA) * ln2 / 4)  # H(1/2) = ln 2
    shifted = 1 / (1 + math.e)  # sigmoid(-1)
    margin = -((1 - shifted) ** 2) * math.log(shifted)
    assert values["hill"] == pytest.approx((2 * margin + 2 * (1.5 - 0.5) * 0.25) / 4)
    assert values["asl"] == pytest.approx((ln2 - 2 * 0.45**4 * math.log(0.55)) / 4)


def test_initial_estimates():
    noise = np.array([[0.3, -0.5, 1.0]])
    found = losses.role_estimates(np.array([[1, 0, -1]]), tf.constant(noise))
    wanted = [math.log(0.995 / 0.005), math.log(0.005 / 0.995), math.log(0.6 / 0.4)]
    np.testing.assert_allclose(found, [wanted], rtol=1e-6)


def marked(labels, logits, epoch, rate, growing=True):
    rule = rules.LargeLoss(rate=rate, growing=growing)
    codes = rule.marked(
        tf.constant(labels, tf.int8), tf.constant(logits), tf.constant(epoch, tf.int64)
    )
    return codes.numpy()


class TestLargeLosses:
    LABELS = [[1, -1, -1, 0, -1]]
    LOGITS = [[9.0, 1.0, 3.0, 8.0, 2.0]]

    def test_by_hand(self):
        """Five labels, 10 percent an epoch: none, ceil(0.5) = 1, ceil(1) = 1, ceil(1.5) = 2, ...;
        of the unknown ones the third, fifth and second have the largest loss."""
        expected = {1: [], 2: [2], 3: [2], 4: [2, 4], 5: [2, 4], 6: [2, 4, 1], 99: [2, 4, 1]}
        for epoch, places in expected.items():
            found = marked(self.LABELS, self.LOGITS, epoch, 10.0)[0]
            assert set(np.flatnonzero(found == 2)) == set(places), epoch
            assert found[0] == 1 and found[3] == 0
        for epoch, places in {1: [], 2: [2], 3: [2], 99: [2]}.items():
            found = marked(self.LABELS, self.LOGITS, epoch, 10.0, growing=False)[0]
            assert set(np.flatnonzero(found == 2)) == set(places)

    def test_whole_products_are_not_rounded_up(self):
        """5 images, 3 labels, 5 percent, epoch 5: 4 * 5 / 100 * 3 * 5 is 3.0000000000000004."""
        logits = np.random.default_rng(0).normal(size=(5, 3))
        assert (marked(np.full((5, 3), -1), logits, 5, 5.0) == 2).sum() == 3

    @settings(max_examples=30)
    @given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 9), st.integers(0, 99))
    def test_laws(self, batch, classes, epoch, seed):
        labels, logits = random_case(seed, batch, classes)
        found = marked(labels, logits, epoch, 7.0)
        wanted = math.ceil(round(batch * classes * (epoch - 1) * 7 / 100, 9))
        unknown = labels == -1
        new = (found == 2) & (labels != 2)
        assert new.sum() == min(wanted, unknown.sum()) and not (new & ~unknown).any()
        np.testing.assert_array_equal(found[~unknown], labels[~unknown])
        if new.any() and (unknown & ~new).any():
            assert logits[new].min() > logits[unknown & ~new].max()


def test_confident_labels_are_marked_from_the_second_epoch():
    labels = tf.constant([[-1, -1, 0, 1]], tf.int8)
    logits = tf.constant([[0.41, 0.40, 5.0, 5.0]])  # logit(0.6) = 0.4055
    for epoch, expected in ((1, [-1, -1, 0, 1]), (2, [2, -1, 0, 1])):
        found = rules.Confident().marked(labels, logits, tf.constant(epoch))
        assert found.numpy().tolist() == [expected]


@pytest.mark.parametrize("name", [name for name in methods.METHODS if name not in OF_TERMS])
def test_classes_serialise_and_stay_finite(name):
    values = {"positives_per_image": 1.5, "entropy_weight": 0.3}
    loss = recipes.recipe_of(name, {x: values[x] for x in methods.flags_of(name) if x in values})
    loss = loss.terms[0].loss
    assert loss.from_logits
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    for labels in ([[1, 0, -1, 2]], [[-1] * 4], [[0] * 4]):
        logits = tf.constant([[-1e4, 1e4, 0.0, 3.0]])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(tf.constant(labels), logits)
        assert np.isfinite(value) and np.isfinite(tape.gradient(value, logits)).all()
        assert float(value) == float(copy(tf.constant(labels), logits))
    one = loss(tf.constant([[1], [-1]]), tf.constant([[0.5], [0.5]]))
    many = loss(tf.fill([2, 1000], -1), tf.zeros([2, 1000]))
    assert np.isfinite(one) and np.isfinite(many)


def small_model(method: str, **options) -> tuple[SPMLModel, tf.data.Dataset, np.ndarray]:
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype(np.float32)
    labels = np.where(np.arange(4) == np.arange(8)[:, None] % 4, 1, -1).astype(np.int8)
    own = {name: x for name, x in options.items() if name in methods.flags_of(method)}
    model = SPMLModel(tiny_cam(4, image_size=32), 8, method, 2.0, **own)
    adam = keras.optimizers.Adam
    estimates = {adam(0.1): [weight for x in model.parts for weight in x.trainable_variables]}
    estimates = estimates if model.label_estimates is not None else {}
    model.compile(optimizers.head_and_backbone(adam(1e-3), adam(1e-3), estimates))
    model.set_labels(labels)
    data = tf.data.Dataset.from_tensor_slices(({"image": images, "index": np.arange(8)}, labels))
    return model, data.batch(4), labels


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_trains(name):
    full_name = name if name == "recommended" else f"{name}+cl"
    model, data, labels = small_model(full_name, large_loss_rate=6.25)
    trained = any(part.trainable_variables for part in model.parts)
    assert methods.trains_weights(full_name) == trained
    history = model.fit(data, epochs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["classification_loss"][-1] < history["classification_loss"][0]
    stored = model.marked_labels(labels)
    np.testing.assert_array_equal(stored[labels == 1], 1)
    if name in ("en", "ep"):  # K N = 16 expected positives, 8 annotated ones among them
        assert 8 <= (stored == 2).sum() <= 16
    elif (
        name != "recommended"
    ):  # ll_cp flips ceil(16 * 6.25 / 100) = 1 label in each of two batches, in epochs 2 and 3
        assert (stored == 2).sum() == (4 if name == "ll_cp" else 0)


def test_marks_of_two_rules_that_keep_them_are_told_together():
    """ll_cp flips one label in each of two batches in epoch 2; en chooses anew at its start."""
    model, data, labels = small_model("en+ll_cp", large_loss_rate=6.25, selection_start_epoch=2)
    model.fit(data, epochs=2, verbose=0)
    chosen, flipped = (kept.numpy() == 2 for kept in model.kept_labels)
    assert chosen.any() and flipped.sum() == 2 and (flipped & ~chosen).any()
    np.testing.assert_array_equal(model.marked_labels(labels) == 2, chosen | flipped)
    names = [rule.store.name for rule in model.rules]  # places in the files of several workers
    assert names == ["label_store", "label_store_2"]


@pytest.mark.parametrize("method", ["ll_cp+en", "en+ll_cp"])
def test_selections_are_counted_wherever_the_rule_stands(method, tmp_path):
    """Chosen once, at the start of epoch 2; what ll_cp flips then is no selection."""
    model, data, labels = small_model(method, large_loss_rate=6.25, selection_start_epoch=2)
    model.fit(data, epochs=2, verbose=0)
    (rule,) = (x for x in model.rules if isinstance(x, rules.ExpectedPositives))
    chosen = rule.labels.numpy() == 2
    assert chosen.any()
    counted = missing_labels.epochs_selected(model, np.arange(len(labels)))
    np.testing.assert_array_equal(counted, chosen)
    path = tmp_path / "state.weights.h5"
    model.save_weights(path)
    np.testing.assert_array_equal(read_checkpoint(path, labels).epochs_selected, chosen)


def test_flips_are_kept_and_saved(tmp_path):
    model, data, _ = small_model("ll_cp", large_loss_rate=6.25)
    model.fit(data, epochs=2, verbose=0)
    before = model.labels.numpy() == 2
    path = str(tmp_path / "state.weights.h5")
    model.save_weights(path)
    other, _, _ = small_model("ll_cp", large_loss_rate=6.25)
    other.optimizer.build(other.trainable_variables)
    other.load_weights(path)
    np.testing.assert_array_equal(other.labels.numpy() == 2, before)
    other.fit(data, initial_epoch=2, epochs=3, verbose=0)
    after = other.labels.numpy() == 2
    assert before.sum() == 2 and after.sum() == 4 and after[before].all()


def test_role_trains_its_estimates_and_saves_them(tmp_path):
    model, data, labels = small_model("role+scl")
    start = model.label_estimates.values.numpy()
    np.testing.assert_allclose(start[labels == 1], math.log(0.995 / 0.005), rtol=1e-5)
    assert np.abs(start[labels == -1]).max() <= math.log(1.5) + 1e-6
    model.fit(data, epochs=1, verbose=0)
    moved = np.abs(model.label_estimates.values.numpy() - start)
    assert moved.min() > 0.05  # two steps of Adam at its own rate, 0.1
    path = str(tmp_path / "state.weights.h5")
    model.save_weights(path)
    other, _, _ = small_model("role+scl")
    other.optimizer.build(other.trainable_variables)
    other.load_weights(path)
    np.testing.assert_array_equal(
        other.label_estimates.values.numpy(), model.label_estimates.values.numpy()
    )


def test_config_round_trip():
    for name, option in (("em+scl", "entropy_weight"), ("ll_r+scl", "large_loss_rate")):
        model, _, _ = small_model(name, **{option: 0.7})
        config = SPMLModel.from_config(model.get_config()).get_config()
        assert (config[option], config["method"]) == (0.7, name)


def test_a_wrong_pick_of_splc_is_held_harder_than_by_the_authors_code():
    """What docs/method.md says of an unknown label at f = 0.62, marked, and at f = 0.59."""
    logits = np.log([[0.62 / 0.38, 0.59 / 0.41]])
    inputs = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = 2 * losses.hill(tf.constant([[2, -1]]), inputs)[0]
    np.testing.assert_allclose(tape.gradient(value, inputs), [[-0.53, 0.18]], atol=0.005)

    def theirs(x):  # focal terms, and no margin where the label was not given
        f = sigmoid(x)
        return -((1 - f[0, 0]) ** 2) * np.log(f[0, 0]) - f[0, 1] ** 2 * np.log(1 - f[0, 1])

    np.testing.assert_allclose(slope(theirs, logits), [[-0.14, 0.46]], atol=0.005)
