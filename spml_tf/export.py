"""Exports a finished run: `python -m spml_tf.export --run_dir=DIR --export_dir=DIR`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spml_tf import cli
from spml_tf.errors import UserError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_USAGE = """Exports the best network of a finished run as a SavedModel.

usage: python -m spml_tf.export --run_dir=DIR --export_dir=DIR

Endpoints: serve (images -> probabilities), cams (images -> class activation maps, logits),
serve_bytes (JPEG or PNG files -> probabilities). Beside it classes.json (names, decision
thresholds, input size) and MODEL_CARD.md."""


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dir: str | None = cli.flag_field(None, "Folder of the run.")
    export_dir: str | None = cli.flag_field(None, "Folder to write, which must not exist.")
    overwrite: bool = cli.flag_field(False, "Replace --export_dir where it exists.", bool)


def export(run_dir: str, export_dir: str, overwrite: bool = False) -> None:
    """Writes a run's network for serving, without banks or optimizer.

    The folder appears in one step: it is whole or not there.

    Args:
        run_dir: folder of a finished run.
        export_dir: folder to write.
        overwrite: replace an `export_dir` that exists.

    Raises:
        UserError: where the run is not finished or the folder exists.
    """
    from spml_tf import networks, runs

    run, target = runs.RunFolder(run_dir), Path(export_dir)
    record = run.read_record()
    if not run.metrics.exists():
        raise UserError(f"--run_dir={run_dir}: not finished; start its training again to resume it")
    if target.exists() and not overwrite:
        raise UserError(f"--export_dir={target}: exists; choose another or give --overwrite")
    network = networks.load_network(run.network)
    classes = {
        "class_names": record["class_names"],
        "thresholds": _thresholds(run, record["class_names"]),
        "image_size": record["flags"]["image_size"],
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".unfinished-{target.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_saved_model(network, classes["image_size"], unfinished)
    runs.write_json(unfinished / "classes.json", classes)
    (unfinished / "MODEL_CARD.md").write_text(_model_card(run, record, classes), "utf-8")
    if target.exists():
        shutil.rmtree(target)
    unfinished.rename(target)


def _thresholds(run: Any, class_names: list[str]) -> dict[str, float]:
    import numpy as np

    from spml_tf.thresholds import best_f1_thresholds

    with np.load(run.predictions("val"), allow_pickle=False) as saved:
        values = best_f1_thresholds(saved["labels"], saved["scores"])
    return dict(zip(class_names, values.tolist(), strict=True))


def write_saved_model(network: keras.Model, image_size: int, folder: Path) -> None:
    """Writes a SavedModel with the endpoints serve, cams and serve_bytes.

    serve: images [B, H, W, 3] float32 in 0..255, any size -> {"probabilities": [B, L] float32}.
    cams: the same images -> {"cams": [B, G, G, L] float32 logits}; the sigmoid of their mean over
    the grid is what serve returns. serve_bytes: [B] strings, each a JPEG, PNG, GIF or BMP file of
    any size -> {"probabilities": [B, L]}. All resize as training's evaluation does.

    Args:
        network: images -> CAM logits.
        image_size: side of the network's input in pixels.
        folder: where to write.
    """
    import keras
    import tensorflow as tf

    from spml_tf.images import decode_image, resize

    def logits(images: tf.Tensor) -> tf.Tensor:
        return network(images, training=False)

    def probabilities(maps: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.sigmoid(tf.reduce_mean(maps, axis=(1, 2)))}

    def from_bytes(files: tf.Tensor) -> tf.Tensor:
        one = tf.TensorSpec([image_size, image_size, 3])
        return tf.map_fn(
            lambda file: resize(decode_image(file), image_size), files, fn_output_signature=one
        )

    images = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
    files = tf.TensorSpec([None], tf.string, name="files")
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serve", lambda x: probabilities(logits(resize(x, image_size))), [images])
    archive.add_endpoint("cams", lambda x: {"cams": logits(resize(x, image_size))}, [images])
    archive.add_endpoint("serve_bytes", lambda x: probabilities(logits(from_bytes(x))), [files])
    archive.write_out(str(folder), verbose=False)


def _model_card(run: Any, record: dict[str, Any], classes: dict[str, Any]) -> str:
    results = json.loads(run.metrics.read_text("utf-8"))
    flags, images = record["flags"], record["images"]
    rows = [
        f"| {_cell(name)} | {_percent(results['val']['ap'][name])} "
        f"| {_percent(results['test']['ap'][name])} | {threshold:.4f} |"
        for name, threshold in classes["thresholds"].items()
    ]
    lines = [
        "# Model card",
        "",
        f"Multi-label image classifier, {len(rows)} classes, trained by spml_tf "
        f"{record['versions']['spml_tf']} with the method `{flags['method']}`.",
        "",
        f"- Network: {flags['network']}, weights at the start: {flags['weights']}, input "
        f"{flags['image_size']} x {flags['image_size']} pixels (any size is resized, the aspect "
        "ratio ignored); preprocessing is inside.",
        f"- Data: {flags['dataset']}, {images['train']} training, {images['val']} validation and "
        f"{images['test']} test images; labels: {flags['train_labels']}; positives per image (K): "
        f"{record['positives_per_image']}.",
        f"- Data fingerprint: `{record['data_fingerprint']}`.",
        f"- mAP: {_percent(results['val']['map'])} on validation, "
        f"{_percent(results['test']['map'])} on test (epoch {results['best_epoch']}, the best on "
        "validation).",
        f"- Versions: {', '.join(f'{k} {v}' for k, v in record['versions'].items())}.",
        "",
        "| class | AP val | AP test | threshold |",
        "|---|---|---|---|",
        *rows,
        "",
        "## Use and limits",
        "",
        "Probabilities come from training with incomplete labels and are not calibrated; decisions "
        "compare them with the thresholds above, which give the highest F1 on the validation "
        "images (0.5 where a class has no positive there). Images unlike the training data, and "
        "uses in which a wrong decision harms someone, need an evaluation of their own.",
        "",
        "## How it was trained",
        "",
        "```",
        run.flags.read_text("utf-8").rstrip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "no positives" if value is None else f"{value:.2f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _action(options: _Options) -> None:
    for name in ("run_dir", "export_dir"):
        if getattr(options, name) is None:
            raise UserError(f"--{name} is missing")
    export(options.run_dir, options.export_dir, options.overwrite)
    print(f"exported to {options.export_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, _USAGE, _action)


if __name__ == "__main__":
    sys.exit(main())
