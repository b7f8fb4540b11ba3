"""What users pass to `compile` and `fit`, looked at before training begins.

Each check runs eagerly and once: on arrays as a whole, on the first batch of anything else. What
cannot be meant is refused with a ValueError; what may be meant is noted with a warning. Only
`check_in_pipeline` looks at every batch, as it is read.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.labels import GIVEN, POSITIVE, UNKNOWN
from spml_tf.losses import LabelLoss
from spml_tf.training.batches import FEATURES, MUST_BE, checked_labels, missing_inputs
from spml_tf.training.label_weights import check_numbers

# How far a box may lie outside of its image: coordinates are rounded.
_ROUNDED = 1e-3

if TYPE_CHECKING:
    from spml_tf.training.model import SPMLModel


def check_loss(loss: Any) -> None:
    """Raises ValueError for a loss that `compile` cannot take."""
    if not isinstance(loss, LabelLoss):
        raise ValueError(
            "compile(loss=...) takes a loss of spml_tf.losses, such as "
            "spml_tf.losses.AssumeNegative(), or none: the method brings its own. "
            f"Received: {loss!r}"
        )


def check_jit(model: SPMLModel) -> None:
    """Raises ValueError where a compiled step would have to leave the GPU."""
    if not tf.config.list_logical_devices("GPU"):
        return
    hosted = [weight.path for weight in model.weights if "CPU" in weight.value.device]
    if hosted:
        raise ValueError(
            f"jit_compile=True: {hosted[0]} is in host memory, which a step compiled by XLA "
            "cannot reach from a GPU; leave jit_compile out"
        )


def check_data(model: SPMLModel, given: dict[str, Any]) -> None:
    """Looks at the training data, and at the labels of the validation data.

    Args:
        model: that is to be trained.
        given: arguments of `fit` by name; a generator whose first batch was taken is replaced, and
            so are datasets, see `check_in_pipeline`.

    Raises:
        ValueError: for what cannot be meant, see `check_batch`.
    """
    x, y, weight = given.get("x"), given.get("y"), given.get("sample_weight")
    if isinstance(x, types.GeneratorType):
        first = next(x, None)
        given["x"] = _again(first, x)
        x, y, weight = _unpacked(first)
    else:
        x, y, weight = _first(x, y, weight)
    if x is not None:
        whole = isinstance(given.get("x"), Mapping)
        check_batch(model, x, y, weight, whole=whole)
    if given.get("validation_data") is not None:
        data = given["validation_data"]
        several = data if isinstance(data, tuple | list) else (data,)
        names = ("x", "y", "sample_weight")
        check_evaluated(model, dict(zip(names, several, strict=False)), "validation labels")
    for name in ("x", "validation_data"):
        check_in_pipeline(model, given, name)


def check_in_pipeline(model: SPMLModel, given: dict[str, Any], name: str) -> None:
    """Has a dataset's pipeline look at the labels of each batch where XLA compiles the step.

    Steps look at them themselves, but XLA drops assertions.

    Args:
        model: compiled.
        given: arguments of `fit` or `evaluate` by name, among which the dataset is replaced.
        name: of the dataset's; anything else stays.
    """
    data = given.get(name)
    if model.jit_compile and isinstance(data, tf.data.Dataset):
        given[name] = data.map(lambda x, y, *weight: (x, checked_labels(y), *weight))


def check_evaluated(model: SPMLModel, given: Mapping[str, Any], what: str = "labels") -> None:
    """Looks at labels and weights of images that are not trained on.

    Args:
        model: that is to be evaluated.
        given: arguments of `evaluate` by name.
        what: messages call the labels.

    Raises:
        ValueError: labels are missing, none of 1, 0, -1 or of another shape; weights are of another
            shape.
    """
    x, y, weight = _first(given.get("x"), given.get("y"), given.get("sample_weight"))
    if x is not None and y is None:
        raise ValueError(f"evaluation needs {what}: give images with them, (x, y)")
    if y is not None:
        labels = np.asarray(y)
        _check_labels(labels, model.num_classes, what)
        if weight is not None:
            _check_weight(np.asarray(weight), labels.shape)


def _first(x: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Arrays as they are, or the first batch of a dataset; None where there is no looking ahead."""
    if isinstance(x, tf.data.Dataset):
        batch = next(iter(x.take(1)), None)
    elif isinstance(x, keras.utils.PyDataset):
        batch = None if x.num_batches == 0 else x[0]  # None: they go on for ever
    elif isinstance(x, tf.distribute.DistributedDataset) or hasattr(x, "__next__"):
        batch = None  # a batch that was taken would be lost
    else:
        return x, y, weight
    return _unpacked(batch)


