"""What `compile` and `fit` promise, kept or refused: the rows of docs/keras_features.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_network

import spml_tf
from spml_tf import losses, networks
from spml_tf.training import replica_batches, terms
from spml_tf.training.mixed_views import Mixup
from spml_tf.training.scheduled_terms import GeneralizedRobustTerm

pytestmark = pytest.mark.usefixtures("without_determinism")

N, L, SIZE = 8, 3, 8
PAGE = Path(__file__).parent.parent / "docs" / "keras_features.md"
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 255, (N, SIZE, SIZE, 3)).astype(np.float32)
LABELS = np.where(np.arange(L) == np.arange(N)[:, None] % L, 1, -1).astype(np.int8)


def network(**head) -> keras.Model:
    """A CAM network of one convolution, always with the same weights."""
    keras.utils.set_random_seed(1)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Conv2D(16, 3, 4, "same", activation="relu", **head)(
        keras.layers.Rescaling(1 / 255)(image)
    )
    return networks.cam_from_backbone(keras.Model(image, x), L)


def model(method: object = "an", own: keras.Model | None = None, **options) -> spml_tf.SPMLModel:
    k = 1.5 if isinstance(method, str) and method.startswith(("en", "ep", "role")) else None
    return spml_tf.SPMLModel(own or network(), N, method, k, **options)


def x() -> dict[str, np.ndarray]:
    return {"image": IMAGES, "index": np.arange(N)}


def dataset(*weights: np.ndarray, batch: int = 4) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x(), LABELS, *weights)).batch(batch)


def compiled(
    method: object = "an", options: dict | None = None, own: keras.Model | None = None, **arguments
) -> spml_tf.SPMLModel:
    found = model(method, own, **(options or {}))
    found.compile(**{"optimizer": keras.optimizers.SGD(0.05), **arguments})
    return found


def kernels(of: keras.Model) -> list[np.ndarray]:
    return [weight.numpy() for weight in of.trainable_variables]


def same(one: keras.Model, other: keras.Model, tolerance: float = 1e-6) -> bool:
    pairs = zip(kernels(one), kernels(other), strict=True)
    return all(np.allclose(a, b, atol=tolerance) for a, b in pairs)


def cross_entropies(of: spml_tf.SPMLModel) -> np.ndarray:
    """AN's terms of all labels, [N, L], by NumPy."""
    f = of.predict(IMAGES, verbose=0).astype(np.float64)
    return np.where(LABELS == 1, -np.log(f), -np.log(1 - f))


def first_loss(of: spml_tf.SPMLModel, *weights, **arguments) -> dict[str, float]:
    """What the logs say of one batch of all images, of weights as they are before it."""
    history = of.fit(dataset(*weights, batch=N), epochs=1, verbose=0, **arguments).history
    return {name: values[0] for name, values in history.items()}


def test_sample_weight_per_image():
    weight = np.linspace(0, 2, N)
    found = compiled()
    expected = (cross_entropies(found) * weight[:, None]).mean()
    logs = first_loss(found, weight)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    assert logs["classification_loss"] == pytest.approx(expected, rel=1e-5)
    still = compiled()
    before = kernels(still)
    assert first_loss(still, np.zeros(N))["loss"] == 0
    assert all((a == b).all() for a, b in zip(before, kernels(still), strict=True))


def test_sample_weight_per_label():
    weight = RNG.uniform(0, 2, (N, L))
    found = compiled()
    expected = (cross_entropies(found) * weight).mean()
    assert first_loss(found, weight)["loss"] == pytest.approx(expected, rel=1e-5)


def test_sample_weight_of_consistency():
    """All-zero weights of the second epoch leave nothing of CL and SCL; halves leave half."""
    for method in ("an+cl", "an+scl"):
        values = []
        for factor in (1.0, 0.5, 0.0):
            found = compiled(method, {"consistency_start_epoch": 1})
            found.fit(dataset(batch=N), epochs=1, verbose=0)
            found.fit(dataset(np.full(N, factor), batch=N), initial_epoch=1, epochs=2, verbose=0)
            values.append(found.history.history["consistency_loss"][0])
        assert values[0] > 1e-4 and values[2] == 0
        assert values[1] == pytest.approx(values[0] / 2, rel=1e-4)


def test_sample_weight_of_validation_data():
    weight = np.linspace(0, 2, N)
    found = compiled()
    expected = (cross_entropies(found) * weight[:, None]).mean()
    logs = found.evaluate(IMAGES, LABELS, sample_weight=weight, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_class_weight():
    """A factor for each class, in all images; Keras itself would take y for one-hot rows."""
    found = compiled()
    expected = (cross_entropies(found) * [1.0, 3.0, 0.0]).mean()
    logs = first_loss(found, class_weight={1: 3.0, 2: 0.0})
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="classes 0 to 2"):
        first_loss(found, class_weight={3: 1.0})
    expected = cross_entropies(found).mean()  # and without it again
    assert first_loss(found)["loss"] == pytest.approx(expected, rel=1e-5)


def test_weighted_metrics():
    weight = np.zeros(N)
    weight[:2] = 1
    found = compiled(weighted_metrics=[keras.metrics.BinaryAccuracy()])
    f = found.predict(IMAGES, verbose=0)
    right = (f[:2] > 0.5) == (LABELS[:2] == 1)
    assert first_loss(found, weight)["binary_accuracy"] == pytest.approx(right.mean())


