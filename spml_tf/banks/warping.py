"""Crop boxes and the warping of class maps between a crop's frame and the whole image's frame.

A box is ``(y1, x1, y2, x2)`` in [0, 1] of the whole image, a flip is a horizontal mirror applied
after cropping. Cell ``i`` of a grid of size ``S`` covers ``[i/S, (i+1)/S]`` with its centre at
``(i + 0.5) / S``. `tf.image.crop_and_resize` puts its outermost samples on the edges of the box it
is given; the functions here hand it the box whose edges are the outermost cell *centres*, in a map
padded by one replicated cell on each side, so that every sample is taken at a cell centre and a
sample beyond the outermost centres reads the nearest cell.

crop_and_resize has no XLA kernel. Inside of a function with jit_compile=True `warp` multiplies with
two matrices of the same weights instead, one for rows and one for columns.
"""

from __future__ import annotations

import tensorflow as tf

from spml_tf.system.private_api import inside_compiled_function


def whole_image_boxes(batch_size: tf.Tensor | int) -> tf.Tensor:
    """Boxes of the whole image.

    Args:
        batch_size: scalar int.

    Returns:
        [batch_size, 4] float32, each row (0, 0, 1, 1).
    """
    return tf.tile(tf.constant([[0.0, 0.0, 1.0, 1.0]]), [batch_size, 1])


def inverse_boxes(boxes: tf.Tensor) -> tf.Tensor:
    """The whole image as a box in the frame of each crop.

    Args:
        boxes: [B, 4] float, boxes of positive area.

    Returns:
        [B, 4] float: (-y1/(y2-y1), -x1/(x2-x1), (1-y1)/(y2-y1), (1-x1)/(x2-x1)).
    """
    corner, far = boxes[:, :2], boxes[:, 2:]
    size = far - corner
    return tf.concat([-corner / size, (1.0 - corner) / size], axis=1)


def _sample_edges(boxes: tf.Tensor, size_in: tf.Tensor, size_out: tf.Tensor) -> tf.Tensor:
    """Edges of `boxes` for crop_and_resize on the padded grid.

    edge(p1, p2, k) = ((p1 + (k+0.5)/out * (p2-p1)) * in + 0.5) / (in + 1) for the first and the
    last sample, k = 0 and out - 1. `size_in` and `size_out` are [height, width].
    """
    corner, extent = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    scale_in = tf.cast(size_in, boxes.dtype)
    half = 0.5 / tf.cast(size_out, boxes.dtype)
    first = ((corner + half * extent) * scale_in + 0.5) / (scale_in + 1.0)
    last = ((corner + (1.0 - half) * extent) * scale_in + 0.5) / (scale_in + 1.0)
    # With one output cell crop_and_resize samples the middle of the box: first == last is right.
    return tf.concat([first, last], axis=1)


def warp(
    maps: tf.Tensor, boxes: tf.Tensor, size: tf.Tensor | int, separable: bool | None = None
) -> tf.Tensor:
    """Samples maps at the cell centres of a `size` x `size` grid laid over a box.

    Bilinear between cell centres; outside the outermost centres the nearest cell. Samples further
    than half a cell outside the map read 0 (only `to_image_frame` asks for these, and masks them).

    Args:
        maps: [B, H, W, C] float32.
        boxes: [B, 4] float32, in units of the maps' own frame.
        size: int, cells per side of the result.
        separable: multiply with matrices of weights rather than call crop_and_resize; the results
            agree to 1e-6 for maps in [0, 1]. None does so where XLA compiles.

    Returns:
        [B, size, size, C] float32.
    """
    shape = tf.shape(maps)
    size_out = tf.stack([size, size])
    edges = _sample_edges(boxes, shape[1:3], size_out)
    if inside_compiled_function() if separable is None else separable:
        rows = _weights(edges[:, 0], edges[:, 2], shape[1], size)
        columns = _weights(edges[:, 1], edges[:, 3], shape[2], size)
        return tf.einsum("bxj,byjc->byxc", columns, tf.einsum("byi,bijc->byjc", rows, maps))
    padded = tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
    return tf.image.crop_and_resize(padded, edges, tf.range(shape[0]), size_out)


