"""Azure AutoML's JSON Lines: a URL and a label, or several, a line.

{"image_url": "azureml://.../Image_02.jpg", "image_details": {}, "label": ["can", "bottle"]}
"""

from __future__ import annotations

from spml_tf.datasets.label_formats.collected_labels import LabelFile, Labels
from spml_tf.datasets.table_options import TableOptions

_PRESET = TableOptions(image_column="image_url", label_column="label", label_separator="json")


def recognises(file: LabelFile) -> bool:
    """Whether its lines are objects with image_url and label."""
    return file.suffix in (".jsonl", ".ndjson") and {"image_url", "label"} <= set(file.header)


def read(file: LabelFile, options: TableOptions) -> Labels:
    """What is not named is unknown, unless --unlisted=negative."""
    return file.read_table(options, _PRESET)
