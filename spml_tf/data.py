"""Looks at data, or prepares them: `python -m spml_tf.data check --dataset=voc --data_dir=DIR`."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spml_tf.datasets.label_formats import FORMATS
from spml_tf.datasets.readers import find
from spml_tf.datasets.settings import DataSettings, data_flags_without_effect, resolved
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system import cli
from spml_tf.system.errors import UserError, printable
from spml_tf.system.files import check_unedited, made_folder, naming_unwritable
from spml_tf.system.flag_fields import (
    flag_field,
    flag_name,
    plugins_field,
    word_field,
    words_of,
)
from spml_tf.system.notes import tell_note
from spml_tf.system.tensorflow_import import import_tensorflow, quiet_libraries

if TYPE_CHECKING:
    from spml_tf.datasets.image_checks import Report
    from spml_tf.datasets.readers import Examples

USAGE = """Looks at the data a run would be trained on, or writes them anew.

usage: python -m spml_tf.data check|summary|prepare --dataset=NAME --data_dir=DIR [--flag=value ...]
       python -m spml_tf.data import --source=FILE_OR_FOLDER --output_dir=DIR [--flag=value ...]

check: decodes every image and names those that training would stop on, and those it treats in a
way worth knowing; with --output_dir=DIR also in DIR/check.csv. Files of --train_labels and
--class_weights must fit the training images.
summary: counts of labels and images, as text and with a sheet of example photos in --output_dir.
prepare: writes the observed labels and the validation split (labels.csv), and with --format=jpeg or
tfrecord the images too, to --output_dir; read the latter with --dataset=prepared.
import: reads label files of other tools and writes tables for --dataset=folder, with a report, to
--output_dir; its flags are those about tables of labels, and those that say import."""

_FINDINGS = "check.csv"
# Flags of one command, refused elsewhere.
_ONLY = {
    **dict.fromkeys(("format", "short_side", "jpeg_quality"), ("prepare",)),
    **dict.fromkeys(("source", "from_format", "photos_dir"), ("import",)),
    **dict.fromkeys(("copy_photos", "drop_missing"), ("import",)),
    "overwrite": ("prepare", "import"),
    "threads": ("check", "prepare"),
    "plugins": ("check", "summary", "prepare"),
}
# Flags that check compares with the data, but that do not change what it looks at.
_OF_RUNS = (
    "val_fraction", "observed_positives", "observed_negatives", "positive_choice", "known_share",
    "train_images", "full_images", "label_seed", "fingerprint", "scaled_decoding",
)  # fmt: skip
# Flags that name files for training images.
_OF_TRAINING = ("train_labels", "class_weights")

_IMPORT = "Import"


@dataclasses.dataclass(frozen=True)
class _Options(DataSettings):
    # `_action` fills threads.
    plugins: str | None = plugins_field()
    command: str = word_field(("check", "summary", "prepare", "import"))
    output_dir: str | None = flag_field(
        None,
        "Folder to write to. Default: summaries/DATASET for summary; prepare and import need it.",
    )
    threads: int = flag_field(
        None,
        "check, prepare: images read at a time. Default: the number of CPUs.",
        int,
        low=1,
        high=1024,
    )
    format: str | None = flag_field(
        None,
        "prepare: labels (no images), jpeg (a file per image) or tfrecord. Default: labels.",
        str,
        ("labels", "jpeg", "tfrecord"),
    )
    short_side: int | None = flag_field(
        None,
        "prepare: the images' shorter side in pixels after resizing; smaller images stay as they "
        "are. jpeg needs it; tfrecord without it, or with 0, holds the files' own bytes.",
        int,
        low=0,
        high=1e5,
    )
    jpeg_quality: int | None = flag_field(
        None, "prepare: of resized images, 1 to 100. Default: 92.", int, low=1, high=100
    )
    overwrite: bool | None = flag_field(
        None, "prepare, import: replace an earlier result in --output_dir (no other folder).", bool
    )
    source: str | None = flag_field(
        None, "import: the label file, or a folder that holds label files.", group=_IMPORT
    )
    from_format: str | None = flag_field(
        None,
        "import: format of the label files; auto: recognised by what they hold. Default: auto.",
        str,
        ("auto", *FORMATS),
        _IMPORT,
        name="from",
    )
    photos_dir: str | None = flag_field(
        None, "import: folder of the photos. Default: that of --source.", group=_IMPORT
    )
    copy_photos: bool | None = flag_field(
        None, "import: copy the photos to --output_dir.", bool, group=_IMPORT
    )
    drop_missing: bool | None = flag_field(
        None, "import: leave out the rows of photos that are not there.", bool, group=_IMPORT
    )


def _check(options: _Options, unused: Mapping[str, str]) -> None:
    from spml_tf.datasets import split_notes, splits

    if options.skip_broken:
        raise UserError("--skip_broken: check names the broken photos; leave it out")
    if options.output_dir is not None:
        check_unedited([Path(options.output_dir, _FINDINGS)])
    parts = {
        name: splits.load_examples(options, split, measured=name != "train")
        for name, split in (
            ("train", options.train_split),
            ("val", options.val_split),
            ("test", options.test_split),
        )
        if split != "none"
    }
    rare: Sequence[str] = ()
    if "train" in parts:
        splits.check_training(options, parts["train"])
        rare = split_notes.rare_classes(parts["train"])
    _tell_unused(unused)  # after those that are refused
    for note in rare:
        tell_note(note)
    if all(part.paths is None for part in parts.values()):
        print(f"--dataset={options.dataset}: its images are in memory; nothing to decode")
        return
    import_tensorflow()
    from spml_tf.datasets import image_checks, stored_pixels

    for part in parts.values():
        for path, photo in zip(part.masks or (), part.paths or (), strict=False):
            if path is not None:
                stored_pixels.mask_of_photo(path, photo, part.mask_classes, part.max_megapixels)
    with quiet_libraries():  # libjpeg prints its own words about some broken files
        report = image_checks.check(parts, options.threads)
    _print_findings(report, parts)
    if len(parts) > 1 and not image_checks.finds_similar():
        print(f"note: {image_checks.DUPLICATES_REMEDY}")
    if options.output_dir is not None:
        folder = Path(options.output_dir)
        with naming_unwritable(f"--output_dir={folder}"), made_folder(folder):
            image_checks.write_findings(folder / _FINDINGS, report.findings)
    if report.errors:
        first = report.errors[0]
        raise UserError(
            f"{options.data_dir}: {len(report.errors)} of {report.images} images cannot be "
            f"decoded, the first is {first.image} ({first.message}); repair or remove them and "
            "their rows"
        )


def _without_effect_on_check(given: _Options) -> dict[str, str]:
    """As `data_flags_without_effect`, of what check does not look at."""
    of_runs = _OF_RUNS if find(given.dataset).takes_seed else (*_OF_RUNS, "data_seed")
    why = "check, which looks at all images and labels"
    found = dict.fromkeys(words_of(given, of_runs), why)
    if given.train_split == "none":
        found |= dict.fromkeys(words_of(given, _OF_TRAINING), "--train_split=none")
    return found


def _tell_unused(flags: Mapping[str, str]) -> None:
    for flag, other in flags.items():
        tell_note(f"{flag} has no effect with {other}")


def _print_findings(report: Report, parts: dict[str, Examples]) -> None:
    from spml_tf.datasets.image_checks import COUNTED

    for finding in report.findings:
        if finding.message not in COUNTED:
            print(f"{finding.level}: {printable(finding.image)}: {printable(finding.message)}")
    for message in COUNTED:
        count = sum(finding.message == message for finding in report.findings)
        if count:
            print(f"note: {count} of {report.images} images: {message}")
    sizes = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
    notes = len(report.findings) - len(report.errors)
    print(f"{report.images} images ({sizes}): {len(report.errors)} errors, {notes} notes")


def _summary(options: _Options) -> None:
    from spml_tf.datasets import summaries

    folder = options.output_dir or f"summaries/{re.sub('[:/]', '_', options.dataset)}"
    text = summaries.write_summary(options, Path(folder))
    print("\n".join(map(printable, text.split("\n"))))
    print(f"\nwritten to {folder}")


def _prepare(options: _Options) -> None:
    from spml_tf.datasets import preparation
    from spml_tf.datasets.readers.prepared import ImageForm

    if options.output_dir is None:
        raise UserError("--output_dir is missing: name a folder to write to")
    if options.jpeg_quality is not None and not options.short_side:
        raise UserError(
            "--jpeg_quality: is of resized images; give --short_side=PIXELS too, or leave it out"
        )
    form = ImageForm(
        options.format or ImageForm.format,
        options.short_side or ImageForm.short_side,
        options.jpeg_quality or ImageForm.jpeg_quality,
    )
    preparation.prepare(options, form, options.output_dir, options.threads, bool(options.overwrite))
    print(f"prepared in {options.output_dir}")


def _import(options: _Options) -> None:
    from spml_tf.datasets.label_import import Import, import_labels

    for field in dataclasses.fields(DataSettings):
        own = field.name == "classes" or field.name in vars(TableOptions())
        if not own and getattr(options, field.name) != field.default:
            raise UserError(f"--{field.name}: import does not take it; leave it out")
    if not options.source or not options.output_dir:
        missing = "output_dir" if options.source else "source"
        raise UserError(f"--{missing} is missing; see --help")
    wanted = Import(
        options.source,
        options.from_format or "auto",
        options.output_dir,
        options.photos_dir or "",
        options.class_list,
        bool(options.copy_photos),
        bool(options.drop_missing),
        bool(options.overwrite),
    )
    print(import_labels(wanted, options.of_table()), end="")
    print(f"written to {options.output_dir}")


def _action(given: _Options) -> None:
    for name, commands in _ONLY.items():
        if given.command not in commands and getattr(given, name) is not None:
            flag = flag_name(_Options, name)
            raise UserError(f"--{flag}: {given.command} does not take it; leave it out")
    if given.command == "import":
        _import(given)
        return
    threads = given.threads or os.cpu_count() or 1
    options = dataclasses.replace(given, **resolved(given), threads=threads)
    if given.command == "check":
        _check(options, _without_effect_on_check(given))
        return
    _tell_unused(data_flags_without_effect(options))
    {"summary": _summary, "prepare": _prepare}[given.command](options)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
