"""Compares the ranking of missing labels with cleanlab's, where the full labels are known.

python tools/benchmark_audit.py --run_dir=RUN --work_dir=DIR [--folds=3] [--data_dir=DIR]

The training images of a finished run are divided into folds. For each a network is trained with the
run's flags on the other folds, and scores its own: out-of-fold probabilities. All rankings order
the same (image, class) pairs, those whose label is unknown, by the same probabilities; cleanlab's
are its label quality scores per class, lowest first, for an unknown label counted as absent, with
the pairs that its filter flags before the others where it is named. "running averages" is what
`spml_tf.audit` lists for the run itself, from one training. Prints the share of labels that are
missing indeed among the first 50, 100, 200 and 500, in percent; writes it to DIR/precision.csv.

Needs `pip install -e '.[bench]'`. The same command goes on where it stopped. A fold's best epoch is
the one that scores its images best by their full labels, for all rankings alike.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from cleanlab.multilabel_classification import filter as cleanlab_filter
from cleanlab.multilabel_classification import rank as cleanlab_rank

from spml_tf.datasets import label_files, splits
from spml_tf.evaluation import missing_labels
from spml_tf.labels import POSITIVE, UNKNOWN
from spml_tf.pages import suspect_labels
from spml_tf.runs import run_data
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.files import write_csv

CUTOFFS = (50, 100, 200, 500)
METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def train_folds(run: RunFolder, data: splits.Splits, work: Path, given: argparse.Namespace) -> None:
    """A run for each fold, whose validation images are the fold's."""
    folds = np.random.default_rng(0).permutation(len(data.train)) % given.folds
    for fold in range(given.folds):
        rows = np.flatnonzero(folds != fold)
        labels = work / f"labels_{fold}.csv"
        label_files.write_observed(
            labels,
            data.observed[rows],
            [data.train.names[row] for row in rows],
            data.train.class_names,
            (*(data.train.names[row] for row in np.flatnonzero(folds == fold)), *data.held_out),
        )
        flags = [
            f"--flagfile={run.flags}", f"--train_labels={labels}", "--val_split=none",
            "--test_split=none", "--threads=1", f"--output_dir={work / f'fold_{fold}'}",
        ]  # fmt: skip
        if given.data_dir:
            flags.append(f"--data_dir={given.data_dir}")
        subprocess.run([sys.executable, "-m", "spml_tf.train", *flags], check=True)


def out_of_fold(data: splits.Splits, work: Path, folds: int) -> np.ndarray:
    """Probabilities [N, L] of the training images."""
    rows = {name: row for row, name in enumerate(data.train.names)}
    found = np.full(data.observed.shape, np.nan)
    for fold in range(folds):
        with np.load(RunFolder(work / f"fold_{fold}").predictions("val")) as saved:
            for name, scores in zip(saved["names"].tolist(), saved["scores"], strict=True):
                if name in rows:
                    found[rows[name]] = scores
    assert not np.isnan(found).any()
    return found


def rankings(
    data: splits.Splits, scores: np.ndarray
) -> Iterator[tuple[str, list[missing_labels.Candidate]]]:
    """Ours and cleanlab's, of the same pairs by the same probabilities."""
    yield "spml_tf", missing_labels.rank_missing(scores, data.observed)
    given = [np.flatnonzero(row == POSITIVE).tolist() for row in data.observed]
    for method in METHODS:
        for adjust in (False, True):
            if method == "confidence_weighted_entropy" and adjust:
                continue  # cleanlab has no such score
            quality = cleanlab_rank.get_label_quality_scores_per_class(
                given, scores, method=method, adjust_pred_probs=adjust
            )
            name = f"cleanlab {method}{', adjusted' if adjust else ''}"
            yield name, missing_labels.rank_missing(-quality, data.observed)
    quality = cleanlab_rank.get_label_quality_scores_per_class(given, scores)
    for by in ("prune_by_noise_rate", "confident_learning"):
        flagged = cleanlab_filter.find_multilabel_issues_per_class(
            given, scores, filter_by=by, n_jobs=1
        )
        ordered = np.asarray(flagged, float).reshape(quality.shape) - quality
        yield f"cleanlab {by}", missing_labels.rank_missing(ordered, data.observed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", required=True, help="folder of a finished run")
    parser.add_argument("--work_dir", required=True, help="folder for the folds' runs")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--data_dir", help="folder of the data set, where it is not the run's")
    given = parser.parse_args()
    run, work = RunFolder(given.run_dir), Path(given.work_dir)
    data = run_data.load_of_run(run, given.data_dir)
    work.mkdir(parents=True, exist_ok=True)
    train_folds(run, data, work, given)
    scores = out_of_fold(data, work, given.folds)
    averages = suspect_labels.read_checkpoint(run, data).scores
    found = dict(rankings(data, scores))
    found["spml_tf, running averages"] = missing_labels.rank_missing(averages, data.observed)
    missing = int(((data.observed == UNKNOWN) & (data.train.labels == POSITIVE)).sum())
    print(f"{missing} of {int((data.observed == UNKNOWN).sum())} unknown labels are missing")
    rows = []
    for name, ranked in found.items():
        shares = missing_labels.precision_at(ranked, data.train.labels, CUTOFFS)
        cells = [f"{shares[k]:.1f}" if k in shares else "" for k in CUTOFFS]
        rows.append([name, *cells])
        print(f"{name:45}", *(f"{cell:>7}" for cell in cells))
    write_csv(work / "precision.csv", ["ranking", *CUTOFFS], rows)


if __name__ == "__main__":
    main()
