"""Exporting a finished run: from its folder to that of the export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spml_tf import networks
from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS
from spml_tf.evaluation.thresholds import FEW, parse_rule
from spml_tf.exports import MODEL_CARD, RUNTIME, formats, hugging_face
from spml_tf.exports.checks import MOST_PHOTOS, ComparedPhotos
from spml_tf.exports.export_settings import ExportSettings
from spml_tf.exports.exported import Exported, exported
from spml_tf.exports.formats import MARKS, Wanted
from spml_tf.exports.hugging_face import Repository
from spml_tf.exports.model_card import model_card
from spml_tf.runs.decisions import calibration_errors, decisions
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.errors import UserError
from spml_tf.system.files import (
    check_only_recorded,
    naming_unwritable,
    replaced_unless_edited,
    write_json,
    write_text,
)
from spml_tf.system.flag_checks import check_bounds
from spml_tf.system.folders import check_output_folder, put_back, replaced_folder
from spml_tf.system.notes import tell_note

# What --serving_version takes beside a number.
_NEXT = "next"


def export(given: ExportSettings) -> Path:
    """Writes a run's network for serving, without banks or optimizer.

    The folder appears in one step: it is whole or not there.

    Args:
        given: what is exported, where to and how.

    Returns:
        The folder written: `export_dir`, or that of a version in it.

    Raises:
        UserError: where the run is not finished, a format's needs are missing, a converted model
            does not give the network's numbers, or the folder holds something to keep: other
            files, an export without `overwrite`, or one whose classes.json or MODEL_CARD.md a
            person has edited.
    """
    check_bounds(given)  # of those who call this in code
    wanted = _wanted(given)
    pushed = _repository(given)
    target = _target(given)
    run = RunFolder(given.run_dir)
    run.check_finished()
    record = run.read_record()
    _check_target(given, target)
    found = decisions(run, given.thresholds, given.calibration)
    network = found.calibrated(networks.load_network(run.best_network()))
    flags = record["flags"]
    classes = {
        "class_names": record["class_names"],
        **found.as_json(calibration_errors(run, found.calibration)),
        "image_size": flags["image_size"],
        "max_megapixels": given.max_megapixels or flags.get("max_megapixels", MAX_MEGAPIXELS),
    }
    model, photos = exported(network, classes), None
    if wanted.converts:
        count = MOST_PHOTOS if given.check_images is None else given.check_images
        photos = ComparedPhotos(run, network, classes, given.data_dir, count)
    with naming_unwritable(f"--export_dir={given.export_dir}"):
        _write(target, run, wanted, model, classes, photos)
    _tell_of_shared(classes)
    if pushed is not None:
        _push(pushed, run, target, given.dry_run)
    return target


def _repository(given: ExportSettings) -> Repository | None:
    """That of --push, None without."""
    if given.push is None:
        for name in (x for x in ("public", "dry_run") if getattr(given, x)):
            raise UserError(f"--{name}: goes with --push=hf://OWNER/NAME; give that too")
        return None
    return hugging_face.repository(given.push, given.public, uploads=not given.dry_run)


def _push(repository: Repository, run: RunFolder, folder: Path, dry_run: bool) -> None:
    card = (folder / MODEL_CARD).read_text("utf-8")
    card = hugging_face.readme(repository.name, card, run.read_record(), run.read_metrics())
    files = hugging_face.contents(folder, card)
    print(f"{'would upload' if dry_run else 'uploading'} to the {repository.kind}:")
    print(hugging_face.listing(files), flush=True)
    if not dry_run:
        print(f"pushed to {hugging_face.push(repository, files, folder)}")


def _write(
    target: Path,
    run: RunFolder,
    wanted: Wanted,
    model: Exported,
    classes: dict[str, Any],
    photos: ComparedPhotos | None,
) -> None:
    with replaced_folder(target) as folder:
        found = formats.write(wanted, model, folder, classes, photos)
        checked = formats.table(found, photos) if photos is not None else []
        card = model_card(run, run.read_record(), classes, checked)
        write_json(folder / formats.CLASSES, classes, replaced_unless_edited)
        write_text(folder / MODEL_CARD, card, replaced_unless_edited)
    if photos is not None:
        print(*(formats.summary(one, photos) for one in found), sep="\n")


def _tell_of_shared(classes: dict[str, Any]) -> None:
    """Notes classes whose thresholds are not their own, where a rule chose them for each."""
    shared = classes["shared_thresholds"]
    rule = parse_rule(classes["threshold_rule"]).kind
    if shared and rule not in ("count", "fixed"):
        value = classes["thresholds"][shared[0]]
        tell_note(
            f"{len(shared)} of {len(classes['class_names'])} classes have fewer than {FEW} "
            f"validation positives: they share the threshold {value:.3g}",
        )


def _wanted(given: ExportSettings) -> Wanted:
    """The formats of the flag, whose needs are there."""
    names = tuple(name.strip() for name in given.format.split(","))
    unknown = [name for name in names if name not in MARKS]
    if unknown or len(set(names)) < len(names):
        raise UserError(
            f"--format={given.format}: must be of {', '.join(MARKS)}, each once, separated by "
            f"commas{f', not {unknown[0]!r}' if unknown else ''}"
        )
    wanted = Wanted(names, given.web_runtime or RUNTIME)
    if given.web_runtime is not None and "web" not in names:
        raise UserError("--web_runtime: is of --format=web; leave it out")
    for flag in ("data_dir", "check_images"):
        if getattr(given, flag) is not None and not wanted.converts:
            raise UserError(f"--{flag}: is of the check of litert, onnx and web; leave it out")
    wanted.check_needs()
    return wanted


def _target(given: ExportSettings) -> Path:
    """The folder to write."""
    folder, version = Path(given.export_dir).resolve(), given.serving_version
    if version is None:
        return folder
    if version == _NEXT:
        there = [int(x.name) for x in folder.glob("*") if x.name.isdecimal() and x.is_dir()]
        return folder / str(max(there, default=0) + 1)
    if not version.isdecimal() or int(version) < 1:
        raise UserError(f"--serving_version={version}: must be a number from 1 on, or {_NEXT}")
    return folder / str(int(version))


def _check_target(given: ExportSettings, target: Path) -> None:
    put_back(target)
    place, marks = f"--export_dir={given.export_dir}", [target / x for x in MARKS.values()]
    check_output_folder(
        target,
        place,
        is_ours=(target / formats.CLASSES).exists() and any(mark.exists() for mark in marks),
        refusal="exists and is no export; choose another",
        kept="" if given.overwrite else "holds an export; choose another or give --overwrite",
        edited=[*formats.CLASS_FILES, MODEL_CARD],
    )
    check_only_recorded(target, place)