def test_mean_average_precision_refuses_weights():
    found = compiled(weighted_metrics=[spml_tf.MeanAveragePrecision()])
    with pytest.raises(ValueError, match="MeanAveragePrecision takes no sample weights"):
        first_loss(found, np.ones(N))


def test_compile_with_a_loss():
    named, given = compiled("hill"), compiled("an", loss=losses.Hill())
    assert first_loss(given)["loss"] == pytest.approx(first_loss(named)["loss"], rel=1e-6)
    assert same(named, given)
    for wrong in ("binary_crossentropy", keras.losses.BinaryCrossentropy(), [losses.Hill()]):
        with pytest.raises(ValueError, match="takes a loss of spml_tf.losses"):
            compiled("an", loss=wrong)
    with pytest.raises(ValueError, match="'role' has a loss of its own kind"):
        compiled("role", loss=losses.Hill())


def test_compile_without_a_loss_puts_the_methods_back():
    found = compiled("an", loss=losses.Hill())
    found.compile(keras.optimizers.SGD(0.05))
    assert first_loss(found)["loss"] == pytest.approx(first_loss(compiled("an"))["loss"])


def test_compile_with_loss_weights_is_refused():
    with pytest.raises(ValueError, match="loss_weights: SPMLModel's terms have weights"):
        compiled(loss_weights=[2.0])


def test_a_loss_as_method():
    given = compiled(losses.AssumeNegative())
    assert first_loss(given)["loss"] == pytest.approx(first_loss(compiled("an"))["loss"])


def test_keras_own_losses_are_refused():
    with pytest.raises(ValueError, match=r"BinaryCrossentropy would compute with -1 \(unknown\)"):
        model(keras.losses.BinaryCrossentropy())


def test_a_recipe_serves_one_model():
    """What its parts remember is of one model's images."""
    recipe = spml_tf.training.Recipe((losses.Hill(), spml_tf.training.SpatialConsistency()))
    model(recipe)
    with pytest.raises(ValueError, match="is a part of a model already"):
        spml_tf.SPMLModel(network(), N + 1, recipe)
    failing = spml_tf.training.Recipe((losses.Hill(), spml_tf.training.SpatialConsistency()))
    for message in ("give heatmap_size", "or of one that could not be made; give .* new parts"):
        with pytest.raises(ValueError, match=message):
            spml_tf.SPMLModel(tiny_network.tiny_cam(L), N, failing)


def test_options_of_another_type_are_refused():
    for options, reason in (
        ({"freeze_batch_norm": "False"}, "freeze_batch_norm='False': must be True or False"),
        ({"warmup_epochs": 2.5}, "warmup_epochs=2.5: must be a whole number"),
        ({"heatmap_classes": True}, "heatmap_classes=True: must be a whole number"),
        ({"consistency_weight": "1"}, "weight='1': must be a number"),
    ):
        with pytest.raises(ValueError, match=reason):
            model("an+scl", **options)
    for number in (0, 2.5, "8"):
        with pytest.raises(ValueError, match="num_images must be a whole number from 1"):
            spml_tf.SPMLModel(network(), number, "an")


def test_numbers_of_numpy_are_numbers():
    budget = np.array([0.25, 0.5, 0.5], np.float32)
    found = spml_tf.SPMLModel(
        network(), np.int64(N), "en", np.float32(1.5), selection_budget=budget
    )
    config = json.loads(json.dumps(found.get_config()))
    for _ in range(2):  # reading it leaves it as it is
        read = spml_tf.SPMLModel.from_config(config)
        assert read.rules[0].options() == found.rules[0].options()
    assert found.rules[0].options()["budget"] == [0.25, 0.5, 0.5]
    assert found.rules[0].positives_per_image == 1.5 and read.num_images == N


def test_kernel_regularizer():
    values = []
    for rate in (0.0, 100.0):
        own = model(own=network(kernel_regularizer=keras.regularizers.L2(rate)))
        own.compile(keras.optimizers.SGD(0.0))
        squares = sum((x**2).sum() for x in kernels(own) if x.shape[:2] == (3, 3))
        values.append(first_loss(own)["loss"] - rate * squares)
        seen = own.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)["loss"] - rate * squares
        assert seen == pytest.approx(values[-1], rel=1e-2, abs=1e-2)
    assert values[1] == pytest.approx(values[0], rel=1e-2, abs=1e-2) and squares > 1


