"""K and class priors estimated in training: command line, resumption, workers, refusals."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import CLASSES, command, flags, run
from saved_runs import assert_equal_runs, copy_after_epoch, history, table_rows
from tiny_network import tiny_cam

import spml_tf
from spml_tf import networks, train
from spml_tf.datasets import splits
from spml_tf.runs import model_building, run_data
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system import cli
from spml_tf.training import label_store, selection
from spml_tf.training.class_priors import class_priors
from spml_tf.training.draw_model import DrawModel

SMALL = {
    "method": "en", "epochs": 4, "selection_start_epoch": 3, "positives_per_image": "auto",
    "selection_budget": "estimated",
}  # fmt: skip
PRINTED = r"positives per image \(K\), estimated from the score bank: (\S+), from (\S+) to (\S+)"
N, L = 30, 3


def words_of(voc: Path, **others: object) -> list[str]:
    named = SMALL | others
    return [x for x in flags(voc, **named) if not x.startswith("--heatmap_size")]


def table(folder: Path) -> dict[str, list[str]]:
    rows = table_rows(folder / "class_priors.csv")
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.fixture(scope="module")
def whole(voc, tmp_path_factory) -> tuple[Path, Path, str]:
    """An uninterrupted run, the same as it was after its third epoch, and what it printed."""
    folder = tmp_path_factory.mktemp("estimated")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        copy_after_epoch(patch, folder / "after3", 3)
        assert train.main([*words_of(voc), f"--output_dir={folder / 'whole'}"]) == 0
    return folder / "whole", folder / "after3", printed.getvalue()


def test_the_estimate_is_printed_and_recorded(whole):
    folder, _, printed = whole
    ((mean, low, high),) = re.findall(PRINTED, printed)
    assert float(low) <= float(mean) <= float(high)
    rows = history(folder)
    assert rows["estimated_k"][:2] == ["", ""] and rows["estimated_k"][2] == rows["estimated_k"][3]
    assert f"{float(rows['estimated_k'][2]):.2f}" == mean
    assert f"{float(rows['k_low'][2]):.2f}" == low and f"{float(rows['k_high'][2]):.2f}" == high
    columns = table(folder)
    assert columns["class"] == list(CLASSES)
    priors = np.array(columns["prior"], float)
    assert priors.sum() == pytest.approx(float(rows["estimated_k"][2]), rel=1e-5)
    missing = priors - np.array(columns["annotated_share"], float)
    assert (missing >= -1e-6).all()
    assert int(rows["selected"][3]) == np.rint(np.maximum(19 * missing, 0)).sum()


def test_the_model_card_of_an_export_tells_of_it(whole, tmp_path):
    folder, _, printed = whole
    ((mean, low, high),) = re.findall(PRINTED, printed)
    done = run(f"--run_dir={folder}", f"--export_dir={tmp_path / 'export'}", module="export")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "export" / "MODEL_CARD.md").read_text()
    assert f"positives per image (K): {mean}, estimated ({low} to {high})." in card


def test_resumed_after_the_estimate_it_is_the_same_run(voc, whole, capsys):
    folder, after, _ = whole
    assert train.main([*words_of(voc), f"--output_dir={after}"]) == 0
    assert re.search(PRINTED, capsys.readouterr().out)
    assert_equal_runs(folder, after)
    assert table(folder) == table(after)


@pytest.mark.slow
def test_two_workers_estimate_the_same(voc, tmp_path):
    words = [*words_of(voc, freeze_batch_norm="true"), f"--output_dir={tmp_path / 'two'}"]
    done = subprocess.run(command(*words, "--workers=2"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(PRINTED, done.stdout)) == 1
    one = run(*words[:-1], f"--output_dir={tmp_path / 'one'}")
    assert one.returncode == 0, one.stderr
    for name in ("prior", "low", "high"):
        found = [np.array(table(tmp_path / x)[name], float) for x in ("one", "two")]
        np.testing.assert_allclose(*found, atol=0.03)


def test_probable_labels_that_were_counted_with_other_flags_are_refused(
    voc, tmp_path, monkeypatch, capsys
):
    """The earlier run's numbers are kept, and no flag is dropped in silence."""
    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny_cam)
    given = {"network": "tiny", "epochs": 3, "selection_probability": 0.2}
    words = words_of(voc, selection_budget="probable", **given)
    assert train.main([*words, f"--output_dir={tmp_path / 'first'}"]) == 0
    again = [*words, f"--initial_banks={tmp_path / 'first'}", f"--output_dir={tmp_path / 'second'}"]
    for flag, before, now in (
        ("selection_probability", "0.2", "0.1"), ("positives_per_image", "auto", "2.0")
    ):  # fmt: skip
        assert train.main([*again, f"--{flag}={now}"]) == 1
        said = capsys.readouterr().err
        assert f"with --{flag}={before}, and this one has --{flag}={now}" in said
    assert train.main(again) == 0


