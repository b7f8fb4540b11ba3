"""Average precision by hand and against scikit-learn; the streaming metric against both."""

from __future__ import annotations

import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from spml_tf.evaluation import average_precision, score_store
from spml_tf.system.replicas import Shard

pytestmark = pytest.mark.usefixtures("without_determinism")


def test_by_hand():
    """Ranking + - + -: precisions at the positives 1/1 and 2/3, mean 5/6. With all four tied: one
    threshold, precision 2/4 where the unknown one counts as negative, 2/3 where it is left out."""
    labels = np.array([[1, 1], [0, 1], [1, 0], [0, -1]])
    scores = np.array([[0.9, 0.5], [0.8, 0.5], [0.7, 0.5], [0.1, 0.5]])
    for rule, tied in (("nothing", 2 / 3), ("negative", 0.5)):
        found = average_precision.average_precision(labels, scores, rule)
        np.testing.assert_allclose(found, [5 / 6, tied])
        mean = average_precision.mean_average_precision(labels, scores, unknown_counts_as=rule)
        assert mean == pytest.approx((5 / 6 + tied) / 2)


@settings(max_examples=60)
@given(
    st.integers(1, 60), st.integers(1, 5), st.integers(1, 12),
    st.sampled_from(["float16", "float32", "float64", "uint8"]), st.integers(0, 9999),
)  # fmt: skip
def test_equals_scikit_learn_ties_included(images, classes, levels, storage, seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, classes)) < 0.3).astype(int)
    scores = rng.integers(0, levels, (images, classes))
    scores = (scores if storage == "uint8" else scores / levels).astype(storage)
    found = average_precision.average_precision(labels, scores)
    for column in range(classes):
        if labels[:, column].any():
            expected = average_precision_score(labels[:, column], scores[:, column])
            assert abs(found[column] - expected) < 1e-9
        else:
            assert np.isnan(found[column])


