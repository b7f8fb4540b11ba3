"""Predicts with an exported model: `python -m spml_tf.predict --model_dir=DIR --images=photos`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spml_tf.system import cli
from spml_tf.system.errors import UserError, printable
from spml_tf.system.files import (
    check_output_file,
    made_folder,
    naming_unwritable,
    replaced,
    rows_kept,
    write_csv,
)
from spml_tf.system.flag_checks import check_range
from spml_tf.system.flag_fields import flag_field
from spml_tf.system.progress import beside_bar, progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spml_tf.serving.classifier import Classifier, Passed

USAGE = """Writes a CSV with each image's probabilities and decisions.

usage: python -m spml_tf.predict --model_dir=EXPORT_DIR --images=photos --output=FILE

Columns: image, then CLASS (probability) and CLASS_decision (1 or 0, by the exported threshold) for
each class; where a class has such a name, underlines follow image or _decision. A name that a
spreadsheet would run as a formula, which begins with = + - @, has an apostrophe before it. A file
that cannot be read as an image is named on standard error and left out; the exit code is then 1
(with --skip_broken 0), with everything else written. --overlays=DIR gets a PNG per image: the
photo, and the heatmap of each class decided for (of the likeliest class where there is none); one
that cannot be written is named too, and the exit code is 1. Rows are written as they come: where
the command is interrupted or the disk is full, those so far stay beside --output, in a file that
the last line names."""


@dataclasses.dataclass(frozen=True)
class _Options:
    model_dir: str = flag_field(None, "Folder written by spml_tf.export.", required=True)
    images: str = flag_field(
        None,
        "Image file, folder with the folders in it, or quoted pattern, such as 'photos/*.jpg'.",
        required=True,
    )
    output: str = flag_field("predictions.csv", "The CSV to write.")
    overlays: str | None = flag_field(None, "Folder for pictures of the heatmaps over each photo.")
    overlay_classes: int = flag_field(3, "Classes drawn per photo, at most.", int, low=1)
    max_megapixels: float | None = flag_field(
        None,
        "Pictures whose header tells of more pixels, in millions, are left out. Default, and the "
        "most: what the model was exported with.",
        float,
    )
    batch_size: int = flag_field(16, "Images at a time.", int, low=1)
    skip_broken: bool = flag_field(
        False, "Files that are no images are named and left out, and do not make the code 1.", bool
    )


def _find(images: str) -> list[str]:
    from spml_tf.serving.photos import photo_files

    try:
        return photo_files(images)
    except UserError as error:
        raise UserError(f"--images={error}") from None


def _classifier(model_dir: str) -> Classifier:
    from spml_tf import serving

    try:
        return serving.load(model_dir)
    except UserError as error:
        raise UserError(f"--model_dir={error}") from None


def _tell(kind: str, path: str, reason: str) -> None:
    with beside_bar():
        text = f"{path}: cannot be read as an image, left out ({reason})"
        print(f"{kind}: {printable(text)}", file=sys.stderr)


def _predicted(options: _Options, classifier: Classifier, paths: list[str]) -> Iterator[Passed]:
    """Yields every image that can be read; each is decoded once, and passes the network once."""
    from spml_tf.serving.photos import Photo

    keep = _to_draw if options.overlays else None
    left_out = functools.partial(_tell, "note" if options.skip_broken else "error")
    groups = [paths[x : x + options.batch_size] for x in range(0, len(paths), options.batch_size)]
    for group in progress(groups, len(paths), "images", len, lines=False):
        photos = [Photo(path, path) for path in group]
        yield from classifier.passes(photos, left_out, keep, options.max_megapixels)


def _to_draw(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from spml_tf.drawing.overlays import reduced_to_draw

    return reduced_to_draw(image).copy()  # a view keeps all of a large photo


def _picture_names(paths: Sequence[str]) -> dict[str, str]:
    """A name of its own for each photo's PNG, after its path below the folder they share."""
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in paths:
        name = os.path.relpath(path, shared).replace(os.sep, "__")
        while name.lower() in taken:  # some file systems do not tell case apart
            name += "_"
        taken.add(name.lower())
        names[path] = name + ".png"
    return names


def _overlay(path: Path, limit: int, classifier: Classifier, found: Passed) -> None:
    """Draws the classes decided for, or the likeliest one where there is none."""
    import numpy as np

    from spml_tf.drawing.overlays import draw_overlays

    ranked = np.argsort(-found.scores, kind="stable")
    chosen = [i for i in ranked if found.scores[i] >= classifier.thresholds[i]] or [ranked[0]]
    chosen = chosen[:limit]
    if found.kept is not None:
        names = [classifier.class_names[i] for i in chosen]
        heatmaps, scores = found.heatmaps[..., chosen], found.scores[chosen].tolist()
        draw_overlays(path, found.kept, heatmaps, names, scores)


def _check(options: _Options, paths: Sequence[str], pictures: dict[str, Path]) -> None:
    """Refuses outputs that would replace what is read, or anything that is no file."""
    used = [os.path.join(options.model_dir, name) for name in ("classes.json", "saved_model.pb")]
    inputs = [*paths, *used]
    check_output_file(Path(options.output), f"--output={options.output}", inputs)
    for picture in pictures.values():
        check_output_file(picture, f"--overlays={options.overlays}: {picture.name}", paths)


def _write(
    options: _Options, classifier: Classifier, paths: list[str], pictures: dict[str, Path]
) -> tuple[int, int]:
    """Writes the CSV and the pictures; how many rows there are, and pictures that failed."""
    from spml_tf.serving.predictions import ERRORS, LINE_END, decide, header, row_of

    failed = 0

    def lines() -> Iterator[list[object]]:
        nonlocal failed
        for found in _predicted(options, classifier, paths):
            yield row_of(found.name, found.scores, decide(found.scores, classifier.thresholds))
            if pictures:
                try:
                    place = naming_unwritable(found.name)
                    with place, replaced(pictures[found.name]) as picture:
                        _overlay(picture, options.overlay_classes, classifier, found)
                except UserError as error:
                    with beside_bar():
                        print(f"error: the overlay of {error}", file=sys.stderr)
                    failed += 1

    names = header(classifier.class_names)
    written = write_csv(options.output, names, lines(), LINE_END, ERRORS, into=rows_kept)
    return written, failed


def _action(options: _Options) -> None:
    paths = _find(options.images)
    overlays = None if options.overlays is None else Path(options.overlays)
    names = _picture_names(paths) if overlays else {}
    pictures = {path: overlays / name for path, name in names.items()} if overlays else {}
    _check(options, paths, pictures)
    classifier = _classifier(options.model_dir)
    check_range("max_megapixels", options.max_megapixels, 1e-3, classifier.max_megapixels)
    with contextlib.ExitStack() as stack:
        for folder in (Path(options.output).parent, *([overlays] if overlays else [])):
            stack.enter_context(made_folder(folder))
        written, failed = _write(options, classifier, paths, pictures)
    print(f"{written} of {len(paths)} images in {options.output}")
    broken = len(paths) - written
    shown = "1 file is no image" if broken == 1 else f"{broken} files are no images"
    problems = [shown] if broken and not options.skip_broken else []
    problems += [f"{failed} overlays cannot be written"] if failed else []
    if problems:
        raise UserError(f"--images={options.images}: {', '.join(problems)}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action)


if __name__ == "__main__":
    sys.exit(main())
