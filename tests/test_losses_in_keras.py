"""The losses as any Keras model uses them: compile, weights, saving, and what they refuse."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from spml_tf import losses

OPTIONS = {
    "ExpectedPositiveRegularization": {"positives_per_image": 1.5},
    "EntropyMaximization": {"entropy_weight": 0.3},
}
CLASSES = [
    name
    for name in losses.__all__
    if isinstance(getattr(losses, name), type) and name != "LabelLoss"
]
LABELS = np.array([[1, 0, -1, 2], [-1, 1, -1, -1], [0, -1, 2, 1]], np.int8)
INPUTS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
LOGITS = np.random.default_rng(1).normal(0, 2, (3, 4)).astype(np.float32)
IMAGE_WEIGHTS = np.array([0.5, 2.0, 0.0], np.float32)
LABEL_WEIGHTS = np.random.default_rng(2).uniform(0, 2, (3, 4)).astype(np.float32)


def made(kind: str, **others: object) -> losses.LabelLoss:
    return getattr(losses, kind)(**{"from_logits": True, **OPTIONS.get(kind, {}), **others})


def per_image(name: str, logits: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The function itself, [B]."""
    loss = made(name)
    factors = None if weights is None else tf.constant(weights)
    found = loss.function(tf.constant(LABELS), logits, **loss.options(), weights=factors)
    return found.numpy()


def network(activation: str | None = None) -> keras.Model:
    inputs = keras.Input((5,))
    start = keras.initializers.RandomNormal(stddev=0.5, seed=3)
    outputs = keras.layers.Dense(4, activation, kernel_initializer=start)(inputs)
    return keras.Model(inputs, outputs)


def trained(loss: keras.losses.Loss, activation: str | None = None, **fit: object):
    """The loss that `fit` reports of one step, and the kernel after it."""
    model = network(activation)
    model.compile(keras.optimizers.SGD(0.1), loss)
    history = model.fit(INPUTS, LABELS, batch_size=3, shuffle=False, verbose=0, **fit).history
    return history["loss"][0], model.get_weights()[0]


def test_all_losses_are_here():
    assert len(CLASSES) == 12 and set(OPTIONS) < set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_logits_and_a_sigmoid_train_alike(name):
    """The reported loss is the function's mean, and one step of SGD moves both kernels alike."""
    value, kernel = trained(made(name))
    expected = per_image(name, network().predict(INPUTS, verbose=0)).mean()
    assert value == pytest.approx(expected, abs=1e-5)
    value_of_scores, kernel_of_scores = trained(made(name, from_logits=False), "sigmoid")
    assert value_of_scores == pytest.approx(value, abs=1e-5)
    np.testing.assert_allclose(kernel_of_scores, kernel, atol=1e-5)
    assert (kernel != network().get_weights()[0]).any()


@pytest.mark.parametrize("name", CLASSES)
def test_sample_weights_in_fit(name):
    """Of images, [B] or [B, 1], and of single labels, [B, L]."""
    logits = network().predict(INPUTS, verbose=0)
    by_image = (per_image(name, logits) * IMAGE_WEIGHTS).mean()
    for weights in (IMAGE_WEIGHTS, IMAGE_WEIGHTS[:, None]):
        value, _ = trained(made(name), sample_weight=weights)
        assert value == pytest.approx(by_image, abs=1e-5)
    value, _ = trained(made(name), sample_weight=LABEL_WEIGHTS)
    by_label = per_image(name, logits, LABEL_WEIGHTS).mean()
    assert value == pytest.approx(by_label, abs=1e-5)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_equal_weights_of_an_images_labels_are_its_weight(name, reduction):
    loss = made(name, reduction=reduction)
    rows = np.repeat(IMAGE_WEIGHTS[:, None], 4, axis=1)
    expected = float(loss(LABELS, LOGITS, IMAGE_WEIGHTS))
    assert float(loss(LABELS, LOGITS, rows)) == pytest.approx(expected, rel=1e-5)


