"""Labels that a run's training data probably miss: `python -m spml_tf.audit --run_dir=DIR`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from spml_tf.evaluation.rules import SUGGESTIONS
from spml_tf.pages import BATCH_SIZE, LISTED, SHOWN
from spml_tf.system import cli
from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import flag_field, plugins_field
from spml_tf.system.flag_words import split_names
from spml_tf.system.notes import tell_note
from spml_tf.system.tensorflow_import import import_tensorflow

USAGE = """Lists the labels that a run's training images probably miss, and those that look wrong.

usage: python -m spml_tf.audit --run_dir=DIR --output_dir=DIR2
       python -m spml_tf.audit --run_dir=DIR --suggest=100 --output_dir=DIR2
       python -m spml_tf.audit --run_dir=DIR --reviewed=reviewed.csv --output_dir=DIR3

The first writes missing.csv and wrong.csv, best first (score, epochs for which a label was an
expected positive, the heatmap's peak and box as parts of the image), audit.html to look through
them and to save what you decide (python -m spml_tf.review keeps it as you decide), and audit.json.

The second lists the photos to label in full next, best first: suggest.csv has a row for each
unknown label of theirs, suggest.html shows them with all labels to decide, and suggest.json says
how they were chosen.

The third adds reviewed labels to those the run was trained on: train_labels.csv goes to
--train_labels, and where labels came from a table train.csv to --train_csv (which is not written
where flags say how that table is read). A reviewed file is what the page saves, or missing.csv,
wrong.csv or suggest.csv with 1 (present) or 0 (absent) in the column label."""


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dir: str = flag_field(None, "Folder of the finished run.", required=True)
    output_dir: str = flag_field(None, "Folder for the files.", required=True)
    reviewed: str | None = flag_field(None, "Comma-separated files of reviewed labels.")
    suggest: int = flag_field(0, "How many photos to suggest for full labelling.", int, low=0)
    suggest_by: str | None = flag_field(
        None,
        "Of --suggest. gain: many labels that are probably missing, of rare classes first; "
        "missing: of any classes; uncertainty: of the scores; disagreement: between running "
        "averages and network; random. Default: gain.",
        str,
        SUGGESTIONS,
    )
    data_dir: str | None = flag_field(
        None, "Folder of the data set, where it is not the run's own."
    )
    limit: int = flag_field(
        None, f"How many labels of each kind to list. Default: {LISTED}.", int, low=1
    )
    shown: int = flag_field(
        None,
        f"How many labels of each kind, or photos, to show on the page. Default: {SHOWN}.",
        int,
        low=0,
    )
    batch_size: int = flag_field(None, f"Images at a time. Default: {BATCH_SIZE}.", int, low=1)
    plugins: str | None = plugins_field()


def _list(options: _Options) -> None:
    """Writes the lists and the page."""
    from spml_tf.pages.audit import audit_run
    from spml_tf.runs.run_folder import RunFolder

    facts = audit_run(
        RunFolder(options.run_dir),
        options.output_dir,
        options.data_dir,
        LISTED if options.limit is None else options.limit,
        SHOWN if options.shown is None else options.shown,
        options.batch_size or BATCH_SIZE,
    )
    for count, value in facts["precision"].items():
        print(f"precision of the first {count}: {value:.1f}% (the full labels are known)")


def _suggest(options: _Options) -> None:
    """Writes the photos to label next."""
    from spml_tf.pages.suggest import suggest_run
    from spml_tf.runs.run_folder import RunFolder

    most = SHOWN if options.shown is None else options.shown
    facts = suggest_run(
        RunFolder(options.run_dir),
        options.output_dir,
        options.suggest,
        options.suggest_by or "gain",
        options.data_dir,
        most,
        options.batch_size or BATCH_SIZE,
    )
    if facts["images"] < options.suggest:
        tell_note(f"only {facts['images']} photos have an unknown label")
    print(f"{facts['images']} photos to label in full, best first: {facts['labels']} labels")
    if most:
        shown = "them" if facts["images"] <= most else f"the first {most}"
        folder = shlex.quote(f"--audit_dir={options.output_dir}")
        print(f"python -m spml_tf.review {folder} shows {shown} to decide")


def _apply_reviewed(options: _Options, reviewed: str) -> None:
    """Adds reviewed labels to those the run was trained on."""
    from spml_tf.runs import reviewed_labels
    from spml_tf.runs.run_folder import RunFolder

    paths = split_names("reviewed", reviewed)
    folder = Path(options.output_dir)
    run = RunFolder(options.run_dir)
    counts = reviewed_labels.apply(run, paths, folder, options.data_dir)
    print(
        f"{counts['positive']} labels became positive, {counts['negative']} negative, "
        f"{counts['unchanged']} were so before"
    )
    settings = run.settings()
    why = reviewed_labels.why_no_table(settings)
    if settings.train_csv and why:
        print(f"note: no train.csv, for {why}; give train_labels.csv to --train_labels")


def _action(options: _Options) -> None:
    if options.suggest and options.reviewed:
        raise UserError("--suggest, --reviewed: list photos, or apply labels; drop one")
    if options.suggest_by and not options.suggest:
        raise UserError("--suggest_by: says how --suggest chooses; give --suggest=100 too")
    other = "suggest" if options.suggest else "reviewed" if options.reviewed else None
    if options.limit is not None and other:
        raise UserError(f"--limit: is of the lists of labels, not of --{other}; leave it out")
    if options.shown is not None and options.reviewed:
        raise UserError("--shown: is of the pages, not of --reviewed; leave it out")
    if options.batch_size is not None and options.reviewed:
        raise UserError("--batch_size: is of the pages, not of --reviewed; leave it out")
    import_tensorflow()
    if options.reviewed:
        _apply_reviewed(options, options.reviewed)
    elif options.suggest:
        _suggest(options)
    else:
        _list(options)
    print(f"results in {options.output_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
