"""Labels that somebody reviewed, added to those a run was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets import label_files, splits
from spml_tf.datasets.readers.table_columns import not_classes
from spml_tf.datasets.splits import Splits
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.runs import run_data
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings
from spml_tf.system.errors import UserError
from spml_tf.system.files import (
    check_output_file,
    check_unedited,
    made_folder,
    naming_unwritable,
    replaced_unless_edited,
    write_csv,
)

# What is true of any table, and not of one form.
_OF_ANY_FORM = ("keep_copies", "trust_table")


def own_table(settings: Settings) -> bool:
    """Whether a table in this package's own form, in place of the run's, gives its labels."""
    return bool(settings.train_csv) and not why_no_table(settings)


def why_no_table(settings: Settings) -> str:
    """Why a run with a table does not get it back with reviewed labels; "" where it does.

    Flags such as --image_column are of the run's table and not of that one; the validation table
    needs them further. Where the run draws labels from its table, or has others, it would do so
    with the reviewed ones. A data set of the user's own has tables of its own.
    """
    foreign = [f"--{name}" for name in settings.given() if name not in _OF_ANY_FORM]
    if settings.dataset != "folder":
        return f"--dataset={settings.dataset} reads tables of its own"
    if settings.train_labels != "full":
        return f"the run has --train_labels={settings.train_labels}"
    return f"the next run reads its tables with {', '.join(foreign)} too" if foreign else ""


def apply(
    run: RunFolder, paths: Sequence[str], folder: Path, data_dir: str | None = None
) -> dict[str, int]:
    """Writes the files for the next run: train_labels.csv, and train.csv, see `own_table`.

    Args:
        run: the run.
        paths: files of reviewed labels.
        folder: where to write.
        data_dir: folder of the data set, None for the run's own.

    Returns:
        How many labels became {"positive", "negative"} and how many were so before, {"unchanged"}.

    Raises:
        UserError: for a run or data that cannot be read, reviewed files as
            `label_files.read_reviewed`, a folder that cannot be written, or a file in it that a
            person has edited or that comes from elsewhere, such as the run's own table.
    """
    table, observed = folder / "train.csv", folder / "train_labels.csv"
    settings = run_data.settings_of_run(run, data_dir)
    outputs = [observed, *([table] if own_table(settings) else [])]
    for path in outputs:
        check_output_file(path, str(path), [*paths, *_trained_on(settings)])
    check_unedited(outputs)
    data = run_data.load_of_run(run, data_dir)
    names, class_names = data.train.names, data.train.class_names
    reviewed = label_files.read_reviewed(paths, names, class_names)
    if (reviewed == UNKNOWN).all():
        raise UserError(f"--reviewed={','.join(paths)}: no row has a label; give 1 or 0 to some")
    labels = np.where(reviewed == UNKNOWN, data.observed, reviewed)
    changed = labels != data.observed
    with naming_unwritable(f"--output_dir={folder}"), made_folder(folder):
        if own_table(settings):
            _write_table(table, settings, data, labels)
        label_files.write_observed(
            observed, labels, names, class_names, data.held_out, replaced_unless_edited
        )
    return {
        "positive": int((changed & (labels == POSITIVE)).sum()),
        "negative": int((changed & (labels == NEGATIVE)).sum()),
        "unchanged": int(((reviewed != UNKNOWN) & ~changed).sum()),
    }


def _trained_on(settings: Settings) -> list[Path]:
    """The files that a run had its labels from."""
    table = Path(settings.data_dir or "", settings.train_csv) if settings.train_csv else None
    observed = Path(settings.train_labels) if settings.train_labels else None
    return [path for path in (table, observed) if path]


def _write_table(path: Path, settings: Settings, data: Splits, labels: NDArray[np.int8]) -> None:
    """The table of all photos of the training split, those held out with their own labels."""
    whole = splits.load_examples(settings, settings.train_split, measured=False)
    trained = dict(zip(data.train.names, labels, strict=True))
    classes, header, rows = np.array(whole.class_names, object), ["image"], []
    # Names that columns must not have, unless the table is trusted.
    listed = bool(not_classes(whole.class_names, header)) and not settings.trust_table
    header += ["labels", "negatives"] if listed else whole.class_names
    for name, own in zip(whole.names, whole.labels, strict=True):
        marks = trained.get(name, own)
        cells = ["" if mark == UNKNOWN else mark for mark in marks.tolist()]
        if listed:
            cells = [json.dumps(classes[marks == x].tolist()) for x in (POSITIVE, NEGATIVE)]
        rows.append([name, *cells])
    write_csv(path, header, rows, into=replaced_unless_edited)
