"""CheXpert's table: metadata between path and classes; -1.0 is uncertain.

Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema
CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Male,60,Frontal,AP,1.0,
"""

from __future__ import annotations

import re

from spml_tf.datasets.label_formats.collected_labels import LabelFile, Labels
from spml_tf.datasets.table_options import TableOptions

_METADATA = ("Sex", "Age", "Frontal/Lateral", "AP/PA")


def recognises(file: LabelFile) -> bool:
    """Whether it has the columns Path and Frontal/Lateral."""
    return {"Path", "Frontal/Lateral"} <= set(file.header)


def read(file: LabelFile, options: TableOptions) -> Labels:
    """-1 is unknown unless --minus_one says otherwise; the archive's name is left out of paths."""
    archive = re.search(r"^(CheXpert[^/\n]*/)", file.text, re.M)
    omitted = ",".join(name for name in _METADATA if name in file.header)
    preset = TableOptions(
        image_column="Path",
        omit_columns=None if options.label_columns else omitted,
        minus_one="unknown",
        strip_prefix=archive[1] if archive else None,
    )
    return file.read_table(options, preset)
