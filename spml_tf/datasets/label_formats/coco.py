"""COCO json of anybody's: any classes, ids as numbers or texts, with or without boxes.

    {"images": [{"id": 7, "file_name": "a.jpg"}], "categories": [{"id": 2, "name": "cat"}],
     "annotations": [{"image_id": "7", "category_id": 2}]}

An image's neg_category_ids, as LVIS has them, are known negatives.
"""

from __future__ import annotations

from typing import Any

from spml_tf.datasets.label_formats.collected_labels import Collector, LabelFile, Labels
from spml_tf.datasets.table_options import TableOptions
from spml_tf.labels import NEGATIVE
from spml_tf.system.errors import UserError, quoted


def recognises(file: LabelFile) -> bool:
    """Whether it has images, categories and annotations."""
    return file.holds("images", "categories", "annotations")


def read(file: LabelFile, options: TableOptions) -> Labels:
    """Every image, with annotations or without; what has none is unknown.

    COCO's own convention, that all classes of an image are annotated, is --unlisted=negative.

    Raises:
        UserError: an entry lacks its id or name, or names an image or category that is not there.
    """
    content = file.json()
    lists = {
        key: content.get(key) if isinstance(content, dict) else None
        for key in ("images", "categories", "annotations")
    }
    for key, entries in lists.items():
        if not isinstance(entries, list) or not all(isinstance(x, dict) for x in entries):
            raise UserError(f"{file.path}: {key} must be a list of objects; export it again")
    collector = Collector(file.path, options)
    classes = _by_id(file, "categories", lists["categories"] or [])
    used = {_key(entry.get("category_id")) for entry in lists["annotations"] or ()}
    group = _group(lists["categories"] or [], used)
    if group is not None:
        name = classes[group].get("name")
        collector.notes.append(f"{file.path}: category {quoted(str(name))} groups others: left out")
    collector.add_classes(
        [
            _name(f"{file.path}: category {key}", entry)
            for key, entry in classes.items()
            if key != group
        ]
    )
    photos = {}
    for key, image in _by_id(file, "images", lists["images"] or []).items():
        place = f"{file.path}: image {key}"
        # LVIS has addresses of COCO's photos alone.
        name = image.get("file_name") or image.get("coco_url")
        photos[key] = collector.add_photo(place, name)
        absents = image.get("neg_category_ids") or []
        if not isinstance(absents, list):
            raise UserError(f"{place}: neg_category_ids must be a list; export it again")
        for absent in absents:
            entry = _found(place, "neg_category_ids", absent, classes)
            collector.add(place, photos[key], _name(place, entry), NEGATIVE)
    for number, entry in enumerate(lists["annotations"] or ()):
        place = f"{file.path}: annotations[{number}]"
        category = _found(place, "category_id", entry.get("category_id"), classes)
        photo = _found(place, "image_id", entry.get("image_id"), photos)
        collector.add(place, photo, _name(place, category))
    return collector.labels()


def _by_id(file: LabelFile, name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, entry in enumerate(entries):
        place, key = f"{file.path}: {name}[{number}]", _key(entry.get("id"))
        if not key:
            raise UserError(f"{place}: it has no id; export it again")
        if key in found:
            raise UserError(f"{place}: id {key} comes twice; remove or renumber one of them")
        found[key] = entry
    return found


def _key(value: Any) -> str:
    """An id in one spelling: 7, 7.0 and "7" are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _found(place: str, key: str, value: Any, known: dict[str, Any]) -> Any:
    if _key(value) not in known:
        shown = quoted(repr(value))
        raise UserError(f"{place}: {key} {shown} is not in this file; mend or remove it")
    return known[_key(value)]


def _name(place: str, category: dict[str, Any]) -> str:
    name = category.get("name")
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{place}: a category without a name; export it again")
    return name.strip()


def _group(categories: list[dict[str, Any]], used: set[str]) -> str | None:
    """The category that Roboflow adds for the group of all others, of which there is no label."""
    groups = [x.get("supercategory") for x in categories]
    for entry in categories:
        key = _key(entry.get("id"))
        if key not in used and entry.get("name") in groups and entry.get("supercategory") == "none":
            return key
    return None
