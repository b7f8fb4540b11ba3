"""heatmaps.npz and TensorBoard: what they hold, and that resumption leaves no trace in them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import warm_process
from conftest import flags
from hypothesis import given
from hypothesis import strategies as st
from saved_runs import copy_after_epoch, table_rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_network import tiny_cam

from spml_tf import networks, train
from spml_tf.banks import ema_bank
from spml_tf.datasets.readers import Examples
from spml_tf.evaluation import epoch_measures
from spml_tf.runs import heatmap_history
from spml_tf.runs.heatmap_recorder import HeatmapRecorder
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.errors import UserError
from spml_tf.training.model import SPMLModel

LABELS = np.array([[1, -1, -1], [-1, 1, -1], [0, -1, 1], [-1, -1, 1]], np.int8)
NAMES = ("a", "b", "_\u00fc/\u732b $c$.jpg", "d")


@pytest.fixture
def examples() -> Examples:
    """Four images of noise in memory, three classes."""
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    truth = np.where(LABELS == -1, 0, LABELS).astype(np.int8)
    return Examples(NAMES, truth, ("cat", "cow", "dog"), images=images)


def recorded(
    folder: Path,
    model: SPMLModel,
    examples: Examples,
    images: list[int],
    epochs: int = 1,
    batch_size: int = 16,
) -> heatmap_history.Snapshots:
    """What the callback writes in so many epochs, in which the model does not change."""
    recorder = HeatmapRecorder(RunFolder(folder), examples, images, LABELS, batch_size)
    recorder.set_model(model)
    recorder.set_params({"epochs": epochs})
    recorder.on_train_begin()
    for epoch in range(epochs):
        recorder.on_epoch_end(epoch)
    return heatmap_history.read(folder / "heatmaps.npz")


def model_with(method: str, **others: object) -> SPMLModel:
    if method.endswith("+scl"):
        others["heatmap_size"] = 2
    model = SPMLModel(tiny_cam(3, image_size=32), 4, method, 1.5, keep_scores=True, **others)
    model.set_labels(LABELS)
    return model


@pytest.mark.parametrize(("storage", "unit"), [("float32", 1), ("float16", 1), ("uint8", 255)])
def test_the_maps_are_the_banks(tmp_path, examples, storage, unit):
    """Image 2 holds 51/255 = 0.2 for cat, 0.4 for cow and 0.8 for dog; one cell was not covered."""
    model = model_with("en+scl", bank_dtype=storage)
    values = np.zeros((4, 2, 2, 3))
    values[2] = np.array([0.2, 0.4, 0.8]) * unit
    visited = np.zeros((4, 2, 2), bool)
    visited[2] = [[True, True], [True, False]]
    model.ema_heatmaps.values.assign(values.astype(storage))
    model.ema_heatmaps.visited.assign(visited)
    model.ema_scores.values.assign((np.full((4, 3), 0.6) * unit).astype(storage))
    model.labels.assign(np.where(LABELS == -1, 2, LABELS).astype(np.int8))
    found = recorded(tmp_path, model, examples, [2, 0], epochs=2)
    assert found.source == "bank" and found.maps.dtype == np.float16
    assert found.images.tolist() == [2, 0] and found.names.tolist() == [NAMES[2], "a"]
    assert found.class_names.tolist() == ["cat", "cow", "dog"]
    assert found.epochs.tolist() == [1, 2] and found.maps.shape == (2, 2, 2, 2, 3)
    for epoch in (0, 1):
        known = found.maps[epoch, 0][[0, 0, 1], [0, 1, 0]]
        np.testing.assert_allclose(known, [[0.2, 0.4, 0.8]] * 3, atol=1e-3)
        assert np.isnan(found.maps[epoch, 0, 1, 1]).all() and np.isnan(found.maps[epoch, 1]).all()
        np.testing.assert_allclose(found.scores[epoch], 0.6, atol=1e-3)
        assert found.codes[epoch].tolist() == [[0, 2, 1], [1, 2, 2]]


def test_a_compact_bank_leaves_classes_out(tmp_path, examples):
    """It keeps dog and cat of image 1, in this order, and nothing of image 3, never visited."""
    model = model_with("en+scl", heatmap_classes=2)
    values = np.zeros((4, 2, 2, 2), np.float32)
    values[1] = 0.25, 0.75
    model.ema_heatmaps.values.assign(values)
    model.ema_heatmaps.visited.assign(values > 0)
    model.ema_heatmaps.classes.assign([[-1, -1], [2, 0], [-1, -1], [-1, -1]])
    found = recorded(tmp_path, model, examples, [1, 3])
    assert (found.maps[0, 0, ..., 2] == 0.25).all() and (found.maps[0, 0, ..., 0] == 0.75).all()
    assert np.isnan(found.maps[0, 0, ..., 1]).all() and np.isnan(found.maps[0, 1]).all()


def test_without_a_bank_they_are_the_networks_own(tmp_path, examples):
    model = model_with("en")
    found = recorded(tmp_path, model, examples, [3, 1])
    logits = model.network(examples.images[[3, 1]].astype(np.float32), training=False).numpy()
    assert found.source == "network"
    expected = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(found.maps[0], expected, atol=1e-3)


@pytest.mark.parametrize("keep_scores", [True, False])
def test_the_network_gets_a_batch_at_a_time(tmp_path, examples, monkeypatch, keep_scores):
    """Four images in batches of three, for the maps and where no bank has scores for these too."""
    network = tiny_cam(3, image_size=32)
    model, sizes = SPMLModel(network, 4, "an", keep_scores=keep_scores), []
    call = type(network).call

    def counted(self, inputs, **options):
        sizes.append(len(inputs))
        return call(self, inputs, **options)

    monkeypatch.setattr(type(network), "call", counted)
    found = recorded(tmp_path, model, examples, [3, 1, 0, 2], batch_size=3)
    assert sizes == [3, 1] * (1 if keep_scores else 2)
    logits = network(examples.images[[3, 1, 0, 2]].astype(np.float32), training=False).numpy()
    maps = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(found.maps[0], maps, atol=1e-3)
    if not keep_scores:
        scores = 1 / (1 + np.exp(-logits.mean(axis=(1, 2))))
        np.testing.assert_allclose(found.scores[0], scores, atol=1e-5)


def test_images_by_number_and_by_name():
    """The first image of each class, then the second: cat 0; cow 1; dog 2, 3."""
    assert heatmap_history.first_of_each_class(LABELS, 2) == [0, 1]
    assert heatmap_history.first_of_each_class(LABELS, 9) == [0, 1, 2, 3]
    both = np.array([[-1, -1], [1, 1], [1, -1]], np.int8)
    assert heatmap_history.first_of_each_class(both, 2) == [1, 2]
    choose = heatmap_history.images_to_record
    assert choose(None, NAMES, LABELS, bank=True) == [0, 1, 2, 3]
    assert choose(None, NAMES, LABELS, bank=False) == choose("0", NAMES, LABELS, bank=True) == []
    assert choose("1", NAMES, LABELS, bank=False) == [0]
    assert choose("d, a,d", NAMES, LABELS, bank=True) == [3, 0]
    assert heatmap_history.rows_of("images", 'b, "a, b.jpg"', ["a, b.jpg", "b"]) == [1, 0]
    for wanted, says in (
        ("a,,d", "no training image is called ''; they are called like 'a'"),
        ("a,e", "no training image is called 'e'; they are called like 'a'"),
        ("101", "--record_heatmaps=101: at most 100 images"),
        (",".join(map(str, range(101))), "names 101 images; at most 100"),
    ):
        with pytest.raises(UserError, match=says):
            choose(wanted, NAMES, LABELS, bank=True)


@given(st.integers(0, 4), st.integers(1, 3))
def test_what_a_crash_left_is_cut_off(done, lost):
    """Epochs added and cut off again leave everything as it was."""
    rng, found = (
        np.random.default_rng(done),
        [heatmap_history.empty("bank", [0], ["a"], ["x", "y"], 2)],
    )
    for epoch in range(1, done + lost + 1):
        maps, scores = rng.random((1, 2, 2, 2)), rng.random((1, 2), np.float32)
        found.append(found[-1].extended(epoch, maps, scores, np.ones((1, 2), np.int8)))
    cut, expected = vars(found[-1].until(done)), vars(found[done])
    for name, array in expected.items():
        assert cut[name].dtype == array.dtype and cut[name].tobytes() == array.tobytes()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "heatmaps.npz"
    whole = heatmap_history.empty("bank", [0], ["a"], ["x"], 2)
    whole.write(path)
    content = path.read_bytes()
    for broken in (b"", content[:100], content.replace(b"codes", b"modes")):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"heatmaps.npz: cannot be read \(.*\); remove it$"):
            heatmap_history.read(path)
    np.savez(path, **{**vars(whole), "scores": np.zeros((1, 1, 1), np.float32)})
    with pytest.raises(UserError, match="not of the same images and epochs"):
        heatmap_history.read(path)


@pytest.mark.slow
def test_killed_between_heatmaps_and_checkpoint(voc, tmp_path, monkeypatch):
    """The second epoch's maps are written, its checkpoint is not: the file ends the same."""
    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny_cam)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    copy_after_epoch(monkeypatch, killed, 1)
    words = flags(voc, network="tiny", epochs=2, test_split="none", record_heatmaps=2)
    assert train.main([*words, f"--output_dir={whole}"]) == 0
    content = (whole / "heatmaps.npz").read_bytes()
    assert heatmap_history.read(whole / "heatmaps.npz").epochs.tolist() == [1, 2]
    assert heatmap_history.read(killed / "heatmaps.npz").epochs.tolist() == [1]
    shutil.copy(whole / "heatmaps.npz", killed)
    assert train.main([*words, f"--output_dir={killed}"]) == 0
    assert (killed / "heatmaps.npz").read_bytes() == content