@keras.saving.register_keras_serializable("test_keras_contract")
class Activity(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(7.0 * keras.ops.mean(keras.ops.ones_like(inputs)))
        return inputs


def test_add_loss():
    image = keras.Input((SIZE, SIZE, 3))
    features = Activity()(keras.layers.Conv2D(16, 3, 4, "same")(image))
    own = model(own=networks.cam_from_backbone(keras.Model(image, features), L))
    own.compile(keras.optimizers.SGD(0.0))
    logs = first_loss(own)
    assert logs["loss"] - logs["classification_loss"] == pytest.approx(7.0, rel=1e-5)


class MeanOfInput(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(tf.reduce_mean(inputs) / 1000)
        return inputs


@pytest.mark.parametrize("method", ["an", "ignore", "lagc", "an+mixup"])
def test_add_loss_is_that_of_the_batch(method):
    """Parts that look at other images, masked or mixed, leave no trace in it."""
    image = keras.Input((SIZE, SIZE, 3))
    features = keras.layers.Conv2D(16, 3, 4, "same")(MeanOfInput()(image))
    own = model(method, own=networks.cam_from_backbone(keras.Model(image, features), L))
    own.compile(keras.optimizers.SGD(0.0))
    logs = first_loss(own)
    terms = sum(value for name, value in logs.items() if name != "loss")
    assert logs["loss"] - terms == pytest.approx(IMAGES.mean() / 1000, rel=1e-4)


class PerImage(keras.losses.Loss):
    """A loss of one's own as Keras has them: -log f at positives, a value an image."""

    def call(self, y_true, y_pred):
        terms = tf.where(y_true == 1, tf.nn.softplus(-y_pred), 0.0)
        return tf.reduce_mean(terms, axis=-1)


class PerLabel(PerImage):
    def call(self, y_true, y_pred):
        return tf.where(y_true == 1, tf.nn.softplus(-y_pred), 0.0)


@pytest.mark.parametrize("own_loss", [PerImage, PerLabel])
def test_own_losses_with_weights_of_images(own_loss):
    weight = np.linspace(0, 2, N)
    found = compiled(own_loss())
    terms = np.where(LABELS == 1, cross_entropies(found), 0)
    logs = first_loss(found, weight)
    assert logs["loss"] == pytest.approx((terms * weight[:, None]).mean(), rel=1e-5)


def test_own_losses_with_weights_of_labels():
    """One that gives a value a label takes them; one that gives a value an image says why not."""
    weight = RNG.uniform(0, 2, (N, L))
    found = compiled(PerLabel())
    terms = np.where(LABELS == 1, cross_entropies(found), 0)
    assert first_loss(found, weight)["loss"] == pytest.approx((terms * weight).mean(), rel=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="PerImage gives one value an image"):
        first_loss(compiled(PerImage()), weight)


def test_losses_and_terms_of_several_numbers_are_refused():
    with pytest.raises(ValueError, match="AssumeNegative with reduction=None gives no single"):
        model(losses.AssumeNegative(reduction=None))

    class OfImages(spml_tf.training.Term):
        def compute(self, step):
            return tf.reduce_mean(step.scores, axis=1)

    found = compiled(spml_tf.training.Recipe((losses.AssumeNegative(), OfImages())))
    with pytest.raises(ValueError, match=r"of_images\S*: compute must return one number"):
        first_loss(found)


def test_losses_that_do_not_look_at_marks_are_refused():
    """By name, as `en+an`, they are too."""
    with pytest.raises(ValueError, match="AssumeNegative does not look at what the rules mark"):
        compiled("en", loss=losses.AssumeNegative())
    selection = spml_tf.training.ExpectedPositives(positives_per_image=1.5)
    with pytest.raises(ValueError, match="KnownBinaryCrossentropy does not look at what"):
        spml_tf.training.Recipe((losses.KnownBinaryCrossentropy(),), (selection,))
    compiled("en", loss=losses.ExpectedPositive())


def test_rules_before_a_term_that_does_not_look_at_marks_are_refused():
    """ROLE reads labels, not marks: a rule would change nothing."""
    selection = spml_tf.training.ExpectedPositives(positives_per_image=1.5)
    with pytest.raises(ValueError, match="Role does not look at what the rules mark; leave the"):
        spml_tf.training.Recipe((terms.Role(positives_per_image=1.5),), (selection,))
    spml_tf.training.Recipe((GeneralizedRobustTerm(),), (selection,))


class Margin(keras.losses.Loss):
    """A loss of one's own in floats, without get_config: (1 - y) softplus(f) for y from 0."""

    def __init__(self, from_logits=False):
        super().__init__()
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        logits = y_pred if self.from_logits else tf.math.log(y_pred / (1 - y_pred))
        return (1.0 - tf.maximum(y_true, 0.0)) * tf.math.softplus(logits)


def test_a_loss_of_ones_own_sees_the_same_with_and_without_weights():
    """Logits, and labels in floats."""
    found, weighed = compiled(Margin()), compiled(Margin())
    f = found.predict(IMAGES, verbose=0).astype(np.float64)
    expected = np.where(LABELS == 1, 0, -np.log(1 - f)).mean()
    assert first_loss(found)["loss"] == pytest.approx(expected, rel=1e-5)
    assert first_loss(weighed, np.full(N, 2.0))["loss"] == pytest.approx(2 * expected, rel=1e-5)


class Early(terms.Term):
    """Cannot be computed before the score bank has seen the images: the logarithm of 0."""

    needs_scores = True
    reported_as = "early"

    def compute(self, step):
        return -tf.reduce_mean(tf.math.log(step.average) * step.scores)


def test_a_term_does_nothing_before_its_epoch():
    recipe = spml_tf.training.Recipe((losses.AssumeNegative(), Early(start_epoch=2)))
    history = compiled(recipe).fit(dataset(batch=N), epochs=2, verbose=0).history
    assert history["early_loss"][0] == 0 < history["early_loss"][1]
    assert history["loss"][1] > history["classification_loss"][1]
    plain = compiled("an")
    plain.fit(dataset(batch=N), epochs=2, verbose=0)
    for late in ({"mixup_start_epoch": 3}, {"mixup_weight": 0.0}):
        found = compiled("an+mixup", {**late})
        found.fit(dataset(batch=N), epochs=2, verbose=0)
        assert all((a == b).all() for a, b in zip(kernels(found), kernels(plain), strict=True))
        assert found.history.history["mixup_loss"] == [0, 0]


def test_a_view_that_does_not_count_leaves_batch_normalisation_alone():
    found = [
        compiled(method, options, own=tiny_network.tiny_cam(L, image_size=SIZE))
        for method, options in (("an", {}), ("an+mixup", {"mixup_start_epoch": 3}))
    ]
    for one in found:
        keras.utils.set_random_seed(2)
        for weight in one.network.weights:
            weight.assign(np.random.default_rng(weight.shape.rank).normal(size=weight.shape))
        one.fit(dataset(batch=N), epochs=2, verbose=0)
    pairs = zip(found[0].network.weights, found[1].network.weights, strict=True)
    assert all((a.numpy() == b.numpy()).all() for a, b in pairs)


def test_mixed_views_with_a_mean_over_weights_are_refused():
    loss = losses.AssumeNegative(reduction="mean_with_sample_weight")
    with pytest.raises(ValueError, match="Mixup weighs images by shares, which a loss with"):
        spml_tf.training.Recipe((loss, Mixup()))
    for method, term in (("an+mixup", "Mixup"), ("an+cutmix", "CutMix")):
        with pytest.raises(ValueError, match=f"{term} weighs images by shares, which a loss with"):
            compiled(method, loss=loss)


def test_methods_that_training_does_not_ask_are_refused():
    for name in ("compute_loss", "call"):
        with pytest.raises(TypeError, match=rf"Mine\.{name}: training does not ask it"):
            type("Mine", (spml_tf.SPMLModel,), {name: lambda self, *given, **more: None})


def test_layers_that_are_frozen_between_fits_stay_so(tmp_path):
    """And are thawed for good; a saved model knows it."""
    found = compiled(options={"warmup_epochs": 1})
    found.fit(dataset(), epochs=2, verbose=0)
    layer = next(x for x in found.network.layers if isinstance(x, keras.layers.Conv2D))
    for trainable in (False, True):
        layer.trainable = trainable
        found.compile(keras.optimizers.SGD(0.05))
        before = layer.kernel.numpy()
        found.fit(dataset(), epochs=2, verbose=0)
        assert layer.trainable == trainable
        assert (before != layer.kernel.numpy()).any() == trainable
        found.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.network.get_layer(layer.name).trainable == trainable


def test_a_layer_that_was_frozen_before_can_be_thawed():
    own = network(trainable=False)
    layer = next(x for x in own.layers if isinstance(x, keras.layers.Conv2D))
    found = model(own=own, warmup_epochs=1)
    layer.trainable = True
    found.compile(keras.optimizers.SGD(0.05))
    before = layer.kernel.numpy()
    found.fit(dataset(), epochs=1, verbose=0)
    assert layer.trainable and (before == layer.kernel.numpy()).all()
    found.fit(dataset(), initial_epoch=1, epochs=2, verbose=0)
    assert layer.trainable and (before != layer.kernel.numpy()).any()


def test_averages_of_weights_after_a_fit_that_ends_in_warm_up():
    """Keras gives each weight its own average, the backbone's those of what never moved."""
    found = compiled(
        options={"warmup_epochs": 3}, optimizer=keras.optimizers.SGD(0.05, use_ema=True)
    )
    layer = next(x for x in found.network.layers if isinstance(x, keras.layers.Conv2D))
    before = layer.kernel.numpy()
    head = found.network.get_layer("cam_logits").kernel.numpy()
    found.fit(dataset(), epochs=2, verbose=0)
    np.testing.assert_allclose(layer.kernel.numpy(), before, rtol=1e-6)
    assert (found.network.get_layer("cam_logits").kernel.numpy() != head).any()
    assert layer.trainable


def test_consistency_needs_a_grid():
    own = tiny_network.tiny_cam(L)
    with pytest.raises(ValueError, match="takes images of any size.*give heatmap_size"):
        model("an+scl", own)
    given = spml_tf.SPMLModel(own, N, "an+scl", heatmap_size=2)
    assert given.ema_heatmaps.values.shape == (N, 2, 2, L)


def test_what_comes_too_early_or_lacks_is_said_in_a_sentence():
    found = model()
    with pytest.raises(ValueError, match=r"call `compile\(\)` before an epoch begins"):
        found.train_on_batch(x(), LABELS)
    found.compile(keras.optimizers.SGD(0.05))
    with pytest.raises(ValueError, match="evaluation needs labels: give images with them"):
        found.evaluate(IMAGES, verbose=0)
    with pytest.raises(ValueError, match="evaluation needs validation labels"):
        found.fit(dataset(), validation_data=IMAGES, verbose=0)
    with pytest.raises(ValueError, match=r"flip must be of shape \[8\], whether each crop"):
        found.fit({**x(), "flip": np.zeros((N, 1), bool)}, LABELS, verbose=0)
    auto = spml_tf.SPMLModel(network(), N, "en", "auto")
    auto.compile(keras.optimizers.SGD(0.05))
    with pytest.raises(ValueError, match="no label is positive.*cannot estimate how many"):
        auto.fit(x(), np.full((N, L), -1), verbose=0)


def test_boolean_labels():
    """True for positives: what lacks is a known negative."""
    marks = LABELS == 1
    found, other = compiled("bce"), compiled("bce")
    found.fit(x(), marks, epochs=2, verbose=0, validation_data=(IMAGES, marks))
    other.fit(x(), marks.astype(np.int8), epochs=2, verbose=0)
    assert same(found, other)


def test_features_cannot_stand_for_images_that_a_part_looks_at():
    found = compiled("lagc", {"warmup_epochs": 2})
    features = {"features": np.zeros((N, 2, 2, 16), np.float32), "index": np.arange(N)}
    with pytest.raises(ValueError, match=r"hold features, and strong_view\S* looks at the images"):
        found.fit(features, LABELS, verbose=0)


def test_a_recipe_keeps_its_loss_when_compile_is_given_another(tmp_path):
    found = compiled(spml_tf.training.Recipe((losses.AssumeNegative(),)), loss=losses.Hill())
    found.save(tmp_path / "model.keras")
    read = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(read.terms[0].loss, losses.Hill)
    read.compile("sgd")
    assert isinstance(read.terms[0].loss, losses.AssumeNegative)


def test_weights_of_labels_are_numbers_from_0():
    found = compiled()
    found.set_weights_of_labels([0.5] * N)
    assert first_loss(found)["loss"] == pytest.approx(cross_entropies(compiled()).mean() / 2)
    for more in ({"weights": [np.full(N, 4.0)]}, {"class_weight": dict.fromkeys(range(L), 4.0)}):
        both = compiled()
        both.set_weights_of_labels([0.5] * N)
        logs = first_loss(both, *more.pop("weights", ()), **more)
        assert logs["loss"] == pytest.approx(2 * cross_entropies(compiled()).mean(), rel=1e-5)
    for wrong in ([-1.0] * N, [np.nan] * N):
        with pytest.raises(ValueError, match="must be numbers from 0"):
            found.set_weights_of_labels(wrong)
        with pytest.raises(ValueError, match="sample_weight must be numbers from 0"):
            found.fit(x(), LABELS, sample_weight=np.array(wrong), verbose=0)
        with pytest.raises(ValueError, match="class_weight must be numbers from 0"):
            found.fit(x(), LABELS, class_weight={0: wrong[0]}, verbose=0)


@pytest.mark.parametrize("value", [0.7, 3, 2, np.nan])
def test_other_label_values_are_refused(value):
    labels = LABELS.astype(np.float32)
    labels[1, 2] = value
    found = compiled()
    for arguments in (
        (x(), labels),
        (tf.data.Dataset.from_tensor_slices((x(), labels)).batch(4),),
    ):
        with pytest.raises(ValueError, match="must be 1 .* in row 1, column 2"):
            found.fit(*arguments, verbose=0)
    with pytest.raises(ValueError, match="in row 1, column 2"):
        found.train_on_batch(x(), labels)
    with pytest.raises(ValueError, match="validation labels must be 1 .* in row 1, column 2"):
        found.fit(dataset(), validation_data=(IMAGES, labels), verbose=0)


def test_labels_that_are_told_at_once_are_looked_at():
    found = compiled("role")
    for value in (2, -2, 3, 0.5):
        wrong = LABELS.astype(np.float32)
        wrong[1, 2] = value
        with pytest.raises(ValueError, match="labels: expected 1 .* in row 1, column 2"):
            found.set_labels(wrong)
    for shape in ((N - 1, L), (N, L + 1)):
        with pytest.raises(ValueError, match="classes do not fit 8 images and 3 classes"):
            found.set_labels(np.zeros(shape))
    estimates = []
    for labels in (LABELS, LABELS.tolist()):
        found.set_labels(labels)
        estimates.append(found.label_estimates.values.numpy())
    assert (estimates[0] == estimates[1]).all() and (estimates[0][LABELS == 1] > 5).all()


def test_labels_of_evaluation_and_generators_are_looked_at():
    found = compiled()
    soft = np.full((N, L), 0.7)
    for look in (
        lambda: found.evaluate(IMAGES, soft, verbose=0),
        lambda: found.evaluate(tf.data.Dataset.from_tensor_slices((IMAGES, soft)).batch(4)),
        lambda: found.test_on_batch(IMAGES, soft),
        lambda: found.fit((pair for pair in [(x(), soft)]), steps_per_epoch=1, verbose=0),
    ):
        with pytest.raises(ValueError, match="labels must be 1 .* in row 0, column 0"):
            look()


@pytest.mark.parametrize(
    ("value", "jit_compile"), [(0.7, False), (2, False), (np.nan, False), (0.7, True)]
)
def test_labels_of_later_batches_are_looked_at(value, jit_compile):
    """Cast to int8, 0.7 would be a known negative and 2 the mark of an expected positive."""
    labels = LABELS.astype(np.float32)
    labels[5, 2] = value
    found = compiled("en", jit_compile=jit_compile)
    bad = tf.data.Dataset.from_tensor_slices((x(), labels)).batch(4)
    for look in (
        lambda: found.fit(bad, verbose=0),
        lambda: found.fit(dataset(), validation_data=bad, verbose=0),
        lambda: found.evaluate(bad, verbose=0),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"soft labels .*\[{value}\]"):
            look()
    if not jit_compile:
        pairs = ((Batches()[n][0], labels[4 * n : 4 * n + 4]) for n in (0, 1))
        with pytest.raises(tf.errors.InvalidArgumentError, match="soft labels are not taken"):
            found.fit(pairs, steps_per_epoch=2, shuffle=False, verbose=0)


def test_labels_of_a_strategy_are_looked_at():
    """Where they are dealt out, before they become bytes: 257 would be a 1."""
    labels = LABELS.astype(np.int32)
    labels[5, 2] = 257
    data = tf.data.Dataset.from_tensor_slices((x(), labels)).batch(4)
    pieces = iter(replica_batches.dealt(data, tf.distribute.OneDeviceStrategy("CPU:0")))
    np.testing.assert_array_equal(next(pieces)[1], LABELS[:4])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"soft labels .*\[257\]"):
        next(pieces)


def test_labels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"labels must be of shape \[B, 3\].*\(8,\)"):
        compiled().fit(x(), np.zeros(N), verbose=0)


