"""Warping of maps, against a NumPy sampler that knows nothing of crop_and_resize."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_tf.banks import warping


def sample(values: np.ndarray, position: float) -> list[tuple[int, float]]:
    """Cells and weights of linear interpolation at `position` (0..1) of a row of cells."""
    cell = min(max(position * len(values) - 0.5, 0.0), len(values) - 1.0)
    low = int(np.floor(cell))
    high = min(low + 1, len(values) - 1)
    return [(low, 1.0 - (cell - low)), (high, cell - low)]


def brute_force_warp(image: np.ndarray, box: tuple[float, ...], size: int) -> np.ndarray:
    """Bilinear samples of [H, W, C] at the cell centres of a size x size grid over the box."""
    y1, x1, y2, x2 = box
    out = np.zeros((size, size, image.shape[2]))
    for row in range(size):
        for column in range(size):
            y = y1 + (row + 0.5) / size * (y2 - y1)
            x = x1 + (column + 0.5) / size * (x2 - x1)
            for i, wy in sample(image[:, 0, 0], y):
                for j, wx in sample(image[0, :, 0], x):
                    out[row, column] += wy * wx * image[i, j]
    return out


@st.composite
def crop_boxes(draw):
    low = st.floats(0.0, 0.8)
    y1, x1 = draw(low), draw(low)
    y2 = draw(st.floats(y1 + 0.1, 1.0))
    x2 = draw(st.floats(x1 + 0.1, 1.0))
    return (y1, x1, y2, x2)


def as_batch(box: tuple[float, ...]) -> tf.Tensor:
    return tf.constant([box], tf.float32)


@settings(max_examples=40)
@given(crop_boxes(), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 2**31))
def test_reading_equals_brute_force(box, grid, size, flip, seed):
    image = np.random.default_rng(seed).random((grid, grid, 2)).astype(np.float32)
    expected = brute_force_warp(image, box, size)
    if flip:
        expected = expected[:, ::-1]
    found = warping.to_crop_frame(image[None], as_batch(box), tf.constant([flip]), size)[0]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@settings(max_examples=40)
@given(crop_boxes(), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 2**31))
def test_writing_back_equals_brute_force_inside_the_crop(box, grid, size, flip, seed):
    crop = np.random.default_rng(seed).random((size, size, 2)).astype(np.float32)
    values, inside = warping.to_image_frame(crop[None], as_batch(box), tf.constant([flip]), grid)
    upright = crop[:, ::-1] if flip else crop
    y1, x1, y2, x2 = np.array(box, np.float32)
    for row in range(grid):
        for column in range(grid):
            y, x = np.float32((row + 0.5) / grid), np.float32((column + 0.5) / grid)
            if min(abs(y - y1), abs(y - y2), abs(x - x1), abs(x - x2)) > 1e-6:
                assert inside[0, row, column] == (y1 < y < y2 and x1 < x < x2)
            if not inside[0, row, column]:
                continue
            expected = 0.0
            for i, wy in sample(upright[:, 0, 0], (y - y1) / (y2 - y1)):
                for j, wx in sample(upright[0, :, 0], (x - x1) / (x2 - x1)):
                    expected = expected + wy * wx * upright[i, j]
            np.testing.assert_allclose(values[0, row, column], expected, atol=1e-4)


@settings(max_examples=40)
@given(crop_boxes(), st.integers(2, 16), st.integers(1, 16), st.sampled_from(["y", "x"]))
def test_a_ramp_reads_as_the_crops_coordinates(box, grid, size, axis):
    """A map that holds its own coordinate warps to the crop's, clamped at the outermost centres."""
    ramp = (np.arange(grid, dtype=np.float32) + 0.5) / grid
    image = np.broadcast_to(ramp[:, None] if axis == "y" else ramp[None, :], (grid, grid))
    low, high = (box[0], box[2]) if axis == "y" else (box[1], box[3])
    centres = low + (np.arange(size) + 0.5) / size * (high - low)
    expected = np.clip(centres, 0.5 / grid, 1.0 - 0.5 / grid)
    warped = warping.warp(image[None, ..., None].copy(), as_batch(box), size)[0, ..., 0].numpy()
    lines = warped if axis == "y" else warped.T
    np.testing.assert_allclose(lines, np.broadcast_to(expected[:, None], (size, size)), atol=1e-5)


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(0, 2**31))
def test_the_whole_image_at_equal_grids_is_the_identity(grid, seed):
    image = np.random.default_rng(seed).random((1, grid, grid, 3)).astype(np.float32)
    whole = warping.whole_image_boxes(1)
    np.testing.assert_allclose(warping.warp(image, whole, grid), image, atol=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.integers(0, 2**31))
