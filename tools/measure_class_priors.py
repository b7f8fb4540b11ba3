"""Measures estimates of class priors against the truth; a Markdown table, and --output_csv.

python tools/measure_class_priors.py [--run_dirs=RUN,...] [--data_dir=DIR] [--coco_labels=FILE]
    [--quality=2,3,4] [--every=4] [--seed=0] [--output_csv=FILE]

--run_dirs: runs of the method an whose data have full labels; the scores are those of their score
bank, --data_dir is where the data lie now. --coco_labels: a line "file,class class ..." an image;
of one image in --every a class is drawn, scores are those of a linear layer trained as an on
simulated evidence: normal noise plus, where the image holds the class, 0.6 to 1.4 times the
quality, the same for all images of a class. A cell is the estimate of K, its interval, and the
sum over classes of |estimate - truth| over K. Intervals are those of the draw model, of the others
those of 20 bootstrap samples of the images. Rows are added to a CSV file that is there.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from numpy.typing import NDArray

from spml_tf.labels import POSITIVE
from spml_tf.training import class_priors

# Name, scores [N, L], observed labels [N, L], true labels [N, L].
Case = tuple[str, NDArray[Any], NDArray[Any], NDArray[Any]]


def of_run(folder: str, data_dir: str | None) -> Case:
    """The score bank of a run and the labels it was trained on."""
    from spml_tf.datasets import splits
    from spml_tf.runs.checkpoint_contents import read_checkpoint
    from spml_tf.runs.run_folder import RunFolder

    run = RunFolder(folder)
    settings = run.settings()
    if data_dir:
        settings = dataclasses.replace(settings, data_dir=data_dir)
    data, newest = splits.load_splits(settings), run.checkpoints.newest()
    if newest is None:
        raise SystemExit(f"error: {folder}: no checkpoint")
    scores = read_checkpoint(newest.weights, data.observed).scores
    return Path(folder).name, scores, data.observed, data.train.labels == POSITIVE


def of_coco(file: str, quality: float, every: int, seed: int) -> Case:
    """Simulated scores for the labels of a file."""
    import keras

    from spml_tf.evaluation.average_precision import average_precision

    rows = [line.partition(",")[2].split() for line in Path(file).read_text().splitlines()[::every]]
    rows = [list(map(int, row)) for row in rows if row]
    truth = np.zeros((len(rows), 80), bool)
    for image, row in enumerate(rows):
        truth[image, row] = True
    rng = np.random.default_rng(seed)
    gain = rng.uniform(0.6 * quality, 1.4 * quality, 80)
    evidence = (gain * truth + rng.normal(size=truth.shape)).astype(np.float32)
    evidence -= evidence.mean(axis=0)
    drawn = (rng.random(truth.shape) * truth).argmax(axis=1)
    observed = np.where(np.arange(80) == drawn[:, None], 1, -1).astype(np.int8)
    keras.utils.set_random_seed(seed)
    share = np.maximum((observed == 1).mean(axis=0), 1 / len(rows))
    head = keras.layers.Dense(80, bias_initializer=lambda *x, **y: np.log(share / (1 - share)))
    model = keras.Sequential([head])
    rate = keras.optimizers.schedules.CosineDecay(1e-2, 12 * -(-len(rows) // 128))
    model.compile(keras.optimizers.Adam(rate), keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(evidence, observed == 1, batch_size=128, epochs=12, verbose=0)
    scores = 1 / (1 + np.exp(-model.predict(evidence, batch_size=4096, verbose=0)))
    precision = 100 * np.nanmean(average_precision(truth.astype(int), scores))
    return f"COCO, scores of mAP {precision:.0f}, {len(rows):,} images", scores, observed, truth


def measured(
    name: str, scores: NDArray[Any], labels: NDArray[Any]
) -> tuple[NDArray[Any], float, float]:
    """Priors by an estimator, and the interval of their sum."""
    if name == "draw model":
        whole = class_priors.class_priors(scores, labels)
        return whole.priors, *whole.interval
    draws, sums = np.random.default_rng(0), []
    for _ in range(20):
        rows = draws.integers(0, len(scores), len(scores))
        sums.append(class_priors.ESTIMATORS[name](scores[rows], labels[rows]).sum())
    found = class_priors.ESTIMATORS[name](scores, labels)
    width = 1.96 * float(np.std(sums, ddof=1))
    return found, found.sum() - width, found.sum() + width


def rows_of(case: Case) -> list[dict[str, Any]]:
    """Truth and estimates of a case, a row an estimator."""
    name, scores, labels, truth = case
    shares = truth.mean(axis=0)
    # As training does: of many images those evenly spaced.
    step = class_priors.sample_step(*labels.shape)
    rows = []
    for estimator in class_priors.ESTIMATORS:
        found, low, high = measured(estimator, scores[::step], labels[::step])
        rows.append({
            "data": name, "estimator": estimator, "true_k": shares.sum(),
            "estimated_k": found.sum(), "k_low": low, "k_high": high,
            "error_of_classes": np.abs(found - shares).sum() / shares.sum(),
        })  # fmt: skip
    return rows


def told(rows: list[dict[str, Any]], file: Path | None) -> None:
    """Prints a case's row of the table, and adds its rows to the file."""
    cells = [f"| {rows[0]['data']} | {rows[0]['true_k']:.2f}"]
    cells += [
        f"{x['estimated_k']:.2f} ({x['k_low']:.2f} to {x['k_high']:.2f}), "
        f"{x['error_of_classes']:.2f}"
        for x in rows
    ]
    print(" | ".join([*cells, ""]).rstrip(), flush=True)
    if file is not None:
        new = not file.exists()
        with open(file, "a", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]))
            if new:
                writer.writeheader()
            for row in rows:
                writer.writerow(
                    {k: x if isinstance(x, str) else f"{x:.3f}" for k, x in row.items()}
                )


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--run_dirs", default="")
    parser.add_argument("--data_dir")
    parser.add_argument("--coco_labels")
    parser.add_argument("--quality", default="2,3,4")
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_csv", type=Path)
    given = parser.parse_args()
    print(f"| data | K | {' | '.join(class_priors.ESTIMATORS)} |")
    print("|---" * (2 + len(class_priors.ESTIMATORS)) + "|")
    for folder in filter(None, given.run_dirs.split(",")):
        told(rows_of(of_run(folder, given.data_dir)), given.output_csv)
    for quality in map(float, given.quality.split(",") if given.coco_labels else []):
        case = of_coco(given.coco_labels, quality, given.every, given.seed)
        told(rows_of(case), given.output_csv)


if __name__ == "__main__":
    main()
