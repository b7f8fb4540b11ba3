"""An optimizer that gives head and label estimates learning rates of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from spml_tf.system.private_api import built_variables, inner_optimizer


@keras.saving.register_keras_serializable("spml_tf")
class GroupedOptimizer(keras.optimizers.MultiOptimizer):
    """`keras.optimizers.MultiOptimizer` that also updates a part of its variables.

    Keras' own class wants a gradient for every variable it was built on; while the backbone is
    frozen only the head has gradients. An optimizer whose variables are all frozen does not step,
    so its learning-rate schedule begins when they thaw.
    """

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Applies gradients to those of the variables it was built on that are passed.

        Args:
            grads: list of tensors, one per variable.
            trainable_variables: list of variables; None means all it was built on.

        Raises:
            KeyError: for a variable the optimizer was not built on.
        """
        variables = trainable_variables or built_variables(self)
        if not self.built:
            self.build(variables)
        groups: dict[keras.optimizers.Optimizer, list[tuple[Any, Any]]] = {}
        for grad, variable in zip(grads, variables, strict=True):
            groups.setdefault(inner_optimizer(self, variable), []).append((grad, variable))
        for optimizer, pairs in groups.items():
            optimizer.apply(*(list(part) for part in zip(*pairs, strict=True)))
        self.iterations.assign_add(1)

    def save_own_variables(self, store: Any) -> None:
        """Saves the step count only: Keras saves the inner optimizers by themselves."""
        store["0"] = self.iterations.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Reads what `save_own_variables` wrote."""
        self.iterations.assign(store["0"])


def head_and_backbone(
    backbone_optimizer: keras.optimizers.Optimizer,
    head_optimizer: keras.optimizers.Optimizer,
    others: Mapping[keras.optimizers.Optimizer, Sequence[keras.Variable]] | None = None,
    head_layer: str = "cam_logits",
) -> GroupedOptimizer:
    """An optimizer for the head's variables and another for all the others.

    Args:
        backbone_optimizer: for every variable outside the head.
        head_optimizer: for the variables of `head_layer`.
        others: optimizers with the variables they are for, such as ROLE's estimates.
        head_layer: name of the head's layer.

    Returns:
        The optimizer to pass to `SPMLModel.compile`.
    """
    groups = keras.optimizers.OptimizerMap(backbone_optimizer)
    groups[rf"(.*/)?{head_layer}/.*"] = head_optimizer
    for optimizer, variables in (others or {}).items():
        groups["|".join(re.escape(variable.path) for variable in variables)] = optimizer
    return GroupedOptimizer(groups)