@pytest.mark.parametrize("shape", [(L,), (L, 1), (L, L)])
def test_labels_and_weights_without_a_shape(shape):
    """As `tf.py_function` gives them; as many images as classes."""
    weight = RNG.uniform(0.5, 2, shape).astype(np.float32)

    def shapeless(x, y, weight):
        return x, *(tf.py_function(lambda z: z, [z], z.dtype) for z in (y, weight))

    few = ({name: values[:L] for name, values in x().items()}, LABELS[:L], weight)
    plain = tf.data.Dataset.from_tensor_slices(few).batch(L)
    logs = []
    for data in (plain, plain.map(shapeless)):
        found = compiled("ll_r")
        history = found.fit(data, epochs=2, validation_data=data, verbose=0).history
        logs.append([history["loss"], history["val_loss"]])
    np.testing.assert_allclose(*logs, rtol=1e-5)


def test_duplicate_indices_are_refused():
    with pytest.raises(ValueError, match="index holds 0 8 times.*with_index gives them out"):
        compiled().fit({"image": IMAGES, "index": np.zeros(N, int)}, LABELS, verbose=0)
    with pytest.raises(ValueError, match="index holds 1 2 times"):  # its own count, not that of 4
        compiled().fit({"image": IMAGES, "index": [1, 1, 0, 2, 4, 4, 4, 5]}, LABELS, verbose=0)


