"""What a classifier says of photos, and how it is written down."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spml_tf.system.files import write_csv

if TYPE_CHECKING:
    import pandas

# As `predict` writes its CSV: line ends of RFC 4180; file names need not be UTF-8, and their bytes
# pass through as they are.
LINE_END, ERRORS = "\r\n", "surrogateescape"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """Predictions on n photos.

    Attributes:
        names: n texts: the paths, or the positions of arrays, "0", "1", ...
        class_names: L names.
        scores: [n, L] float32 in [0, 1], calibrated where the classifier is.
        thresholds: [L] float64; score >= threshold decides for a class.
        left_out: the reason by the name of each file that is no image, with `skip_broken`.
        pass_again: gives `heatmaps`.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    scores: NDArray[np.float32]
    thresholds: NDArray[np.float64]
    left_out: Mapping[str, str]
    pass_again: Callable[[], NDArray[np.float32]]

    @property
    def decisions(self) -> NDArray[np.bool_]:
        """[n, L] bool."""
        return decide(self.scores, self.thresholds)

    @functools.cached_property
    def heatmaps(self) -> NDArray[np.float32]:
        """[n, G, G, L] float32 in [0, 1], the sigmoid of the class activation maps.

        The photos are read and pass the network once more when this is first asked for.
        """
        return self.pass_again()

    def classes_of(self, row: int) -> list[str]:
        """The classes decided for in a photo, the likeliest first.

        Args:
            row: the photo's place among `names`.
        """
        ranked = np.argsort(-self.scores[row], kind="stable")
        decided = self.decisions[row]
        return [self.class_names[column] for column in ranked if decided[column]]

    def to_dataframe(self) -> pandas.DataFrame:
        """A row a photo: image, then CLASS (float32) and CLASS_decision (bool) of each class.

        Raises:
            ImportError: pandas, which the extra dataframe brings, is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError(
                "to_dataframe needs pandas: python -m pip install 'spml_tf[dataframe]'"
            ) from None
        image, *names = header(self.class_names)
        columns = {image: list(self.names)}
        parts = (x for pair in zip(self.scores.T, self.decisions.T, strict=True) for x in pair)
        return pandas.DataFrame({**columns, **dict(zip(names, parts, strict=True))})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes the CSV that `python -m spml_tf.predict` writes: six digits, decisions 1 and 0.

        Args:
            path: the file; one that exists is replaced in one step.
        """
        rows = (
            row_of(name, scores, decisions)
            for name, scores, decisions in zip(self.names, self.scores, self.decisions, strict=True)
        )
        write_csv(path, header(self.class_names), rows, LINE_END, ERRORS)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Predictions({len(self.names)} photos, {len(self.class_names)} classes)"


def decide(scores: NDArray[np.float32], thresholds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Decisions of scores [..., L] by thresholds [L]."""
    found: NDArray[np.bool_] = scores >= thresholds
    return found


def row_of(name: str, scores: NDArray[np.float32], decisions: NDArray[np.bool_]) -> list[object]:
    """A line of the CSV: the name, then score and decision of each class."""
    cells = zip((f"{x:.6f}" for x in scores), map(int, decisions), strict=True)
    return [name, *(x for pair in cells for x in pair)]


def header(class_names: Sequence[str]) -> list[str]:
    """Names of the columns, all different: where a class has the name of another column, underlines
    follow that.

    Examples:
        >>> header(["cat", "cat_decision"])
        ['image', 'cat', 'cat_decision_', 'cat_decision', 'cat_decision_decision_']
    """
    taken, image, decision = set(class_names), "image", "_decision"
    while image in taken:
        image += "_"
    while not taken.isdisjoint(f"{name}{decision}" for name in class_names):
        decision += "_"
    return [image, *(x for name in class_names for x in (name, f"{name}{decision}"))]
