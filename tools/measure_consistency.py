"""What SCL pulls on: `python tools/measure_consistency.py --run_dir=DIR [--every=4]`.

Of a finished run with SCL, over one training image in `every`, for annotated positives, positives
that nobody annotated (where the data set knows them) and negatives: mean score; mean and spread
inside a map of the network's sigmoid maps and of the bank's running averages; their mean
difference; and the mean slopes at the logits of a map's cell, times G * G * L: of SCL,
gamma * p * (1 - p), and of the label's term in cross-entropy, 1 - score for annotated positives
and score for the others. A TSV on standard output.
"""

from __future__ import annotations

import argparse
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from spml_tf import networks
from spml_tf.evaluation import predictions
from spml_tf.evaluation.image_batches import chosen
from spml_tf.labels import POSITIVE
from spml_tf.runs import run_data
from spml_tf.runs.run_folder import RunFolder


def _bank(run: RunFolder, rows: list[int], grid: int) -> NDArray[np.float64]:
    """Running averages [n, G, G, L], cells of a finer grid averaged."""
    checkpoint = run.checkpoints.newest()
    if checkpoint is None:
        raise SystemExit(f"{run.path}: holds no checkpoint")
    with h5py.File(checkpoint.weights) as file:
        saved = file["ema_heatmaps/vars/0"][rows].astype(np.float64)
        scale = 255 if file["ema_heatmaps/vars/0"].dtype == np.uint8 else 1
    size = saved.shape[1] // grid
    if size * grid != saved.shape[1]:
        raise SystemExit("the bank's grid must be a multiple of the network's")
    cells = saved.reshape(len(rows), grid, size, grid, size, -1) / scale
    return np.asarray(cells.mean(axis=(2, 4)))


def measure(run: RunFolder, every: int) -> list[dict[str, Any]]:
    """A row a kind of label."""
    data, settings = run_data.load_of_run(run), run.settings()
    rows = list(range(0, len(data.train), every))
    network = networks.load_network(run.best_network())
    images = chosen(data.train, rows)
    logits = np.stack(list(predictions.predict_maps(network, images, settings.image_size, 32)))
    maps, bank = expit(logits.astype(np.float64)), _bank(run, rows, logits.shape[1])
    score = expit(logits.mean(axis=(1, 2)))
    annotated = data.observed[rows] == POSITIVE
    positive = data.train.labels[rows] == POSITIVE
    slope = settings.option("consistency_weight") * (maps * (1 - maps)).mean(axis=(1, 2))
    found = []
    for name, kind in (
        ("annotated", annotated), ("missing", positive & ~annotated), ("negative", ~positive)
    ):  # fmt: skip
        found.append(
            {
                "labels": name,
                "count": int(kind.sum()),
                "score": score[kind].mean(),
                "map": maps.mean(axis=(1, 2))[kind].mean(),
                "bank": bank.mean(axis=(1, 2))[kind].mean(),
                "map_spread": maps.std(axis=(1, 2))[kind].mean(),
                "bank_spread": bank.std(axis=(1, 2))[kind].mean(),
                "difference": np.abs(maps - bank).mean(axis=(1, 2))[kind].mean(),
                "slope_scl": slope[kind].mean(),
                "slope_label": np.where(annotated, 1 - score, score)[kind].mean(),
            }
        )
    return found


def main() -> None:
    """Prints the table of the run."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--run_dir", required=True)
    parser.add_argument("--every", type=int, default=4, help="one training image in so many")
    given = parser.parse_args()
    rows = measure(RunFolder(given.run_dir), given.every)
    print("\t".join(rows[0]))
    for row in rows:
        print("\t".join(x if isinstance(x, str) else f"{x:.3g}" for x in row.values()))


if __name__ == "__main__":
    main()