def _again(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    """A generator, as Keras wants it, of what is left and what was taken of it."""
    if first is not None:
        yield first
    yield from rest


def _unpacked(batch: Any) -> tuple[Any, Any, Any]:
    if batch is None:
        return None, None, None
    found: tuple[Any, Any, Any] = keras.utils.unpack_x_y_sample_weight(batch)
    return found


def check_batch(model: SPMLModel, x: Any, y: Any, weight: Any = None, whole: bool = False) -> None:
    """Looks at a batch, or at arrays that hold the whole training set.

    Args:
        model: that is to be trained.
        x: dict of "image" (or "features"), "index" and perhaps "box" and "flip".
        y: labels.
        weight: sample weights, or None.
        whole: whether these are many batches.

    Raises:
        ValueError: image or index is missing, or features stand for images that a part looks at;
            the index is out of range or holds an image twice; a box is none in [0, 1]; labels are
            none of 1, 0, -1 or of another shape; weights are of another shape.
    """
    reason = missing_inputs(x)
    if reason:
        raise ValueError(reason)
    _check_features(model, x)
    _check_index(np.asarray(x["index"]), model.num_images)
    if "box" in x:
        _check_box(np.asarray(x["box"], np.float32), len(x["index"]))
    if "flip" in x and np.shape(x["flip"]) != (len(x["index"]),):
        raise ValueError(
            f"flip must be of shape [{len(x['index'])}], whether each crop is mirrored. "
            f"Received: {np.shape(x['flip'])}"
        )
    if y is None:
        raise ValueError("training batches hold no labels: give (x, y)")
    labels = np.asarray(y)
    _check_labels(labels, model.num_classes, "labels")
    if len(labels) != len(x["index"]):
        raise ValueError(f"{len(labels)} rows of labels for {len(x['index'])} indices")
    if weight is not None:
        _check_weight(np.asarray(weight), labels.shape)
    if "image" in x:
        _note_images(x["image"])
    _note_other_inputs(x)
    if whole or not model.epoch.numpy():
        note_known(model, labels)
    estimates = any(rule.estimates_priors for rule in model.rules)
    if whole and estimates and not (labels == POSITIVE).any():
        raise ValueError(
            f"no label is positive (1): the method {model.method!r} cannot estimate how many are "
            "missing"
        )


def _check_features(model: SPMLModel, x: Any) -> None:
    looking = [part.name for part in model.parts if part.needs_images]
    if looking and "image" not in x:
        raise ValueError(
            f"training batches hold features, and {looking[0]} looks at the images in each step; "
            "give images"
        )


def _check_index(index: NDArray[Any], num_images: int) -> None:
    if index.dtype.kind not in "iu":
        raise ValueError(f"index must be integers [B]. Received: {index.dtype} {index.shape}")
    if index.ndim != 1:
        raise ValueError(f"index must be of shape [B]. Received: {index.shape}")
    outside = index[(index < 0) | (index >= num_images)]
    if len(outside):
        raise ValueError(
            f"index must lie in [0, num_images={num_images}): it is each image's row in the banks. "
            f"Received: {outside[0]}"
        )
    values, counts = np.unique(index, return_counts=True)
    several = np.flatnonzero(counts > 1)
    if len(several):
        raise ValueError(
            f"index holds {values[several[0]]} {counts[several[0]]} times: each image of the "
            "training set has a number of its own; spml_tf.with_index gives them out"
        )


def _check_box(box: NDArray[np.float32], size: int) -> None:
    if box.shape != (size, 4):
        raise ValueError(f"box must be of shape [{size}, 4]. Received: {box.shape}")
    low, high = box[:, :2], box[:, 2:]
    wrong = ~((low >= -_ROUNDED) & (low < high) & (high <= 1 + _ROUNDED)).all(axis=1)
    if wrong.any():
        raise ValueError(
            "box must be (y1, x1, y2, x2) in [0, 1] of the whole image, y1 < y2 and x1 < x2. "
            f"Received: {box[wrong][0].tolist()}"
        )


def _check_labels(labels: NDArray[Any], num_classes: int, what: str) -> None:
    if labels.ndim != 2 or labels.shape[1] != num_classes:
        raise ValueError(
            f"{what} must be of shape [B, {num_classes}], a column per class. "
            f"Received: {labels.shape}"
        )
    known = np.isin(labels, GIVEN)
    if not known.all():
        row, column = np.argwhere(~known)[0]
        raise ValueError(f"{what} {MUST_BE} {labels[row, column]:g} in row {row}, column {column}")


def _check_weight(weight: NDArray[Any], shape: tuple[int, ...]) -> None:
    if weight.shape not in ((shape[0],), (shape[0], 1), shape):
        raise ValueError(
            f"sample_weight must be of shape [{shape[0]}] or {list(shape)}. "
            f"Received: {list(weight.shape)}"
        )
    check_numbers("sample_weight", weight)


def _note_images(images: Any) -> None:
    some = np.asarray(images[:1])
    if some.dtype.kind == "f" and 0 < some.max() <= 1:
        warnings.warn(
            f"images lie in 0..{some.max():g}: the networks of spml_tf take 0..255; multiply by "
            "255, unless your network takes 0..1",
            UserWarning,
            stacklevel=4,
        )


def _note_other_inputs(x: Mapping[str, Any]) -> None:
    others = sorted(set(x) - {"image", FEATURES, "index", "box", "flip"})
    if others:
        warnings.warn(
            f"training batches hold {', '.join(others)}, which nothing looks at; a crop is told by "
            '"box" and "flip"',
            UserWarning,
            stacklevel=4,
        )


def note_known(model: SPMLModel, labels: NDArray[Any]) -> None:
    """Warns where a method that marks unknown labels has none; labels are those of images."""
    if model.rules and (labels != UNKNOWN).all():
        warnings.warn(
            f"no label is unknown (-1): the method {model.method!r} has nothing to mark; write -1 "
            "for labels that nobody gave, or train with method='bce'",
            UserWarning,
            stacklevel=4,
        )
