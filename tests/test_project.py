"""The project itself: README's code, flagfiles, the direction of imports, the scripts."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import spml_tf
from spml_tf.__main__ import COMMANDS
from spml_tf.runs.settings import Settings, flags_without_effect, resolve
from spml_tf.system import cli
from spml_tf.training import methods

ROOT = Path(__file__).parent.parent
# What each folder may import of the others; commands, at the top level, may import all.
ALLOWED = {
    "labels": "",
    "system": "",
    "drawing": "system",
    "losses": "labels system",
    "banks": "labels system losses",
    "networks": "system",
    "training": "labels system losses banks networks",
    "datasets": "labels system drawing",
    "registration": "system networks training datasets",
    "evaluation": "labels system banks datasets",
    "runs": "labels system drawing banks networks training datasets evaluation",
    "serving": "system networks datasets evaluation runs",
    "plans": "labels system drawing training evaluation runs",
    "figures": "labels system drawing networks datasets evaluation runs",
    "pages": "labels system drawing networks datasets evaluation runs",
    "exports": "labels system networks training datasets evaluation runs pages",
}


def test_readme_example_runs():
    """The Python block as it stands, with a small network and without the download."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    for large, small in (
        (
            'resnet50_cam(num_classes=20, weights="imagenet", image_size=448)',
            "small_residual_cam(num_classes=20, image_size=64)",
        ),
        ("num_images=5717", "num_images=8"),
        ("epochs=10", "epochs=2"),
    ):
        assert large in code
        code = code.replace(large, small)
    x = {"image": np.random.default_rng(0).uniform(0, 255, (8, 64, 64, 3)), "index": np.arange(8)}
    y = np.where(np.arange(20) == np.arange(8)[:, None], 1, -1).astype(np.int8)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    names = {"train_dataset": data, "val_dataset": data}
    exec(code, names)
    history = names["model"].history.history
    assert len(history["val_map"]) == 2 and np.isfinite(history["loss"]).all()
    heatmaps, scores = np.asarray(names["heatmaps"]), names["scores"]
    assert scores.shape == (8, 20) and heatmaps.shape == (8, 8, 8, 20)
    logits = np.log(heatmaps) - np.log1p(-heatmaps)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits.mean(axis=(1, 2)))), scores, atol=1e-4)


def imported(path: Path) -> set[str]:
    """What a file imports of spml_tf, anywhere in it, other than for type checking.

    Modules by their whole names; other names as "spml_tf.folder.name".
    """
    found = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spml_tf":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
            found |= {name for name in names if name.startswith("spml_tf.")}
    return found


@pytest.mark.parametrize("name", ALLOWED)
def test_folders_import_only_from_those_below(name):
    folder = ROOT / "spml_tf" / name
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    for file in files:
        folders = {found.split(".")[1] for found in imported(file)}
        assert folders <= {name, *ALLOWED[name].split()}, file


def test_imports_go_round_in_no_circle():
    """Each folder imports only from folders that stand before it in the table."""
    names = list(ALLOWED)
    for name in names:
        assert set(ALLOWED[name].split()) <= set(names[: names.index(name)]), name


def test_modules_import_each_other_round_in_no_circle():
    """Imports inside functions count, which only put a circle off; those for type checking do not.

    Neither do names that a folder's `__init__` looks up once they are used.
    """
    modules = {}
    for path in (ROOT / "spml_tf").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        modules[name.removesuffix(".__init__")] = path
    graph = {}
    for name, path in modules.items():
        graph[name] = {x if x in modules else x.rpartition(".")[0] for x in imported(path)}
    graphlib.TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_the_design_shows_who_imports_whom():
    text = (ROOT / "docs" / "design.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .+ \| ([\w, ]*)\|$", text, re.M)
    table = {folder: imports.strip().replace(", ", " ") for folder, imports in rows}
    assert {"labels": "", **table} == ALLOWED


def test_every_folder_and_command_has_its_place():
    found = {p.stem for p in (ROOT / "spml_tf").glob("*.py")} - {"__init__", "__main__"}
    found |= {p.parent.name for p in (ROOT / "spml_tf").glob("*/__init__.py")}
    assert found == {*ALLOWED, *COMMANDS}


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.flags")), ids=str)
def test_flagfiles_are_whole(path, tmp_path):
    """Each opens with its command and names a method."""
    text = path.read_text()
    assert re.match(r"# .+\n# python -m spml_tf.train --flagfile=experiments/", text)
    assert str(path.relative_to(ROOT)) in text
    settings = cli.parse([f"--flagfile={path}", f"--data_dir={tmp_path}"], Settings, "")
    methods.parts_of(settings.method)
    resolved = resolve(settings)
    assert resolved.epochs > 1
    assert not flags_without_effect(resolved)


def test_the_package_is_typed_and_lazy():
    assert (ROOT / "spml_tf" / "py.typed").exists()
    assert re.fullmatch(r"\d+\.\d+\.\d+", spml_tf.__version__)
    assert "SPMLModel" in dir(spml_tf)
    with pytest.raises(AttributeError, match="nothing"):
        _ = spml_tf.nothing


def test_readme_and_ci_run_the_same_script():
    assert "bash tools/test.sh\n" in (ROOT / "README.md").read_text()
    assert "bash tools/test.sh\n" in (ROOT / ".ci" / "run").read_text()
