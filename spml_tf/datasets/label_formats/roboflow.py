"""Roboflow's multi-label export: `_classes.csv` beside the photos of each split.

filename, cat, dog
417_jpg.rf.002c.jpg, 1, 0
"""

from __future__ import annotations

from spml_tf.datasets.label_formats.collected_labels import LabelFile, Labels
from spml_tf.datasets.table_options import TableOptions


def recognises(file: LabelFile) -> bool:
    """Whether it is called `_classes.csv` and begins with filename."""
    return file.path.name == "_classes.csv" and file.header[:1] == ("filename",)


def read(file: LabelFile, options: TableOptions) -> Labels:
    """0 is negative."""
    return file.read_table(options, TableOptions(image_column="filename"))
