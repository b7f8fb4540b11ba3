"""SPMLModel in user code: one step recomputed in NumPy, epochs, selection, warm-up, saving."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import moved_heatmap, numpy_warp
from tiny_network import tiny_cam

import spml_tf
from spml_tf import losses, networks
from spml_tf.banks import warping
from spml_tf.evaluation import average_precision
from spml_tf.networks import freezing
from spml_tf.system.private_api import flatten_layers
from spml_tf.training import methods, optimizers, selection
from spml_tf.training.terms import LabelTerm

N, L, SIZE = 12, 3, 32


def small_network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return tiny_cam(L, image_size=SIZE)


def dataset(batch_size: int = 4, seed: int = 0, crops: bool = True) -> tf.data.Dataset:
    rng = np.random.default_rng(seed)
    x = {
        "image": rng.uniform(0, 255, (N, SIZE, SIZE, 3)).astype(np.float32),
        "index": np.arange(N),
    }
    y = np.full((N, L), -1, np.int8)
    y[np.arange(N), rng.integers(0, L, N)] = 1
    if crops:
        corner = rng.uniform(0.0, 0.4, (N, 2))
        x["box"] = np.hstack([corner, corner + rng.uniform(0.4, 0.6, (N, 2))]).astype(np.float32)
        x["flip"] = rng.random(N) < 0.5
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)


def compiled(
    method: str = "en+scl", network: keras.Model | None = None, **kwargs
) -> spml_tf.SPMLModel:
    known = {"positives_per_image": 1.5, "heatmap_size": 6}
    kwargs = {**{x: known[x] for x in known if x in methods.flags_of(method)}, **kwargs}
    model = spml_tf.SPMLModel(network or small_network(), N, method, **kwargs)
    model.compile(keras.optimizers.Adam(1e-3), metrics=[average_precision.MeanAveragePrecision()])
    return model


@pytest.mark.parametrize("method", ["bce", "an", "en", "ep", "an+cl", "en+cl", "ep+scl", "en+scl"])
def test_every_method_trains_and_reports_its_terms(method):
    model = compiled(method)
    data = dataset()
    history = model.fit(data, epochs=3, validation_data=data, verbose=0).history
    terms = {"loss", "classification_loss", "map"}
    terms |= {"consistency_loss"} if "+" in method else set()
    assert {k for k in history if not k.startswith("val_")} == terms
    assert np.isfinite([history[name] for name in terms]).all()
    if "+" in method:  # epoch 2 on: loss = classification + 0.25 * consistency
        total = np.add(
            history["classification_loss"], 0.25 * np.array([0, 1, 1]) * history["consistency_loss"]
        )
        np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
        assert history["consistency_loss"][1] > 0
    else:
        np.testing.assert_allclose(history["loss"], history["classification_loss"])


def test_metrics_of_training_batches_can_be_left_out():
    model = compiled("en+scl", train_metrics=False)
    history = model.fit(dataset(), epochs=2, validation_data=dataset(), verbose=0).history
    assert np.isnan(history["map"]).all() and np.isfinite(history["val_map"]).all()
    same = compiled("en+scl").fit(dataset(), epochs=2, verbose=0).history
    for name in ("loss", "classification_loss", "consistency_loss"):
        np.testing.assert_allclose(history[name], same[name])


def test_a_step_equals_an_independent_recomputation():
    """Second visit of each image: loss terms from the banks as they were, then both banks moved."""
    model = compiled(
        "an+scl",
        networks.small_residual_cam(L, image_size=SIZE, width=16, seed=0),
        consistency_start_epoch=1,
        ema_momentum=0.7,
        freeze_batch_norm=True,
        keep_scores=True,
    )
    network = model.network
    model.fit(dataset(seed=1), epochs=1, verbose=0)
    (x, y) = next(iter(dataset(seed=2)))
    index, box, flip = (x[k].numpy() for k in ("index", "box", "flip"))
    scores, heatmaps = model.ema_scores.values.numpy(), model.ema_heatmaps.values.numpy()
    visited = model.ema_heatmaps.visited.numpy()
    maps = 1 / (1 + np.exp(-network(x["image"], training=True).numpy().astype(np.float64)))
    logits = network(x["image"]).numpy().mean((1, 2), dtype=np.float64)
    f = 1 / (1 + np.exp(-logits))

    model.make_train_function()
    model.reset_metrics()
    model.begin_epoch(1)
    logs = model.train_function(iter(tf.data.Dataset.from_tensors((x, y))))

    z = y.numpy()
    classification = np.mean(np.where(z == 1, -np.log(f), -np.log(1 - f)))
    distance, count = 0.0, 0
    for b, n in enumerate(index):
        known = visited[n][..., None].astype(float)
        weight = numpy_warp(known, box[b], 4)
        target = numpy_warp(heatmaps[n] * known, box[b], 4) / np.maximum(weight, 1e-9)
        if flip[b]:
            weight, target = weight[:, ::-1], target[:, ::-1]
        sure = weight[..., 0] >= 0.5
        distance += np.abs(maps[b] - target)[sure].sum() / L
        count += sure.sum()
    assert 0 < count < len(index) * 16  # some samples were never visited
    assert float(logs["classification_loss"]) == pytest.approx(classification, abs=1e-5)
    assert float(logs["consistency_loss"]) == pytest.approx(distance / count, abs=1e-5)
    assert float(logs["loss"]) == pytest.approx(classification + distance / count / 4, abs=1e-5)

    found_scores = model.ema_scores.values.numpy()
    found_heatmaps = model.ema_heatmaps.values.numpy()
    for b, n in enumerate(index):
        np.testing.assert_allclose(found_scores[n], 0.7 * scores[n] + 0.3 * f[b], atol=1e-5)
        expected, marks = moved_heatmap(heatmaps[n], visited[n], maps[b], box[b], flip[b], 0.7)
        np.testing.assert_allclose(found_heatmaps[n], expected, atol=1e-5)
        np.testing.assert_array_equal(model.ema_heatmaps.visited.numpy()[n], marks)
    untouched = np.setdiff1d(np.arange(N), index)
    np.testing.assert_array_equal(found_scores[untouched], scores[untouched])


def test_selection_follows_one_full_epoch_and_uses_the_bank():
    """Start epoch 1, but the first epoch has no bank: nothing expected; the second has."""
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append((self.model.labels.numpy().copy(), self.model.ema_scores.values.numpy()))

    model = compiled("en", selection_start_epoch=1)
    model.fit(dataset(), epochs=3, verbose=0, callbacks=[Watch()])
    (first, _), (second, scores), (third, _) = seen
    assert (first == -1).all()
    times = model.label_store.epochs_selected.numpy()
    np.testing.assert_array_equal(times, (second == 2).astype(int) + (third == 2))
    assert set(np.unique(times)) == {0, 1, 2}
    labels = np.concatenate([y for _, y in dataset()])
    chosen = selection.expected_positives(scores, labels, 1.5)
    assert chosen.any()
    np.testing.assert_array_equal(second, np.where(chosen, 2, labels))


def test_before_the_start_epoch_en_equals_an():
    runs = []
    for method in ("en", "an"):
        keras.utils.set_random_seed(0)
        model = compiled(method, **({"selection_start_epoch": 9} if method == "en" else {}))
        model.fit(dataset(), epochs=2, verbose=0)
        runs.append([w.numpy() for w in model.network.weights])
    for left, right in zip(*runs, strict=True):
        np.testing.assert_array_equal(left, right)


def test_expected_positives_are_ignored_from_then_on():
    """With every unknown label expected positive, EN trains on the observed positives alone."""
    model = compiled("en", positives_per_image=float(L))
    history = model.fit(dataset(), epochs=2, verbose=0).history
    _, labels = next(iter(dataset(N)))
    assert (model.labels.numpy() == np.where(labels == 1, 1, 2)).mean() > 0.6
    assert history["classification_loss"][1] < 0.6 * history["classification_loss"][0]


def test_warm_up_trains_the_head_alone_and_keeps_batch_statistics():
    model = compiled("an", warmup_epochs=2)
    head = {id(w) for w in model.network.get_layer("cam_logits").weights}

    def snapshot():
        weights = model.network.weights
        return [w.numpy() for w in weights if id(w) not in head], [
            w.numpy() for w in weights if id(w) in head
        ]

    before = snapshot()
    model.fit(dataset(), epochs=2, verbose=0)
    warm = snapshot()
    for left, right in zip(before[0], warm[0], strict=True):
        np.testing.assert_array_equal(left, right)
    assert all((a != b).any() for a, b in zip(before[1], warm[1], strict=True))
    model.fit(dataset(), initial_epoch=2, epochs=3, verbose=0)
    tuned = snapshot()
    assert all((a != b).any() for a, b in zip(warm[0], tuned[0], strict=True))


def test_thawing_within_one_fit():
    model = compiled("an", warmup_epochs=1)
    kernel = model.network.trainable_variables[0]
    values = [kernel.numpy()]
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda e, logs: values.append(kernel.numpy())
    )
    model.fit(dataset(), epochs=2, verbose=0, callbacks=keep)
    np.testing.assert_array_equal(values[0], values[1])
    assert (values[1] != values[2]).any()


def test_freeze_batch_norm_keeps_it_throughout():
    model = compiled("an", freeze_batch_norm=True)
    norms = [
        x for x in flatten_layers(model.network) if isinstance(x, keras.layers.BatchNormalization)
    ]
    before = [w.numpy() for x in norms for w in x.weights]
    model.fit(dataset(), epochs=2, verbose=0)
    for left, right in zip(before, [w for x in norms for w in x.weights], strict=True):
        np.testing.assert_array_equal(left, right.numpy())


@keras.saving.register_keras_serializable("spml_tf_tests")
class ConvAndNorm(keras.layers.Layer):
    """A layer that is made of layers, as KerasHub's backbones have them."""

    def build(self, shape):
        self.convolution = keras.layers.Conv2D(4, 3, padding="same")
        self.norm = keras.layers.BatchNormalization()
        self.convolution.build(shape)
        self.norm.build((*shape[:-1], 4))

    def call(self, inputs, training=False):
        return self.norm(self.convolution(inputs), training=training)


