"""The bank of a few classes an image: against a dictionary of maps, by hand, and in training."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import moved_heatmap, numpy_warp
from tiny_network import tiny_cam

import spml_tf
from spml_tf import losses, networks
from spml_tf.banks import ema_bank, heatmap_bank, warping
from spml_tf.evaluation import average_precision

N, L, W, G, KEPT = 5, 6, 5, 4, 3


def batch(rng: np.random.Generator, size: int = 3) -> dict[str, np.ndarray]:
    corner = rng.uniform(0.0, 0.5, (size, 2))
    return {
        "maps": rng.random((size, G, G, L)).astype(np.float32),
        "index": rng.permutation(N)[:size],
        "box": np.hstack([corner, corner + rng.uniform(0.3, 0.5, (size, 2))]).astype(np.float32),
        "flip": rng.random(size) < 0.5,
        "scores": rng.random((size, L)).astype(np.float32),
        "codes": rng.choice([1, 0, -1, 2], (size, L), p=[0.2, 0.1, 0.6, 0.1]).astype(np.int8),
    }


def view(one: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: one[name] for name in ("maps", "index", "box", "flip")}


def tensors(values: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in values.items()}


def test_against_a_dictionary_of_maps():
    """Random visits: kept classes, maps, marks and SCL equal a plain loop's over dictionaries."""
    rng = np.random.default_rng(0)
    bank = heatmap_bank.heatmap_bank(N, L, W, KEPT, momentum=0.7)
    update = tf.function(bank.update)
    known: list[dict[int, tuple]] = [{} for _ in range(N)]
    replaced = 0
    for _ in range(25):
        one = batch(rng)
        distance, samples = 0.0, 0
        for b, n in enumerate(one["index"]):
            counted = np.zeros((G, G), bool)
            for label, (heatmap, visited) in known[n].items():
                weight = numpy_warp(visited[..., None].astype(float), one["box"][b], G)
                target = numpy_warp(heatmap * visited[..., None], one["box"][b], G)
                target = (target / np.maximum(weight, 1e-9))[..., 0]
                sure = weight[..., 0] >= 0.5
                if one["flip"][b]:
                    target, sure = target[:, ::-1], sure[:, ::-1]
                distance += np.abs(one["maps"][b, ..., label] - target)[sure].sum()
                counted |= sure
            samples += counted.sum()
        expected = distance / L / samples if samples else 0.0
        found = bank.consistency(**tensors(view(one)))
        assert float(found) == pytest.approx(expected, abs=1e-6)
        update(**tensors(one))
        for b, n in enumerate(one["index"]):
            order = sorted(range(L), key=lambda c: (one["codes"][b, c] != 1, -one["scores"][b, c]))
            replaced += len(set(known[n]) - set(order[:KEPT]))
            empty = (np.zeros((W, W, 1)), np.zeros((W, W), bool))
            known[n] = {
                label: moved_heatmap(
                    *known[n].get(label, empty),
                    one["maps"][b, ..., label : label + 1],
                    one["box"][b],
                    one["flip"][b],
                    0.7,
                )
                for label in order[:KEPT]
            }
        for n in range(N):
            classes = bank.classes.numpy()[n]
            assert set(classes) == (set(known[n]) or {-1})
            for slot, label in enumerate(classes):
                if label >= 0:
                    heatmap, visited = known[n][label]
                    marks = bank.visited.numpy()[n, ..., slot]
                    np.testing.assert_array_equal(marks, visited)
                    kept = bank.values.numpy()[n, ..., slot]
                    np.testing.assert_allclose(kept[visited], heatmap[..., 0][visited], atol=1e-5)
    assert replaced > 20  # classes came and went