def test_write_then_read_is_exact_where_cells_coincide(top, left, flip, seed):
    """A 5x5 crop grid over 5x5 whole cells of an 8x8 grid: each sample meets its own cell."""
    box = as_batch((top / 8, left / 8, (top + 5) / 8, (left + 5) / 8))
    maps = np.random.default_rng(seed).random((1, 5, 5, 2)).astype(np.float32)
    flips = tf.constant([flip])
    values, inside = warping.to_image_frame(maps, box, flips, 8)
    assert inside.numpy().sum() == 25
    back, counts = warping.masked_to_crop_frame(values, inside, box, flips, 5)
    assert counts.numpy().all()
    np.testing.assert_allclose(back, maps, atol=1e-5)


def beyond_the_map(boxes: np.ndarray, grid: int, size: int) -> np.ndarray:
    """[B, 2, size]: signed distance, in cells, of each row's and column's sample to the border
    half a cell outside of the map, beyond which a sample reads 0."""
    corner, far = boxes[:, :2].astype(float), boxes[:, 2:].astype(float)
    samples = corner[..., None] + (far - corner)[..., None] * (np.arange(size) + 0.5) / size
    return np.maximum(-0.5 - samples * grid, samples * grid - grid - 0.5)


@settings(max_examples=150)
@given(
    st.lists(crop_boxes(), min_size=1, max_size=3),
    st.integers(1, 15),
    st.integers(1, 15),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_separable_equals_crop_and_resize(boxes, grid, size, inverse, seed):
    """Boxes inside the map and, inverse, the whole image around a crop; to 1e-6 other than exactly
    at the border beyond which samples read 0."""
    batch = tf.constant(boxes, tf.float32)
    batch = warping.inverse_boxes(batch) if inverse else batch
    maps = np.random.default_rng(seed).random((len(boxes), grid, grid, 2)).astype(np.float32)
    expected = warping.warp(maps, batch, size).numpy()
    found = warping.warp(maps, batch, size, separable=True).numpy()
    assert found.shape == expected.shape == (len(boxes), size, size, 2)
    at_border = np.abs(beyond_the_map(batch.numpy(), grid, size)) < 1e-4
    clear = ~(at_border[:, 0, :, None] | at_border[:, 1, None, :])
    np.testing.assert_allclose(found[clear], expected[clear], atol=1e-6, rtol=0)


def test_separable_by_hand():
    """Columns 0 and 1, centres at 1/4 and 3/4: samples at 1/8, 3/8, 5/8, 7/8 read 0, 1/4, 3/4, 1.
    Over a box from -1 to 2 samples lie at -0.7, -0.1, 0.5, 1.1, 1.7; half a cell outside is -0.25
    and 1.25, and so the outer two read 0."""
    maps = tf.constant([[[[0.0], [1.0]], [[0.0], [1.0]]]])
    whole = warping.whole_image_boxes(1)
    found = warping.warp(maps, whole, 4, separable=True)[0, ..., 0]
    np.testing.assert_allclose(found, [[0.0, 0.25, 0.75, 1.0]] * 4, atol=1e-7)
    ones = tf.ones([1, 2, 2, 1])
    around = warping.warp(ones, as_batch((-1.0, -1.0, 2.0, 2.0)), 5, separable=True)[0, ..., 0]
    np.testing.assert_allclose(around, np.outer([0, 1, 1, 1, 0], [0, 1, 1, 1, 0]), atol=1e-6)


def compiled_inputs(by_class: bool):
    rng = np.random.default_rng(5)
    corner = rng.uniform(0.0, 0.5, (4, 2))
    boxes = np.hstack([corner, corner + rng.uniform(0.3, 0.5, (4, 2))]).astype(np.float32)
    maps = rng.random((4, 7, 7, 3)).astype(np.float32)
    visited = rng.random((4, 7, 7, 3) if by_class else (4, 7, 7)) < 0.7
    return [tf.constant(x) for x in (maps, visited, boxes, rng.random(4) < 0.5)]


@pytest.mark.parametrize("by_class", [False, True])
def test_reading_inside_a_compiled_function(by_class):
    maps, visited, boxes, flips = compiled_inputs(by_class)
    expected, counts = warping.masked_to_crop_frame(maps, visited, boxes, flips, 5)
    read = tf.function(lambda *x: warping.masked_to_crop_frame(*x, 5), jit_compile=True)
    found, found_counts = read(maps, visited, boxes, flips)
    np.testing.assert_array_equal(found_counts, counts)
    where = np.broadcast_to(counts if by_class else counts[..., None], expected.shape)
    np.testing.assert_allclose(found.numpy()[where], expected.numpy()[where], atol=1e-6, rtol=0)
    assert 0.2 < counts.numpy().mean() < 1.0


def test_writing_inside_a_compiled_function():
    maps, _, boxes, flips = compiled_inputs(False)
    expected, inside = warping.to_image_frame(maps, boxes, flips, 9)
    write = tf.function(lambda *x: warping.to_image_frame(*x, 9), jit_compile=True)
    found, found_inside = write(maps, boxes, flips)
    np.testing.assert_array_equal(found_inside, inside)
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-6, rtol=0)