@pytest.mark.parametrize(("index", "found"), [(N, "8"), (-1, "-1")])
def test_indices_out_of_range_are_refused(index, found):
    rows = np.arange(N)
    rows[3] = index
    with pytest.raises(ValueError, match=rf"must lie in \[0, num_images=8\).*Received: {found}"):
        compiled().fit({"image": IMAGES, "index": rows}, LABELS, verbose=0)


def test_batches_without_an_index_are_refused():
    with pytest.raises(ValueError, match="index is each image's number"):
        compiled().fit(IMAGES, LABELS, verbose=0)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"sample_weight must be of shape \[8\] or \[8, 3\]"):
        compiled().fit(x(), LABELS, sample_weight=np.ones((N, 2)), verbose=0)


def test_boxes_outside_of_the_image_are_refused():
    for box in ([0, 0, 8, 8], [0, 0.5, 1, 0.5], [-0.1, 0, 1, 1]):
        with pytest.raises(ValueError, match=r"box must be \(y1, x1, y2, x2\) in \[0, 1\]"):
            compiled().fit({**x(), "box": np.tile(np.float32(box), (N, 1))}, LABELS, verbose=0)


def test_other_inputs_are_noted():
    with pytest.warns(UserWarning, match="hold boxes, which nothing looks at"):
        compiled().fit({**x(), "boxes": np.zeros((N, 4))}, LABELS, verbose=0)


