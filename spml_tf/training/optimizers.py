"""An optimizer that gives head and label estimates learning rates of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from spml_tf.system import replicas
from spml_tf.system.private_api import (
    built_variables,
    inner_optimizer,
    optimizer_for,
    optimizer_map,
    outside_strategy,
)


@keras.saving.register_keras_serializable("spml_tf")
class GroupedOptimizer(keras.optimizers.MultiOptimizer):
    """`keras.optimizers.MultiOptimizer` that also updates a part of its variables.

    Keras' own class wants a gradient for every variable it was built on; while the backbone is
    frozen only the head has gradients. An optimizer whose variables are all frozen does not step,
    so its learning-rate schedule begins when they thaw.

    Under a `tf.distribute` strategy tables that a process keeps once, such as ROLE's estimates, are
    updated once a process, with the gradients of all its replicas. Their optimizer must have been
    made by `outside_strategy`.
    """

    def build(self, var_list: Sequence[Any]) -> None:
        """Creates what the optimizers remember of variables."""
        if self.built:
            return
        tables: dict[keras.optimizers.Optimizer, list[Any]] = {}
        for variable in filter(kept_once, var_list):
            tables.setdefault(optimizer_for(self, variable), []).append(variable)
        with outside_strategy():
            for optimizer, own in tables.items():
                optimizer.build(own)
        super().build(var_list)

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
            given, changed = (list(part) for part in zip(*pairs, strict=True))
            if kept_once(changed[0]):
                _apply_once(optimizer, given, changed)
            else:
                optimizer.apply(given, changed)
        self.iterations.assign_add(1)

    def save_own_variables(self, store: Any) -> None:
        """Saves the step count only: Keras saves the inner optimizers by themselves."""
        store["0"] = self.iterations.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Reads what `save_own_variables` wrote."""
        self.iterations.assign(store["0"])


def unwrapped(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that updates; Keras puts another around it for float16."""
    inner: keras.optimizers.Optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return inner


def kept_once(variable: Any) -> bool:
    """Whether a variable is a process' own under a strategy, instead of every replica's."""
    extended = tf.distribute.get_strategy().extended
    return tf.distribute.has_strategy() and not extended.variable_created_in_scope(variable.value)


def dense(gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    """Gradients as optimizers take them; those of a process' own tables stay sparse."""
    return [
        grad if grad is None or kept_once(variable) else tf.convert_to_tensor(grad)
        for grad, variable in zip(gradients, variables, strict=True)
    ]


def _apply_once(
    optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any], variables: Sequence[Any]
) -> None:
    """One update of tables with the gradients, `tf.IndexedSlices`, of all replicas of a process."""

    def update(*slices: tf.Tensor) -> None:
        pairs = zip(slices[::2], slices[1::2], variables, strict=True)
        whole = [
            tf.convert_to_tensor(
                tf.IndexedSlices(rows, index, tf.constant(tuple(variable.shape), index.dtype))
            )
            for rows, index, variable in pairs
        ]
        optimizer.apply(whole, list(variables))

    replicas.once_a_process(update, *(part for x in gradients for part in (x.values, x.indices)))


def with_tables(optimizer: Any, tables: Sequence[keras.Variable]) -> Any:
    """An optimizer that can train a process' own tables too.

    Args:
        optimizer: as `keras.Model.compile` takes it.
        tables: variables of parts.

    Returns:
        The same, or under a strategy one that updates the tables with a copy of it.
    """
    own = [variable for variable in tables if kept_once(variable)]
    if own and isinstance(optimizer, GroupedOptimizer):
        return _with_copies_outside(optimizer, own)
    if not own:
        return optimizer
    optimizer = keras.optimizers.get(optimizer)
    groups = keras.optimizers.OptimizerMap(optimizer)
    groups[_paths(own)] = _outside(optimizer)
    return GroupedOptimizer(groups)


def _paths(variables: Sequence[keras.Variable]) -> str:
    """A pattern of the paths of variables, and of no others."""
    return "|".join(re.escape(variable.path) for variable in variables)


def _outside(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """A copy whose variables a process keeps once."""
    with outside_strategy():
        copy: keras.optimizers.Optimizer = type(optimizer).from_config(optimizer.get_config())
    return copy


def _with_copies_outside(
    optimizer: GroupedOptimizer, own: Sequence[keras.Variable]
) -> GroupedOptimizer:
    """The same, but that the optimizers of tables are a process' own: those of a file are not."""
    if all(kept_once(optimizer_for(optimizer, variable).iterations) for variable in own):
        return optimizer
    given = optimizer_map(optimizer)
    groups = keras.optimizers.OptimizerMap(given.default_optimizer)
    others = list(own)
    for pattern, one in given.items():
        of_tables = any(re.fullmatch(pattern, x.path) for x in own)
        groups[pattern] = _outside(one) if of_tables and not kept_once(one.iterations) else one
        others = [x for x in others if not re.fullmatch(pattern, x.path)]
    if others:
        groups[_paths(others)] = _outside(given.default_optimizer)
    return GroupedOptimizer(groups)


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
        groups[_paths(variables)] = optimizer
    return GroupedOptimizer(groups)
