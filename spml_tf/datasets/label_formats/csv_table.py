"""Any other table: `tables.read_table` with the flags about tables."""

from __future__ import annotations

from spml_tf.datasets.label_formats.collected_labels import LabelFile, Labels
from spml_tf.datasets.table_options import TableOptions

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")


def recognises(file: LabelFile) -> bool:
    """Whether it is called as a table or JSON Lines are, and is no list of class names."""
    return file.suffix in _TABLES and "class-descriptions" not in file.path.name


def read(file: LabelFile, options: TableOptions) -> Labels:
    """As the table looks, and as the flags say."""
    return file.read_table(options, TableOptions())