def test_an_unknown_image_is_refused_before_anything_is_written(voc, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny_cam)
    words = flags(voc, network="tiny", record_heatmaps="JPEGImages/2008_train001.jpg,x.jpg")
    assert train.main([*words, f"--output_dir={tmp_path / 'run'}"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --record_heatmaps: no training image is called 'x.jpg'")
    assert not (tmp_path / "run" / "run.json").exists()


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def test_tensorboard_shows_losses_scores_and_heatmaps(finished):
    """Every column of history.csv is a scalar; the histograms count every label once."""
    events = read_events(finished / "tensorboard")
    rows = table_rows(finished / "history.csv")
    for name in rows[0].keys() - {"epoch"}:
        expected = {int(row["epoch"]): float(row[name]) for row in rows if row[name]}
        found = {x.step: float(tf.make_ndarray(x.tensor_proto)) for x in events.Tensors(name)}
        assert found == pytest.approx(expected)
    assert {"loss", "classification_loss", "consistency_loss"} <= rows[0].keys()
    counts = {}
    for kind in ("annotated_positives", "expected_positives", "other_unknown"):
        for x in events.Tensors(f"ema_scores/{kind}"):
            counts[kind, x.step] = tf.make_ndarray(x.tensor_proto)[:, 2].sum()
    selected = {int(row["epoch"]): int(row["selected"] or 0) for row in rows}
    for epoch in range(1, 6):  # 19 images of three classes, one label each
        assert counts["annotated_positives", epoch] == 19
        assert counts.get(("expected_positives", epoch), 0) == selected[epoch]
        assert counts["other_unknown", epoch] == 38 - selected[epoch]
    found = heatmap_history.read(finished / "heatmaps.npz")
    pictures = read_events(finished / "tensorboard" / "heatmaps")
    assert set(pictures.Tags()["tensors"]) == set(found.names.tolist()) and len(found.names) == 8
    for name in found.names:
        shown = pictures.Tensors(name)
        assert [x.step for x in shown] == found.epochs.tolist() == [1, 2, 3, 4, 5]
        picture = tf.io.decode_png(shown[-1].tensor_proto.string_val[2]).numpy()
        assert picture.shape == (144, 4 * 128 + 3 * 4, 3) and picture.std() > 10


def test_of_many_epochs_tensorboard_shows_some(tmp_path, examples):
    """Of 50, at most 20 evenly spaced ones: every third, and the first."""
    found = recorded(tmp_path, model_with("en+scl"), examples, [0], epochs=50)
    shown = read_events(tmp_path / "tensorboard" / "heatmaps").Tensors("a")
    assert [x.step for x in shown] == [1, *range(3, 50, 3)] and len(found.epochs) == 50


def test_scores_by_kind_of_label(monkeypatch):
    """Six labels, of which the last image was never visited; then every other image only."""
    bank = ema_bank.score_bank(3, 2)
    bank.values.assign([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    bank.visited.assign([True, True, False])
    labels = np.array([[1, 2], [0, -1], [1, 1]], np.int8)
    found = epoch_measures.scores_by_kind(bank, labels)
    assert {kind: x.tolist() for kind, x in found.items()} == {
        "annotated_positives": pytest.approx([0.1]), "expected_positives": pytest.approx([0.2]),
        "annotated_negatives": pytest.approx([0.3]), "other_unknown": pytest.approx([0.4]),
    }  # fmt: skip
    monkeypatch.setattr(epoch_measures, "_COUNTED", 3)  # six labels: images 0 and 2
    found = epoch_measures.scores_by_kind(bank, labels)
    assert found.keys() == {"annotated_positives", "expected_positives"}


SCRIPT = """
import sys, keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import spml_tf
from spml_tf.runs import heatmap_history
from spml_tf.runs.heatmap_recorder import HeatmapRecorder
from spml_tf.datasets.readers import Examples
from spml_tf.evaluation import epoch_measures
from spml_tf.runs.run_folder import RunFolder
images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
labels = np.eye(3, dtype=np.int8)[np.arange(8) % 3]
examples = Examples(tuple("abcdefgh"), labels, ("x", "y", "z"), images=images)
x = {"image": images.astype("float32"), "index": np.arange(8)}
data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(4)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for method in ("an+scl", "an"):
    with strategy.scope():
        network = spml_tf.networks.small_residual_cam(3, image_size=32, width=16, seed=0)
        model = spml_tf.SPMLModel(network, 8, method, bank_dtype="uint8", keep_scores=True)
        model.compile(keras.optimizers.SGD(0.1))
    writer = HeatmapRecorder(RunFolder(sys.argv[1]), examples, [5, 2], labels, 1)
    model.fit(data, epochs=2, verbose=0, callbacks=[writer])
    found = heatmap_history.read(sys.argv[1] + "/heatmaps.npz")
    assert found.epochs.tolist() == [1, 2] and not np.isnan(found.maps).any()
    scores = model.ema_scores.values.numpy()[[5, 2]] / 255
    np.testing.assert_allclose(found.scores[-1], scores, atol=1e-6)
    if method == "an+scl":
        maps = model.ema_heatmaps.values.numpy()[[5, 2]] / 255
    else:
        maps = 1 / (1 + np.exp(-network(images[[5, 2]].astype("float32")).numpy()))
    np.testing.assert_allclose(found.maps[-1], maps, atol=1e-3)
    kinds = epoch_measures.scores_by_kind(model.ema_scores, model.marked_labels(labels))
    assert {kind: len(x) for kind, x in kinds.items()} == {
        "annotated_positives": 8, "annotated_negatives": 16}
"""


def test_under_a_distribution_strategy(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = warm_process.run("script", [str(tmp_path)], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