def test_where_it_cannot_be_had_one_line_says_so(voc, tmp_path):
    for method in ("epr", "role"):
        words = words_of(voc, method=method, selection_budget="all")
        done = run(*words, f"--output_dir={tmp_path / method}")
        assert done.returncode == 1 and "Traceback" not in done.stderr
        (error,) = (x for x in done.stderr.splitlines() if x.startswith("error: "))
        assert error.startswith(f"error: --positives_per_image=auto: --method={method} ")
    done = run(*words_of(voc, positives_per_image="many"), f"--output_dir={tmp_path / 'x'}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "--positives_per_image=many: must be a number or auto" in done.stderr


def made(**options: object) -> tuple[spml_tf.SPMLModel, np.ndarray]:
    """A model whose bank and labels are filled, and the labels."""
    keras.utils.set_random_seed(0)
    model = spml_tf.SPMLModel(tiny_cam(L, image_size=32), N, "en", **options)
    model.compile("adam")
    rng = np.random.default_rng(3)
    truth = rng.random((N, L)) < 0.5
    truth[np.arange(N), np.arange(N) % L] = True
    labels = np.full((N, L), -1, np.int8)
    labels[np.arange(N), np.arange(N) % L] = 1
    scores = np.clip(0.3 * truth + rng.uniform(0, 0.2, (N, L)), 0, 1)
    model.set_labels(labels)
    model.ema_scores.values.assign(scores.astype(model.ema_scores.values.dtype))
    model.ema_scores.visited.assign(np.ones(N, bool))
    return model, labels


@pytest.mark.parametrize("mean", ["auto", 1.2])
@pytest.mark.parametrize("budget", ["estimated", "all", "unannotated"])
def test_the_choice_is_the_one_that_the_estimate_asks_for(mean, budget):
    model, labels = made(positives_per_image=mean, selection_budget=budget)
    scores = model.ema_scores.values.numpy()
    assert model.estimated_priors is None
    model.begin_epoch(2)
    found = class_priors(scores, labels)
    if "auto" != mean and budget != "estimated":
        assert model.estimated_priors is None
    else:
        np.testing.assert_allclose(model.estimated_priors.priors, found.priors, rtol=1e-6)
        assert model.estimated_priors.interval == pytest.approx(found.interval, rel=1e-6)
    scale = 1 if mean == "auto" else mean / found.positives_per_image
    shares = np.minimum(scale * found.priors, 1)
    known = found.positives_per_image if mean == "auto" else mean
    rule = shares if budget == "estimated" else budget
    expected = selection.expected_positives(scores, labels, known, rule)
    np.testing.assert_array_equal(model.labels.numpy() == 2, expected)


@pytest.mark.parametrize("known", ["auto", 1.2, np.linspace(0.3, 0.6, L).tolist()])
@pytest.mark.parametrize("bound", [0.2, 0.4])
def test_a_probable_budget_is_what_reaches_the_probability(bound, known):
    told = {"positives_per_image": "auto"} | (
        {"selection_priors": known} if isinstance(known, list) else {"positives_per_image": known}
    )
    model, labels = made(selection_budget="probable", selection_probability=bound, **told)
    scores = model.ema_scores.values.numpy()
    model.begin_epoch(2)
    fitted = DrawModel(scores, labels)
    found = fitted.fit() if known == "auto" else fitted.moved(fitted.fit(), np.array(known))
    likely = (fitted.posteriors(found) >= bound) & (labels == -1)
    assert 0 < likely.sum() < (labels == -1).sum()
    chosen = model.labels.numpy() == 2
    np.testing.assert_array_equal(chosen.sum(axis=0), likely.sum(axis=0))
    for column in range(L):
        others = (labels[:, column] == -1) & ~chosen[:, column]
        assert scores[chosen[:, column], column].min() >= scores[others, column].max()


def test_it_is_made_once_and_saved_with_the_weights(tmp_path):
    model, labels = made(positives_per_image="auto", selection_budget="estimated")
    model.begin_epoch(2)
    first = model.estimated_priors
    model.ema_scores.values.assign(np.full((N, L), 0.5, np.float32))
    model.begin_epoch(3)
    np.testing.assert_array_equal(model.estimated_priors.priors, first.priors)
    model.save_weights(tmp_path / "x.weights.h5")
    again, _ = made(positives_per_image="auto", selection_budget="estimated")
    again.optimizer.build(again.trainable_variables)
    again.load_weights(tmp_path / "x.weights.h5")
    np.testing.assert_array_equal(again.estimated_priors.priors, first.priors)
    model.save(tmp_path / "x.keras")
    whole = keras.models.load_model(tmp_path / "x.keras")
    assert whole.positives_per_image == "auto" and whole.rules[0].budget == "estimated"
    np.testing.assert_array_equal(whole.estimated_priors.priors, first.priors)


@pytest.mark.parametrize("unvisited", [None, 3])
def test_of_many_images_some_are_enough(monkeypatch, unvisited):
    """Every third; one of those that was not visited takes no part."""
    monkeypatch.setattr(label_store, "sample_step", lambda *given: 3)
    model, labels = made(positives_per_image="auto")
    model.ema_scores.visited.assign(np.arange(N) != (N if unvisited is None else unvisited))
    model.begin_epoch(2)
    rows = [row for row in range(0, N, 3) if row != unvisited]
    found = class_priors(model.ema_scores.values.numpy()[rows], labels[rows])
    np.testing.assert_allclose(model.estimated_priors.priors, found.priors, rtol=1e-6)


def test_averages_of_bytes_are_shares_of_255():
    model, labels = made(positives_per_image="auto", bank_dtype="uint8")
    averages = (np.linspace(0, 255, N)[:, None] + np.zeros(L)).astype(np.uint8)
    model.ema_scores.values.assign(averages)
    model.begin_epoch(2)
    found = class_priors(averages / 255, labels)
    np.testing.assert_allclose(model.estimated_priors.priors, found.priors, rtol=1e-6)


def test_images_never_visited_take_no_part():
    model, labels = made(positives_per_image="auto")
    visited = np.arange(N) % 3 > 0
    model.ema_scores.visited.assign(visited)
    model.begin_epoch(2)
    found = class_priors(model.ema_scores.values.numpy()[visited], labels[visited])
    np.testing.assert_allclose(model.estimated_priors.priors, found.priors, rtol=1e-6)


def test_from_the_first_epoch_on_it_waits_for_scores():
    """At the start of epoch 1 no image has an average that could be estimated from."""
    model, labels = made(positives_per_image="auto", selection_start_epoch=1)
    model.ema_scores.visited.assign(np.zeros(N, bool))
    model.begin_epoch(1)
    assert model.estimated_priors is None and not (model.labels.numpy() == 2).any()
    model.ema_scores.visited.assign(np.ones(N, bool))
    model.begin_epoch(2)
    assert model.estimated_priors is not None and (model.labels.numpy() == 2).any()


def test_shares_as_the_budget_need_no_estimate():
    shares = np.linspace(0.4, 0.6, L).tolist()
    model, labels = made(positives_per_image="auto", selection_budget=shares)
    model.begin_epoch(2)
    assert model.estimated_priors is None
    wanted = np.floor(np.array(shares) * N - (labels == 1).sum(axis=0) + 0.5)
    np.testing.assert_array_equal((model.labels.numpy() == 2).sum(axis=0), wanted)


def test_a_loss_takes_no_word_for_k():
    with pytest.raises(ValueError, match="positives_per_image='auto': must be a number"):
        spml_tf.losses.ExpectedPositiveRegularization(positives_per_image="auto")
    with pytest.raises(ValueError, match="positives_per_image='x': must be a number or auto"):
        spml_tf.SPMLModel(tiny_cam(L, image_size=32), N, "en", "x")


def test_known_shares_are_taken_as_they_are_and_nothing_is_estimated():
    known = np.linspace(0.4, 0.6, L)
    model, labels = made(positives_per_image="auto", selection_budget="estimated",
                         selection_priors=known.tolist())  # fmt: skip
    model.begin_epoch(2)
    assert model.estimated_priors is None
    wanted = np.floor(known * N - (labels == 1).sum(axis=0) + 0.5)
    np.testing.assert_array_equal((model.labels.numpy() == 2).sum(axis=0), wanted)


@pytest.mark.parametrize("mean, multiple", [(1.2, 1.0), (2.2, 1.2), ("auto", 1.0)])
def test_more_is_left_out_where_little_is_annotated_but_not_by_an_estimate(mean, multiple):
    """One label an image is annotated: K - 1 are missing for each."""
    told = {"positives_per_image": mean, "selection_budget": "estimated"}
    model, labels = made(**told, selection_multiple="auto")
    other, _ = made(**told, selection_multiple=multiple)
    for one in (model, other):
        one.begin_epoch(2)
    chosen = model.labels.numpy() == 2
    assert 0 < chosen.sum() < (labels == -1).sum()
    np.testing.assert_array_equal(chosen, other.labels.numpy() == 2)


def test_known_shares_are_for_the_estimated_budgets():
    with pytest.raises(ValueError, match="selection_priors: needs selection_budget=estimated or"):
        made(positives_per_image=1.2, selection_priors=[0.2] * L)
    with pytest.raises(ValueError, match=f"selection_priors must be {L} numbers in"):
        made(positives_per_image=1.2, selection_priors=[0.2], selection_budget="probable")


def built(settings: Settings) -> spml_tf.SPMLModel:
    """The model of a run, as training builds it."""
    data = splits.load_splits(settings)
    k = run_data.positives_per_image(settings, data)
    return model_building.build(settings, data, k)


def test_recommended_expects_the_shares_of_labelled_validation_images(voc, tmp_path):
    """Of 8 validation images and 20 more by eq. 3; a given K, and a file, take their place."""
    settings = resolve(cli.parse(flags(voc, method="recommended"), Settings, ""))
    data = splits.load_splits(settings)
    counted = (data.val.labels == 1).sum(axis=0)
    annotated = (data.observed == 1).mean(axis=0)
    by_eq_3 = data.positives_per_image * annotated / annotated.sum()
    expected = (counted + 20 * by_eq_3) / (len(data.val) + 20)
    (rule,) = built(settings).rules
    np.testing.assert_allclose(rule.priors, expected, rtol=1e-6)
    table = tmp_path / "priors.csv"
    names = data.train.class_names
    table.write_text("class,prior\n" + "".join(f"{name},0.25\n" for name in names))
    for given, priors in (({"positives_per_image": 1.5}, None),
                          ({"selection_priors": str(table)}, [0.25] * len(names))):  # fmt: skip
        own = resolve(cli.parse(flags(voc, method="recommended", **given), Settings, ""))
        (rule,) = built(own).rules
        assert rule.priors == priors


def test_recommended_is_trained_without_a_fully_labelled_image(voc, tmp_path):
    """One label a photo, in training and validation."""
    photos = sorted((voc / "JPEGImages").glob("*_train*.jpg"))
    rows = [f"{x.name},{CLASSES[i % 3]}" for i, x in enumerate(photos)]
    (tmp_path / "train.csv").write_text("\n".join(["image,labels", *rows]) + "\n")
    given = {"dataset": "folder", "data_dir": voc / "JPEGImages", "allow_outside": "true"}
    words = flags(voc, method="recommended", train_csv=tmp_path / "train.csv", **given)
    done = run(*words, f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert re.search(PRINTED, done.stdout)
    assert all(0 < float(x) <= 1 for x in table(tmp_path / "run")["prior"])


def test_recommended_takes_auto(voc):
    """Where the validation images would tell K."""
    given = flags(voc, method="recommended", positives_per_image="auto")
    settings = resolve(cli.parse(given, Settings, ""))
    (rule,) = built(settings).rules
    assert rule.positives_per_image == "auto" and rule.priors is None and rule.estimates_priors


def test_recommended_tells_the_k_that_it_has_estimated(voc):
    """Where validation knows K, that is recorded; where it does not, "auto", and exports use it."""
    settings = resolve(cli.parse(flags(voc, method="recommended"), Settings, ""))
    data = splits.load_splits(settings)
    assert run_data.positives_per_image(settings, data) == data.positives_per_image > 1
    unknown = dataclasses.replace(data, positives_per_image=None)
    assert run_data.positives_per_image(settings, unknown) == "auto"
    # A budget counts where labels are selected, and where the method has none of its own.
    for method, budget in (("an", None), ("en", "probable"), ("recommended", "estimated")):
        own = dataclasses.replace(settings, method=method, selection_budget="probable")
        assert own.budget == budget
        assert run_data.positives_per_image(own, unknown) == ("auto" if budget else None)