def test_weights_by_hand():
    """Logits 0 give ln 2 a label: (0.5 + 1 + 0 + 2) ln 2 / 4, and the mean of that and 0."""
    weights = np.array([[0.5, 1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    labels, zeros = np.array([[1, -1, 0, 2], [1, 1, 1, 1]]), np.zeros((2, 4))
    loss = losses.AssumeNegative(from_logits=True)
    assert float(loss(labels, zeros, weights)) == pytest.approx(3.5 * np.log(2) / 4 / 2)
    none = losses.AssumeNegative(from_logits=True, reduction=None)
    np.testing.assert_allclose(none(labels, zeros, weights), [3.5 * np.log(2) / 4, 0.0], rtol=1e-6)


def test_class_weights_in_fit():
    """As Keras defines them: an image weighs what its first positive class does."""
    labels = np.array([[1, -1, -1, -1], [-1, -1, 1, -1], [-1, 1, -1, -1]], np.int8)
    model = network()
    logits = model.predict(INPUTS, verbose=0)
    model.compile("sgd", losses.AssumeNegative(from_logits=True))
    history = model.fit(
        INPUTS, labels, batch_size=3, class_weight={0: 3.0, 1: 0.0, 2: 0.5}, verbose=0
    ).history
    values = losses.assume_negative(tf.constant(labels), logits).numpy()
    assert history["loss"][0] == pytest.approx((values * [3.0, 0.5, 0.0]).mean(), abs=1e-5)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float32, np.float64, bool])
@pytest.mark.parametrize("name", CLASSES)
def test_labels_of_any_type(name, dtype):
    labels = np.array([[1, 0, 1, 0]])
    logits = LOGITS[:1]
    expected = float(made(name)(labels, logits))
    assert float(made(name)(labels.astype(dtype), logits)) == expected
    assert float(made(name)(labels.astype(dtype).tolist(), logits)) == expected


def test_probabilities_are_clipped():
    """-log of epsilon, 1e-7, and -log(1 - 1e-7) = 1e-7."""
    loss = losses.AssumeNegative()
    assert float(loss([[1, 0]], [[0.0, 1.0]])) == pytest.approx(-np.log(1e-7), rel=1e-2)
    assert float(loss([[1, 0]], [[1.0, 0.0]])) == pytest.approx(1e-7, rel=0.3)


@pytest.mark.parametrize("name", CLASSES)
def test_serialisation(name):
    """By config, and as JSON through Keras; the copy computes the same."""
    loss = made(name, name="own", reduction="sum")
    for copy in (
        type(loss).from_config(loss.get_config()),
        keras.losses.deserialize(keras.losses.serialize(loss)),
        keras.saving.deserialize_keras_object(
            json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
        ),
    ):
        assert type(copy) is type(loss) and copy.get_config() == loss.get_config()
        assert copy.from_logits and copy.name == "own" and copy.dtype == "float32"
        assert float(copy(LABELS, LOGITS)) == float(loss(LABELS, LOGITS))
    assert made(name).name and not getattr(losses, name)(**OPTIONS.get(name, {})).from_logits


LOADS = """
import sys
import keras
import numpy as np
from spml_tf import losses
for name in losses.__all__:
    getattr(losses, name)
arrays = np.load(sys.argv[1] + "/data.npz")
for path in sys.argv[2:]:
    model = keras.saving.load_model(f"{sys.argv[1]}/{path}.keras")
    print(path, type(model.loss).__name__, model.evaluate(*arrays.values(), verbose=0))
"""


def test_compiled_models_load_in_a_fresh_process(tmp_path):
    np.savez(tmp_path / "data.npz", INPUTS, LABELS)
    expected = {}
    for name in CLASSES:
        model = network()
        model.compile("sgd", made(name))
        expected[name] = model.evaluate(INPUTS, LABELS, verbose=0)
        model.save(tmp_path / f"{name}.keras")
    words = [sys.executable, "-c", LOADS, str(tmp_path), *CLASSES]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [[name, name] for name in CLASSES]
    for name, _, value in lines:
        assert float(value) == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_what_cannot_be_meant_is_refused(name):
    loss, of_scores = made(name), made(name, from_logits=False)
    for labels, found in (([[1, 3]], "3"), ([[0.7, 0]], "0.7"), ([[1, -2]], "-2")):
        with pytest.raises(ValueError, match=f"{name}: y_true holds {found};.*make the unsure"):
            loss(labels, [[0.0, 0.0]])
    for scores, found in (([[0.5, 1.5]], "1.5"), ([[-3.0, 0.5]], "-3")):
        with pytest.raises(ValueError, match=f"{name}: y_pred holds {found},.*from_logits=True"):
            of_scores([[1, 0]], scores)
        assert np.isfinite(loss([[1, 0]], scores))
    with pytest.raises(ValueError, match=r"y_true has the shape \(1, 2\) and y_pred \(1, 3\)"):
        loss([[1, 0]], [[0.5, 0.5, 0.5]])
    with pytest.raises(ValueError, match=r"sample_weight has the shape \(1, 3\)"):
        loss([[1, 0]], [[0.5, 0.5]], [[1.0, 1.0, 1.0]])
    with pytest.raises(TypeError, match=f"{name} takes no argument 'alpha'"):
        made(name, alpha=1)


def test_a_function_without_weights_says_so():
    class Plain(losses.LabelLoss):
        @staticmethod
        def function(labels, logits):
            return tf.reduce_mean(tf.nn.softplus(logits) * (1 - labels), axis=-1)

    loss = Plain(from_logits=True)
    assert float(loss([[0, 1]], [[0.0, 0.0]], [4.0])) == pytest.approx(2 * np.log(2))
    with pytest.raises(ValueError, match="needs a function that takes weights=None"):
        loss([[0, 1]], [[0.0, 0.0]], [[1.0, 2.0]])


def test_a_function_of_one_number_says_so():
    class Single(losses.LabelLoss):
        @staticmethod
        def function(labels, logits, weights=None):
            return tf.reduce_mean(tf.nn.softplus(logits))

    with pytest.raises(ValueError, match=r"Single: its function returns one number .*image, \[B\]"):
        Single(from_logits=True)([[0, 1]], [[0.0, 0.0]])


def test_a_graph_checks_no_values():
    """Traced with other operations than an eager call's check: none that looks at values."""
    loss = losses.AssumeNegative(from_logits=True)
    graph = tf.function(loss).get_concrete_function(
        tf.TensorSpec([None, 4], tf.int8), tf.TensorSpec([None, 4])
    )
    kinds = {x.type for x in graph.graph.get_operations()}
    assert "Softplus" in kinds and not kinds & {"Assert", "All", "Any", "EagerPyFunc", "PyFunc"}


def test_options_are_checked():
    with pytest.raises(ValueError, match="positives_per_image is missing: K: mean number"):
        losses.ExpectedPositiveRegularization()
    with pytest.raises(ValueError, match="positives_per_image=0: must be from 1e-06 to 1e"):
        losses.ExpectedPositiveRegularization(positives_per_image=0)
    with pytest.raises(ValueError, match="entropy_weight=-1: must be from 0 to 1000"):
        losses.EntropyMaximization(entropy_weight=-1)
    assert losses.EntropyMaximization().options() == {"entropy_weight": 0.1}
    assert losses.EntropyMaximization.flags() == {"entropy_weight": "entropy_weight"}
    assert losses.AssumeNegative.flags() == {}


def test_options_need_no_tensorflow():
    code = (
        "import sys, spml_tf.losses as x, spml_tf.losses.options as y; dir(x); "
        "print(y.EntropyMaximizationOptions.flags(), {'keras', 'tensorflow'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "{'entropy_weight': 'entropy_weight'} set()\n", done.stderr


def test_names_and_files_agree():
    """What type checkers see is what runs; and no file hides the function of its name."""
    folder = Path(losses.__file__).parent
    tree = ast.parse(Path(losses.__file__).read_text())
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spml_tf.losses.")
        for alias in node.names
    }
    assert set(seen) == set(losses.__all__) == set(dir(losses))
    for name, module in seen.items():
        assert getattr(losses, name).__module__ == module
    assert not {path.stem for path in folder.glob("*.py")} & set(losses.__all__)
    with pytest.raises(AttributeError, match="no attribute 'focal_loss'"):
        _ = losses.focal_loss