def test_images_in_0_to_1_are_noted():
    with pytest.warns(UserWarning, match="images lie in 0..1.*multiply by 255"):
        compiled().fit({**x(), "image": np.ones_like(IMAGES)}, LABELS, verbose=0)


def test_labels_without_unknown_ones_are_noted():
    for method in ("en+scl", "splc", "ll_r"):
        with pytest.warns(UserWarning, match=rf"no label is unknown \(-1\).*{re.escape(method)}"):
            compiled(method).fit(x(), np.maximum(LABELS, 0), verbose=0)


def test_keras_metrics_on_training_batches():
    """They see 1 for positives and 0 for the rest: F1 as computed by hand from the scores."""
    found = compiled(metrics=[keras.metrics.F1Score("micro", threshold=0.5, name="f1")])
    chosen, truth = found.predict(IMAGES, verbose=0) > 0.5, LABELS == 1
    logs = first_loss(found, validation_data=(IMAGES, LABELS))
    right = (chosen & truth).sum()
    assert logs["f1"] == pytest.approx(2 * right / max(chosen.sum() + truth.sum(), 1))
    assert 0 <= logs["val_f1"] <= 1


def test_losses_on_probabilities():
    """`from_logits` is as Keras has it, and so is its default: the output is a probability."""
    image = keras.Input((SIZE, SIZE, 3))
    logits = keras.layers.GlobalAveragePooling2D()(network()(image))
    values = []
    for output, from_logits in ((logits, True), (keras.ops.sigmoid(logits), False)):
        plain = keras.Model(image, output)
        plain.compile("sgd", loss=losses.AssumeNegative(from_logits=from_logits))
        values.append(plain.evaluate(IMAGES, LABELS, verbose=0))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_export(tmp_path):
    found = compiled("en+scl")
    found.fit(x(), LABELS, epochs=2, verbose=0)
    found.export(str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    served = loaded.serve(tf.constant(IMAGES))
    np.testing.assert_allclose(served, found.predict(IMAGES, verbose=0), atol=1e-5)
    size = sum(path.stat().st_size for path in (tmp_path / "saved").rglob("variables*/*"))
    assert size < 4 * sum(np.prod(w.shape) for w in found.network.weights) + 20_000  # no bank


def test_load_model(tmp_path):
    found = compiled("en+scl", metrics=[spml_tf.MeanAveragePrecision()])
    found.fit(x(), LABELS, epochs=2, verbose=0)
    found.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", IMAGES)
    code = (
        "import spml_tf, keras, sys, numpy as np; found = keras.saving.load_model(sys.argv[1]); "
        "np.save(sys.argv[3], found.predict(np.load(sys.argv[2]), verbose=0)); print(found.method)"
    )
    files = [str(tmp_path / name) for name in ("model.keras", "images.npy", "scores.npy")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert done.stdout == "en+scl\n", done.stderr
    scores = np.load(tmp_path / "scores.npy")
    np.testing.assert_allclose(scores, found.predict(IMAGES, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    "method",
    [
        "en+scl",
        "ll_cp",
        "role+scl",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("en+cl", "an+mixup")),
    ],
)
def test_jit_compile(method):
    runs, options = [], {"mixup_start_epoch": 2} if "mixup" in method else {}
    for jit in (False, True):
        found = compiled(method, options, jit_compile=jit, metrics=[spml_tf.MeanAveragePrecision()])
        assert found.jit_compile is jit
        found.fit(dataset(), epochs=3, validation_data=dataset(), verbose=0)
        runs.append(found)
    for name, values in runs[0].history.history.items():
        np.testing.assert_allclose(runs[1].history.history[name], values, atol=1e-4)
    assert same(*runs, tolerance=1e-5)


def test_jit_compile_auto_is_off():
    assert compiled("an+scl", jit_compile="auto").jit_compile is False


def test_callback_list():
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    for callbacks in (None, [], watch, [watch], keras.callbacks.CallbackList([])):
        found = compiled("en")
        found.fit(dataset(), epochs=2, verbose=0, callbacks=callbacks)
        assert int(found.epoch.numpy()) == 2 and found.rules[0].labels.numpy().max() == 2
    own = keras.callbacks.CallbackList([watch])
    compiled().fit(dataset(), epochs=2, verbose=0, callbacks=own)
    assert seen == [0, 1] * 3


def test_model_checkpoint_and_backup(tmp_path):
    """Stopped in the third of four epochs, and gone on with: as without a break."""
    whole = compiled("en+scl")
    whole.fit(dataset(), epochs=4, verbose=0)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    again = [keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))]
    keep = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    with pytest.raises(KeyboardInterrupt):
        compiled("en+scl").fit(dataset(), epochs=4, verbose=0, callbacks=[*again, keep, Stop()])
    resumed = compiled("en+scl")
    resumed.fit(dataset(), epochs=4, verbose=0, callbacks=again)
    assert same(whole, resumed, 0)
    second = keras.saving.load_model(tmp_path / "2.keras")
    second.fit(dataset(), initial_epoch=2, epochs=4, verbose=0)
    assert same(whole, second, 0)


