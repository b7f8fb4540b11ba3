"""The examples in docstrings print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

from spml_tf import labels, losses
from spml_tf.evaluation import bootstrap, measures, thresholds
from spml_tf.training import selection

ROOT = Path(__file__).parent.parent
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "spml_tf").rglob("*.py")
    if ">>>" in path.read_text()
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name):
    """Each docstring alone, with the names that its module knows."""
    module = importlib.import_module(name)
    found = [x for x in doctest.DocTestFinder().find(module) if x.examples]
    assert found
    runner = doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    for example in found:
        runner.run(example, out=said.append)
    assert not runner.failures, "".join(said)


FUNCTIONS = [getattr(losses, name) for name in losses.__all__] + [
    function
    for module in (labels, measures, bootstrap, thresholds, selection)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda x: x.__name__)
def test_what_users_call_has_an_example(function):
    doc = inspect.getdoc(function)
    assert ">>> " in doc and function.__name__ in doc[doc.index(">>> ") :]
