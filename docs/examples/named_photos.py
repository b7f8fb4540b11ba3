"""A data set: photos whose names say what they show, as in train/cat+dog_12.jpg."""

from pathlib import Path

import numpy as np

import spml_tf
from spml_tf.datasets.readers import Examples, Reader, SplitNames


def load(data_dir, split):
    """The photos of a folder of a split; all that they show is in their names."""
    paths = sorted(Path(data_dir, split).glob("*.jpg"))
    if not paths:
        raise spml_tf.UserError(f"--data_dir={data_dir}: holds no {split}/*.jpg")
    shown = [path.stem.partition("_")[0].split("+") for path in paths]
    # Of all splits, so that each has the same classes.
    stems = {path.stem.partition("_")[0] for path in Path(data_dir).glob("*/*.jpg")}
    classes = sorted({name for stem in stems for name in stem.split("+")})
    labels = [[name in names for name in classes] for names in shown]
    return Examples(
        names=tuple(f"{split}/{path.name}" for path in paths),
        labels=np.array(labels, np.int8),
        class_names=tuple(classes),
        paths=tuple(str(path.absolute()) for path in paths),
    )


spml_tf.register("named_photos")(Reader(load, SplitNames("train", "none", "test")))
