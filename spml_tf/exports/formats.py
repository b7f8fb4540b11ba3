"""The formats of an export, and the folders they are written to."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from spml_tf.exports import litert, onnx_model, saved_model, web_page
from spml_tf.exports.checks import ComparedPhotos, Comparison
from spml_tf.exports.exported import Exported
from spml_tf.system.errors import UserError, reason_of
from spml_tf.system.files import replaced_unless_edited, write_json

SAVED_MODEL, LITERT, ONNX, WEB = "saved_model", "litert", "onnx", "web"
# By format the file that every export in it has.
MARKS = {
    SAVED_MODEL: "saved_model.pb",
    LITERT: f"{LITERT}/{litert.FILES['float32']}",
    ONNX: f"{ONNX}/{onnx_model.FILE}",
    WEB: f"{WEB}/{web_page.FILE}",
}
# What classes are called, and their thresholds: of an export, and beside each runner.
CLASSES = "classes.json"
CLASS_FILES = (CLASSES, f"{LITERT}/{CLASSES}", f"{ONNX}/{CLASSES}")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which formats to write.

    Attributes:
        formats: of `MARKS`, in the order of the flag.
        web_runtime: what `web_page.read_runtime` takes.
    """

    formats: tuple[str, ...]
    web_runtime: str

    def check_needs(self) -> None:
        """Raises UserError where something that a format needs is missing."""
        if LITERT in self.formats:
            litert.check_needs(f"--format={LITERT}")
        for name in (ONNX, WEB):
            if name in self.formats:
                onnx_model.check_needs(f"--format={name}")
        if WEB in self.formats:
            web_page.read_runtime(self.web_runtime)

    @property
    def converts(self) -> bool:
        """Whether there is a format beside the SavedModel, whose numbers are checked."""
        return any(name != SAVED_MODEL for name in self.formats)


def write(
    wanted: Wanted,
    exported: Exported,
    folder: Path,
    classes: dict[str, Any],
    photos: ComparedPhotos | None,
) -> list[Comparison]:
    """Writes an export in every format wanted.

    Args:
        wanted: the formats.
        exported: the network and its classes.
        folder: where to write; the SavedModel lies there itself, others in folders of their names.
        classes: what classes.json says.
        photos: what converted models are checked on, None where the SavedModel alone is wanted.

    Raises:
        UserError: a model does not give the network's numbers.
    """
    found = []
    if SAVED_MODEL in wanted.formats:
        saved_model.write(exported, folder)
    if photos is None:
        return []
    if LITERT in wanted.formats:
        found += _write_litert(_with_runner(folder / LITERT, classes), photos)
    if not {ONNX, WEB}.isdisjoint(wanted.formats):
        with _naming_format("onnx"):
            content = onnx_model.convert(photos.exported)
            session = onnx_model.Session(content)
        found.append(photos.compare(onnx_model.FILE, content, session, exact=True))
        if ONNX in wanted.formats:
            onnx_model.write(content, _with_runner(folder / ONNX, classes))
        if WEB in wanted.formats:
            (folder / WEB).mkdir()
            runtime = web_page.read_runtime(wanted.web_runtime)
            web_page.write(content, photos.exported, runtime, folder / WEB)
    return found


def _write_litert(folder: Path, photos: ComparedPhotos) -> list[Comparison]:
    with _naming_format(LITERT):
        models = litert.convert(photos.exported, photos.calibration)
        runners = {kind: litert.Runner(content) for kind, content in models.items()}
    litert.write(models, folder)
    return [
        photos.compare(litert.FILES[kind], models[kind], runner, exact=kind == "float32")
        for kind, runner in runners.items()
    ]


@contextlib.contextmanager
def _naming_format(name: str) -> Iterator[None]:
    """Turns what a converter or a runtime says about a network into one line."""
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # whatever these libraries raise
        raise UserError(
            f"--format={name}: its converter does not know this network "
            f"({reason_of(error, 200)}); leave this format out"
        ) from error


def _with_runner(folder: Path, classes: dict[str, Any]) -> Path:
    """Makes the folder of a format, with the script that runs its models and what that reads."""
    folder.mkdir()
    with resources.as_file(resources.files("spml_tf.exports") / "assets" / "run.py") as script:
        shutil.copyfile(script, folder / "run.py")
    write_json(folder / CLASSES, classes, replaced_unless_edited)
    return folder


def table(found: Sequence[Comparison], photos: ComparedPhotos) -> list[str]:
    """Comparisons as lines of Markdown."""
    lines = [
        "## Converted models",
        "",
        f"On {len(photos)} {photos.split} photos, beside the Keras network in float32:",
        "",
        "| file | MB | largest difference of a score | mean | decisions changed | mAP | lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        maps = (_number(one.map), _number(one.loss))
        differences = f"{one.largest:.2g} | {one.mean:.2g} | {100 * one.changed:.2f}%"
        lines.append(f"| {one.file} | {one.megabytes:.1f} | {differences} | {' | '.join(maps)} |")
    return [*lines, ""]


def summary(one: Comparison, photos: ComparedPhotos) -> str:
    """A comparison as one line of text."""
    text = (
        f"{one.file}: {one.megabytes:.1f} MB, probabilities differ by up to {one.largest:.2g} on "
        f"{len(photos)} {photos.split} photos"
    )
    if one.loss is None:
        return text
    return f"{text}, mAP {one.map:.2f}, {_number(one.loss)} lost"


def _number(value: float | None) -> str:
    # Of a loss that rounds to nothing the sign says nothing.
    return "no positives" if value is None else f"{round(value, 2) + 0:.2f}"
