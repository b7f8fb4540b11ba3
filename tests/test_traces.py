"""How often a run traces its functions: each trace takes seconds with a large network."""

from __future__ import annotations

from collections import Counter

from conftest import flags, run

# A plug-in that tells of every function whenever TensorFlow runs its Python, which is a trace.
TELLING = """
import functools
import tensorflow as tf
from spml_tf.training.model import SPMLModel

def telling(function, name):
    @functools.wraps(function)
    def told(*arguments, **named):
        print("trace of", name, flush=True)
        return function(*arguments, **named)
    return told

def compiled(function=None, **options):
    if function is None:
        return functools.partial(compiled, **options)
    return real(telling(function, f"{function.__module__}.{function.__qualname__}"), **options)

real, tf.function = tf.function, compiled
for step in ("train_step", "test_step"):
    setattr(SPMLModel, step, telling(getattr(SPMLModel, step), step))
"""


def test_a_run_traces_each_function_once(voc, tmp_path):
    """Two epochs of 24 images in batches of 5, each with validation; then scores of val and test.

    The last batch of each is smaller, and no reason to trace again.
    """
    plugin = tmp_path / "telling.py"
    plugin.write_text(TELLING)
    words = flags(voc, epochs=2, batch_size=5)
    done = run(*words, f"--plugins={plugin}", f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("trace of ")]
    traces = Counter(line.removeprefix("trace of ") for line in told)
    assert traces["train_step"] == traces["test_step"] == 1
    predicting = "spml_tf.evaluation.predictions.on_all_devices.<locals>.<lambda>"
    assert traces[predicting] == 1
    steps = {name: count for name, count in traces.items() if "one_step" in name}
    assert steps and set(steps.values()) == {2}, steps  # of training and of validation
