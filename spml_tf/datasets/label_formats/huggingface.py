"""Hugging Face's ImageFolder: `metadata.csv` or `metadata.jsonl` beside the photos.

{"file_name": "0001.png", "labels": ["cat", "dog"]}
"""

from __future__ import annotations

from spml_tf.datasets.label_formats.collected_labels import LabelFile, Labels
from spml_tf.datasets.table_options import TableOptions


def recognises(file: LabelFile) -> bool:
    """Whether it is called metadata, or is JSON Lines, and has the key file_name."""
    return "file_name" in file.header and (
        file.path.stem == "metadata" or file.suffix in (".jsonl", ".ndjson")
    )


def read(file: LabelFile, options: TableOptions) -> Labels:
    """Lists, single names, or a key per class with 1 and 0."""
    return file.read_table(options, TableOptions(image_column="file_name"))