def test_other_functions_call_crop_and_resize():
    """Only a compiled function multiplies with matrices: results without jit stay as they were."""
    maps, _, boxes, _ = compiled_inputs(False)
    graph = tf.function(lambda *x: warping.warp(*x, 5)).get_concrete_function(maps, boxes).graph
    assert "CropAndResize" in {operation.type for operation in graph.get_operations()}


def test_flipping_twice_is_nothing():
    maps = tf.random.stateless_uniform([2, 3, 4, 1], [1, 2])
    flips = tf.constant([True, False])
    np.testing.assert_array_equal(warping.flip_maps(warping.flip_maps(maps, flips), flips), maps)
    np.testing.assert_array_equal(warping.flip_maps(maps, flips)[1], maps[1])
    assert not np.array_equal(warping.flip_maps(maps, flips)[0], maps[0])


def test_the_inverse_box_by_hand():
    """The crop (0.25, 0.5, 0.75, 1) is half the image each way: -0.25/0.5, -0.5/0.5, ..."""
    found = warping.inverse_boxes(as_batch((0.25, 0.5, 0.75, 1.0)))
    np.testing.assert_allclose(found, [[-0.5, -1.0, 1.5, 1.0]])


def test_cells_never_visited_do_not_count_and_do_not_leak():
    """2x2 grid, left column visited with 0.8, right column holds rubbish and is not visited.

    Read at the full box on a 4x4 grid, the columns' weights of the left cells are
    1, 0.75, 0.25, 0 (centres at 1/8, 3/8, 5/8, 7/8 between the cells' centres 1/4 and 3/4).
    """
    maps = tf.constant([[[[0.8], [9.0]], [[0.8], [9.0]]]])
    visited = tf.constant([[[True, False], [True, False]]])
    whole, still = warping.whole_image_boxes(1), tf.constant([False])
    target, counts = warping.masked_to_crop_frame(maps, visited, whole, still, 4)
    np.testing.assert_array_equal(counts[0], [[True, True, False, False]] * 4)
    np.testing.assert_allclose(target[0, :, :3, 0], np.full((4, 3), 0.8), rtol=1e-6)


@pytest.mark.parametrize("grid", [4, 7])
def test_every_cell_is_inside_the_whole_image(grid):
    assert warping.cells_inside(warping.whole_image_boxes(2), grid).numpy().all()


def test_centres_on_the_edge_of_a_crop_are_inside():
    """The centres of two cells a side are 1/4 and 3/4: on the edges of this box, inside."""
    assert warping.cells_inside(tf.constant([[0.25, 0.25, 0.75, 0.75]]), 2).numpy().all()
