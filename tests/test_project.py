"""The project itself: README's code, flagfiles, the direction of imports, the scripts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import spml_tf
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system import cli
from spml_tf.training import methods

ROOT = Path(__file__).parent.parent
# A module imports only from those before it.
ORDER = (
    "errors cli files parallel labels label_files images boxes readers data_settings settings "
    "plans plan_files pipeline encoded networks targets losses baselines methods banks "
    "heatmap_banks label_store optimizers metrics analysis bootstrap missing_labels checkpoints "
    "real_labels thresholds runs run_groups snapshots training_queue callbacks model reports "
    "scoring splits checks summaries image_writers heatmap_recorder prepare train evaluate export "
    "predict data experiments analyze gallery candidates audit report heatmaps"
).split()


def test_readme_example_runs():
    """The Python block as it stands, on small images and without the download."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    for large, small in (
        ('weights="imagenet", image_size=448', "weights=None, image_size=64"),
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


def imported(path: Path) -> set[str]:
    """Modules of spml_tf that a file imports, anywhere in it, other than for type checking."""
    found = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "spml_tf":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spml_tf."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_one_way(name):
    folder = ROOT / "spml_tf" / name
    files = folder.glob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    allowed = set(ORDER[: ORDER.index(name)]) | {name}
    for file in files:
        assert imported(file) <= allowed, file


def test_every_module_has_its_place():
    found = {p.stem for p in (ROOT / "spml_tf").glob("*.py")} - {"__init__"}
    found |= {p.parent.name for p in (ROOT / "spml_tf").glob("*/__init__.py")}
    assert found == set(ORDER)


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.flags")), ids=str)
def test_flagfiles_are_whole(path):
    """Each opens with its command and names a method."""
    text = path.read_text()
    assert re.match(r"# .+\n# python -m spml_tf.train --flagfile=experiments/", text)
    assert str(path.relative_to(ROOT)) in text
    settings = cli.parse([f"--flagfile={path}", "--data_dir=x"], Settings, "")
    methods.parse_method(settings.method)
    assert resolve(settings).epochs > 1


def test_the_package_is_typed_and_lazy():
    assert (ROOT / "spml_tf" / "py.typed").exists()
    assert re.fullmatch(r"\d+\.\d+\.\d+", spml_tf.__version__)
    assert "SPMLModel" in dir(spml_tf)
    with pytest.raises(AttributeError, match="nothing"):
        _ = spml_tf.nothing


def test_readme_and_ci_run_the_same_script():
    assert "bash tools/test.sh\n" in (ROOT / "README.md").read_text()
    assert "bash tools/test.sh\n" in (ROOT / ".ci" / "run").read_text()
