"""The SavedModel: endpoints for pixels and for photo files, as TensorFlow Serving takes them."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

from spml_tf.datasets.images import decode_image, resize
from spml_tf.exports.exported import Exported


def write(exported: Exported, folder: Path) -> None:
    """Writes a SavedModel with the endpoints serve_bytes, cams_bytes, serve and cams.

    serve_bytes: files, [B] strings, each a JPEG, PNG, GIF or BMP file of any size ->
    {"probabilities": [B, L] float32, "decisions": [B, L] int32, 1 or 0, "class_names": [B, L]
    strings}. It is the signature serving_default, too. cams_bytes: the same files -> also {"cams":
    [B, G, G, L] float32 logits}; the sigmoid of their mean over the grid is the probability.
    serve and cams: images, [B, H, W, 3] float32 in 0..255, any size -> the same.

    All resize as training's evaluation does. Every output has a row a photo, which TensorFlow
    Serving's REST interface wants. A batch fails where the header of a file tells of more pixels
    than `exported.max_megapixels`, before that file is decoded.

    Args:
        exported: the network and its classes.
        folder: where to write.
    """
    size = exported.image_size

    def scored(images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = with_maps(images)
        return {name: value for name, value in found.items() if name != "cams"}

    def with_maps(images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = exported.outputs_of_pixels(images)
        names = tf.constant([exported.class_names])
        return {**found, "class_names": tf.tile(names, [tf.shape(images)[0], 1])}

    def read(files: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda file: resize(decode_image(file, exported.max_megapixels), size),
            files,
            fn_output_signature=tf.TensorSpec([size, size, 3]),
        )

    images = [tf.TensorSpec([None, None, None, 3], tf.float32, name="images")]
    files = [tf.TensorSpec([None], tf.string, name="files")]
    # The archive finds the variables through the endpoints; tracked too, they are written twice.
    archive = keras.export.ExportArchive()
    # Keras names the first one serving_default as well.
    archive.add_endpoint("serve_bytes", lambda x: scored(read(x)), files)
    archive.add_endpoint("cams_bytes", lambda x: with_maps(read(x)), files)
    archive.add_endpoint("serve", lambda x: scored(resize(x, size)), images)
    archive.add_endpoint("cams", lambda x: with_maps(resize(x, size)), images)
    archive.write_out(str(folder), verbose=False)
