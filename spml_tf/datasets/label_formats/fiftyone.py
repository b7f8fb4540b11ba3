"""FiftyOne's FiftyOneImageClassificationDataset: `labels.json` beside a folder `data`.

    {"classes": ["cat", "dog"], "labels": {"000001": [0, 1], "000002": null}}

Targets are numbers or names of classes, or lists of them; null: nobody labelled the photo.
"""

from __future__ import annotations

from typing import Any

from spml_tf.datasets.label_formats.collected_labels import Collector, LabelFile, Labels
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system.errors import UserError, quoted


def recognises(file: LabelFile) -> bool:
    """Whether it has classes and labels, and no list of images."""
    return file.holds("classes", "labels") and not file.holds("images", "annotations")


def read(file: LabelFile, options: TableOptions) -> Labels:
    """Photos are called data/NAME; what is not named is unknown, unless --unlisted=negative."""
    content = file.json()
    classes = content.get("classes") if isinstance(content, dict) else None
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not isinstance(classes, list | None):
        raise UserError(f"{file.path}: expected an object with classes and labels")
    collector = Collector(file.path, options)
    collector.add_classes([str(name) for name in classes or ()])
    for name, target in labels.items():
        place = f"{file.path}: labels[{quoted(name)}]"
        photo = collector.add_photo(place, f"data/{name}", labelled=target is not None)
        for one in target if isinstance(target, list) else [target] * (target is not None):
            collector.add(place, photo, _class_name(place, one, classes))
    return collector.labels()


def _class_name(place: str, target: Any, classes: list[Any] | None) -> Any:
    if type(target) is not int:
        return target
    if classes is None or not 0 <= target < len(classes):
        raise UserError(f"{place}: class {target} is not among the {len(classes or ())} classes")
    return str(classes[target])
