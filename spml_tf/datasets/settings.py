"""Which images and labels a command works on: one field per flag, and how open ones are filled."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, ClassVar

from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS
from spml_tf.datasets.readers import DEFAULT_SEED, READERS, find
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system.errors import UserError
from spml_tf.system.flag_checks import check_bounds
from spml_tf.system.flag_fields import flag_field, flag_fields
from spml_tf.system.flag_words import split_names

# Flags about the labels to train on, and the --train_labels that look at them.
_LABEL_FLAGS = {
    "observed_positives": "single",
    "observed_negatives": "single",
    "positive_choice": "single",
    "known_share": "partial",
}
# What --train_labels may be but a file.
KINDS_OF_LABELS = ("single", "partial", "full", "stored")
# As in `spml_tf.labels`, which comes with numpy: --help needs none.
UNKNOWN_COUNTS_AS = ("nothing", "negative")
# Heading of the flags that only some readers take.
_ONE_READER = "Flags of single data sets"


@dataclasses.dataclass(frozen=True)
class DataSettings(TableOptions):
    """The flags about data, None where not given.

    Attributes are described by their flags: `python -m spml_tf.data --help`. Those that `resolved`
    fills have the type that they have then.
    """

    group: ClassVar[str] = "Data and labels"

    dataset: str = flag_field("digits", "Data set: " + ", ".join(READERS) + ".")
    data_dir: str | None = flag_field(None, "Folder of the data set.")
    classes: str | None = flag_field(
        None,
        "Comma-separated names: use these classes only. A name that holds a comma stands in double "
        'quotes, as in a CSV file: "cat, big",dog.',
    )
    train_split: str = flag_field(None, "Split to train on. Default: the data set's own.")
    val_split: str = flag_field(
        None,
        "Split to validate on; none: hold out --val_fraction of the training split. Default: the "
        "data set's own, else none.",
    )
    test_split: str = flag_field(
        None, "Split to report on; none: there is none. Default: the data set's own."
    )
    val_fraction: float = flag_field(
        0.2,
        "Part of the training split held out with --val_split=none.",
        float,
        low=0.001,
        high=0.999,
    )
    train_labels: str = flag_field(
        None,
        "single: draw the observed labels from the full ones; partial: know each label, positive "
        "or negative, with the probability --known_share; full: use all the data set has; "
        "stored: use the observed labels that come with it (arrays, prepared); or a CSV file of "
        "observed labels, such as an earlier run's train_labels.csv or what data prepare wrote, "
        "whose split is used too. Default: full for folder and imagenet, stored for arrays and "
        "prepared, single otherwise.",
    )
    observed_positives: int = flag_field(
        1, "Positives drawn per image with --train_labels=single.", int, low=0, high=1e6
    )
    observed_negatives: int = flag_field(
        0, "Negatives drawn per image with --train_labels=single.", int, low=0, high=1e6
    )
    positive_choice: str = flag_field(
        "uniform",
        "Which positives are drawn with --train_labels=single. uniform: any, as in the paper; "
        "largest: those of the largest objects, for data with boxes; frequent: those of the "
        "classes that most images show.",
        str,
        ("uniform", "largest", "frequent"),
    )
    known_share: float = flag_field(
        0.5,
        "With --train_labels=partial: probability that a label is known.",
        float,
        low=0.001,
        high=1,
    )
    train_images: int = flag_field(
        0,
        "Train on so many of the training images, drawn by --label_seed; 0: on all.",
        int,
        low=0,
        high=1e12,
    )
    full_images: int = flag_field(
        0,
        "Know all labels of so many of the training images, drawn by --label_seed.",
        int,
        low=0,
        high=1e12,
    )
    class_weights: str | None = flag_field(
        None,
        "Table with the columns class,weight: how much each class counts in the loss; those it "
        "lacks count 1.",
    )
    unknown_counts_as: str = flag_field(
        "nothing",
        "What unknown labels of validation and test images count as in mAP, thresholds and all "
        "other measures. nothing: they are left out where a class has known positives and known "
        "negatives, elsewhere they are negatives; negative: they are negatives everywhere.",
        str,
        UNKNOWN_COUNTS_AS,
    )
    data_seed: int = flag_field(
        DEFAULT_SEED,
        "Seed of generated data and of the validation split.",
        int,
        low=0,
        high=2**32 - 1,
    )
    label_seed: int = flag_field(
        DEFAULT_SEED, "Seed of the drawn labels.", int, low=0, high=2**32 - 1
    )
    fingerprint: str = flag_field(
        "size",
        "By what a run, before it goes on, knows its photos again: size of the files, or content, "
        "for which all are read.",
        str,
        ("size", "content"),
    )
    max_megapixels: float = flag_field(
        MAX_MEGAPIXELS,
        "Pictures whose header tells of more pixels, in millions, are not decoded: one takes 3 "
        "bytes a pixel, and more while it is decoded.",
        float,
        low=1e-3,
        high=1e5,
    )
    skip_broken: bool = flag_field(
        False,
        "Leave photos out that cannot be decoded, and count them in a note: all are decoded once "
        "before. Without it the first one stops the command.",
        bool,
    )
    scaled_decoding: bool = flag_field(
        True,
        "Decode crops of JPEGs of more than 2 megapixels at 1/2, 1/4 or 1/8 of their size, where "
        "they stay at least as large as --image_size: faster, numbers change a little.",
        bool,
    )
    train_csv: str | None = flag_field(
        None, "folder: table of the training photos, in data_dir.", group=_ONE_READER
    )
    val_csv: str | None = flag_field(
        None, "folder: table of the validation photos, in data_dir.", group=_ONE_READER
    )
    test_csv: str | None = flag_field(
        None, "folder: table of the test photos, in data_dir.", group=_ONE_READER
    )
    allow_outside: bool | None = flag_field(
        None,
        "Accept photos outside data_dir: absolute names, names with .., symbolic links.",
        bool,
        group=_ONE_READER,
    )
    boxes_csv: str | None = flag_field(
        None,
        "folder: table of boxes, in data_dir, with the header image,class,y1,x1,y2,x2 (and perhaps "
        "area), in parts of the image.",
        group=_ONE_READER,
    )
    masks_dir: str | None = flag_field(
        None,
        "folder: folder of masks, in data_dir: NAME.png for NAME.jpg, with 0 for no class, k for "
        "the k-th class and 255 for what is not labelled.",
        group=_ONE_READER,
    )
    difficult: str | None = flag_field(
        None,
        "voc, voc2007, tfds: how a class counts all whose objects are marked as difficult. "
        "Default: negative.",
        str,
        ("negative", "positive", "unknown"),
        group=_ONE_READER,
    )
    unlabelled: str | None = flag_field(
        None,
        "nuswide: whether photos without any of the classes are kept. Default: keep.",
        str,
        ("keep", "drop"),
        group=_ONE_READER,
    )
    min_certainty: int | None = flag_field(
        None,
        "cub: answers of a lower certainty (1 not visible, 2 guessing, 3 probably, 4 definitely) "
        "are unknown labels. Default: 1.",
        int,
        group=_ONE_READER,
    )
    label_encoding: str | None = flag_field(
        None,
        "arrays: what 0 and -1 mean in the observed labels; cole: unknown and negative, spml_tf: "
        "negative and unknown. Must be given.",
        str,
        ("cole", "spml_tf"),
        group=_ONE_READER,
    )
    images_dir: str | None = flag_field(
        None,
        "arrays: folder of the photos, in data_dir. Default: data_dir itself.",
        group=_ONE_READER,
    )

    def check_given(self) -> None:
        """Refuses a value that cannot be, whatever the other flags are.

        Raises:
            UserError: naming the first such flag.
        """
        find(self.dataset)
        check_bounds(self)

    @property
    def class_list(self) -> tuple[str, ...]:
        """Names of --classes, empty where all are used."""
        return tuple(split_names("classes", self.classes))

    @property
    def stated_positives_per_image(self) -> float | None:
        """Mean number of true positives of an image where the user states it, as runs may."""
        return None

    @property
    def reader_options(self) -> dict[str, Any]:
        """The flags that only some readers take, None where not given."""
        fields = (x for x in flag_fields(DataSettings) if x.metadata["group"] == _ONE_READER)
        values = {field.name: getattr(self, field.name) for field in fields}
        found = {name: None if x == "" or x is False else x for name, x in values.items()}
        return {**found, "table_options": self.of_table() if self.given() else None}


def resolved(given: DataSettings) -> dict[str, Any]:
    """Fills the data settings left open and checks all of them.

    Args:
        given: settings as the user gave them.

    Returns:
        The values to replace in `given`, so that no field is open but the readers' options.

    Raises:
        UserError: for a value that cannot be, naming the flag.
    """
    given.check_given()
    reader = find(given.dataset)
    if reader.needs_data_dir and not given.data_dir:
        raise UserError(f"--data_dir is missing: --dataset={given.dataset} is read from files")
    data_dir = os.path.abspath(given.data_dir) if given.data_dir else None
    names = reader.split_names(data_dir, given.reader_options)
    train_labels = given.train_labels or reader.train_labels
    if train_labels not in KINDS_OF_LABELS:
        train_labels = os.path.abspath(train_labels)
    if train_labels == "single" and not (given.observed_positives or given.observed_negatives):
        raise UserError("--observed_positives=0: without --observed_negatives no label is observed")
    return {
        "data_dir": data_dir,
        "train_split": given.train_split or names.train,
        "val_split": given.val_split or names.val,
        "test_split": given.test_split or names.test,
        "train_labels": train_labels,
        "class_weights": os.path.abspath(given.class_weights) if given.class_weights else None,
    }


def data_flags_without_effect(settings: DataSettings) -> dict[str, str]:
    """What was given of the data and is not looked at, with what it has no effect.

    Args:
        settings: resolved. Defaults do not count, whether given or not.

    Returns:
        Texts such as {"--known_share=0.5": "--train_labels=full"}.

    Raises:
        UserError: a file of labels cannot be read.
    """
    labels, fields = settings.train_labels, DataSettings.__dataclass_fields__
    unused = [flag for flag, kind in _LABEL_FLAGS.items() if labels != kind]
    unused += ["full_images"] if labels == "full" else []
    chosen = settings.train_images or (settings.full_images and labels != "full")
    unused += [] if chosen or labels in ("single", "partial") else ["label_seed"]
    reasons = dict.fromkeys(unused, f"--train_labels={labels}")
    of_split = ["val_fraction"]
    of_split += [] if find(settings.dataset).takes_seed else ["data_seed"]
    given = {x for x in fields if getattr(settings, x) != fields[x].default}
    if not given.isdisjoint(of_split) and (splitting := _what_splits(settings)):
        reasons |= dict.fromkeys(of_split, splitting)
    return {
        f"--{flag}={getattr(settings, flag)}": reason
        for flag, reason in reasons.items()
        if flag in given
    }


def _what_splits(settings: DataSettings) -> str | None:
    """The flag that names the validation images; None where they are drawn."""
    if settings.val_split != "none":
        return f"--val_split={settings.val_split}"
    from spml_tf.datasets import label_files

    labels = settings.train_labels
    if labels in KINDS_OF_LABELS or not label_files.has_splits(labels):
        return None
    return f"--train_labels={labels}"
