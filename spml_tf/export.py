"""Exports a finished run: `python -m spml_tf.export --run_dir=DIR --export_dir=DIR`."""

from __future__ import annotations

import dataclasses
import html
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS
from spml_tf.datasets.settings import check_range
from spml_tf.system import cli
from spml_tf.system.errors import UserError, printable
from spml_tf.system.files import (
    check_output_folder,
    naming_unwritable,
    put_back,
    replaced_folder,
    replaced_unless_edited,
    write_json,
    write_text,
)
from spml_tf.system.notes import tell_note
from spml_tf.training.options import AUTO

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from spml_tf.evaluation.thresholds import Rule
    from spml_tf.runs.run_folder import RunFolder

USAGE = """Exports the best network of a finished run as a SavedModel.

usage: python -m spml_tf.export --run_dir=DIR --export_dir=DIR

Endpoints: serve (images -> probabilities), cams (images -> class activation maps, logits),
serve_bytes (JPEG or PNG files -> probabilities). Beside it classes.json (names, decision
thresholds, input size) and MODEL_CARD.md."""


# The splits a run reports on, as a sentence calls them.
_REPORTED = {"val": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dir: str = cli.flag_field(None, "Folder of the run.", required=True)
    export_dir: str = cli.flag_field(None, "Folder to write, new or empty.", required=True)
    overwrite: bool = cli.flag_field(
        False, "Replace an earlier export in --export_dir (no other folder is replaced).", bool
    )
    thresholds: str = cli.flag_field(
        "f1",
        "How decisions are made, by the validation images. f1: the highest F1 of each class; "
        "precision:0.9 or recall:0.9: so much of it; count: as many decisions an image as there "
        "are positives (--positives_per_image of the run); a number: this threshold. A class with "
        "fewer than 10 validation positives takes the threshold of all classes together.",
    )
    max_megapixels: float | None = cli.flag_field(
        None,
        "serve_bytes refuses pictures whose header tells of more pixels, in millions. Default: as "
        "the run was trained, 100 unless it was told otherwise.",
        float,
    )
    plugins: str | None = cli.plugins_field()


def export(
    run_dir: str,
    export_dir: str,
    overwrite: bool = False,
    max_megapixels: float | None = None,
    thresholds: str = "f1",
) -> None:
    """Writes a run's network for serving, without banks or optimizer.

    The folder appears in one step: it is whole or not there.

    Args:
        run_dir: folder of a finished run.
        export_dir: folder to write.
        overwrite: replace an earlier export in `export_dir`.
        max_megapixels: the most pixels, in millions, of a picture that serve_bytes takes; None: as
            the run was trained.
        thresholds: how they are chosen, see `thresholds.parse_rule`.

    Raises:
        UserError: where the run is not finished or the folder holds something to keep: other
            files, an export without `overwrite`, or one whose classes.json or MODEL_CARD.md a
            person has edited.
    """
    from spml_tf import networks
    from spml_tf.evaluation.thresholds import parse_rule
    from spml_tf.runs import run_folder

    try:
        rule = parse_rule(thresholds)
    except ValueError as error:
        raise UserError(f"--thresholds: {error}") from None
    run, target = run_folder.RunFolder(run_dir), Path(export_dir).resolve()
    run.check_finished()
    record = run.read_record()
    place, edited = f"--export_dir={export_dir}", ("classes.json", "MODEL_CARD.md")
    put_back(target)
    check_output_folder(
        target,
        place,
        is_ours=all((target / name).exists() for name in ("saved_model.pb", "classes.json")),
        refusal="exists and is no export; choose another",
        kept="" if overwrite else "holds an export; choose another or give --overwrite",
        edited=edited,
    )
    network = networks.load_network(run.best_network())
    classes = {
        "class_names": record["class_names"],
        **_thresholds(run, record, rule),
        "image_size": record["flags"]["image_size"],
        "max_megapixels": max_megapixels or record["flags"].get("max_megapixels", MAX_MEGAPIXELS),
    }
    with naming_unwritable(place), replaced_folder(target) as folder:
        write_saved_model(network, classes["image_size"], folder, classes["max_megapixels"])
        write_json(folder / edited[0], classes, replaced_unless_edited)
        write_text(folder / edited[1], _model_card(run, record, classes), replaced_unless_edited)
    _tell_of_shared(classes)


def _thresholds(run: RunFolder, record: dict[str, Any], rule: Rule) -> dict[str, Any]:
    """What classes.json says of decisions."""
    from spml_tf.evaluation.thresholds import choose

    saved, known = run.read_predictions("val"), _mean_positives(run, record)
    if rule.kind == "count" and known is None:
        raise UserError(
            "--thresholds=count: the run does not know the positives per image; train it with "
            "--positives_per_image, or choose f1"
        )
    counts_as = run.settings().unknown_counts_as
    found = choose(saved["labels"], saved["scores"], rule, known, counts_as)
    names = record["class_names"]
    shared = [name for name, alike in zip(names, found.shared, strict=True) if alike]
    return {
        "thresholds": dict(zip(names, found.values.tolist(), strict=True)),
        "threshold_rule": f"{rule.kind}:{rule.value:g}" if rule.value else rule.kind,
        "shared_thresholds": shared,
    }


def _tell_of_shared(classes: dict[str, Any]) -> None:
    """Notes classes whose thresholds are not their own, where a rule chose them for each."""
    from spml_tf.evaluation.thresholds import FEW

    shared = classes["shared_thresholds"]
    if shared and not classes["threshold_rule"].startswith(("count", "fixed")):
        value = classes["thresholds"][shared[0]]
        tell_note(
            f"{len(shared)} of {len(classes['class_names'])} classes have fewer than {FEW} "
            f"validation positives: they share the threshold {value:.3g}",
        )


def _mean_positives(run: RunFolder, record: dict[str, Any]) -> float | None:
    """K, known or estimated; None where it is neither."""
    known: float | str | None = record["positives_per_image"]
    if not isinstance(known, str):
        return known
    found = _estimated_positives(run, record)
    return found[0] if found else None


def _estimated_positives(run: RunFolder, record: dict[str, Any]) -> tuple[float, ...] | None:
    """K as training has estimated it, and the ends of its interval; None where it has not."""
    rows = run.read_history(record["flags"]["epochs"])
    if not rows or not rows[-1].get("estimated_k"):
        return None
    return tuple(float(rows[-1][name]) for name in ("estimated_k", "k_low", "k_high"))


def write_saved_model(
    network: keras.Model, image_size: int, folder: Path, max_megapixels: float = MAX_MEGAPIXELS
) -> None:
    """Writes a SavedModel with the endpoints serve, cams and serve_bytes.

    serve: images [B, H, W, 3] float32 in 0..255, any size -> {"probabilities": [B, L] float32}.
    cams: the same images -> {"cams": [B, G, G, L] float32 logits}; the sigmoid of their mean over
    the grid is what serve returns. serve_bytes: [B] strings, each a JPEG, PNG, GIF or BMP file of
    any size -> {"probabilities": [B, L]}. All resize as training's evaluation does. Batch
    normalisation is folded into convolutions, see `batch_norm_folding.folded`.

    Args:
        network: images -> CAM logits.
        image_size: side of the network's input in pixels.
        folder: where to write.
        max_megapixels: serve_bytes fails for a batch with a picture whose header tells of more
            pixels, in millions, before any is decoded.
    """
    import keras
    import tensorflow as tf

    from spml_tf.datasets.images import decode_image, resize
    from spml_tf.networks.batch_norm_folding import folded

    network = folded(network)

    def logits(images: tf.Tensor) -> tf.Tensor:
        return network(images, training=False)

    def probabilities(maps: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.sigmoid(tf.reduce_mean(maps, axis=(1, 2)))}

    def from_bytes(files: tf.Tensor) -> tf.Tensor:
        one = tf.TensorSpec([image_size, image_size, 3])
        return tf.map_fn(
            lambda file: resize(decode_image(file, max_megapixels), image_size),
            files,
            fn_output_signature=one,
        )

    images = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
    files = tf.TensorSpec([None], tf.string, name="files")
    # The archive finds the variables through the endpoints; tracked too, they are written twice.
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serve", lambda x: probabilities(logits(resize(x, image_size))), [images])
    archive.add_endpoint("cams", lambda x: {"cams": logits(resize(x, image_size))}, [images])
    archive.add_endpoint("serve_bytes", lambda x: probabilities(logits(from_bytes(x))), [files])
    archive.write_out(str(folder), verbose=False)


def _mean_positives_text(run: RunFolder, record: dict[str, Any]) -> str:
    """K, with its interval where training has estimated it."""
    known = record["positives_per_image"]
    found = _estimated_positives(run, record) if known == AUTO else None
    if found is None:
        return str(known)
    mean, low, high = found
    return f"{mean:.2f}, estimated ({low:.2f} to {high:.2f})"


def _model_card(run: Any, record: dict[str, Any], classes: dict[str, Any]) -> str:
    from spml_tf.labels import known_counts

    results = run.read_metrics()
    flags, images = record["flags"], record["images"]
    splits = {name: text for name, text in _REPORTED.items() if name in results}
    rows, counts = [], known_counts(run.read_predictions("val")["labels"])
    for (name, threshold), known in zip(classes["thresholds"].items(), counts, strict=True):
        precisions = (_percent(results[split]["ap"][name]) for split in splits)
        numbers = map(str, known.values())
        rows.append(f"| {' | '.join((_plain(name), *precisions, f'{threshold:.4f}', *numbers))} |")
    image_counts = ", ".join(f"{images[split]} {text}" for split, text in splits.items())
    maps = ", ".join(
        f"{_percent(results[split]['map'])} on {text}" for split, text in splits.items()
    )
    chosen = "judge by the test column" if "test" in splits else "without test images, it flatters"
    repeated, fence = run.flags.read_text("utf-8").rstrip(), "```"
    while fence in repeated:
        fence += "`"
    lines = [
        "# Model card",
        "",
        f"Multi-label image classifier, {len(rows)} classes, trained by spml_tf "
        f"{record['versions']['spml_tf']} with the method `{flags['method']}`.",
        "",
        f"- Network: {_plain(flags['network'])}, weights at the start: "
        f"{_plain(flags['weights'])}, input "
        f"{flags['image_size']} x {flags['image_size']} pixels (any size is resized, the aspect "
        "ratio ignored); preprocessing is inside.",
        f"- Data: {_plain(flags['dataset'])}, {images['train']} training, {image_counts} images; "
        f"{_labels_seen(flags)}; positives per image (K): "
        f"{_mean_positives_text(run, record)}.",
        f"- Data fingerprint: `{record['data_fingerprint']}`.",
        f"- mAP: {maps} (epoch {results['best_epoch']}, the best on validation).",
        f"- Versions: {_plain(', '.join(f'{k} {v}' for k, v in record['versions'].items()))}.",
        "",
        f"| class | {' | '.join(f'AP {split}' for split in splits)} | threshold | val positives | "
        "val negatives | val unknown |",
        f"|---|{'---|' * len(splits)}---|---|---|---|",
        *rows,
        "",
        "## Use and limits",
        "",
        f"Meant for finding which of the {len(rows)} classes an image like the training data "
        "shows; other images, and uses in which a wrong decision harms someone, need an "
        "evaluation of their own.",
        "",
        f"- Training: {_labels_seen(flags)}. Where labels were missing, the method had to guess "
        "them; probabilities are not calibrated.",
        f"- Decisions: probability >= threshold. {_decisions(classes)} {_unknown(flags)} Data with "
        "other class frequencies need thresholds of their own.",
        f"- Validation chose the epoch too: {chosen}.",
        "- Heatmaps (endpoint cams) show what the classifier responds to, not an object's outline.",
        "",
        "## How it was trained",
        "",
        fence,
        repeated,
        fence,
        "",
    ]
    return "\n".join(lines)


def _decisions(classes: dict[str, Any]) -> str:
    """How the thresholds were chosen."""
    from spml_tf.evaluation.thresholds import FEW

    kind, _, value = classes["threshold_rule"].partition(":")
    on = "on the validation images"
    text = {
        "f1": f"The thresholds give the highest F1 {on}, so their F1 there is optimistic.",
        "count": f"One threshold gives as many decisions {on} as there are positives.",
        "fixed": f"The threshold {value} was given, not chosen.",
    }.get(kind, f"The thresholds give a {kind} of {value} {on}.")
    shared = classes["shared_thresholds"]
    if kind in ("count", "fixed") or not shared:
        return text
    return f"{text} {len(shared)} classes with fewer than {FEW} positives there share one."


def _unknown(flags: dict[str, Any]) -> str:
    """What unknown labels count as."""
    if flags.get("unknown_counts_as", "nothing") == "negative":
        return "Unknown labels count as negatives."
    return (
        "Unknown labels are left out where a class has known positives and known negatives, "
        "elsewhere they count as negatives."
    )


def _labels_seen(flags: dict[str, Any]) -> str:
    seen = {
        "full": "all labels the data set has were seen in training",
        "stored": "the observed labels that come with the data set were seen in training",
        "single": f"at most {flags['observed_positives']} positive and "
        f"{flags['observed_negatives']} negative labels of each image were seen in training",
        "partial": f"{100 * flags.get('known_share', 1):g}% of all labels, drawn at random, were "
        "seen in training",
    }
    others = f"the labels seen in training are those of {_plain(flags['train_labels'])}"
    text = seen.get(flags["train_labels"], others)
    full = flags.get("full_images")
    return f"{text}, and all labels of {full:,} images" if full else text


def _percent(value: float | None) -> str:
    return "no positives" if value is None else f"{value:.2f}"


def _plain(text: object) -> str:
    """A name as Markdown shows it: no mark-up, no HTML, no link, on one line."""
    shown = html.escape(printable(str(text)), quote=False)
    return re.sub(r"[!#$*+:=?@\[\\\]^_`{|}~]", r"\\\g<0>", shown)


def _action(options: _Options) -> None:
    check_range("max_megapixels", options.max_megapixels, 1e-3, 1e5)
    export(
        options.run_dir,
        options.export_dir,
        options.overwrite,
        options.max_megapixels,
        options.thresholds,
    )
    print(f"exported to {options.export_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action)


if __name__ == "__main__":
    sys.exit(main())
