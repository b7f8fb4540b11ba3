"""Parts and networks from files outside of the package: those that docs/writing_parts.md shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf
import warm_process
from conftest import flags, run
from PIL import Image
from saved_runs import assert_equal_runs, has_checkpoint, history, kill_at, newest_weights

import spml_tf
from spml_tf import networks
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings, flags_without_effect, resolve
from spml_tf.training import methods

FOLDER = Path(__file__).parent.parent / "docs" / "examples"
FILES = ",".join(str(path) for path in sorted(FOLDER.glob("*.py")))
METHOD = "half_negative+steady+sparse_maps"


@pytest.fixture(scope="module")
def words(voc) -> list[str]:
    own = {"plugins": FILES, "method": METHOD, "network": "two_layers", "steady_visits": 1}
    given = [x for x in flags(voc, **own) if "selection_" not in x and "heatmap_" not in x]
    return [*given, "--steady_threshold=0.3", "--sparse_maps_start_epoch=2"]


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plugins") / "whole"
    done = run(*words, f"--output_dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_of_own_parts_says_what_it_did(whole):
    record = json.loads((whole / "run.json").read_text())
    assert record["flags"]["steady_visits"] == 1 and record["flags"]["plugins"] == FILES
    assert record["flags"]["half_negative_unknown_weight"] == 0.5
    assert {len(digest) for digest in record["plugins"].values()} == {64}
    rows = history(whole)
    before, *later = map(float, rows["sparse_maps_loss"])
    assert before == 0 and all(0 < value < 1 for value in later)  # it starts in epoch 2
    loss, own, term = (
        np.array(rows[x], float) for x in ("loss", "classification_loss", "sparse_maps_loss")
    )
    np.testing.assert_allclose(loss, own + 0.1 * np.array([0, 1, 1]) * term, rtol=1e-5)
    found = []
    with h5py.File(newest_weights(whole)) as file:
        file.visititems(lambda name, item: found.append(name) if "steady" in name else None)
        high = file[next(name for name in found if name.endswith("vars/0"))][...]
    assert high.shape == (19, 3) and 0 < high.max() <= 3  # a fifth of 24 is held out


def test_it_goes_on_bit_for_bit_after_kill_9(words, whole, tmp_path):
    killed = tmp_path / "killed"
    process = warm_process.Process("spml_tf.train", [*words, f"--output_dir={killed}"])
    kill_at(process, lambda: has_checkpoint(killed))
    assert not RunFolder(killed).metrics.exists()
    done = run(f"--flagfile={killed / 'flags.txt'}", f"--output_dir={killed}")
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch" in done.stderr
    assert_equal_runs(whole, killed)


def test_code_that_changed_is_told_and_recorded(tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    others = {"data_fingerprint": "f", "class_names": [], "images": {}}
    first, second = ({"plugins": {"own.py": x * 64}, **others} for x in "ab")
    run.start(Settings(), first)
    run.start(Settings(), first)
    assert not capsys.readouterr().err
    record = run.record.read_bytes()
    run.start(Settings(), second)
    assert "own.py: has changed since this run began" in capsys.readouterr().err
    run.start(Settings(), second)
    assert not capsys.readouterr().err and run.record.read_bytes() == record
    assert json.loads(run.plugins.read_text()) == [second["plugins"]]


def test_it_is_evaluated_and_exported_where_the_code_is_trusted(whole, tmp_path):
    refused = run(f"--run_dir={whole}", "--split=val", module="evaluate")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert f"was trained with --plugins={FILES}; give this flag again" in refused.stderr
    scored = run(f"--run_dir={whole}", "--split=val", f"--plugins={FILES}", module="evaluate")
    assert scored.returncode == 0, scored.stderr
    target = tmp_path / "model"
    done = run(
        f"--run_dir={whole}", f"--export_dir={target}", f"--plugins={FILES}", module="export"
    )
    assert done.returncode == 0, done.stderr
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    maps = networks.load_network(whole / "network.keras")(images).numpy().astype(np.float64)
    loaded = tf.saved_model.load(str(target))
    served = loaded.serve(tf.constant(images))["probabilities"]
    np.testing.assert_allclose(served, 1 / (1 + np.exp(-maps.mean(axis=(1, 2)))), atol=1e-5)


def test_its_options_are_flags_with_help():
    found = run(f"--plugins={FILES}", "--help")
    assert found.returncode == 0
    for text in ("--steady_visits", "Visits in a row until", "--sparse_maps_weight"):
        assert text in found.stdout
    assert "steady" not in run("--help").stdout


READER = """
import spml_tf
from spml_tf.datasets.readers import Reader, SplitNames
def load(data_dir, split): ...
spml_tf.register%s
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (None, "there is no such file"),
        ("x = 1\ny = nothing\n", "plugin.py, line 2: NameError: name 'nothing' is not defined"),
        ("def broken(:\n", "plugin.py, line 1: invalid syntax"),
        ("import spml_tf\n@spml_tf.register('an')\ndef f(): ...\n", "'an' is registered already"),
        (
            "import spml_tf\n@spml_tf.register('x')\nclass X(spml_tf.training.Rule):\n"
            "    losses: int = spml_tf.option(1, '')\n",
            "X: the option 'losses' has a name of Keras' own",
        ),
        (
            "import spml_tf\n@spml_tf.register('learning')\nclass X(spml_tf.training.Rule):\n"
            "    rate: float = spml_tf.option(0.1, '')\n",
            ": the option 'rate' of X would be the flag --learning_rate, which means something",
        ),
        (
            "import spml_tf\n@spml_tf.register('x')\nclass X(spml_tf.training.Rule):\n"
            "    start: int = spml_tf.option(3, '', flag='selection_start_epoch')\n",
            ": the option 'start' of X would be the flag --selection_start_epoch, which means some",
        ),
        (
            READER % "('voc')(Reader(load, SplitNames('a', 'b', 'c')))",
            "'voc' is registered already",
        ),
        (READER % "('x')(Reader(load))", "a data set of your own is Reader(load, SplitNames("),
        (READER % "('x')(Reader(load, ('a', 'b', 'c')))", "a data set of your own is Reader(load"),
        (
            READER % "('x')(Reader(load, SplitNames('a', 'b', 'c'), 'ful'))",
            "train_labels is one of single, partial, full, stored. Received: 'ful'",
        ),
        (READER % "('x')(Reader('voc', SplitNames('a', 'b', 'c')))", "a data set of your own is"),
        (
            READER.replace("split", "split, size")
            % "('x')(Reader(load, SplitNames('a', 'b', 'c')))",
            "the parameter 'size' of <function load",
        ),
        ("import spml_tf\nspml_tf.register('x')(int)\n", "only losses, rules, terms, functions"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_one_line(tmp_path, code, reason):
    path = tmp_path / "plugin.py"
    if code is not None:
        path.write_text(code)
    done = run(f"--plugins={path}", f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert reason in done.stderr
    assert done.stderr.startswith((f"error: --plugins={path}: ", "error: --plugins: the option"))
    assert not (tmp_path / "run").exists()


SAVE = """
import sys, keras, numpy as np, spml_tf
sys.path.insert(0, sys.argv[1])
import steady, sparse_maps
recipe = spml_tf.training.Recipe(
    terms=(spml_tf.losses.Hill(), sparse_maps.SparseMaps(weight=0.5)),
    rules=(steady.Steady(visits=1, threshold=0.1),),
)
network = spml_tf.networks.small_residual_cam(3, image_size=32, width=16)
model = spml_tf.SPMLModel(network, num_images=6, method=recipe)
model.compile("adam")
x = {"image": np.random.default_rng(0).uniform(0, 255, (6, 32, 32, 3)), "index": np.arange(6)}
y = np.where(np.eye(3)[np.arange(6) % 3] > 0, 1, -1)
model.fit(x, y, epochs=2, verbose=0)
assert model.rules[0].high.numpy().max() == 2
model.save(sys.argv[2])
np.savez(sys.argv[3], *[weight.numpy() for weight in model.weights])
"""
LOAD = """
import sys, keras, numpy as np, spml_tf
sys.path.insert(0, sys.argv[1])
import steady, sparse_maps
model = keras.saving.load_model(sys.argv[2])
assert type(model.recipe.rules[0]) is steady.Steady and model.rules[0].visits == 1
assert model.terms[1].weight == 0.5 and type(model.terms[0].loss) is spml_tf.losses.Hill
with np.load(sys.argv[3]) as saved:
    assert len(saved.files) == len(model.weights)
    for name, weight in zip(saved.files, model.weights):
        np.testing.assert_array_equal(saved[name], weight.numpy())
"""


def test_objects_are_saved_and_loaded_in_another_process(tmp_path):
    words = [str(FOLDER), str(tmp_path / "model.keras"), str(tmp_path / "weights.npz")]
    (tmp_path / "script.py").write_text(SAVE)
    saved = warm_process.run("script", words, tmp_path)
    assert saved.returncode == 0, saved.stderr
    done = subprocess.run([sys.executable, "-c", LOAD, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_are_checked():
    with pytest.raises(ValueError, match="lower-case letters"):
        spml_tf.register("Half negative")
    with pytest.raises(ValueError, match="'scl' is registered already"):
        spml_tf.register("scl")(lambda num_classes: None)


def test_what_is_no_class_and_no_function_is_refused():
    for item in (spml_tf.losses.Hill(), 5):
        with pytest.raises(ValueError, match="only losses, rules, terms, functions"):
            spml_tf.register("something")(item)


def test_a_part_that_inherits_from_another_has_its_own_flags_and_value(monkeypatch):
    for place, name in ((methods, "METHODS"), (methods, "ADDITIONS")):
        monkeypatch.setattr(place, name, dict(getattr(place, name)))

    @spml_tf.register("bright")
    class Bright(spml_tf.training.Term):
        power: int = spml_tf.option(1, "Of each cell.", low=1, high=9)

        def compute(self, step):
            return tf.reduce_mean(step.maps**self.power)

    @spml_tf.register("brighter")
    class Brighter(Bright):
        pass

    network = networks.small_residual_cam(3, image_size=32, width=16)
    model = spml_tf.SPMLModel(network, 6, "an+bright+brighter", bright_power=2, brighter_power=3)
    assert [term.power for term in model.terms[1:]] == [2, 3]
    assert [term.reported_as for term in model.terms[1:]] == ["bright", "brighter"]


@pytest.fixture(scope="module")
def named_photos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("named")
    for split, stems in (("train", ["cat_1", "cat+dog_2", "fox_3"]), ("test", ["cat_1", "fox_2"])):
        (root / split).mkdir()
        for number in range(4):
            for stem in stems:
                pixels = np.random.default_rng([number, *stem.encode(), len(split)]).integers(
                    0, 255, (40, 48, 3)
                )
                picture = Image.fromarray(pixels.astype(np.uint8))
                picture.save(root / split / f"{stem}{number}.jpg")
    return root


def test_a_data_set_of_ones_own_is_checked_and_trained_on(named_photos, tmp_path):
    plugin = f"--plugins={FOLDER / 'named_photos.py'}"
    given = [plugin, "--dataset=named_photos", f"--data_dir={named_photos}"]
    checked = run("check", *given, f"--output_dir={tmp_path / 'check'}", module="data")
    assert "20 images (train 12, test 8): 0 errors, 0 notes" in checked.stdout, checked.stdout
    words = [*given, "--network=small_residual", "--image_size=32", "--epochs=1", "--method=an"]
    done = run(*words, "--threads=1", f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert RunFolder(tmp_path / "run").read_record()["class_names"] == ["cat", "dog", "fox"]
    with np.load(tmp_path / "run" / "predictions_test.npz") as saved:
        assert saved["names"].tolist()[:2] == ["test/cat_10.jpg", "test/cat_11.jpg"]
        assert saved["labels"].tolist() == [[1, 0, 0]] * 4 + [[0, 0, 1]] * 4
    scored = run(f"--run_dir={tmp_path / 'run'}", module="evaluate")
    assert scored.returncode == 1 and "give this flag again" in scored.stderr
    scored = run(f"--run_dir={tmp_path / 'run'}", plugin, module="evaluate")
    assert scored.returncode == 0, scored.stderr
    unknown = run("check", *given[1:], module="data")
    assert unknown.returncode == 1 and "--dataset=named_photos: unknown" in unknown.stderr
    source = ["import", plugin, f"--source={named_photos}", f"--output_dir={tmp_path / 'x'}"]
    assert "--plugins: import does not take it" in run(*source, module="data").stderr


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 1 / 0", "plugin.py, line 4: ZeroDivisionError: division by zero"),
        ("return Examples((), np.zeros((1, 1)), (), ())", "plugin.py, line 4: ValueError: labels"),
        ("return [1]", "the plugin's reader returned list; it must return spml_tf.datasets"),
        ("raise spml_tf.UserError('x.csv:3: is odd')", "error: --dataset: x.csv:3: is odd"),
    ],
)
def test_what_is_wrong_with_a_reader_is_one_line(tmp_path, body, reason):
    path = tmp_path / "plugin.py"
    path.write_text(
        "import spml_tf, numpy as np\n"
        "from spml_tf.datasets.readers import Examples, Reader, SplitNames\n"
        f"def load(data_dir, split):\n    {body}\n"
        "spml_tf.register('odd')(Reader(load, SplitNames('train', 'none', 'test')))\n"
    )
    given = [f"--plugins={path}", "--dataset=odd", f"--data_dir={tmp_path}"]
    for module, words in (("data", ["check"]), ("train", [f"--output_dir={tmp_path / 'run'}"])):
        done = run(*words, *given, module=module)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert reason in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_rule_may_call_its_weights_as_it_likes():
    """Names that other rules of the package use mean nothing to the model."""

    class Own(spml_tf.training.Rule):
        estimated = False

        def prepare(self, facts):
            self.estimates = self.state("estimates", (facts.num_images, 1), "float32", True)
            self.store, self.bank = 3, [4]

    recipe = spml_tf.training.Recipe(terms=(spml_tf.losses.ExpectedNegative(),), rules=(Own(),))
    model = spml_tf.SPMLModel(
        networks.small_residual_cam(3, image_size=16, width=16), num_images=3, method=recipe
    )
    model.compile("adam")
    x = {"image": np.zeros((3, 16, 16, 3), np.float32), "index": np.arange(3)}
    model.fit(x, np.where(np.eye(3) > 0, 1, -1), verbose=0)
    assert model.estimated_priors is None and model.label_store is None


@pytest.mark.parametrize(
    "given, noted",
    [
        ({"method": "en", "selection_probability": 0.9},
         {"--selection_probability=0.9": "--selection_budget=all"}),
        ({"method": "recommended", "selection_probability": 0.9},
         {"--selection_probability=0.9": "--method=recommended"}),
        ({"method": "en", "selection_budget": "probable", "selection_probability": 0.9}, {}),
        ({"method": "en", "selection_budget": "mime", "positives_per_image": 9},
         {"--positives_per_image=9":
          "--selection_budget=mime, but for export --thresholds=count"}),
        ({"method": "recommended", "selection_priors": "x.csv", "positives_per_image": 9},
         {"--positives_per_image=9": "--selection_priors, but for export --thresholds=count"}),
        ({"method": "an", "positives_per_image": 9}, {}),  # of which an export makes thresholds
        ({"method": "an", "positives_per_image": "auto"},
         {"--positives_per_image=auto": "--method=an"}),
        ({"method": "recommended", "positives_per_image": 9}, {}),
        ({"method": "an", "selection_probability": 0.9},
         {"--selection_probability=0.9": "--method=an"}),
        ({"train_labels": "full", "known_share": 0.1, "positive_choice": "frequent",
          "observed_negatives": 2, "full_images": 5},
         {"--known_share=0.1": "--train_labels=full", "--full_images=5": "--train_labels=full",
          "--positive_choice=frequent": "--train_labels=full",
          "--observed_negatives=2": "--train_labels=full"}),
        ({"train_labels": "partial", "known_share": 0.1, "observed_positives": 2,
          "full_images": 5}, {"--observed_positives=2": "--train_labels=partial"}),
        ({"known_share": 0.1, "positive_choice": "frequent"},
         {"--known_share=0.1": "--train_labels=single"}),
        ({"train_labels": "full", "label_seed": 3}, {"--label_seed=3": "--train_labels=full"}),
        ({"train_labels": "full", "label_seed": 3, "train_images": 50}, {}),
        ({"train_labels": "partial", "label_seed": 3}, {}),
        ({"val_fraction": 0.3, "data_seed": 3}, {"--val_fraction=0.3": "--val_split=val"}),
        ({"val_fraction": 0.3, "val_split": "none"}, {}),
        ({"method": "an", "estimates_learning_rate": 0.5},
         {"--estimates_learning_rate=0.5": "--method=an"}),
        ({"method": "an", "learning_rate": 0.1}, {}),
        ({"method": "role", "estimates_learning_rate": 0.5, "positives_per_image": 2}, {}),
        ({"method": "an", "weights": "imagenet", "linear_probe": True, "learning_rate": 0.1},
         {"--learning_rate=0.1": "--linear_probe"}),
        ({"method": "an", "weights": "imagenet", "linear_probe": True}, {}),
        ({"method": "role", "weights": "imagenet", "linear_probe": True, "learning_rate": 0.1},
         {}),  # that of the estimates follows
        ({"sync_batch_norm": True}, {"--sync_batch_norm": "--strategy=none"}),
        ({"sync_batch_norm": True, "strategy": "mirrored"}, {}),
        ({"sync_batch_norm": True, "workers": 2}, {}),
    ],
)  # fmt: skip
def test_what_other_flags_make_useless_is_noted(given, noted):
    assert flags_without_effect(resolve(Settings(dataset="digits", **given))) == noted


@pytest.mark.parametrize(
    ("given", "noted"),
    [
        ({}, {}),  # drawn
        ({"val_split": "val"}, "--val_split=val"),
        ({"train_labels": "image,class,label"}, {}),
        ({"train_labels": "image,split,class,label"}, "--train_labels=FILE"),
    ],
)
def test_flags_of_the_split_are_noted_where_it_is_given(given, noted, tmp_path):
    """Of photos, which no seed makes."""
    path = tmp_path / "labels.csv"
    if "train_labels" in given:
        path.write_text(given["train_labels"] + "\n")
        given = {"train_labels": str(path)}
    settings = resolve(
        Settings(dataset="voc", data_dir="x", val_fraction=0.3, data_seed=3, **given)
    )
    flags = ("--val_fraction=0.3", "--data_seed=3")
    wanted = dict.fromkeys(flags, noted.replace("FILE", str(path))) if noted else {}
    assert flags_without_effect(settings) == wanted


def test_options_of_other_methods_are_noted(voc, tmp_path):
    """What the method's parts do not have is told, and kept with the run; defaults are not told."""
    given = flags(
        voc, method="an", epochs=1, consistency_weight=3, large_loss_rate=0.2,
        positives_per_image="auto",
    )  # fmt: skip
    done = run(*given, f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    notes = {line for line in done.stderr.splitlines() if "has no effect" in line}
    assert notes == {
        "note: --consistency_weight=3.0 has no effect with --method=an",
        "note: --heatmap_size=6 has no effect with --method=an",
        "note: --positives_per_image=auto has no effect with --method=an",
    }
    assert not (tmp_path / "run" / "class_priors.csv").exists()
