"""Predicts with an exported model: `python -m spml_tf.predict --model_dir=DIR --images='*.jpg'`."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS
from spml_tf.datasets.settings import check_range
from spml_tf.system import cli
from spml_tf.system.errors import UserError, printable
from spml_tf.system.files import (
    check_output_file,
    made_folder,
    naming_unwritable,
    put_back,
    replaced,
    rows_kept,
    write_csv,
)
from spml_tf.system.json_text import parse_json
from spml_tf.system.progress import beside_bar, progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

USAGE = """Writes a CSV with each image's probabilities and decisions.

usage: python -m spml_tf.predict --model_dir=EXPORT_DIR --images='photos/*.jpg' --output=FILE

Columns: image, then CLASS (probability) and CLASS_decision (1 or 0, by the exported threshold) for
each class; where a class has such a name, underlines follow image or _decision. A name that a
spreadsheet would run as a formula, which begins with = + - @, has an apostrophe before it. A file
that cannot be read as an image is named on standard error and left out; the exit code is then 1,
with everything else written. --overlays=DIR gets a PNG per image: the photo, and the heatmap of
each class decided for (of the likeliest class where there is none); one that cannot be written is
treated alike. Rows are written as they come: where the command is interrupted or the disk is full,
those so far stay beside --output, in a file that the last line names."""


@dataclasses.dataclass(frozen=True)
class _Options:
    model_dir: str = cli.flag_field(None, "Folder written by spml_tf.export.", required=True)
    images: str = cli.flag_field(
        None,
        "Quoted pattern of image files; ** crosses folders, as in 'photos/**/*.jpg'.",
        required=True,
    )
    output: str = cli.flag_field("predictions.csv", "The CSV to write.")
    overlays: str | None = cli.flag_field(
        None, "Folder for pictures of the heatmaps over each photo."
    )
    overlay_classes: int = cli.flag_field(3, "Classes drawn per photo, at most.", int)
    max_megapixels: float | None = cli.flag_field(
        None,
        "Pictures whose header tells of more pixels, in millions, are left out. Default, and the "
        "most: what the model was exported with.",
        float,
    )
    batch_size: int = cli.flag_field(16, "Images at a time.", int)


class Predictor:
    """An exported model.

    Args:
        model_dir: folder written by `spml_tf.export`.

    Attributes:
        class_names: L names.
        thresholds: [L] float64.
        image_size: S, the side of the network's input in pixels.
        max_megapixels: the most pixels, in millions, of a picture it takes.

    Raises:
        UserError: where the folder holds no such export.
    """

    def __init__(self, model_dir: str) -> None:
        import numpy as np
        import tensorflow as tf

        try:
            put_back(Path(model_dir).resolve())
            classes = parse_json((Path(model_dir) / "classes.json").read_text("utf-8"))
            self.class_names = list(classes["class_names"])
            self.thresholds = np.array([classes["thresholds"][x] for x in self.class_names])
            self.image_size = int(classes["image_size"])
            self.max_megapixels = float(classes.get("max_megapixels", MAX_MEGAPIXELS))
            self._model = tf.saved_model.load(model_dir)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"--model_dir={model_dir}: no spml_tf export ({reason})") from None

    def from_pixels(
        self, images: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What one pass of the network says of images that have its size.

        Args:
            images: [B, S, S, 3] in 0..255, as `images.resize` makes them.

        Returns:
            Probabilities [B, L], and heatmaps [B, G, G, L] in [0, 1], sigmoid(F), both float32.
        """
        import tensorflow as tf

        maps = self._model.cams(tf.constant(images))["cams"]
        return tf.sigmoid(tf.reduce_mean(maps, axis=(1, 2))).numpy(), tf.sigmoid(maps).numpy()


def _find(pattern: str) -> list[str]:
    if os.path.isdir(pattern):
        inside = os.path.join(glob.escape(pattern), "*.jpg")
        below = os.path.join(glob.escape(pattern), "**", "*.jpg")
        raise UserError(
            f"--images={pattern}: is a folder; give a pattern, such as '{inside}', or '{below}' "
            "with the folders in it"
        )
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    if not paths:
        raise UserError(f"--images={pattern}: matches no file; quote the pattern and check it")
    return paths


def _read(path: str, max_megapixels: float) -> NDArray[np.uint8] | None:
    """The pixels, uint8 [H, W, 3], or None, with the reason said, where it is no image."""
    from spml_tf.datasets import encoded_images

    try:
        return encoded_images.decode(Path(path).read_bytes(), max_megapixels)
    except (OSError, encoded_images.BrokenImageError) as error:
        reason = " ".join(str(error).split())[:200]
        with beside_bar():
            print(
                f"error: {printable(path)}: cannot be read as an image, left out ({reason})",
                file=sys.stderr,
            )
        return None


class _Predicted(NamedTuple):
    """An image, as far as overlays need it, and what is predicted of it."""

    path: str
    shown: NDArray[np.uint8] | None
    scores: NDArray[np.float32]
    heatmaps: NDArray[np.float32]


