"""An audit: lists and a page of the labels that training images miss, and of those that look wrong.

Of a model and its images by `audit_labels`, of a run's folder by `audit_run`.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf import networks
from spml_tf.datasets.readers import Examples
from spml_tf.evaluation import missing_labels
from spml_tf.evaluation.missing_labels import Candidate, Region
from spml_tf.labels import POSITIVE, UNKNOWN, validate_labels
from spml_tf.pages import BATCH_SIZE, LISTED, SHOWN, audit_page, suspect_labels
from spml_tf.runs import run_data
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.errors import UserError
from spml_tf.system.files import (
    check_unedited,
    made_folder,
    naming_unwritable,
    replaced_unless_edited,
    write_csv,
    write_json,
    write_text,
)

_CUTOFFS = (50, 100, 200, 500)
_HEADER = (
    "image", "class", "label", "score", "epochs_selected",
    "peak_y", "peak_x", "y1", "x1", "y2", "x2", "full_label",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Audited:
    """What an audit looks at.

    Attributes:
        model: a network of CAM logits or an `SPMLModel`.
        examples: N images, with all the labels that are known of them.
        observed: int8 [N, L] in {1, 0, -1}, the labels trained on.
        scores: float [N, L] in [0, 1], NaN where there is none.
        epochs_selected: integers [N, L], or None.
        image_size: side of the network's input in pixels, None for what it is built for.
        batch_size: images at a time.
    """

    model: keras.Model
    examples: Examples
    observed: NDArray[np.int8]
    scores: NDArray[np.float32]
    epochs_selected: NDArray[np.uint8] | None
    image_size: int | None
    batch_size: int


def audit_labels(
    model: keras.Model,
    examples: Examples,
    output_dir: str | os.PathLike[str],
    *,
    observed: ArrayLike | None = None,
    index: ArrayLike | None = None,
    name: str = "model",
    most: int = LISTED,
    shown: int = SHOWN,
    image_size: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> dict[str, Any]:
    """Lists the labels that images probably miss, and those that look wrong.

    Writes missing.csv and wrong.csv, best first, audit.html to look through them and to save what
    you decide, and audit.json. The scores are those of `missing_labels.find_missing_labels`.

    Args:
        model: a network of CAM logits or an `SPMLModel`.
        examples: N images, in files or in memory, with all the labels that are known of them.
        output_dir: folder for the files.
        observed: [N, L] in {1, 0, -1}, the labels trained on, where `examples` has more; None:
            those of `examples`.
        index: integers [N], the images' rows in the model's score bank; None: the scores of the
            network for whole images.
        name: the model's, for the page.
        most: how many labels of each kind to list.
        shown: how many of each kind to show on the page.
        image_size: side of the network's input in pixels; None: what the network is built for.
        batch_size: images at a time.

    Returns:
        What audit.json holds: {"scores": "running averages" or "network", "data_fingerprint",
        "unknown", "missing", "wrong", "precision"}; precision in percent by number of candidates,
        empty where the full labels are not known.

    Raises:
        ValueError: every label is known, or as `missing_labels.find_missing_labels`.
        UserError: an image cannot be decoded, the folder cannot be written, or a list in it was
            filled in.

    Examples:
        >>> import keras, numpy as np, tempfile
        >>> from spml_tf.datasets.readers import Examples
        >>> from spml_tf.pages.audit import audit_labels
        >>> image = keras.Input((2, 2, 3))
        >>> network = keras.Model(image, image[..., :2] / 51 - 2)
        >>> photos = np.zeros((2, 2, 2, 3), np.uint8)
        >>> photos[0, ..., 0], photos[1, ..., 1] = 255, 255
        >>> examples = Examples(("a", "b"), [[-1, -1], [-1, 1]], ("red", "green"), images=photos)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = audit_labels(network, examples, folder)
        >>> found["unknown"], found["missing"], found["wrong"]
        (3, 3, 1)
    """
    check_alone(Path(output_dir), "audit.html", "suggest.html")
    known = examples.labels if observed is None else validate_labels(observed, "observed")
    if known.shape != examples.labels.shape:
        raise ValueError(f"observed {known.shape}, the examples have {examples.labels.shape}")
    if not (known == UNKNOWN).any():
        raise ValueError("every label is known; nothing can be missing")
    scores = missing_labels.label_scores(
        model, examples, known.shape, index, image_size, batch_size
    )
    times = missing_labels.epochs_selected(model, index)
    audited = _Audited(model, examples, known, scores, times, image_size, batch_size)
    about = {
        "scores": "network" if index is None else "running averages",
        "data_fingerprint": examples.fingerprint(),
    }
    return _audit(audited, Path(output_dir), name, about, most, shown)


def audit_run(
    run: RunFolder,
    output_dir: str | os.PathLike[str],
    data_dir: str | None = None,
    most: int = LISTED,
    shown: int = SHOWN,
    batch_size: int = BATCH_SIZE,
) -> dict[str, Any]:
    """Lists the labels that a run's training images miss, by the running averages of its scores.

    Args:
        run: a finished run.
        output_dir: folder for the files.
        data_dir: folder of the data set, None for the run's own.
        most: as for `audit_labels`.
        shown: as for `audit_labels`.
        batch_size: as for `audit_labels`.

    Returns:
        What audit.json holds: as `audit_labels`, with "run_dir" and "method" for "scores".

    Raises:
        UserError: for a run or data that cannot be read, a data set without unknown labels, a
            folder that cannot be written, or a list in it that was filled in.
    """
    check_alone(Path(output_dir), "audit.html", "suggest.html")
    run.check_finished()
    data = run_data.load_of_run(run, data_dir)
    if not (data.observed == UNKNOWN).any():
        raise UserError(
            f"{run.path}: every label of its training images is known; nothing can be missing"
        )
    network = networks.load_network(run.best_network())
    saved, settings = suspect_labels.read_checkpoint(run, data), run.settings()
    audited = _Audited(
        network, data.train, data.observed, saved.scores, saved.epochs_selected,
        settings.image_size, batch_size,
    )  # fmt: skip
    about = {
        "run_dir": str(run.path.absolute()),
        "method": settings.method,
        "data_fingerprint": run.read_record()["data_fingerprint"],
    }
    return _audit(audited, Path(output_dir), run.path.name, about, most, shown)


def _audit(
    audited: _Audited, folder: Path, name: str, about: Mapping[str, Any], most: int, shown: int
) -> dict[str, Any]:
    check_unedited(folder / f"{kind}.csv" for kind in ("missing", "wrong"))
    observed, scores = audited.observed, audited.scores
    found = {
        "missing": missing_labels.rank_missing(scores, observed, audited.epochs_selected, most),
        "wrong": missing_labels.rank_wrong(scores, observed, most),
    }
    rows, photos = {}, {}
    images = audited.image_size, audited.batch_size
    for kind, ranked in found.items():
        print(f"heatmaps of {len(ranked)} labels ({kind})", file=sys.stderr)
        regions = missing_labels.peak_regions(audited.model, audited.examples, ranked, *images)
        rows[kind] = _rows(audited.examples, ranked, regions)
        photos[kind] = suspect_labels.photos(
            audited.model, audited.examples, observed, ranked[:shown], *images
        )
    facts = {**about, **_counts(audited, found)}
    positives = (observed == POSITIVE).sum(axis=0).tolist()
    page = audit_page.build(
        name, facts, audited.examples.class_names, positives=positives, **photos
    )
    with naming_unwritable(f"--output_dir={folder}"), made_folder(folder):
        for kind, lines in rows.items():
            write_csv(folder / f"{kind}.csv", _HEADER, lines, into=replaced_unless_edited)
        write_text(folder / "audit.html", page)
        write_json(folder / "audit.json", facts)
    return facts


def _counts(audited: _Audited, found: Mapping[str, Sequence[Candidate]]) -> dict[str, Any]:
    truth, unknown = audited.examples.labels, audited.observed == UNKNOWN
    known = bool((truth[unknown] != UNKNOWN).all())
    precision = missing_labels.precision_at(found["missing"], truth, _CUTOFFS) if known else {}
    return {
        "unknown": int(unknown.sum()),
        "missing": len(found["missing"]),
        "wrong": len(found["wrong"]),
        "precision": {str(k): value for k, value in precision.items()},
    }


def _rows(
    examples: Examples, found: Sequence[Candidate], regions: Sequence[Region]
) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for x, (peak, box) in zip(found, regions, strict=True):
        truth = int(examples.labels[x.image, x.label])
        rows.append(
            (
                examples.names[x.image],
                examples.class_names[x.label],
                "",
                f"{x.score:.6f}",
                x.epochs_selected,
                *(f"{part:.4f}" for part in (*peak, *box)),
                truth if truth >= 0 else "",
            )
        )
    return rows


def check_alone(folder: Path, page: str, other: str) -> None:
    """Refuses to write a page into a folder that holds one of the other kind."""
    if (folder / other).exists():
        raise UserError(
            f"--output_dir={folder}: holds {other}, and one page is reviewed in a folder; choose "
            f"another for {page}"
        )
