"""Reading networks and weights from files, never executing code stored in them."""

from __future__ import annotations

import os
import warnings
from typing import Any

import h5py
import keras

from spml_tf.networks.cam import CAM_LAYER
from spml_tf.system.errors import UserError, reason_of
from spml_tf.system.hdf5_checks import check_hdf5
from spml_tf.system.private_api import flatten_layers, is_functional


def load_network(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a CAM network that Keras saved.

    Code stored in the file is never executed (``safe_mode=True``).

    Args:
        path: a ``.keras`` file.

    Returns:
        The network, not compiled: "image" [batch, size, size, 3] float32 in 0..255 -> CAM logits
        [batch, grid, grid, classes] float32.

    Raises:
        UserError: naming the file, if it is missing, damaged or no CAM network.
    """
    network = load_keras_file(path)
    problem = _cam_problem(network)
    if problem:
        raise UserError(
            f"{os.fspath(path)}: not a CAM network ({problem}); pass the network that training "
            "saved, or build one with cam_from_classifier"
        )
    return network


def load_keras_file(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a ``.keras`` file in safe mode, not compiled.

    Args:
        path: a ``.keras`` file.

    Returns:
        The model.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    path = _existing_file(path)
    if not path.endswith(".keras"):
        raise UserError(f"{path}: not a .keras file; save the network with model.save('x.keras')")
    check_hdf5(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever a damaged or foreign archive makes Keras raise
        raise UserError(
            f"{path}: Keras cannot load it ({_reason(error)}); save it again with this version "
            "of Keras, without Lambda layers, and import the module of its custom layers"
        ) from error


def chosen_weights(weights: str | os.PathLike[str] | None) -> str | None:
    """Returns None for ``None`` and ``"none"``, else ``"imagenet"`` or the path as a string."""
    return None if weights in (None, "none") else os.fspath(weights)


def load_backbone_weights(backbone: keras.Model, path: str | os.PathLike[str]) -> None:
    """Loads a file's weights into every layer of a backbone.

    Args:
        backbone: a plain Keras model (batch normalisation not fused: a ``.weights.h5`` file
            addresses layers by their class); its weights are overwritten.
        path: a whole model (``.keras``, ``.h5``) or weights (``.weights.h5``, ``.h5``) of the
            same architecture, with or without its classification head.

    Raises:
        UserError: naming the file, if it is missing, damaged or of another architecture.
    """
    path = _existing_file(path)
    if not path.endswith((".keras", ".h5", ".hdf5")):
        raise UserError(f"{path}: unknown kind of weights; pass a .keras, .weights.h5 or .h5 file")
    if not path.endswith(".keras"):
        check_hdf5(path)
    try:
        if path.endswith(".keras"):
            _copy_by_name(load_keras_file(path), backbone)
        elif path.endswith(".weights.h5"):
            _load_strictly(backbone, path)
        else:
            _load_legacy(backbone, path)
    except UserError:
        raise
    except Exception as error:  # a damaged file or another architecture: Keras raises anything
        raise UserError(
            f"{path}: these are no weights of {backbone.name!r} ({_reason(error)}); "
            "pass a file of the same architecture, or 'none'"
        ) from error


def _load_strictly(backbone: keras.Model, path: str) -> None:
    """Loads a ``.weights.h5`` file; Keras only warns where a layer stays as it was initialised."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        backbone.load_weights(path)


def _load_legacy(backbone: keras.Model, path: str) -> None:
    """Loads an ``.h5`` file of Keras 2's layout, by the layers' names where they agree."""
    with h5py.File(path, "r") as file:
        group = file if "layer_names" in file.attrs else file["model_weights"]
        stored = {name if isinstance(name, str) else name.decode() for name in group}
    wanted = {layer.name for layer in backbone.layers if layer.weights}
    # By name Keras skips what is missing without a word, so it is used for complete files only;
    # in any other file it counts the layers.
    backbone.load_weights(path, **({"by_name": True} if wanted <= stored else {}))


def _copy_by_name(source: keras.Model, backbone: keras.Model) -> None:
    """Copies the weights of the layers with the same names, nested ones included."""
    layers = {x.name: x for x in flatten_layers(source, include_self=False)}
    for layer in backbone.layers:
        if layer.weights:
            if layer.name not in layers:
                raise ValueError(f"it has no layer {layer.name!r}")
            layer.set_weights(layers[layer.name].get_weights())


def _cam_problem(network: Any) -> str | None:
    """Returns what keeps a loaded object from being a CAM network, None if it is one."""
    if not isinstance(network, keras.Model) or not is_functional(network):
        return "not a functional Keras model"
    if CAM_LAYER not in [layer.name for layer in network.layers]:
        return f"it has no layer {CAM_LAYER!r}"
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        return "it has several inputs or outputs"
    image, maps = network.inputs[0], network.outputs[0]
    if maps is not network.get_layer(CAM_LAYER).output or len(maps.shape) != 4:
        return f"its output is not the map of layer {CAM_LAYER!r}"
    if len(image.shape) != 4 or image.shape[-1] != 3:
        return f"its input has the shape {image.shape}, not [batch, size, size, 3]"
    return None


def _existing_file(path: str | os.PathLike[str]) -> str:
    """Returns the path as a string; UserError if there is no such file."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; pass the path of saved weights or a saved network")
    return path


def _reason(error: Exception) -> str:
    """Returns an exception as the beginning of one line."""
    return f"{type(error).__name__}: {reason_of(error, 200)}"
