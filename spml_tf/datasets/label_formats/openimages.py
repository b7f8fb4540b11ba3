"""Open Images' image-level labels, a row a label; 1 is verified there, 0 verified not there.

    ImageID,Source,LabelName,Confidence
    000026e7ee790996,verification,/m/04hgtk,0

Machines' labels have fractions and are unknown. Names are in `class-descriptions.csv`, in the same
folder or the one above.
"""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

from spml_tf.datasets.label_formats.collected_labels import LabelFile, Labels
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system.errors import UserError
from spml_tf.system.text_files import read_csv

_PRESET = TableOptions(
    image_column="ImageID",
    label_column="LabelName",
    value_column="Confidence",
    label_separator="none",
    skip_fractions=True,
    add_extension=".jpg",
)


def recognises(file: LabelFile) -> bool:
    """Whether it has the columns ImageID, LabelName and Confidence."""
    return {"ImageID", "LabelName", "Confidence"} <= set(file.header)


def read(file: LabelFile, options: TableOptions) -> Labels:
    """Labels by the classes' display names.

    Classes that share a name in the list have their ids beside it, in every split.
    """
    found = file.read_table(options, _PRESET)
    names = _display_names(file.path)
    if not names:
        note = f"{file.path}: no *class-descriptions*.csv in its folder: classes are called by ids"
        return dataclasses.replace(found, notes=(*found.notes, note))
    counts = collections.Counter(names.values())
    shown = []
    for label in found.class_names:
        name = names.get(label, label)
        shown.append(f"{name} ({label})" if counts[name] > 1 and label in names else name)
    renamed = tuple(zip(found.class_names, shown, strict=True))
    return dataclasses.replace(found, class_names=tuple(shown), renamed=renamed)


def _display_names(path: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for folder in (path.parent, path.parent.parent):
        for table in sorted(folder.glob("*class-descriptions*.csv")):
            for place, fields in read_csv(table):
                if len(fields) != 2:
                    raise UserError(
                        f"{place}: expected an id and a name, found {len(fields)} cells"
                    )
                names.setdefault(fields[0].strip(), fields[1].strip())
        if names:
            break
    return names