def test_other_callbacks(tmp_path):
    found = compiled("en+scl", metrics=[spml_tf.MeanAveragePrecision()])
    stop = keras.callbacks.EarlyStopping("val_map", mode="max", patience=1)
    slower = keras.callbacks.ReduceLROnPlateau("val_map", mode="max", patience=1)
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    board = keras.callbacks.TensorBoard(str(tmp_path / "board"))
    found.fit(
        dataset(),
        epochs=30,
        validation_data=dataset(),
        verbose=0,
        callbacks=[stop, slower, log, board],
    )
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert 2 < len(rows) < 31 and "val_map" in rows[0]
    assert list((tmp_path / "board" / "train").iterdir())


def test_swap_ema_weights():
    sgd = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5)
    found = compiled("en+scl", optimizer=sgd)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    found.fit(dataset(), epochs=2, validation_data=dataset(), verbose=0, callbacks=[swap])
    plain = compiled("en+scl")
    averages: list[np.ndarray] = []

    class Follow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            before = averages or kernels(plain)  # Keras begins with the weights after a step
            averages[:] = [(a + b) / 2 for a, b in zip(before, kernels(plain), strict=True)]

    plain.fit(dataset(), epochs=2, verbose=0, callbacks=[Follow()])
    assert not same(found, plain)
    for one, other in zip(kernels(found), averages, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("policy", "step"), [("mixed_bfloat16", 2.0**-8), ("mixed_float16", 2.0**-11)]
)
def test_mixed_precision(policy, step):
    """Fused operations of `predict` may leave out a rounding, so scores are equal to a step."""
    keras.config.set_dtype_policy(policy)
    try:
        found = compiled("en+scl")
        history = found.fit(dataset(), epochs=2, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["loss"]).all() and found.ema_scores.values.dtype == "float32"
    scores = tf.sigmoid(
        tf.reduce_mean(found.network(IMAGES), axis=(1, 2))
    )  # pixels are no integers
    np.testing.assert_allclose(found.predict(IMAGES, verbose=0), scores, atol=step)


@pytest.mark.parametrize("how", [{"run_eagerly": True}, {"steps_per_execution": 2}])
def test_other_ways_to_run(how):
    runs = [compiled("en+scl"), compiled("en+scl", **how)]
    for found in runs:
        found.fit(dataset(batch=2), epochs=2, verbose=0)
    assert same(*runs, tolerance=1e-5)