def test_is_far_faster_than_scikit_learn():
    """Taking turns in one process: at least 3 times as fast, as a rule 10 times."""
    rng = np.random.default_rng(0)
    labels = (rng.random((20_000, 80)) < 0.04).astype(np.int8)
    scores = rng.random(labels.shape, np.float32)
    columns = list(zip(labels.T, scores.T, strict=True))
    own, others = [], []
    for _ in range(3):
        begin = time.perf_counter()
        found = average_precision.average_precision(labels, scores)
        middle = time.perf_counter()
        expected = [average_precision_score(*column) for column in columns]
        own.append(middle - begin)
        others.append(time.perf_counter() - middle)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert min(others) > 3 * min(own)


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(1, 4), st.integers(0, 9999))
def test_the_order_of_images_and_the_other_classes_do_not_matter(images, classes, seed):
    """Not even to the last bit, with many ties."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, classes)) < 0.3).astype(int)
    scores = rng.integers(0, 20, (images, classes)) / 20
    expected = average_precision.average_precision(labels, scores)
    order = rng.permutation(images)
    found = [
        average_precision.average_precision(labels[order, x : x + 1], scores[order, x : x + 1])[0]
        for x in range(classes)
    ]
    np.testing.assert_array_equal(found, expected)


def test_classes_without_positives():
    labels, scores = np.array([[1, 0], [0, 0]]), np.array([[0.9, 0.5], [0.1, 0.5]])
    assert average_precision.mean_average_precision(labels, scores) == 1.0
    assert average_precision.mean_average_precision(labels, scores, "zero") == 0.5
    assert np.isnan(average_precision.mean_average_precision(labels * 0, scores))


@settings(max_examples=15)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 999))
def test_streaming_equals_exact_for_any_batches(sizes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 0, -1], (sum(sizes), 3)).astype(np.int8)
    scores = rng.random(labels.shape).astype(np.float32)
    metric = average_precision.MeanAveragePrecision()
    for _ in range(2):
        metric.reset_state()
        start = 0
        for size in sizes:
            metric.update_state(labels[start : start + size], scores[start : start + size])
            start += size
        expected = average_precision.mean_average_precision(labels, scores)
        np.testing.assert_equal(float(metric.result()), expected)


def users_model(classes=3, **compiled):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(classes, activation="sigmoid")(inputs))
    model.compile(
        "sgd", "binary_crossentropy", metrics=[average_precision.MeanAveragePrecision()], **compiled
    )
    return model


def users_data(images=50, classes=3):
    rng = np.random.default_rng(0)
    labels = rng.random((images, classes)) < 0.4
    return rng.random((images, 4)).astype("float32"), labels.astype("float32")


@pytest.mark.parametrize(
    "compiled",
    [{}, {"run_eagerly": True}, {"jit_compile": True},
     {"jit_compile": True, "steps_per_execution": 3}, {"steps_per_execution": 3}],
    ids=str,
)  # fmt: skip
def test_in_a_users_keras_model(compiled):
    """compile, fit and evaluate report the exact value at the end of a pass."""
    x, y = users_data()
    model = users_model(**compiled)
    assert model.jit_compile is compiled.get("jit_compile", False)
    history = model.fit(x, y, batch_size=7, epochs=2, validation_data=(x, y), verbose=0).history
    expected = average_precision.mean_average_precision(y, model.predict(x, verbose=0))
    assert history["val_map"][-1] == pytest.approx(expected, abs=1e-12)
    assert all(0.0 < value < 1.0 for value in history["map"])
    found = model.evaluate(x, y, batch_size=11, return_dict=True, verbose=0)["map"]
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_compiled_training_reports_what_it_saw():
    """With a learning rate of 0 the scores of training batches are those of predict."""
    x, y = users_data()
    model = users_model(jit_compile=True)
    model.optimizer.learning_rate = 0.0
    history = model.fit(x, y, batch_size=7, epochs=2, verbose=0).history
    expected = average_precision.mean_average_precision(y, model.predict(x, verbose=0))
    np.testing.assert_allclose(history["map"], [expected, expected], atol=1e-12)


def test_single_batches_after_evaluate_with_jit():
    """test_on_batch uses the function that evaluate compiled; Keras resets the metrics first."""
    x, y = users_data()
    model = users_model(jit_compile=True)
    model.evaluate(x, y, batch_size=7, verbose=0)
    for begin in (0, 7, 14):
        few = slice(begin, begin + 7)
        model.test_on_batch(x[few], y[few])
        expected = average_precision.mean_average_precision(
            y[few], model.predict(x[few], verbose=0)
        )
        assert float(model.get_metrics_result()["map"]) == pytest.approx(expected, abs=1e-12)


def test_jit_under_a_strategy_of_one_device():
    x, y = users_data()
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = users_model(jit_compile=True)
    found = model.evaluate(x, y, batch_size=11, return_dict=True, verbose=0)["map"]
    expected = average_precision.mean_average_precision(y, model.predict(x, verbose=0))
    assert float(found) == pytest.approx(expected, abs=1e-12)


class TestCompiledFunctions:
    """A tf.function of the user's own with jit_compile=True."""

    def test_several_updates_in_one_call(self):
        """In a loop and after it; the last batch is a part of one."""
        x, y = users_data(images=8)
        metric = average_precision.MeanAveragePrecision()

        @tf.function(jit_compile=True)
        def three_and_a_half(labels, scores):
            for _ in tf.range(3):
                metric.update_state(labels, scores)
            metric.update_state(labels[:4], scores[:4])

        for _ in range(2):
            three_and_a_half(y, x[:, :3])
        metric.update_state(y[:1], x[:1, :3])  # eagerly, in between
        order = np.r_[[*range(8)] * 3, 0:4, [*range(8)] * 3, 0:4, 0:1]
        expected = average_precision.mean_average_precision(y[order], x[order, :3])
        assert float(metric.result()) == pytest.approx(expected, abs=1e-12)

    def test_a_batch_of_known_size_may_be_of_any_size(self):
        labels = np.arange(5000)[:, None] % 2 * np.ones((1, 400), np.int64)
        scores = np.random.default_rng(0).random(labels.shape).astype(np.float32)
        metric = average_precision.MeanAveragePrecision()
        tf.function(metric.update_state, jit_compile=True)(labels, scores)
        expected = average_precision.mean_average_precision(labels, scores)
        assert float(metric.result()) == pytest.approx(expected, abs=1e-12)

    def test_what_cannot_be_had_is_said(self):
        metric = average_precision.MeanAveragePrecision()
        with pytest.raises(ValueError, match="reset_state .* call it before that function"):
            tf.function(metric.reset_state, jit_compile=True)()
        for shape, size, error, message in (
            ([None, None], 1, ValueError, "number of classes must be known"),
            ([None, 2000], 1025, tf.errors.InvalidArgumentError, "use smaller batches"),
        ):
            spec = tf.TensorSpec(shape)
            update = tf.function(
                metric.update_state, input_signature=[spec, spec], jit_compile=True
            )
            with pytest.raises(error, match=message):
                update(tf.zeros([size, 2000]), tf.zeros([size, 2000]))
                metric.result()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_memory(jit_compile):
    """5 bytes an entry when the buffers are full, at most 10 after they have doubled."""
    store = score_store.ScoreStore()
    append = tf.function(store.append, jit_compile=jit_compile)
    for number in range(1, 40):
        append(tf.zeros([64, 7], tf.int8), tf.zeros([64, 7]))
        assert len(store.contents()[0]) == 64 * number
        kept = sum(rows.numpy().nbytes for rows in (store._labels, store._scores))
        assert 5 * 7 * 64 * number <= kept <= 10 * 7 * 64 * number


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_worker_without_a_row_knows_the_classes(jit_compile):
    """Else it would wait for no class while the others wait for it at each."""
    metric = average_precision.MeanAveragePrecision("zero")
    none = np.zeros((0, 3), np.float32)
    tf.function(metric.update_state, jit_compile=jit_compile)(none, none)
    assert np.isnan(metric.result())
    rows = metric.rows()
    assert [part.shape for part in rows] == [(0, 3), (0, 3)]
    again = average_precision.MeanAveragePrecision()
    again.add_rows(*rows)
    assert again.rows()[0].shape == (0, 3)
    calls = []

    def total(own):  # of a worker that alone has images
        calls.append(own.shape)
        return own + (np.array([0, 2]) if own.ndim == 1 else 0)

    average_precision.average_precision_of_workers(*rows, Shard(0, 2), total)
    assert calls == [(2,), (2, 2, 3)]
    again.update_state([[1, 0, 1]], [[0.5, 0.5, 0.5]])
    assert float(again.result()) == 1.0


def test_config_survives():
    metric = average_precision.MeanAveragePrecision("zero", name="m")
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert (again.absent_classes, again.name) == ("zero", "m")


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="one \\[N, L\\]"):
        average_precision.average_precision(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="diverged"):
        average_precision.average_precision(np.zeros((1, 1)), np.array([[np.nan]]))
    with pytest.raises(ValueError, match="skip"):
        average_precision.MeanAveragePrecision("none")
    with pytest.raises(ValueError, match="sample weights.*metrics=.*not weighted_metrics="):
        average_precision.MeanAveragePrecision().update_state([[1]], [[0.5]], sample_weight=[1])
