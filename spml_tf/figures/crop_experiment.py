"""The CSV of an experiment that varies the crops' area, as rows of a figure."""

from __future__ import annotations

from spml_tf.drawing.figure_files import Row, spread
from spml_tf.system.errors import UserError
from spml_tf.system.text_files import read_csv


def read(path: str) -> list[Row]:
    """Mean mAP against the interval of the crops' area.

    Args:
        path: an experiment's CSV, with the columns row, crop_area, val_map and test_map.

    Returns:
        A row for each of the plan's rows and intervals, in the order of the intervals.

    Raises:
        UserError: a column is missing, a cell is no number, or there is no row.
    """
    table = _experiment(path)
    split = "test" if all(row["test_map"] for _, row in table) else "val"
    found: dict[tuple[str, str], list[float]] = {}
    for place, row in table:
        _interval(place, row["crop_area"])
        value = _float(place, f"{split}_map", row[f"{split}_map"])
        found.setdefault((row["row"], row["crop_area"]), []).append(value)
    order = sorted({area for _, area in found}, key=lambda area: _interval(path, area))
    names = dict.fromkeys(name for name, _ in found)
    return [
        {
            "method": name, "crop_area": area, "seeds": len(found[name, area]), "split": split,
            **spread("map", found[name, area]),
        }
        for name in names for area in order if (name, area) in found
    ]  # fmt: skip


def _experiment(path: str) -> list[tuple[str, dict[str, str]]]:
    """("file:line", cells by column) of an experiment's CSV."""
    lines = list(read_csv(path, "give the CSV that python -m spml_tf.experiments wrote"))
    header = lines[0][1] if lines else []
    for column in ("row", "crop_area", "val_map", "test_map"):
        if column not in header:
            raise UserError(
                f"{path}:1: no column {column}; give the CSV of an experiment that varies "
                "crop_area, such as experiments/figure_b1_digits.toml"
            )
    if len(lines) == 1:
        raise UserError(f"{path}: no finished run; start the experiment again to go on with it")
    for place, cells in lines[1:]:
        if len(cells) != len(header):
            raise UserError(f"{place}: {len(cells)} cells, the header has {len(header)}; mend it")
    return [(place, dict(zip(header, cells, strict=True))) for place, cells in lines[1:]]


def _interval(place: str, text: str) -> tuple[float, float]:
    low, _, high = text.partition(",")
    # The strongest crops last.
    return -_float(place, "crop_area", low), _float(place, "crop_area", high)


def _float(place: str, column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{place}: {column} is {text!r}, expected a number; mend it") from None
