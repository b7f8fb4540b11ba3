"""A page taken apart by a parser, as a browser would."""

from __future__ import annotations

from html.parser import HTMLParser


class Parsed(HTMLParser):
    """Elements, the texts between them and the contents of scripts by id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words, self.scripts, self.name = "", {}, None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.name = dict(attrs).get("id", "") if tag == "script" else None

    def handle_endtag(self, tag):
        self.name = None

    def handle_data(self, data):
        if self.name is None:
            self.words += data
        else:
            self.scripts[self.name] = self.scripts.get(self.name, "") + data
