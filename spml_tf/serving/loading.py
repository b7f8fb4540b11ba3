"""Classifiers from the folder of a run or of an export."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS
from spml_tf.evaluation.thresholds import NEVER
from spml_tf.serving.classifier import Classifier
from spml_tf.system.errors import UserError, quoted, reason_of
from spml_tf.system.folders import put_back
from spml_tf.system.json_text import parse_json


def load(export_dir: str | os.PathLike[str]) -> Classifier:
    """The SavedModel that `python -m spml_tf.export` has written, ready to predict.

    Args:
        export_dir: its folder.

    Raises:
        UserError: the folder holds no such export, or a threshold was edited to none.
    """
    folder = Path(export_dir)
    try:
        put_back(folder.resolve())
        classes = parse_json((folder / "classes.json").read_text("utf-8"))
        names = list(classes["class_names"])
        thresholds = [classes["thresholds"][x] for x in names]
        size, most = int(classes["image_size"]), classes.get("max_megapixels", MAX_MEGAPIXELS)
        calibration = str(classes.get("calibration", {"rule": "none"})["rule"])
        model = tf.saved_model.load(str(folder))
    # The last two are of weights that were copied in part.
    except (OSError, ValueError, KeyError, TypeError, IndexError, tf.errors.OpError) as error:
        if (folder / "run.json").exists():
            raise UserError(
                f"{export_dir}: is a run and no export; write one with "
                f"python -m spml_tf.export --run_dir={export_dir} --export_dir=FOLDER"
            ) from None
        raise UserError(f"{export_dir}: no spml_tf export ({reason_of(error)})") from None
    for name, value in zip(names, thresholds, strict=True):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= NEVER:
            raise UserError(
                f"{folder / 'classes.json'}: the threshold of {quoted(name)} is {value!r}; it must "
                f"be a number from 0 to 1, or {NEVER} for no decision at all"
            )

    def maps(images: Any) -> tf.Tensor:
        return model.cams(tf.constant(images))["cams"]

    values = np.array(thresholds, np.float64)
    return Classifier(maps, names, values, size, float(most), calibration)


def load_run(
    run_dir: str | os.PathLike[str], thresholds: str = "f1", calibration: str = "none"
) -> Classifier:
    """The best network of a finished run, ready to predict; it needs no export.

    Args:
        run_dir: the run's folder.
        thresholds: how decisions are made, as `export --thresholds`: "f1", "count",
            "precision:0.9", "recall:0.9" or a number as text.
        calibration: "none", "temperature" or "platt", as `export --calibration`.

    Raises:
        UserError: the run is not finished or damaged, or there is no such rule.
    """
    # Exports need none of these, and load a second sooner.
    from spml_tf import networks
    from spml_tf.evaluation.predictions import on_all_devices
    from spml_tf.networks.batch_norm_folding import folded
    from spml_tf.runs.decisions import decisions
    from spml_tf.runs.run_folder import RunFolder

    run = RunFolder(run_dir)
    run.check_finished()
    flags = run.settings()
    found = decisions(run, thresholds, calibration)
    network = folded(found.calibrated(networks.load_network(run.best_network())))
    return Classifier(
        on_all_devices(network), found.class_names, found.thresholds.values,
        flags.image_size, flags.max_megapixels, found.calibration.rule,
    )  # fmt: skip
