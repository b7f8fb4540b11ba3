"""The decorator by which code outside of the package adds parts, networks and data sets."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def register(name: str) -> Callable[[_T], _T]:
    """Registers a part, a network or a data set of your own under a name, as a decorator.

    A loss (a `keras.losses.Loss`, best a `spml_tf.losses.LabelLoss`) becomes the method `name`; so
    does a term that trains on labels. A rule or a term may follow any method, as in "en+name". A
    function `(num_classes, weights=None, image_size=None) -> keras.Model` becomes the network
    `name`. A `spml_tf.datasets.readers.Reader` becomes the data set `name`. Classes are registered
    with Keras too, so that models that hold them can be loaded. Options declared with
    `spml_tf.option` become keywords of `SPMLModel` and, in files named by `--plugins`, flags.

    Args:
        name: lower-case letters, digits and underscores.

    Returns:
        The decorator; what it decorates stays as it is.

    Raises:
        ValueError: the name is taken or is no such name, or the object is of another kind.

    Examples:
        >>> @spml_tf.register("positives_only")
        ... class PositivesOnly(spml_tf.losses.LabelLoss):
        ...     @staticmethod
        ...     def function(labels, logits, weights=None):
        ...         terms = tf.where(labels == 1, tf.nn.softplus(-logits), 0.0)
        ...         return spml_tf.losses.mean_over_classes(terms, weights)
        >>> network = spml_tf.networks.small_residual_cam(3, image_size=32, width=16)
        >>> spml_tf.SPMLModel(network, num_images=8, method="positives_only+cl").terms[0].loss.name
        'positives_only'
    """
    from spml_tf import networks
    from spml_tf.datasets import readers
    from spml_tf.training import methods

    if not _NAME.fullmatch(name):
        raise ValueError(
            "a registered name holds lower-case letters, digits and underscores. "
            f"Received: {name!r}"
        )
    taken = {**methods.METHODS, **methods.ADDITIONS, **networks.NETWORKS, **readers.READERS}

    def add(item: _T) -> _T:
        if name in taken and not _again(name, item):
            raise ValueError(f"{name!r} is registered already; choose another name")
        _add(name, item)
        return item

    return add


def _again(name: str, item: Any) -> bool:
    """Whether the same definition is registered anew, as by a notebook's cell."""
    from spml_tf import networks
    from spml_tf.datasets import readers
    from spml_tf.training import methods

    parts = [*methods.METHODS.get(name, ()), methods.ADDITIONS.get(name)]
    before: list[Any] = [x.part for x in parts if x is not None]
    before += [networks.NETWORKS.get(name), readers.READERS.get(name)]
    return any(_place(x) == _place(item) for x in before)


def _place(item: Any) -> tuple[str | None, str | None]:
    item = getattr(item, "source", item)  # the function of a Reader
    return getattr(item, "__module__", None), getattr(item, "__qualname__", None)


def _add(name: str, item: Any) -> None:
    import keras

    from spml_tf import networks
    from spml_tf.datasets import readers
    from spml_tf.system.options import Options
    from spml_tf.training import methods
    from spml_tf.training.parts import Rule, Term

    if isinstance(item, readers.Reader):
        _check_reader(item)
        readers.READERS[name] = item
        return
    made = isinstance(item, keras.losses.Loss | keras.layers.Layer)
    if callable(item) and not made and not isinstance(item, type):
        networks.NETWORKS[name] = item
        return
    if made or not isinstance(item, type) or not issubclass(item, Rule | Term | keras.losses.Loss):
        raise ValueError(
            "only losses, rules, terms, functions that make networks and Readers of data sets are "
            f"registered, the first three as classes. Received: {item!r}"
        )
    base = keras.losses.Loss if issubclass(item, keras.losses.Loss) else keras.layers.Layer
    declared = item.declared() if issubclass(item, Options) else {}
    for taken in (x for x in declared if hasattr(base, x)):
        raise ValueError(
            f"{item.__name__}: the option {taken!r} has a name of Keras' own; rename it"
        )
    package = item.__module__.partition(".")[0]
    if keras.saving.get_registered_name(item) == item.__name__:
        keras.saving.register_keras_serializable(package)(item)
    # What a class inherits is its base's; of two names in one method each needs its own.
    if issubclass(item, Options) and "prefix" not in vars(item):
        item.prefix = name
    options = item if issubclass(item, Options) else Options
    if issubclass(item, Term) and "reported_as" not in vars(item):
        item.reported_as = name
    part = methods.PartOf(
        item,
        "rule" if issubclass(item, Rule) else "term" if issubclass(item, Term) else "loss",
        options,
        marks=getattr(item, "marks", ""),
        needs_label_loss=getattr(item, "needs_label_loss", False),
        trains=issubclass(item, Rule | Term),
        reported_as=getattr(item, "reported_as", ""),
    )
    if issubclass(item, keras.losses.Loss) or (issubclass(item, Term) and item.trains_labels):
        methods.METHODS[name] = (part,)
    if issubclass(item, Rule | Term):
        methods.ADDITIONS[name] = part


def _check_reader(reader: Any) -> None:
    from spml_tf.datasets.readers import SplitNames
    from spml_tf.datasets.settings import KINDS_OF_LABELS

    if isinstance(reader.source, str) or not isinstance(reader.splits, SplitNames):
        raise ValueError(
            "a data set of your own is Reader(load, SplitNames(train, val, test)) with a function "
            f"load(data_dir, split). Received: {reader!r}"
        )
    if reader.train_labels not in KINDS_OF_LABELS:
        words = ", ".join(KINDS_OF_LABELS)
        raise ValueError(f"train_labels is one of {words}. Received: {reader.train_labels!r}")
    for name, parameter in list(inspect.signature(reader.source).parameters.items())[2:]:
        if parameter.default is parameter.empty and name not in ("seed", *reader.chosen):
            raise ValueError(
                f"the parameter {name!r} of {reader.source!r} needs a default; a reader is called "
                "with data_dir, split, and the flags and seed that it has parameters for"
            )