def test_a_class_that_goes_is_forgotten():
    """Two of three classes kept, class 0 annotated: 0 and 1, then 0 and 2, then 0 and 1 anew.

    mu = 0.5 and maps of one cell: class 0 goes 0.4, 0.6, 0.7; class 1 begins with 0.9, comes back
    with 0.2 and not with 0.55, the mean of the two."""
    bank = heatmap_bank.heatmap_bank(1, 3, 1, 2, momentum=0.5)
    codes = tf.constant([[1, -1, -1]], tf.int8)
    visit = {
        "index": tf.constant([0], tf.int64),
        "box": tf.constant([[0.0, 0.0, 1.0, 1.0]]),
        "flip": tf.constant([False]),
        "codes": codes,
    }
    with pytest.raises(ValueError, match="chooses them by scores"):
        bank.update(tf.zeros((1, 1, 1, 3)), scores=None, **visit)
    found = []
    for maps, scores in (
        ([0.4, 0.9, 0.1], [0.0, 0.8, 0.2]),
        ([0.8, 0.9, 0.3], [0.0, 0.5, 0.6]),
        ([0.8, 0.2, 0.3], [0.0, 0.7, 0.6]),
    ):
        bank.update(tf.reshape(maps, (1, 1, 1, 3)), scores=tf.constant([scores]), **visit)
        values = bank.values.numpy().ravel()
        found.append(dict(zip(bank.classes.numpy()[0].tolist(), values, strict=True)))
    assert [list(x) for x in found] == [[0, 1], [0, 2], [0, 1]]
    assert found[0] == pytest.approx({0: 0.4, 1: 0.9})
    assert found[1] == pytest.approx({0: 0.6, 2: 0.3})
    assert found[2] == pytest.approx({0: 0.7, 1: 0.2})


def test_bytes_outside_the_crop_move_with_their_class():
    """uint8, a class that changes its slot: cells outside the crop keep the stored byte."""
    bank = heatmap_bank.heatmap_bank(1, 2, 2, 2, storage="uint8")
    visit = {
        "maps": tf.constant([[[[0.3, 0.7]]]]),
        "index": tf.constant([0], tf.int64),
        "flip": tf.constant([False]),
        "codes": tf.constant([[-1, -1]], tf.int8),
    }
    whole, top = tf.constant([[0.0, 0.0, 1.0, 1.0]]), tf.constant([[0.0, 0.0, 0.5, 1.0]])
    bank.update(box=whole, scores=tf.constant([[0.9, 0.1]]), **visit)
    before = bank.values.numpy()
    assert bank.classes.numpy().tolist() == [[0, 1]]
    bank.update(box=top, scores=tf.constant([[0.1, 0.9]]), **visit)
    assert bank.classes.numpy().tolist() == [[1, 0]]
    np.testing.assert_array_equal(bank.values.numpy()[:, 1], before[:, 1, :, ::-1])


def test_loss_by_hand():
    """L = 10; sample 1: 0.2 and 0.3 off, sample 2: one of two counts, 0.5 off; sample 3: none.

    (0.2 + 0.3 + 0.5) / 10 / 2 samples = 0.05."""
    maps = tf.constant([0.2, 0.3, 0.5, 0.9, 0.8, 0.8], shape=(1, 3, 1, 2))
    counts = tf.constant([1, 1, 1, 0, 0, 0], shape=(1, 3, 1, 2)) == 1
    loss = losses.sparse_spatial_consistency(maps, tf.zeros_like(maps), counts, 10)
    assert float(loss) == pytest.approx(0.05)
    none = losses.sparse_spatial_consistency(maps, maps, counts & False, 10)
    assert float(none) == 0.0


def data() -> tf.data.Dataset:
    rng = np.random.default_rng(3)
    corner = rng.uniform(0.0, 0.4, (12, 2))
    x = {
        "image": rng.uniform(0, 255, (12, 32, 32, 3)).astype(np.float32),
        "index": np.arange(12),
        "box": np.hstack([corner, corner + 0.5]).astype(np.float32),
        "flip": rng.random(12) < 0.5,
    }
    y = np.where(np.arange(4) == rng.integers(0, 4, (12, 1)), 1, -1).astype(np.int8)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


def trained(kept: int | None, **settings) -> spml_tf.SPMLModel:
    network = networks.small_residual_cam(4, image_size=32, width=16, seed=0)
    model = spml_tf.SPMLModel(
        network, 12, "en+scl", 1.5, heatmap_size=6, heatmap_classes=kept, **settings
    )
    model.compile(keras.optimizers.SGD(0.1), metrics=[average_precision.MeanAveragePrecision()])
    model.history_ = model.fit(data(), epochs=4, verbose=0).history
    return model


