"""A server for one reviewer: the page of an audit, whose decisions go to the disk one by one.

It listens on 127.0.0.1 alone. Who knows no token, which is random and part of the address, gets
nothing, and neither do pages of other origins.
"""

from __future__ import annotations

import http
import secrets
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from spml_tf.datasets import reviewed_files
from spml_tf.datasets.reviewed_files import Journal, Key
from spml_tf.pages import html_page
from spml_tf.system import machine_faults
from spml_tf.system.errors import UserError, printable
from spml_tf.system.json_text import parse_json
from spml_tf.system.text_files import read_text

PAGE = "audit.html"
# The lists whose labels a page decides.
_LISTS = {PAGE: ("missing.csv", "wrong.csv"), "suggest.html": ("suggest.csv",)}
_ADDRESS = "127.0.0.1"
# The element that the page's script looks for, and the longest decision in bytes.
_SERVED, _LONGEST = "review-server", 1 << 16
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class ReviewServer(ThreadingHTTPServer):
    """Serves the page of an audit and writes what is decided there.

    Args:
        folder: of the audit.
        journal: where decisions go.
        port: to listen on, 0 for any that is free.

    Attributes:
        url: the page's address, token included.

    Raises:
        UserError: the folder holds no audit that can be served, or the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, journal: Journal, port: int = 0) -> None:
        self.journal = journal
        self._page = page_of(folder)
        self._labels = listed_labels(folder)
        if _SERVED not in self._read_page():
            raise UserError(
                f"{self._page}: is of an earlier version; audit the run into another folder"
            )
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except OSError as error:
            raise UserError(
                f"--port={port}: cannot be listened on ({error.strerror}); choose another, or 0"
            ) from error
        self.host = f"{_ADDRESS}:{self.server_port}"
        self.origin = f"http://{self.host}"
        self.root = f"/{secrets.token_urlsafe(24)}/"
        self.url = self.origin + self.root

    def page(self) -> bytes:
        """The page as it is now, with what is decided so far."""
        self._labels = listed_labels(self._page.parent)  # the audit may have been made anew
        decided = [[*key, label] for key, label in self.journal.decisions().items()]
        served = {"file": self.journal.path.name, "decisions": decided}
        return html_page.served(self._read_page(), _SERVED, served).encode("utf-8")

    def decide(self, body: bytes) -> None:
        """Writes a decision to the disk.

        Args:
            body: JSON of {"image", "class", "label"}, all texts.

        Raises:
            ValueError: it is none, or of a label that the audit does not list.
            OSError: it cannot be written.
            UserError: the file was changed by another program.
        """
        key, label = _decision(body)
        if key not in self._labels:
            raise ValueError("a label that the audit does not list")
        self.journal.add(*key, label)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def _read_page(self) -> str:
        return read_text(self._page, "make an audit there first, with --run_dir")


def page_of(folder: Path) -> Path:
    """The page to review in a folder, an audit's or of suggestions; an audit's where none is."""
    return next((folder / page for page in _LISTS if (folder / page).exists()), folder / PAGE)


def listed_labels(folder: Path) -> frozenset[Key]:
    """The labels that the lists beside a page name, each by its image's and its class's name.

    Args:
        folder: of the audit or the suggestions.

    Raises:
        UserError: a list is missing or cannot be read.
    """
    lists = _LISTS[page_of(folder).name]
    return frozenset(row.key for name in lists for row in reviewed_files.read_rows(folder / name))


def _decision(body: bytes) -> tuple[Key, str]:
    found = parse_json(body.decode("utf-8"))
    if not isinstance(found, dict) or set(found) != set(reviewed_files.COLUMNS):
        raise ValueError("expected an object of image, class and label")
    image, class_name, label = (found[name] for name in reviewed_files.COLUMNS)
    if not (isinstance(image, str) and isinstance(class_name, str)):
        raise ValueError("image and class must be texts")
    if label not in ("", *reviewed_files.LABELS):
        raise ValueError("the label must be 1, 0 or empty")
    return (image, class_name), label


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    timeout = 30  # seconds that a request may take to arrive
    server_version, sys_version = "spml_tf", ""

    def do_GET(self) -> None:
        if self._refused("GET", self.server.root):
            return
        try:
            self._answer(http.HTTPStatus.OK, self.server.page(), "text/html; charset=utf-8")
        except UserError as error:
            self._say(http.HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def do_POST(self) -> None:
        if self._refused("POST", f"{self.server.root}decision"):
            return
        try:
            self.server.decide(self.rfile.read(int(self.headers["Content-Length"])))
        except (UserError, OSError) as error:
            said = str(error) if isinstance(error, UserError) else machine_faults.line(error)
            line = f"note: a decision was not written: {printable(said)}"
            print(line, file=sys.stderr, flush=True)
            self._say(http.HTTPStatus.INTERNAL_SERVER_ERROR, said)
        except ValueError as error:
            self._say(http.HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._answer(http.HTTPStatus.NO_CONTENT)

    def _refused(self, method: str, path: str) -> bool:
        """Answers a request that may not be answered with more; whether it did."""
        status, why = self._judged(method, path)
        if why:
            self._say(status, why)
        return bool(why)

    def _judged(self, method: str, path: str) -> tuple[http.HTTPStatus, str]:
        server, headers = self.server, self.headers
        if headers.get_all("Host") != [server.host]:
            return http.HTTPStatus.FORBIDDEN, "another host's name"
        origin = headers.get_all("Origin", [])
        if origin != [server.origin] and (origin or method == "POST"):
            return http.HTTPStatus.FORBIDDEN, "another origin"
        if not secrets.compare_digest(self.path.encode(), path.encode()):
            return http.HTTPStatus.NOT_FOUND, "open the address that spml_tf.review printed last"
        if method == "GET":
            return http.HTTPStatus.OK, ""
        if headers.get_content_type() != "application/json":
            return http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not application/json"
        length = headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return http.HTTPStatus.LENGTH_REQUIRED, "no Content-Length"
        if len(length) > len(str(_LONGEST)) or int(length) > _LONGEST:
            return http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {_LONGEST} bytes"
        return http.HTTPStatus.OK, ""

    def _say(self, status: http.HTTPStatus, text: str) -> None:
        self._answer(status, text.encode("utf-8", "replace"))

    def _answer(
        self, status: http.HTTPStatus, body: bytes = b"", kind: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(status)
        headers: Mapping[str, Any] = {**_HEADERS, "Content-Type": kind, "Content-Length": len(body)}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not told of: the terminal is for what the reviewer must know."""
