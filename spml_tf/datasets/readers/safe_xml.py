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
        ValueError: it is no XML, is in an encoding that Python does not know, or declares a
            document type.
    """
    try:
        return ElementTree.parse(path, ElementTree.XMLParser(target=_Builder())).getroot()
    except (ElementTree.ParseError, LookupError) as error:
        raise ValueError(str(error)) from error