def _predicted(options: _Options, predictor: Predictor, paths: list[str]) -> Iterator[_Predicted]:
    """Yields every image that can be read; each is decoded once, and passes the network once."""
    import numpy as np
    import tensorflow as tf

    from spml_tf.datasets.images import resize

    limit = options.max_megapixels or predictor.max_megapixels
    groups = [paths[x : x + options.batch_size] for x in range(0, len(paths), options.batch_size)]
    for group in progress(groups, len(paths), "images", len, lines=False):
        read, shown, inputs = [], [], []
        for path in group:
            if (image := _read(path, limit)) is not None:
                read.append(path)
                inputs.append(resize(tf.constant(image), predictor.image_size).numpy())
                shown.append(_to_draw(image) if options.overlays else None)
        if read:
            found = predictor.from_pixels(np.stack(inputs))
            yield from map(_Predicted, read, shown, *found)


def _to_draw(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from spml_tf.drawing.overlays import reduced_to_draw

    return reduced_to_draw(image).copy()  # a view keeps all of a large photo


def _header(class_names: Sequence[str]) -> list[str]:
    """Names of the columns, all different: where a class has the name of another column, underlines
    follow that.

    >>> _header(["cat", "cat_decision"])
    ['image', 'cat', 'cat_decision_', 'cat_decision', 'cat_decision_decision_']
    """
    taken, image, decision = set(class_names), "image", "_decision"
    while image in taken:
        image += "_"
    while not taken.isdisjoint(f"{name}{decision}" for name in class_names):
        decision += "_"
    return [image, *(x for name in class_names for x in (name, f"{name}{decision}"))]


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


def _overlay(path: Path, limit: int, predictor: Predictor, found: _Predicted) -> None:
    """Draws the classes decided for, or the likeliest one where there is none."""
    import numpy as np

    from spml_tf.drawing.overlays import draw_overlays

    ranked = np.argsort(-found.scores, kind="stable")
    chosen = [i for i in ranked if found.scores[i] >= predictor.thresholds[i]] or [ranked[0]]
    chosen = chosen[:limit]
    if found.shown is not None:
        names = [predictor.class_names[i] for i in chosen]
        heatmaps, scores = found.heatmaps[..., chosen], found.scores[chosen].tolist()
        draw_overlays(path, found.shown, heatmaps, names, scores)


def _check(options: _Options, paths: Sequence[str], pictures: dict[str, Path]) -> None:
    """Refuses outputs that would replace what is read, or anything that is no file."""
    used = [os.path.join(options.model_dir, name) for name in ("classes.json", "saved_model.pb")]
    inputs = [*paths, *used]
    check_output_file(Path(options.output), f"--output={options.output}", inputs)
    for picture in pictures.values():
        check_output_file(picture, f"--overlays={options.overlays}: {picture.name}", paths)


def _write(
    options: _Options, predictor: Predictor, paths: list[str], pictures: dict[str, Path]
) -> tuple[int, int]:
    """Writes the CSV and the pictures; how many rows there are, and pictures that failed."""
    header = _header(predictor.class_names)
    failed = 0

    def lines() -> Iterator[list[object]]:
        nonlocal failed
        for found in _predicted(options, predictor, paths):
            decisions = (found.scores >= predictor.thresholds).astype(int)
            cells = zip((f"{x:.6f}" for x in found.scores), decisions, strict=True)
            yield [found.path, *(x for pair in cells for x in pair)]
            if pictures:
                try:
                    place = naming_unwritable(found.path)
                    with place, replaced(pictures[found.path]) as picture:
                        _overlay(picture, options.overlay_classes, predictor, found)
                except UserError as error:
                    with beside_bar():
                        print(f"error: the overlay of {error}", file=sys.stderr)
                    failed += 1

    # File names need not be UTF-8: their bytes pass through as they are.
    written = write_csv(
        options.output, header, lines(), "\r\n", errors="surrogateescape",
        into=rows_kept,
    )  # fmt: skip
    return written, failed


def _action(options: _Options) -> None:
    cli.check_least(options, batch_size=1, overlay_classes=1)
    paths = _find(options.images)
    overlays = None if options.overlays is None else Path(options.overlays)
    names = _picture_names(paths) if overlays else {}
    pictures = {path: overlays / name for path, name in names.items()} if overlays else {}
    _check(options, paths, pictures)
    predictor = Predictor(options.model_dir)
    check_range("max_megapixels", options.max_megapixels, 1e-3, predictor.max_megapixels)
    with contextlib.ExitStack() as stack:
        for folder in (Path(options.output).parent, *([overlays] if overlays else [])):
            stack.enter_context(made_folder(folder))
        written, failed = _write(options, predictor, paths, pictures)
    print(f"{written} of {len(paths)} images in {options.output}")
    problems = [f"{len(paths) - written} files are no images"] if written < len(paths) else []
    problems += [f"{failed} overlays cannot be written"] if failed else []
    if problems:
        raise UserError(f"--images={options.images}: {', '.join(problems)}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action)


if __name__ == "__main__":
    sys.exit(main())
