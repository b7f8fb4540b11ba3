"""CVAT for images 1.1: an XML file with tags, boxes and outlines.

    <image id="0" name="a.jpg" width="1600" height="1200"><tag label="cat" source="manual"/></image>

A tag or object with an attribute called present that is false, or absent that is true, says that
the class is not there.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from spml_tf.datasets.label_formats.collected_labels import Collector, LabelFile, Labels
from spml_tf.datasets.readers.class_folders import split_of_name
from spml_tf.datasets.readers.safe_xml import parse_xml
from spml_tf.datasets.table_options import TableOptions
from spml_tf.labels import NEGATIVE, POSITIVE
from spml_tf.system.errors import UserError, quoted

# What the attributes present and absent may say.
_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")


def recognises(file: LabelFile) -> bool:
    """Whether it is an XML file of annotations, of many images."""
    return file.suffix == ".xml" and "<annotations" in file.head


def read(file: LabelFile, options: TableOptions) -> Labels:
    """Classes are the task's; what has no tag and no object is unknown, unless --unlisted=negative.

    Raises:
        UserError: no XML, or an image or object lacks its name or label.
    """
    try:
        root = parse_xml(file.path)
    except (OSError, ValueError) as error:
        raise UserError(f"{file.path}: no CVAT annotations ({error}); export it again") from error
    collector = Collector(file.path, options)
    collector.add_classes(
        [name.strip() for x in root.findall("meta//labels/label") if (name := x.findtext("name"))]
    )
    for number, image in enumerate(root.iter("image")):
        place = f"{file.path}: image {number}"
        split = split_of_name(image.get("subset", ""))
        photo = collector.add_photo(place, image.get("name"), split)
        for node in image:
            collector.add(place, photo, node.get("label"), _value(place, node))
    return collector.labels()


def _value(place: str, node: ElementTree.Element) -> int:
    """Whether a tag or an object says that its class is there."""
    for attribute in node.findall("attribute"):
        name = attribute.get("name", "").strip().lower()
        if name in ("present", "absent"):
            word = (attribute.text or "").strip().lower()
            if word not in (*_YES, *_NO):
                raise UserError(
                    f"{place}: the attribute {name} must be true or false, found {quoted(word)}; "
                    "mend it, or call the attribute otherwise"
                )
            return POSITIVE if (word in _YES) == (name == "present") else NEGATIVE
    return POSITIVE
