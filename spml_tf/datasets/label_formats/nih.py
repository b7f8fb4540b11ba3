"""NIH ChestX-ray14's table: names separated by a bar; `No Finding` means none.

Image Index,Finding Labels,Follow-up #,Patient ID,...
00000001_001.png,Cardiomegaly|Emphysema,1,1,...
"""

from __future__ import annotations

from spml_tf.datasets.label_formats.collected_labels import LabelFile, Labels
from spml_tf.datasets.table_options import TableOptions

_PRESET = TableOptions(
    image_column="Image Index",
    label_column="Finding Labels",
    label_separator="bar",
    no_label="No Finding",
    unlisted="negative",
)


def recognises(file: LabelFile) -> bool:
    """Whether it has the columns Image Index and Finding Labels."""
    return {"Image Index", "Finding Labels"} <= set(file.header)


def read(file: LabelFile, options: TableOptions) -> Labels:
    """Reports are complete: what is not named is negative, unless --unlisted=unknown."""
    return file.read_table(options, _PRESET)
