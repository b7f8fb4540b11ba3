"""XML files of annotations."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, *_: str | None) -> None:
        """Refuses document types, with which a small file can expand to gigabytes."""
        raise ValueError("it declares a document type, which annotations do not")


def parse_xml(path: str | os.PathLike[str]) -> ElementTree.Element:
    """The root of an XML file.

    Raises:
        OSError: it cannot be read.
        ElementTree.ParseError: it is no XML.
        ValueError: it declares a document type.
        LookupError: it is in an encoding that Python does not know.
    """
    return ElementTree.parse(path, ElementTree.XMLParser(target=_Builder())).getroot()
