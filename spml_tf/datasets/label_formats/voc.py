"""Pascal VOC's XML files of anybody's: one a photo, any classes, flat or in VOC's folders.

    <annotation><filename>a.jpg</filename><object><name>cat</name></object></annotation>

Splits are those of ImageSets/Main beside the folder of the annotations, else of the folders' names.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from spml_tf.datasets.label_formats.collected_labels import Collector, LabelFile, Labels
from spml_tf.datasets.readers.photos import PHOTO
from spml_tf.datasets.readers.safe_xml import parse_xml
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system.errors import UserError
from spml_tf.system.text_files import read_words

_LISTS = {"train": "train", "val": "val", "test": "test", "trainval": "train"}


def recognises(file: LabelFile) -> bool:
    """Whether it is an XML file of one annotation."""
    return file.suffix == ".xml" and re.search(r"<annotation[\s>]", file.head) is not None


def read(file: LabelFile, options: TableOptions) -> Labels:
    """Objects are positives, difficult ones too; what has none is unknown.

    Raises:
        UserError: no XML, or an object without a name.
    """
    try:
        root = parse_xml(file.path)
    except (OSError, ValueError) as error:
        raise UserError(f"{file.path}: not a VOC annotation ({error}); export it again") from error
    collector = Collector(file.path, options)
    # Other tools' filename is that of another photo now and then; the annotation's own name is not.
    ending = PHOTO.search(root.findtext("filename", "").strip())
    name = file.path.stem + (ending[0] if ending else "")
    folder = file.path.parent.parent / "ImageSets" / "Main"
    paths = [path for name in _LISTS if (path := folder / f"{name}.txt").is_file()]
    lists = _splits(*((path, path.stat().st_mtime_ns) for path in paths))
    split = lists.get(file.path.stem, "")
    if lists and not split:
        collector.notes.append(f"{folder}: photos that no list names are training photos")
    photo = collector.add_photo(str(file.path), name, split)
    for node in root.findall("object"):
        collector.add(f"{file.path}: object", photo, node.findtext("name"))
    return collector.labels()


@functools.lru_cache(maxsize=8)
def _splits(*lists: tuple[Path, int]) -> dict[str, str]:
    """The splits of photos by some lists, each with the time of its last change."""
    found: dict[str, str] = {}
    for path, _ in lists:
        for _, words in read_words(path):
            found.setdefault(words[0], _LISTS[path.stem])
    return found