def test_gradient_accumulation():
    """Two batches of 4 before a step are one of 8, up to what banks see between them."""
    twice = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
    runs = [compiled(optimizer=twice), compiled()]
    for found, batch in zip(runs, (4, 8), strict=True):
        found.fit(dataset(batch=batch), epochs=1, verbose=0)
    assert same(*runs, tolerance=1e-5)


def test_clipnorm_and_schedules():
    still = compiled(optimizer=keras.optimizers.SGD(1.0, clipnorm=1e-9))
    before = kernels(still)
    still.fit(dataset(), epochs=1, verbose=0)
    assert all(np.allclose(a, b, atol=1e-7) for a, b in zip(before, kernels(still), strict=True))
    steps = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.05, 0.0])
    once, one = compiled(optimizer=keras.optimizers.SGD(steps)), compiled()
    once.fit(dataset(), epochs=1, verbose=0)
    one.fit(dataset().take(1), epochs=1, verbose=0)
    before = kernels(once)
    once.fit(dataset(), initial_epoch=1, epochs=2, verbose=0)
    assert all((a == b).all() for a, b in zip(before, kernels(once), strict=True))


def test_own_loops():
    """train_on_batch after begin_epoch is what fit does."""
    fitted, own = compiled("en+scl"), compiled("en+scl")
    fitted.fit(dataset(), epochs=3, verbose=0)
    for epoch in (1, 2, 3):
        own.begin_epoch(epoch)
        for inputs, labels in dataset():
            own.train_on_batch(inputs, labels)
    assert same(fitted, own, 1e-6)
    first = compiled("en+scl")  # without begin_epoch it is the first epoch
    first.train_on_batch(*next(iter(dataset())))
    assert int(first.epoch.numpy()) == 1


def test_train_on_batch_with_weights():
    weight = np.linspace(0, 2, N)
    found = compiled()
    expected = (cross_entropies(found) * weight[:, None] * [2.0, 1.0, 1.0]).mean()
    logs = found.train_on_batch(
        x(), LABELS, sample_weight=weight, class_weight={0: 2.0}, return_dict=True
    )
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, number):
        rows = slice(4 * number, 4 * number + 4)
        return {name: values[rows] for name, values in x().items()}, LABELS[rows]


def test_py_dataset_and_generators():
    runs = [compiled("en+scl") for _ in range(3)]
    sources = dataset(), Batches(), (Batches()[n % 2] for n in range(99))
    for found, source in zip(runs, sources, strict=True):
        found.fit(source, epochs=2, steps_per_epoch=2, shuffle=False, verbose=0)
    assert same(*runs[:2]) and same(*runs[1:])


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, number):
        return Batches()[number % 2]


def test_a_py_dataset_without_an_end():
    found, other = compiled(), compiled()
    found.fit(Endless(), steps_per_epoch=2, shuffle=False, verbose=0)
    other.fit(dataset(), verbose=0)
    assert same(found, other)


def test_arrays_and_validation_split():
    found = compiled("en+scl")
    history = found.fit(x(), LABELS, epochs=2, validation_split=0.25, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    np.testing.assert_array_equal(found.ema_scores.visited.numpy(), np.arange(N) < 6)


def test_terms_of_training_images_are_no_part_of_evaluation():
    found = compiled("en+scl")
    history = found.fit(dataset(), epochs=2, validation_data=dataset(), verbose=0).history
    assert "consistency_loss" in history and "val_consistency_loss" not in history
    assert "consistency_loss" not in found.evaluate(dataset(), verbose=0, return_dict=True)
    assert "consistency_loss" not in found.test_on_batch(IMAGES, LABELS, return_dict=True)
    assert found.fit(dataset(), verbose=0).history.keys() >= {"consistency_loss"}


class Pull(terms.Term):
    """Pulls the scores of positives up; says nothing of images that are not trained on."""

    trains_labels = True
    reported_as = "pull"

    def compute(self, step):
        return tf.reduce_mean(tf.where(step.labels == 1, tf.nn.softplus(-step.logits), 0.0))


def test_evaluation_without_any_term():
    found = compiled(spml_tf.training.Recipe((Pull(),)))
    history = found.fit(dataset(), validation_data=dataset(), verbose=0).history
    assert history["val_loss"] == [0.0] and history["loss"][0] > 0.1
    assert found.evaluate(dataset(), verbose=0, return_dict=True) == {"loss": 0.0}


def test_a_term_starts_in_evaluation_too():
    later = spml_tf.training.LabelTerm(loss=losses.AssumeNegative(), start_epoch=2)
    found = compiled(spml_tf.training.Recipe((later,)), optimizer=keras.optimizers.SGD(0.0))
    history = found.fit(dataset(), epochs=2, validation_data=dataset(), verbose=0).history
    assert history["val_loss"][0] == 0 and history["val_loss"][1] > 0.1


def test_errors_are_value_errors():
    assert issubclass(spml_tf.UserError, ValueError)


def test_every_row_of_the_page_has_its_test():
    rows = re.findall(r"`(test_\w+)`(?:, | \|$)", PAGE.read_text(), re.M)
    here = {name for name in globals() if name.startswith("test_")}
    elsewhere = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert len(rows) > 40 and len(set(rows)) == len(rows)
    assert all(f"def {name}(" in elsewhere for name in rows)
    assert here - set(rows) == {"test_every_row_of_the_page_has_its_test"}