def _weights(
    first: tf.Tensor, last: tf.Tensor, size_in: tf.Tensor, size_out: tf.Tensor | int
) -> tf.Tensor:
    """Weights of crop_and_resize along one axis.

    Args:
        first, last: [B] float32, the edges of the box on the padded grid.
        size_in: int, cells of the map without its padding.
        size_out: int, samples.

    Returns:
        [B, size_out, size_in] float32; a row sums to 1, or to 0 where its sample lies outside.
    """
    end = tf.cast(size_in + 1, first.dtype)  # the padded grid's cells are 0 to end
    step = (last - first) * end / tf.cast(tf.maximum(size_out - 1, 1), first.dtype)
    samples = tf.cast(tf.range(size_out), first.dtype)
    position = first[:, None] * end + samples * step[:, None]
    inside = (position >= 0.0) & (position <= end)
    nearest = tf.clip_by_value(position - 1.0, 0.0, end - 2.0)  # the padding repeats the edge
    distance = tf.abs(nearest[..., None] - tf.cast(tf.range(size_in), first.dtype))
    return tf.maximum(1.0 - distance, 0.0) * tf.cast(inside, first.dtype)[..., None]


def flip_maps(maps: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    """Mirrors the maps whose flip is set.

    Args:
        maps: [B, H, W, C] any dtype.
        flips: [B] bool.

    Returns:
        [B, H, W, C] same dtype.
    """
    return tf.where(flips[:, None, None, None], tf.reverse(maps, axis=[2]), maps)


def to_crop_frame(
    maps: tf.Tensor, boxes: tf.Tensor, flips: tf.Tensor, size: tf.Tensor | int
) -> tf.Tensor:
    """T^t of eq. 7: maps of whole images as seen by this step's crop and flip.

    Args:
        maps: [B, W, W, C] float32 in the frame of the whole image.
        boxes: [B, 4] float32.
        flips: [B] bool.
        size: int G, cells per side of the network's map.

    Returns:
        [B, G, G, C] float32 in the frame of the crop.
    """
    return flip_maps(warp(maps, boxes, size), flips)


def masked_to_crop_frame(
    maps: tf.Tensor, visited: tf.Tensor, boxes: tf.Tensor, flips: tf.Tensor, size: tf.Tensor | int
) -> tuple[tf.Tensor, tf.Tensor]:
    """`to_crop_frame` of maps that are known in some cells only.

    Args:
        maps: [B, W, W, C] float32.
        visited: [B, W, W] or [B, W, W, C] bool, the cells that hold a value.
        boxes: [B, 4] float32.
        flips: [B] bool.
        size: int G.

    Returns:
        target: [B, G, G, C] float32, warp(maps * visited) / warp(visited).
        counts: [B, G, G] or [B, G, G, C] bool, as `visited` is: samples with warp(visited) >= 0.5;
            elsewhere ignore the target.
    """
    by_class = visited.shape.rank == 4
    known = tf.cast(visited if by_class else visited[..., None], maps.dtype)
    both = to_crop_frame(tf.concat([maps * known, known], axis=-1), boxes, flips, size)
    sums, weight = tf.split(both, [tf.shape(maps)[-1], tf.shape(known)[-1]], axis=-1)
    counts = weight >= 0.5
    return tf.math.divide_no_nan(sums, weight), counts if by_class else counts[..., 0]


def cells_inside(boxes: tf.Tensor, size: tf.Tensor | int) -> tf.Tensor:
    """The cells of the whole image's grid whose centre lies inside each box.

    Args:
        boxes: [B, 4] float32.
        size: int W.

    Returns:
        [B, W, W] bool.
    """
    centres = (tf.cast(tf.range(size), boxes.dtype) + 0.5) / tf.cast(size, boxes.dtype)
    rows = (centres >= boxes[:, 0:1]) & (centres <= boxes[:, 2:3])
    columns = (centres >= boxes[:, 1:2]) & (centres <= boxes[:, 3:4])
    return rows[:, :, None] & columns[:, None, :]


def to_image_frame(
    maps: tf.Tensor, boxes: tf.Tensor, flips: tf.Tensor, size: tf.Tensor | int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Writes a crop's maps back onto the grid of the whole image.

    Args:
        maps: [B, G, G, C] float32 in the frame of the crop.
        boxes: [B, 4] float32.
        flips: [B] bool.
        size: int W, cells per side of the whole image's grid.

    Returns:
        values: [B, W, W, C] float32.
        inside: [B, W, W] bool, cells the crop covers; values elsewhere mean nothing.
    """
    values = warp(flip_maps(maps, flips), inverse_boxes(boxes), size)
    return values, cells_inside(boxes, size)