def test_what_was_frozen_stays_so_inside_of_a_layer_made_of_layers():
    image = keras.Input((16, 16, 3))
    block = ConvAndNorm()
    maps = keras.layers.Conv2D(3, 1, name="cam_logits")(block(image))
    switch = freezing.BackboneSwitch(keras.Model(image, maps), freeze_batch_norm=True)

    def states():
        return block.trainable, block.convolution.trainable, block.norm.trainable

    assert states() == (True, True, False)
    assert switch.turn(False) and switch.frozen and states() == (False, False, False)
    with switch.thawed():
        assert states() == (True, True, False)
    assert states() == (False, False, False)
    assert switch.turn(True) and states() == (True, True, False) and not switch.turn(True)


def test_the_head_has_a_learning_rate_of_its_own():
    """SGD moves by rate * gradient: with rate 0 for the backbone only the head moves."""
    model = spml_tf.SPMLModel(small_network(), N, "an")
    sgd = keras.optimizers.SGD
    model.compile(optimizers.head_and_backbone(sgd(0.0), sgd(0.1)))
    before = [w.numpy() for w in model.network.trainable_variables]
    model.fit(dataset(), epochs=1, verbose=0)
    moved = {
        w.path.split("/")[-2]
        for w, old in zip(model.network.trainable_variables, before, strict=True)
        if (w.numpy() != old).any()
    }
    assert moved == {"cam_logits"}