def test_with_all_classes_kept_training_is_the_dense_banks():
    dense, compact = trained(None), trained(9)  # more than there are: all four
    assert compact.ema_heatmaps.classes.shape == (12, 4)
    for name in ("loss", "consistency_loss", "map"):
        np.testing.assert_allclose(compact.history_[name], dense.history_[name], rtol=1e-4)
    order = np.argsort(compact.ema_heatmaps.classes.numpy(), axis=1)
    for name in ("values", "visited"):
        found = getattr(compact.ema_heatmaps, name).numpy()
        found = np.take_along_axis(found, order[:, None, None, :], axis=3)
        expected = getattr(dense.ema_heatmaps, name).numpy()
        expected = expected if name == "values" else expected[..., None]
        np.testing.assert_allclose(found * 1.0, expected * np.ones(4), atol=1e-4)


def test_the_classes_kept_are_those_of_the_highest_averages_of_this_step():
    """The annotated one and the highest other; before the first step all averages are 0."""
    rng = np.random.default_rng(4)
    labels = np.where(np.arange(L) == np.arange(N)[:, None], 1, -1).astype(np.int8)
    images = rng.uniform(0, 255, (N, 32, 32, 3)).astype(np.float32)
    model = spml_tf.SPMLModel(tiny_cam(L, image_size=32), N, "an+scl", heatmap_classes=2)
    model.compile(keras.optimizers.SGD(0.01))
    model.fit({"image": images, "index": np.arange(N)}, labels, epochs=1, verbose=0)
    rank = model.ema_scores.values.numpy() + 2 * (labels == 1)
    wanted = np.sort(np.argsort(-rank, axis=1)[:, :2], axis=1)
    np.testing.assert_array_equal(np.sort(model.ema_heatmaps.classes.numpy(), axis=1), wanted)


def test_saved_resumed_and_taken_over(tmp_path):
    model = trained(2, bank_dtype="uint8")
    path = tmp_path / "m.weights.h5"
    model.save_weights(path)
    other = trained(2, bank_dtype="uint8", seed=1)
    assert (other.ema_heatmaps.values.numpy() != model.ema_heatmaps.values.numpy()).any()
    other.load_banks(str(path))
    for name in ("values", "visited", "classes"):
        np.testing.assert_array_equal(
            getattr(other.ema_heatmaps, name).numpy(), getattr(model.ema_heatmaps, name).numpy()
        )
    with pytest.raises(ValueError, match="heatmap_classes"):
        ema_bank.load_all(str(path), [trained(3, bank_dtype="uint8").ema_heatmaps])
    config = model.get_config()
    assert config["heatmap_classes"] == 2
    assert spml_tf.SPMLModel.from_config(config).ema_heatmaps.kept == 2


def test_an_annotated_class_is_kept_before_one_of_higher_score():
    """The annotated class is kept, though another scores 0.9 and it 0.1."""
    bank = heatmap_bank.CompactHeatmapBank(1, 2, 1, kept=1)
    index, flip = tf.constant([0], tf.int64), tf.constant([False])
    codes, scores = tf.constant([[1, -1]], tf.int8), tf.constant([[0.1, 0.9]])
    bank.update(tf.ones([1, 1, 1, 2]), index, warping.whole_image_boxes(1), flip, scores, codes)
    assert bank.classes.numpy().tolist() == [[0]]


def test_a_marked_class_is_kept_by_its_score_alone():
    """A marked label is no annotated one: the class of highest score is kept."""
    bank = heatmap_bank.CompactHeatmapBank(1, 3, 1, kept=1)
    index, flip = tf.constant([0], tf.int64), tf.constant([False])
    codes = tf.constant([[2, -1, 0]], tf.int8)
    scores = tf.constant([[0.1, 0.9, 0.2]])
    bank.update(tf.ones([1, 1, 1, 3]), index, warping.whole_image_boxes(1), flip, scores, codes)
    assert bank.classes.numpy().tolist() == [[1]]
