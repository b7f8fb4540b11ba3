"""Exports a finished run: `python -m spml_tf.export --run_dir=DIR --export_dir=DIR`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS
from spml_tf.exports import RUNTIME
from spml_tf.system import cli
from spml_tf.system.errors import UserError
from spml_tf.system.files import naming_unwritable, replaced_unless_edited, write_json, write_text
from spml_tf.system.flag_fields import calibration_field, flag_field, plugins_field
from spml_tf.system.folders import check_output_folder, put_back, replaced_folder
from spml_tf.system.notes import tell_note

if TYPE_CHECKING:
    from spml_tf.exports.checks import ComparedPhotos
    from spml_tf.exports.exported import Exported
    from spml_tf.exports.formats import Wanted
    from spml_tf.exports.hugging_face import Repository
    from spml_tf.runs.run_folder import RunFolder

USAGE = """Exports the best network of a finished run.

usage: python -m spml_tf.export --run_dir=DIR --export_dir=DIR [--format=saved_model,litert,onnx]

saved_model: a SavedModel with the endpoints serve_bytes and cams_bytes (JPEG or PNG files ->
probabilities, decisions, class names; class activation maps too), serve and cams (the same of
pixels). litert: .tflite files in float32, float16 and int8. onnx: an ONNX file. web: a page that
predicts in a browser, without a network. The last three lie in folders of their names, and are
compared with the network on the run's photos. Beside them classes.json (names, decision thresholds,
input size), MODEL_CARD.md and, for litert and onnx, run.py, which needs no TensorFlow."""

_EDITED = ("classes.json", "MODEL_CARD.md")
# What --serving_version takes beside a number.
_NEXT = "next"


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dir: str = flag_field(None, "Folder of the run.", required=True)
    export_dir: str = flag_field(None, "Folder to write, new or empty.", required=True)
    overwrite: bool = flag_field(
        False, "Replace an earlier export in --export_dir (no other folder is replaced).", bool
    )
    format: str = flag_field(
        "saved_model", "Of saved_model, litert, onnx and web, separated by commas."
    )
    serving_version: str | None = flag_field(
        None,
        "Write the folder of this number in --export_dir, as TensorFlow Serving wants it; next: "
        "one more than the highest there.",
    )
    thresholds: str = flag_field(
        "f1",
        "How decisions are made, by the validation images. f1: the highest F1 of each class; "
        "precision:0.9 or recall:0.9: so much of it; count: as many decisions an image as there "
        "are positives (--positives_per_image of the run); a number: this threshold. A class with "
        "fewer than 10 validation positives takes the threshold of all classes together.",
    )
    calibration: str = calibration_field("Probabilities, heatmaps and thresholds")
    max_megapixels: float | None = flag_field(
        None,
        "Endpoints for files refuse pictures whose header tells of more pixels, in millions. "
        "Default: as the run was trained, 100 unless it was told otherwise.",
        float,
        low=1e-3,
        high=1e5,
    )
    data_dir: str | None = flag_field(
        None,
        "Folder of the run's data, where it is not where it was: litert, onnx and web are checked "
        "on its photos.",
    )
    check_images: int | None = flag_field(
        None, "Photos they are checked on, at most. Default: 500.", int, low=1
    )
    web_runtime: str | None = flag_field(
        None,
        "For web: the file that `npm pack onnxruntime-web@1.30.0` writes, or the package's folder. "
        f"Default: {RUNTIME}.",
    )
    push: str | None = flag_field(
        None,
        "hf://OWNER/NAME: upload the export to this model repository of the Hugging Face Hub too, "
        "with the model card as README.md.",
    )
    public: bool = flag_field(
        False, "With --push: a repository that is made now can be seen by all.", bool
    )
    dry_run: bool = flag_field(
        False, "With --push: list what would be uploaded, and upload nothing.", bool
    )
    plugins: str | None = plugins_field()


def export(
    run_dir: str,
    export_dir: str,
    overwrite: bool = False,
    max_megapixels: float | None = None,
    thresholds: str = "f1",
    calibration: str = "none",
    **others: Any,
) -> Path:
    """Writes a run's network for serving, without banks or optimizer.

    The folder appears in one step: it is whole or not there.

    Args:
        run_dir: folder of a finished run.
        export_dir: folder to write.
        overwrite: replace an earlier export in `export_dir`.
        max_megapixels: the most pixels, in millions, of a picture that serve_bytes takes; None: as
            the run was trained.
        thresholds: how they are chosen, see `thresholds.parse_rule`.
        calibration: "none", "temperature" or "platt", see `runs.decisions.decisions`.
        **others: the command's other flags: format, serving_version, data_dir, check_images,
            web_runtime, push, public, dry_run.

    Returns:
        The folder written: `export_dir`, or that of a version in it.

    Raises:
        UserError: where the run is not finished, a format's needs are missing, a converted model
            does not give the network's numbers, or the folder holds something to keep: other
            files, an export without `overwrite`, or one whose classes.json or MODEL_CARD.md a
            person has edited.
    """
    return _export(
        _Options(run_dir, export_dir, overwrite, max_megapixels=max_megapixels,
                 thresholds=thresholds, calibration=calibration, **others)
    )  # fmt: skip


def _export(options: _Options) -> Path:
    from spml_tf import networks
    from spml_tf.exports.checks import MOST_PHOTOS, ComparedPhotos
    from spml_tf.exports.exported import exported
    from spml_tf.runs import run_folder
    from spml_tf.runs.decisions import calibration_errors, decisions

    wanted = _wanted(options)
    pushed = _repository(options)
    target = _target(options)
    run = run_folder.RunFolder(options.run_dir)
    run.check_finished()
    record = run.read_record()
    _check_target(options, target)
    found = decisions(run, options.thresholds, options.calibration)
    network = found.calibrated(networks.load_network(run.best_network()))
    flags = record["flags"]
    classes = {
        "class_names": record["class_names"],
        **found.as_json(calibration_errors(run, found.calibration)),
        "image_size": flags["image_size"],
        "max_megapixels": options.max_megapixels or flags.get("max_megapixels", MAX_MEGAPIXELS),
    }
    model, photos = exported(network, classes), None
    if wanted.converts:
        count = MOST_PHOTOS if options.check_images is None else options.check_images
        photos = ComparedPhotos(run, network, classes, options.data_dir, count)
    with naming_unwritable(f"--export_dir={options.export_dir}"):
        _write(target, run, wanted, model, classes, photos)
    _tell_of_shared(classes)
    if pushed is not None:
        _push(pushed, run, target, options.dry_run)
    return target


def _repository(options: _Options) -> Repository | None:
    """That of --push, None without."""
    if options.push is None:
        for name in (x for x in ("public", "dry_run") if getattr(options, x)):
            raise UserError(f"--{name}: goes with --push=hf://OWNER/NAME; give that too")
        return None
    from spml_tf.exports import hugging_face

    return hugging_face.repository(options.push, options.public, uploads=not options.dry_run)


def _push(repository: Repository, run: RunFolder, folder: Path, dry_run: bool) -> None:
    from spml_tf.exports import hugging_face

    card = (folder / _EDITED[1]).read_text("utf-8")
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
    from spml_tf.exports import formats
    from spml_tf.exports.model_card import model_card

    with replaced_folder(target) as folder:
        found = formats.write(wanted, model, folder, classes, photos)
        checked = formats.table(found, photos) if photos is not None else []
        card = model_card(run, run.read_record(), classes, checked)
        write_json(folder / _EDITED[0], classes, replaced_unless_edited)
        write_text(folder / _EDITED[1], card, replaced_unless_edited)
    if photos is not None:
        print(*(formats.summary(one, photos) for one in found), sep="\n")


def _tell_of_shared(classes: dict[str, Any]) -> None:
    """Notes classes whose thresholds are not their own, where a rule chose them for each."""
    from spml_tf.evaluation.thresholds import FEW, parse_rule

    shared = classes["shared_thresholds"]
    rule = parse_rule(classes["threshold_rule"]).kind
    if shared and rule not in ("count", "fixed"):
        value = classes["thresholds"][shared[0]]
        tell_note(
            f"{len(shared)} of {len(classes['class_names'])} classes have fewer than {FEW} "
            f"validation positives: they share the threshold {value:.3g}",
        )


def _wanted(options: _Options) -> Wanted:
    """The formats of the flag, whose needs are there."""
    from spml_tf.exports.formats import MARKS, Wanted

    names = tuple(name.strip() for name in options.format.split(","))
    unknown = [name for name in names if name not in MARKS]
    if unknown or len(set(names)) < len(names):
        raise UserError(
            f"--format={options.format}: must be of {', '.join(MARKS)}, each once, separated by "
            f"commas{f', not {unknown[0]!r}' if unknown else ''}"
        )
    wanted = Wanted(names, options.web_runtime or RUNTIME)
    if options.web_runtime is not None and "web" not in names:
        raise UserError("--web_runtime: is of --format=web; leave it out")
    for flag in ("data_dir", "check_images"):
        if getattr(options, flag) is not None and not wanted.converts:
            raise UserError(f"--{flag}: is of the check of litert, onnx and web; leave it out")
    wanted.check_needs()
    return wanted


def _target(options: _Options) -> Path:
    """The folder to write."""
    folder, version = Path(options.export_dir).resolve(), options.serving_version
    if version is None:
        return folder
    if version == _NEXT:
        there = [int(x.name) for x in folder.glob("*") if x.name.isdecimal() and x.is_dir()]
        return folder / str(max(there, default=0) + 1)
    if not version.isdecimal() or int(version) < 1:
        raise UserError(f"--serving_version={version}: must be a number from 1 on, or {_NEXT}")
    return folder / str(int(version))


def _check_target(options: _Options, target: Path) -> None:
    from spml_tf.exports.formats import MARKS

    put_back(target)
    marks = [target / mark for mark in MARKS.values()]
    check_output_folder(
        target,
        f"--export_dir={options.export_dir}",
        is_ours=(target / "classes.json").exists() and any(mark.exists() for mark in marks),
        refusal="exists and is no export; choose another",
        kept="" if options.overwrite else "holds an export; choose another or give --overwrite",
        edited=_EDITED,
    )


def _action(options: _Options) -> None:
    print(f"exported to {_export(options)}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action)


if __name__ == "__main__":
    sys.exit(main())