@pytest.mark.parametrize("method", ["role", "an"])
def test_a_strategy_of_one_device_is_none(method):
    """Variables are plain ones there, tables' and others'."""
    found = []
    for scope in (contextlib.nullcontext(), tf.distribute.OneDeviceStrategy("CPU:0").scope()):
        with scope:
            model, adam = compiled(method), keras.optimizers.Adam
            model.compile(optimizers.head_and_backbone(adam(1e-2), adam(1e-3)))
        model.fit(dataset(), epochs=2, verbose=0)
        found.append([weight.numpy() for weight in model.trainable_variables])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_batch_without_box_and_flip_is_the_whole_image():
    plain, explicit = compiled(), compiled()
    data = dataset(crops=False)
    whole = data.map(
        lambda x, y: (
            {
                **x,
                "box": warping.whole_image_boxes(tf.shape(y)[0]),
                "flip": tf.zeros_like(y[:, 0]) > 0,
            },
            y,
        )
    )
    plain.fit(data, epochs=2, verbose=0)
    explicit.fit(whole, epochs=2, verbose=0)
    np.testing.assert_array_equal(
        plain.ema_heatmaps.values.numpy(), explicit.ema_heatmaps.values.numpy()
    )
    assert plain.ema_heatmaps.visited.numpy().all()


