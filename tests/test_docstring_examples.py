"""The examples in docstrings print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

from spml_tf import losses

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


@pytest.mark.parametrize("name", losses.__all__)
def test_every_loss_has_an_example(name):
    doc = inspect.getdoc(getattr(losses, name))
    assert ">>> " in doc and name in doc[doc.index(">>> ") :]
