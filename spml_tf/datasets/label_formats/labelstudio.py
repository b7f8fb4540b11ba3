"""Label Studio's exports: CSV, JSON-MIN and JSON.

The column of labels is named by the labelling config; several choices are a JSON object:

    annotation_id,annotator,choice,created_at,id,image,lead_time
    1,1,"{""choices"": [""cat"", ""dog""]}",2024-01-01T00:00:00Z,1,/data/upload/1/a.jpg,3.2
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import Any
from urllib.parse import unquote

from spml_tf.datasets.label_formats.collected_labels import (
    Collector,
    LabelFile,
    Labels,
    labels_of_table,
)
from spml_tf.datasets.readers.photos import PHOTO
from spml_tf.datasets.readers.table_cells import Row
from spml_tf.datasets.readers.tables import table_of_rows
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system.errors import UserError, quoted

_METADATA = (
    "annotation_id", "annotator", "created_at", "updated_at", "id", "lead_time", "agreement",
    "comments", "created_username", "completed_by",
)  # fmt: skip


def recognises(file: LabelFile) -> bool:
    """Whether it has annotation_id and annotator, or tasks with annotations and results."""
    if {"annotation_id", "annotator"} <= set(file.header):
        return True
    return file.holds("annotation_id", "annotator") or file.holds("annotations", "result", "data")


def read(file: LabelFile, options: TableOptions) -> Labels:
    """Choices, and labels of boxes and polygons; what nobody chose is unknown."""
    if file.suffix != ".json":
        return _read_rows(file, *file.rows(options), options)
    content = file.json()
    if not isinstance(content, list):
        raise UserError(f"{file.path}: expected a list of tasks; export it as JSON or JSON-MIN")
    places = [(f"{file.path}: [{number}]", entry) for number, entry in enumerate(content)]
    if all(isinstance(entry, dict) and "annotations" in entry for entry in content):
        return _read_tasks(file, places, options)
    return _read_rows(file, *file.rows_of_objects(places), options)


def _read_rows(
    file: LabelFile, place: str, header: list[str], body: list[Row], options: TableOptions
) -> Labels:
    image = options.image_column or _photo_column(place, header, body)
    rest = [name for name in header if name != image and name not in _METADATA]
    if not options.label_column and len(rest) != 1:
        raise UserError(
            f"{place}: which column holds the labels? give --label_column={rest[0] if rest else ''}"
            f"; there are {', '.join(rest) or 'none'}"
        )
    chosen = dataclasses.replace(
        options,
        image_column=image,
        label_column=options.label_column or rest[0],
        label_separator=options.label_separator or "json",
    )
    found = labels_of_table(table_of_rows(file.path, place, header, body, None, chosen))
    return dataclasses.replace(found, images=tuple(map(_photo_name, found.images)))


def _photo_column(place: str, header: list[str], body: list[Row]) -> str:
    photos = [
        name
        for column, name in enumerate(header)
        if all(PHOTO.search(fields[column].strip()) for _, fields in body)
    ]
    if len(photos) != 1:
        raise UserError(f"{place}: which column holds the photos? give --image_column=COLUMN")
    return photos[0]


def _photo_name(url: str) -> str:
    """The photo's name in the URL that Label Studio serves it under, with its host or without."""
    name = re.sub(r"^(https?://[^/]+)?/?data/(local-files/\?d=|upload/(\d+/)?)", "", url)
    return url if name == url else unquote(name)


def _read_tasks(file: LabelFile, places: list[tuple[str, Any]], options: TableOptions) -> Labels:
    collector, differing = Collector(file.path, options), list[str]()
    for place, task in places:
        data = task.get("data") if isinstance(task, dict) else None
        values = data.values() if isinstance(data, dict) else ()
        photos = [x for x in values if isinstance(x, str) and PHOTO.search(x)]
        if len(photos) != 1:
            raise UserError(f"{place}: data must name one photo, found {len(photos)}")
        annotations = _list(place, "annotations", task, dict)
        given = [x for x in annotations if not x.get("was_cancelled")]
        name = _photo_name(photos[0])
        photo = collector.add_photo(place, name, labelled=bool(given))
        named = [_named(place, annotation) for annotation in given]
        for label in itertools.chain(*named):
            collector.add(place, photo, label)
        if any(set(labels) != set(named[0]) for labels in named):
            differing.append(name)
    if differing:
        collector.notes.append(
            f"{file.path}: annotators differ about {len(differing):,} photos, such as "
            f"{quoted(differing[0])}; what any of them named is positive"
        )
    return collector.labels()


def _named(place: str, annotation: dict[str, Any]) -> list[str]:
    """The classes that one annotator named."""
    found = list[str]()
    for result in _list(place, "result", annotation, dict):
        kind = str(result.get("type", ""))
        if kind == "choices" or kind.endswith("labels"):
            value = result.get("value") or {}
            if not isinstance(value, dict):
                raise UserError(f"{place}: value must be an object; export it again")
            found += _list(place, kind, value, str)
    return found


def _list(place: str, key: str, holder: dict[str, Any], kind: type) -> list[Any]:
    """A list of one kind in an object, empty where it is not there."""
    found = holder.get(key, [])
    if not isinstance(found, list) or not all(isinstance(x, kind) for x in found):
        raise UserError(f"{place}: {key} must be a list of {kind.__name__}; export it again")
    return found