def test_prediction_takes_images_or_batches():
    model = compiled()
    x, _ = next(iter(dataset()))
    logits = model.network.predict(x["image"], verbose=0).mean((1, 2))
    expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(model.predict(x["image"], verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict(dict(x), verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled()
        history = model.fit(dataset(), epochs=2, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["loss"]).all()
    assert model.network.output.dtype == "float32"
    assert model.ema_scores.values.dtype == model.ema_heatmaps.values.dtype == "float32"


@settings(max_examples=3)
@given(st.integers(1, N))
def test_any_batch_size_visits_every_image(batch_size):
    model = compiled("en+scl")
    model.fit(dataset(batch_size, crops=False), epochs=1, verbose=0)
    assert model.ema_scores.visited.numpy().all() and model.ema_heatmaps.visited.numpy().all()
    np.testing.assert_array_equal(
        model.labels.numpy(), np.concatenate([y for _, y in dataset(batch_size)])
    )


def test_the_whole_model_is_saved_and_goes_on_alike(tmp_path):
    """model.save keeps network, banks, labels, epoch and optimizer: both go on to equal weights."""
    shares = [0.5] * L
    model = compiled(bank_dtype="uint8", selection_budget=shares)
    model.fit(dataset(), epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert again.get_config().keys() == model.get_config().keys()
    assert again.rules[0].budget == shares
    for one in (model, again):
        one.fit(dataset(), initial_epoch=2, epochs=3, verbose=0)
    assert len(model.weights) == len(again.weights)
    for left, right in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy())


def test_banks_of_an_earlier_run(tmp_path):
    first = compiled("en+scl")
    first.fit(dataset(), epochs=2, verbose=0)
    first.save_weights(tmp_path / "first.weights.h5")
    second = compiled("en+scl", selection_start_epoch=9)
    second.load_banks(tmp_path / "first.weights.h5")
    labels = np.concatenate([y for _, y in dataset()])
    second.set_labels(labels)
    for bank in ("ema_scores", "ema_heatmaps"):
        for weight in ("values", "visited"):
            left, right = (getattr(getattr(m, bank), weight).numpy() for m in (first, second))
            np.testing.assert_array_equal(left, right)
    second.begin_epoch(1)
    chosen = selection.expected_positives(first.ema_scores.values.numpy(), labels, 1.5)
    np.testing.assert_array_equal(second.labels.numpy() == 2, chosen)
    second.fit(dataset(), epochs=2, verbose=0)  # chosen again only from epoch 9 on
    np.testing.assert_array_equal(second.labels.numpy() == 2, chosen)
    with pytest.raises(ValueError, match="ema_heatmaps holds float32 \\(12, 6, 6, 3\\)"):
        compiled(heatmap_size=5).load_banks(tmp_path / "first.weights.h5")


def test_banks_that_an_earlier_run_has_not(tmp_path):
    """EN+SCL may begin with EN's scores alone; nothing may begin with banks that are not there."""
    for name in ("an", "en"):
        compiled(name).save_weights(tmp_path / f"{name}.weights.h5")
    compiled("en+scl").load_banks(tmp_path / "en.weights.h5")
    for name in ("en", "en+scl"):
        with pytest.raises(ValueError, match="an.weights.h5: holds no running averages of scores"):
            compiled(name).load_banks(tmp_path / "an.weights.h5")
    with pytest.raises(ValueError, match="en.weights.h5: holds no bank .* are: ema_heatmaps"):
        compiled("an+scl").load_banks(tmp_path / "en.weights.h5")
    with pytest.raises(ValueError, match="en.weights.h5: holds no bank .* are: none"):
        compiled("an").load_banks(tmp_path / "en.weights.h5")


def test_mistakes_are_named():
    network = small_network()
    with pytest.raises(ValueError, match="needs positives_per_image"):
        spml_tf.SPMLModel(network, N, "en")
    with pytest.raises(ValueError, match="method must be one of"):
        spml_tf.SPMLModel(network, N, "xx")
    with pytest.raises(ValueError, match="'an' has no option selection_budget; it has none"):
        spml_tf.SPMLModel(network, N, "an", selection_budget="x")
    with pytest.raises(ValueError, match="no option warmup_epoch; .*did you mean warmup_epochs?"):
        spml_tf.SPMLModel(network, N, "an", warmup_epoch=1)
    for budget in ("x", [0.5], [0.5, 0.5, 1.5]):
        with pytest.raises(ValueError, match="budget must be"):
            spml_tf.SPMLModel(network, N, "en", 1.5, selection_budget=budget)
    with pytest.raises(ValueError, match="weight=-1: must be from 0 to"):
        spml_tf.SPMLModel(network, N, "an+scl", consistency_weight=-1)
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="cam_from_backbone"):
        spml_tf.SPMLModel(keras.Model(inputs, inputs), N, "an")
    model = compiled("an")
    with pytest.raises(ValueError, match="index is each image's number"):
        model.fit(dataset().map(lambda x, y: (x["image"], y)), verbose=0)


def test_a_term_computes_with_another_loss_until_it_is_restored():
    """At logit 0 a positive and an unknown label cost ln 2 / 2 each with AN; BCE leaves one out."""
    term = LabelTerm(loss=losses.AssumeNegative())
    labels, logits = tf.constant([[1, -1]], tf.int8), tf.zeros([1, 2])

    def halves() -> float:
        return float(term.evaluate(labels, logits, None)) / (np.log(2) / 2)

    for other in (losses.Hill(), losses.KnownBinaryCrossentropy()):  # the first stays its own
        term.replace(other)
    assert halves() == pytest.approx(1)
    with term.with_own_loss():
        assert halves() == pytest.approx(2)
    assert halves() == pytest.approx(1) and term.loss.from_logits
    with pytest.raises(ValueError, match="loss must be a Keras loss"):
        term.replace("hill")
    for _ in range(2):
        term.restore()
        assert halves() == pytest.approx(2)
