"""Labels that a run's training data probably miss: `python -m spml_tf.audit --run_dir=DIR`."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spml_tf.system import cli
from spml_tf.system.errors import UserError
from spml_tf.system.files import replaced, write_json

if TYPE_CHECKING:
    from spml_tf.datasets.splits import Splits
    from spml_tf.evaluation.missing_labels import Candidate
    from spml_tf.runs.run_folder import RunFolder

_USAGE = """Lists the labels that a run's training images probably miss, and those that look wrong.

usage: python -m spml_tf.audit --run_dir=DIR --output_dir=DIR2
       python -m spml_tf.audit --run_dir=DIR --reviewed=reviewed.csv --output_dir=DIR3

The first writes missing.csv and wrong.csv, best first (score, epochs for which a label was an
expected positive, the heatmap's peak and box as parts of the image), audit.html to look through
them and to save what you decide, and audit.json.

The second adds reviewed labels to those the run was trained on: train_labels.csv goes to
--train_labels, and where labels came from a table train.csv to --train_csv. A reviewed file is what
the page saves, or missing.csv or wrong.csv with 1 (present) or 0 (absent) in the column label."""

_CUTOFFS = (50, 100, 200, 500)
_HEADER = (
    "image", "class", "label", "score", "epochs_selected",
    "peak_y", "peak_x", "y1", "x1", "y2", "x2", "full_label",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dir: str | None = cli.flag_field(None, "Folder of the finished run.")
    output_dir: str | None = cli.flag_field(None, "Folder for the files.")
    reviewed: str | None = cli.flag_field(None, "Comma-separated files of reviewed labels.")
    data_dir: str | None = cli.flag_field(
        None, "Folder of the data set, where it is not the run's own."
    )
    limit: int = cli.flag_field(500, "How many labels of each kind to list.", int)
    shown: int = cli.flag_field(100, "How many of each kind to show on the page.", int)
    batch_size: int = cli.flag_field(32, "Images at a time.", int)


def audit(options: _Options) -> dict[str, Any]:
    """Writes the lists and the page.

    Args:
        options: the command's flags.

    Returns:
        What audit.json holds: {"run_dir", "method", "data_fingerprint", "unknown", "missing",
        "wrong", "precision"}; precision in percent by number of candidates, empty where
        the full labels are not known.

    Raises:
        UserError: for a run or data that cannot be read, a data set without unknown labels, or a
            folder that cannot be written.
    """
    from spml_tf import networks
    from spml_tf.evaluation import missing_labels
    from spml_tf.labels import UNKNOWN
    from spml_tf.pages import suspect_labels
    from spml_tf.runs import run_data
    from spml_tf.runs.run_folder import RunFolder

    run = RunFolder(options.run_dir or "")
    run.check_finished()
    data = run_data.load_of_run(run, options.data_dir)
    if not (data.observed == UNKNOWN).any():
        raise UserError(
            f"{run.path}: every label of its training images is known; nothing can be missing"
        )
    network = networks.load_network(run.network)
    saved = suspect_labels.read_checkpoint(run, data)
    found = {
        "missing": missing_labels.rank_missing(
            saved.scores, data.observed, saved.epochs_selected, options.limit
        ),
        "wrong": missing_labels.rank_wrong(saved.scores, data.observed, options.limit),
    }
    size = run.settings().image_size
    shown, rows = {}, {}
    for kind, ranked in found.items():
        print(f"heatmaps of {len(ranked)} labels ({kind})", file=sys.stderr)
        arguments = network, data, ranked, size, options.batch_size
        rows[kind] = _rows(data, ranked, suspect_labels.regions(*arguments))
        arguments = network, data, ranked[: options.shown], size, options.batch_size
        shown[kind] = suspect_labels.photos(*arguments)
    facts = _facts(run, data, found)
    _write(Path(options.output_dir or ""), facts, rows, _page(run, data, facts, shown))
    return facts


def _facts(run: RunFolder, data: Splits, found: dict[str, list[Candidate]]) -> dict[str, Any]:
    from spml_tf.evaluation import missing_labels
    from spml_tf.labels import UNKNOWN

    truth = data.train.labels
    known = bool((truth[data.observed == UNKNOWN] != UNKNOWN).all())
    precision = missing_labels.precision_at(found["missing"], truth, _CUTOFFS) if known else {}
    return {
        "run_dir": str(run.path),
        "method": run.settings().method,
        "data_fingerprint": run.read_record()["data_fingerprint"],
        "unknown": int((data.observed == UNKNOWN).sum()),
        "missing": len(found["missing"]),
        "wrong": len(found["wrong"]),
        "precision": {str(k): value for k, value in precision.items()},
    }


def _rows(
    data: Splits,
    found: Sequence[Candidate],
    regions: Sequence[tuple[tuple[float, float], tuple[float, ...]]],
) -> list[tuple[Any, ...]]:
    rows = []
    for x, (peak, box) in zip(found, regions, strict=True):
        truth = int(data.train.labels[x.image, x.label])
        rows.append(
            (
                data.train.names[x.image],
                data.train.class_names[x.label],
                "",
                f"{x.score:.6f}",
                "" if x.epochs_selected is None else x.epochs_selected,
                *(f"{part:.4f}" for part in (*peak, *box)),
                truth if truth >= 0 else "",
            )
        )
    return rows


def _page(run: RunFolder, data: Splits, facts: dict[str, Any], shown: dict[str, Any]) -> str:
    from spml_tf.pages import audit_page

    return audit_page.build(run.path.name, facts, data.train.class_names, **shown)


def _write(
    folder: Path, facts: dict[str, Any], rows: dict[str, list[tuple[Any, ...]]], page: str
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, lines in rows.items():
            _write_csv(folder / f"{kind}.csv", _HEADER, lines)
        with replaced(folder / "audit.html") as temporary:
            temporary.write_text(page, "utf-8")
        write_json(folder / "audit.json", facts)
    except OSError as error:
        raise UserError(f"--output_dir={folder}: cannot be written ({error.strerror})") from None


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with replaced(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def apply_reviewed(options: _Options) -> dict[str, int]:
    """Adds reviewed labels to those the run was trained on, and writes the files for the next run.

    Args:
        options: the command's flags.

    Returns:
        How many labels became {"positive", "negative"} and how many were so before, {"unchanged"}.

    Raises:
        UserError: for a run or data that cannot be read, reviewed files as
            `label_files.read_reviewed`, or a folder that cannot be written.
    """
    import numpy as np

    from spml_tf.datasets import label_files
    from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
    from spml_tf.runs import run_data
    from spml_tf.runs.run_folder import RunFolder

    run = RunFolder(options.run_dir or "")
    data = run_data.load_of_run(run, options.data_dir)
    paths = [path.strip() for path in (options.reviewed or "").split(",")]
    names, class_names = data.train.names, data.train.class_names
    reviewed = label_files.read_reviewed(paths, names, class_names)
    if (reviewed == UNKNOWN).all():
        raise UserError(f"--reviewed={options.reviewed}: no row has a label; give 1 or 0 to some")
    labels = np.where(reviewed == UNKNOWN, data.observed, reviewed)
    changed = labels != data.observed
    folder = Path(options.output_dir or "")
    _refuse_to_replace(folder / "train.csv", run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if run.settings().train_csv:
            _write_table(folder / "train.csv", run, data, labels)
    except OSError as error:
        raise UserError(f"--output_dir={folder}: cannot be written ({error.strerror})") from None
    held_out = data.held_out
    label_files.write_observed(folder / "train_labels.csv", labels, names, class_names, held_out)
    return {
        "positive": int((changed & (labels == POSITIVE)).sum()),
        "negative": int((changed & (labels == NEGATIVE)).sum()),
        "unchanged": int(((reviewed != UNKNOWN) & ~changed).sum()),
    }


def _refuse_to_replace(path: Path, run: RunFolder) -> None:
    settings = run.settings()
    if (
        settings.train_csv
        and path.resolve() == Path(settings.data_dir, settings.train_csv).resolve()
    ):
        raise UserError(f"{path}: is the table the run was trained on; choose another --output_dir")


def _write_table(path: Path, run: RunFolder, data: Splits, labels: Any) -> None:
    """The table of all photos of the training split, those held out with their own labels."""
    from spml_tf.datasets import splits
    from spml_tf.labels import UNKNOWN

    whole = splits.load_examples(run.settings(), run.settings().train_split)
    trained = dict(zip(data.train.names, labels, strict=True))
    rows = []
    for name, own in zip(whole.names, whole.labels, strict=True):
        marks = trained.get(name, own)
        rows.append([name, *("" if mark == UNKNOWN else mark for mark in marks.tolist())])
    _write_csv(path, ("image", *whole.class_names), rows)


def _action(options: _Options) -> None:
    for name in ("run_dir", "output_dir"):
        if not getattr(options, name):
            raise UserError(f"--{name} is missing; see --help")
    for name, low in (("limit", 1), ("shown", 0), ("batch_size", 1)):
        if getattr(options, name) < low:
            raise UserError(f"--{name}={getattr(options, name)}: must be at least {low}")
    cli.import_tensorflow()
    if options.reviewed:
        counts = apply_reviewed(options)
        print(
            f"{counts['positive']} labels became positive, {counts['negative']} negative, "
            f"{counts['unchanged']} were so before"
        )
    else:
        facts = audit(options)
        for count, value in facts["precision"].items():
            print(f"precision of the first {count}: {value:.1f}% (the full labels are known)")
    print(f"results in {options.output_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, _USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
