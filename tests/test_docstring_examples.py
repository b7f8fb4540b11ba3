"""The examples in docstrings print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import spml_tf
from spml_tf import labels, losses, networks
from spml_tf.datasets import observed_labels, split_notes
from spml_tf.evaluation import bootstrap, calibration, decision_report, measures, thresholds
from spml_tf.training import methods, selection

ROOT = Path(__file__).parent.parent
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "spml_tf").rglob("*.py")
    if ">>>" in path.read_text()
)


# What a reader of the examples has imported.
IMPORTED = {"keras": keras, "np": np, "spml_tf": spml_tf, "tf": tf}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name, monkeypatch):
    """Each docstring alone, with the names that its module knows; what one registers goes again."""
    for module, table in ((methods, "METHODS"), (methods, "ADDITIONS"), (networks, "NETWORKS")):
        monkeypatch.setattr(module, table, dict(getattr(module, table)))
    finder = doctest.DocTestFinder()
    found = finder.find(importlib.import_module(name), extraglobs=IMPORTED)
    found = [x for x in found if x.examples]
    assert found
    runner = doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    for example in found:
        runner.run(example, out=said.append)
    assert not runner.failures, "".join(said)


FUNCTIONS = [getattr(losses, name) for name in losses.__all__] + [
    function
    for module in (labels, measures, bootstrap, thresholds, calibration, decision_report, selection)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
]
FUNCTIONS += [
    observed_labels.draw_observed,
    observed_labels.draw_ranked,
    observed_labels.draw_partial,
    observed_labels.split_indices,
    split_notes.perfect_mean_average_precision,
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda x: x.__name__)
def test_what_users_call_has_an_example(function):
    doc = inspect.getdoc(function)
    assert ">>> " in doc and function.__name__ in doc[doc.index(">>> ") :]
