"""Whether TensorFlow is compiling with XLA, where some operations have no kernel."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def inside_compiled_function() -> bool:
    """Whether a function with jit_compile=True is being traced; only a private module tells."""
    from tensorflow.python.ops import control_flow_util

    graph: Any = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return graph is not None and bool(control_flow_util.GraphOrParentsInXlaContext(graph))
