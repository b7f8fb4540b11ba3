"""The model card of an export."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from spml_tf.evaluation.thresholds import FEW, parse_rule
from spml_tf.labels import known_counts
from spml_tf.runs.decisions import estimated_positives
from spml_tf.runs.result_lines import has_best_epoch
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.errors import printable
from spml_tf.system.text_files import read_text
from spml_tf.training.options import AUTO

# The splits a run reports on, as a sentence calls them.
REPORTED = {"val": "validation", "test": "test"}


def _mean_positives_text(run: RunFolder, record: dict[str, Any]) -> str:
    """K, with its interval where training has estimated it."""
    known = record["positives_per_image"]
    found = estimated_positives(run, record) if known == AUTO else None
    if found is None:
        return str(known)
    mean, low, high = found
    return f"{mean:.2f}, estimated ({low:.2f} to {high:.2f})"


def model_card(
    run: RunFolder,
    record: dict[str, Any],
    classes: dict[str, Any],
    checked: Sequence[str] = (),
) -> str:
    """MODEL_CARD.md of an export.

    Args:
        run: the finished run.
        record: its run.json.
        classes: what classes.json says.
        checked: lines of Markdown about the files that were converted.
    """
    results = run.read_metrics()
    splits = {name: text for name, text in REPORTED.items() if name in results}
    count = len(classes["thresholds"])
    lines = [
        "# Model card",
        "",
        f"Multi-label image classifier, {count} classes, trained by spml_tf "
        f"{record['versions']['spml_tf']} with the method `{record['flags']['method']}`.",
        "",
        *_facts(run, record, results, splits),
        "",
        *_classes_table(run, classes, results, splits),
        "",
        *checked,
        *_limits(record["flags"], classes, results),
        "",
        *_how_it_was_trained(run),
        "",
    ]
    return "\n".join(lines)


def _facts(
    run: RunFolder, record: dict[str, Any], results: dict[str, Any], splits: dict[str, str]
) -> list[str]:
    flags, images = record["flags"], record["images"]
    image_counts = ", ".join(f"{images[split]} {text}" for split, text in splits.items())
    maps = ", ".join(
        f"{_percent(results[split]['map'])} on {text}" for split, text in splits.items()
    )
    return [
        f"- Network: {_plain(flags['network'])}, weights at the start: "
        f"{_plain(flags['weights'])}, input "
        f"{flags['image_size']} x {flags['image_size']} pixels (any size is resized, the aspect "
        "ratio ignored); preprocessing is inside.",
        f"- Data: {_plain(flags['dataset'])}, {images['train']} training, {image_counts} images; "
        f"{_labels_seen(flags)}; positives per image (K): "
        f"{_mean_positives_text(run, record)}.",
        f"- Data fingerprint: `{record['data_fingerprint']}`.",
        f"- mAP: {maps} ({_epoch(results)}).",
        f"- Versions: {_plain(', '.join(f'{k} {v}' for k, v in record['versions'].items()))}.",
    ]


def _classes_table(
    run: RunFolder, classes: dict[str, Any], results: dict[str, Any], splits: dict[str, str]
) -> list[str]:
    rows, counts = [], known_counts(run.read_predictions("val")["labels"])
    for (name, threshold), known in zip(classes["thresholds"].items(), counts, strict=True):
        precisions = (_percent(results[split]["ap"][name]) for split in splits)
        numbers = map(str, known.values())
        rows.append(f"| {' | '.join((_plain(name), *precisions, f'{threshold:.4f}', *numbers))} |")
    return [
        f"| class | {' | '.join(f'AP {split}' for split in splits)} | threshold | val positives | "
        "val negatives | val unknown |",
        f"|---|{'---|' * len(splits)}---|---|---|---|",
        *rows,
    ]


def _epoch(results: dict[str, Any]) -> str:
    """The epoch whose network this is, and why."""
    if has_best_epoch(results):
        return f"epoch {results['best_epoch']}, the best on validation"
    return (
        f"epoch {results['best_epoch']}, the last: no validation image shows a class to choose by"
    )


def _limits(flags: dict[str, Any], classes: dict[str, Any], results: dict[str, Any]) -> list[str]:
    count = len(classes["thresholds"])
    chosen = "judge by the test column" if "test" in results else "without test images, it flatters"
    epoch = f"Validation chose the epoch too: {chosen}."
    if not has_best_epoch(results):
        epoch = "Validation could not choose the epoch: the last was taken."
    return [
        "## Use and limits",
        "",
        f"Meant for finding which of the {count} classes an image like the training data "
        "shows; other images, and uses in which a wrong decision harms someone, need an "
        "evaluation of their own.",
        "",
        f"- Training: {_labels_seen(flags)}. Where labels were missing, the method had to guess "
        "them.",
        f"- {_calibration(classes['calibration'])}",
        f"- Decisions: probability >= threshold. {_decisions(classes)} {_unknown(flags)} Data with "
        "other class frequencies need thresholds of their own.",
        f"- {epoch}",
        "- Heatmaps (cams) show what the classifier responds to, not an object's outline.",
    ]


def _how_it_was_trained(run: RunFolder) -> list[str]:
    repeated, fence = read_text(run.flags, "put a copy of it back").rstrip(), "```"
    while fence in repeated:
        fence += "`"
    return ["## How it was trained", "", fence, repeated, fence]


def _decisions(classes: dict[str, Any]) -> str:
    """How the thresholds were chosen."""
    rule = parse_rule(classes["threshold_rule"])
    kind, value = rule.kind, f"{rule.value:g}"
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


def _calibration(found: dict[str, Any]) -> str:
    """Whether probabilities are calibrated, by what, and what that changed."""
    rule, errors = found["rule"], found["expected_calibration_error"]
    if rule == "none":
        text = "Probabilities are not calibrated."
    else:
        name = {"temperature": "temperature scaling", "platt": "Platt scaling"}[rule]
        text = f"Probabilities are calibrated by {name}, fitted to {found['fitted_to']}."
        if found["shared"]:
            text += f" {len(found['shared'])} classes with few positives share it."
    for split, ends in errors.items():
        parts = [f"{100 * x:.2f} % {name}" for name, x in ends.items() if x is not None]
        if parts:
            how = ", cross-validated" if split == "val" and rule != "none" else ""
            text += f" Expected calibration error on {REPORTED[split]} images: "
            text += f"{', '.join(parts)}{how}."
    return text


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
