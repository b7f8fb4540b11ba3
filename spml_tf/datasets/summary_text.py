"""The summary of a data set as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# What is shown of long lists; the files have all.
_CLASSES, _PAIRS, _BINS = 30, 10, 16
_NAME = 32


def columns(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the columns of tables describe.

    Args:
        summary: as `summaries.summarize` returns it.

    Returns:
        The splits and the observed labels by name, training's first.
    """
    parts = dict(summary["splits"])
    return {"train": parts.pop("train"), "observed": summary["observed"], **parts}


def by_frequency(summary: dict[str, Any]) -> list[int]:
    """The classes' numbers, the most frequent in training first."""
    counts = np.array(summary["splits"]["train"]["class_positives"], np.int64)
    order: list[int] = np.argsort(-counts, kind="stable").tolist()
    return order


def render(summary: dict[str, Any]) -> str:
    """A summary as text, at most 100 columns wide unless classes have long names.

    Args:
        summary: as `summaries.summarize` returns it.
    """
    return "\n".join(_lines(summary))


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    parts = columns(summary)
    yield f"{summary['dataset']}: {len(summary['class_names'])} classes"
    yield ""
    yield _line("", parts)
    for label, value in (
        ("images", lambda x: x["images"]),
        ("positive labels", lambda x: x["labels"]["positive"]),
        ("negative labels", lambda x: x["labels"]["negative"]),
        ("unknown labels", lambda x: x["labels"]["unknown"]),
        ("positives per image", lambda x: _mean(x["positives_per_image"]["mean"])),
        ("images without positives", lambda x: x["images_without_positives"]),
        ("boxes", lambda x: x["boxes"]["total"] if "boxes" in x else "-"),
        ("boxes per image", lambda x: _mean(x["boxes"]["mean_per_image"]) if "boxes" in x else "-"),
    ):
        yield _line(label, map(value, parts.values()))
    yield ""
    known = _mean(summary["positives_per_image"])
    yield f"K, positives per fully labelled validation image: {known}"
    yield f"observed labels: {summary['observed']['labels_from']}, training images' only"
    yield from _histograms(parts)
    yield from _class_lines(summary, parts)
    yield from _pair_lines(summary["pairs"])
    yield ""
    for name, part in summary["splits"].items():
        yield f"fingerprint of {name}: {part['fingerprint']}"
    yield f"fingerprint of all:   {summary['fingerprint']}"


def _line(label: str, values: Any) -> str:
    return f"{_short(label):{_NAME}}" + "".join(f"{value:>14}" for value in values)


def _mean(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "\u2026"


def _histograms(parts: dict[str, dict[str, Any]]) -> Iterator[str]:
    bars = {name: part["positives_per_image"]["histogram"] for name, part in parts.items()}
    longest = max(map(len, bars.values()))
    yield ""
    yield _line("images with this many positives", parts)
    for count in range(min(longest, _BINS)):
        last = count == _BINS - 1 and longest > _BINS
        values = [
            sum(bar[count:]) if last else sum(bar[count : count + 1]) for bar in bars.values()
        ]
        yield _line(f"  {count}" + (" or more" if last else ""), values)


def _class_lines(summary: dict[str, Any], parts: dict[str, dict[str, Any]]) -> Iterator[str]:
    order = by_frequency(summary)
    yield ""
    yield _line("images with this class", parts)
    for number in order[:_CLASSES]:
        cells = []
        for part in parts.values():
            count, images = part["class_positives"][number], max(part["images"], 1)
            cells.append(f"{count} {count / images:6.1%}")
        yield _line(f"  {summary['class_names'][number]}", cells)
    if len(order) > _CLASSES:
        yield f"  and {len(order) - _CLASSES} more in classes.csv"


def _pair_lines(pairs: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield ""
    yield "classes most often together in training images"
    for pair in pairs[:_PAIRS]:
        first, second = map(_short, pair["classes"])
        yield (
            f"  {first} & {second}: {pair['images']} ({pair['share_of_first']:.0%} of {first}, "
            f"{pair['share_of_second']:.0%} of {second})"
        )
    if not pairs:
        yield "  none"
