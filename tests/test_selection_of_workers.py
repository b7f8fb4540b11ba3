"""Selection and average precision where each worker holds some images: against all in one array."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_tf.evaluation import average_precision
from spml_tf.system.replicas import Shard
from spml_tf.training import highest_keys, selection
from spml_tf.training.options import BUDGETS

WORKERS = (1, 2, 3, 5)
STORAGES = ("uint8", "float16", "float32")


def of_all(task: Callable[[Shard, Callable[[Any], Any]], Any], workers: int) -> list[Any]:
    """What each worker's task(shard, total) returns; each runs in a thread of its own."""
    barrier, sent = threading.Barrier(workers, timeout=30), [None] * workers

    def run(worker: int) -> Any:
        def total(values: np.ndarray) -> np.ndarray:
            sent[worker] = values.copy()
            barrier.wait()
            assert len({(x.shape, x.dtype) for x in sent}) == 1
            whole = np.sum(sent, axis=0, dtype=values.dtype)
            barrier.wait()
            return whole

        return task(Shard(worker, workers), total)

    with ThreadPoolExecutor(workers) as pool:
        return [x.result() for x in [pool.submit(run, worker) for worker in range(workers)]]


def chosen_by_workers(scores, codes, visited, mean, budget, workers):
    """The union of the workers' choices, [N, L]."""
    found = np.zeros(codes.shape, bool)

    def choose(shard, total):
        def blocks():
            own = (shard.own(x) for x in (scores, codes, visited))
            return selection.row_blocks(*own, *shard)

        result = selection.thresholds(blocks, codes.shape, mean, budget, total)
        mine = shard.own(found)
        for images, *block in blocks():
            mine[images // shard.workers] = result.chosen(images, *block)
        return result

    results = of_all(choose, workers)
    for one in results:
        for name in one._fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(results[0], name))
    return found


def reference(scores, codes, mean, budget):
    """Sorts whole columns, or all of them together."""
    unknown, positive = (codes == -1) | (codes == 2), codes == 1
    selected = np.zeros(codes.shape, bool)
    annotated = positive.sum(axis=0).astype(float)
    if isinstance(budget, str) and budget == "global":
        count = np.clip(np.rint(mean * len(codes) - annotated.sum()), 0, unknown.sum())
        ranked = np.where(unknown, scores.astype(np.float32), -np.inf)
        selected.ravel()[np.argsort(-ranked, axis=None, kind="stable")[: int(count)]] = True
        return selected
    counts = mean * len(codes) * annotated / max(annotated.sum(), 1.0)
    counts = counts if isinstance(budget, str) else np.asarray(budget, float) * len(codes)
    among_annotated = isinstance(budget, str) and budget == "all"
    for column, count in enumerate(counts if among_annotated else counts - annotated):
        candidates = unknown[:, column] | (positive[:, column] & among_annotated)
        candidates = np.flatnonzero(candidates)
        order = np.argsort(-scores[candidates, column].astype(np.float32), kind="stable")
        selected[candidates[order[: int(max(np.rint(count), 0))]], column] = True
    return selected & unknown


def made(images, classes, storage, levels, seed):
    """Scores of few or many different values, codes of all kinds, and a mark for visited images."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (images, classes)) / max(levels - 1, 1)
    scores = (scores * 255).astype(np.uint8) if storage == "uint8" else scores.astype(storage)
    shares = rng.dirichlet([1.0, 1.0, 3.0, 1.0])
    codes = rng.choice([1, 0, -1, 2], (images, classes), p=shares).astype(np.int8)
    return (
        scores,
        codes,
        rng.random(images) < rng.choice([0.0, 0.3, 0.9, 1.0], p=[0.1, 0.2, 0.3, 0.4]),
    )


@settings(max_examples=120)
@given(
    images=st.integers(0, 40) | st.integers(250, 600),
    classes=st.integers(1, 5),
    storage=st.sampled_from(STORAGES),
    levels=st.sampled_from([1, 2, 5, 300, 10**6]),
    mean=st.floats(0.0, 6.0),
    budget=st.sampled_from([*BUDGETS, "shares", "no shares"]),
    workers=st.sampled_from(WORKERS),
    rows=st.sampled_from([1, 7, 2**20]),
    guessed=st.sampled_from([1, 2**12]),
    kept=st.sampled_from([3, 2**20]),
    seed=st.integers(0, 9999),
)
def test_the_choices_of_workers_are_those_over_all(
    images, classes, storage, levels, mean, budget, workers, rows, guessed, kept, seed
):
    """With ties, with images never visited, in blocks of any size, some workers without images.

    And with and without a first guess, which one image of sixteen makes too high now and then.
    """
    scores, codes, visited = made(images, classes, storage, levels, seed)
    if budget.endswith("shares"):
        budget = np.random.default_rng(seed).random(classes) * (budget == "shares")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_BLOCK", rows * classes)
        patch.setattr(highest_keys, "_GUESSED", guessed)
        patch.setattr(highest_keys, "_KEPT", kept)
        found = chosen_by_workers(scores, codes, visited, mean, budget, workers)
        expected = np.zeros(codes.shape, bool)
        expected[visited] = reference(scores[visited], codes[visited], mean, budget)
        np.testing.assert_array_equal(found, expected)
        if visited.all():
            whole = selection.expected_positives(scores, codes, mean, budget)
            np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize("storage", ["uint8", "float32"])
def test_labels_beyond_memory_are_read_a_few_times_more(storage, monkeypatch):
    """Once to count, once for the guess, and one and a part more than labels that are kept.

    Of 10,000 labels 7,500 are wanted, which are more than the 700 that may be kept; the 625 of one
    image in sixteen are not, nor are those of the score at which the wanted end.
    """
    scores = np.random.default_rng(0).random((5000, 2), np.float32)
    scores = (scores * 255).astype(np.uint8) if storage == "uint8" else scores
    codes = np.full(scores.shape, -1, np.int8)
    codes[np.arange(5000), np.arange(5000) % 2] = 1
    reads = []

    def blocks():
        reads.append(1)
        return selection.row_blocks(scores, codes)

    selection.thresholds(blocks, codes.shape, 1.5)
    assert len(reads) == 3
    monkeypatch.setattr(highest_keys, "_KEPT", 700)
    found = selection.thresholds(blocks, codes.shape, 1.5)
    assert len(reads) - 3 == {"uint8": 5, "float32": 7}[storage]
    chosen = found.chosen(np.arange(5000), scores, codes)
    np.testing.assert_array_equal(chosen, reference(scores, codes, 1.5, "all"))


@settings(max_examples=100)
@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False)
        | st.sampled_from([0.0, -0.0, 1e-45, -1e-45]),
        min_size=1, max_size=30,
    ),
    st.sampled_from([*BUDGETS, "shares"]), st.floats(0.0, 1.0), st.sampled_from(WORKERS),
)  # fmt: skip
def test_any_finite_scores_are_ranked(values, budget, share, workers):
    """Negative, tiny and huge ones; both zeros are equal."""
    scores = np.array(values, np.float32)[:, None]
    codes = np.where(np.arange(len(scores))[:, None] % 4 == 1, 1, -1).astype(np.int8)
    budget = [share] if budget == "shares" else budget
    found = chosen_by_workers(scores, codes, np.ones(len(scores), bool), share, budget, workers)
    np.testing.assert_array_equal(found, reference(scores, codes, share, budget))


@pytest.mark.parametrize("workers", WORKERS)
def test_by_hand(workers):
    """Six images, of which number 3 was never visited: N = 5.

    Class 0 has 2 of 3 annotated positives and class 1 has 1; K = 1.2: p = 1.2 * 5 * (2/3, 1/3) =
    (4, 2). Class 0 ranks 0 (200, annotated), 4 (150), then 1 (annotated) and 2 of the three with
    100: 4 and 2 are new, 5 is left. Class 1: 4 is a known negative; 0 and 5 have 90, before 2.
    "unannotated" takes (4 - 2, 2 - 1): 4 and 2, and 0. "global" takes 6 - 3 = 3 of all: 150, and
    of 100 image 2's and image 5's of class 0.
    """
    codes = np.array([[1, -1], [1, -1], [-1, 1], [-1, -1], [-1, 0], [2, -1]], np.int8)
    scores = [[200, 90], [100, 20], [100, 10], [255, 255], [150, 250], [100, 90]]
    visited = np.arange(6) != 3
    for budget, expected in (
        ("all", [[0, 1], [0, 0], [1, 0], [0, 0], [1, 0], [0, 1]]),
        ("unannotated", [[0, 1], [0, 0], [1, 0], [0, 0], [1, 0], [0, 0]]),
        ("global", [[0, 0], [0, 0], [1, 0], [0, 0], [1, 0], [1, 0]]),
        ([0.6, 0.6], [[0, 1], [0, 0], [0, 0], [0, 0], [1, 0], [0, 1]]),
    ):
        for stored in (np.array(scores, np.uint8), np.array(scores, np.float32) / 255):
            found = chosen_by_workers(stored, codes, visited, 1.2, budget, workers)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("budget", [*BUDGETS, "shares"])
def test_nothing_of_the_size_of_all_labels_is_made(budget):
    """However many images there are, less than 64 MB are made on the way."""
    images, classes = 2**14, 2**10
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 256, (images, classes), np.uint8)
    codes = np.full(scores.shape, -1, np.int8)
    codes[np.arange(images), rng.integers(0, classes, images)] = 1
    visited = rng.random(images) < 0.9
    budget = np.full(classes, 0.1) if budget == "shares" else budget

    def blocks():
        return selection.row_blocks(scores, codes, visited)

    tracemalloc.start()
    found = selection.thresholds(blocks, codes.shape, 1.5, budget)
    for block in blocks():
        found.chosen(*block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6


def test_a_first_guess_that_misleads_changes_nothing():
    """Every sixteenth image, of which thresholds are guessed, has the highest scores of all."""
    images = np.arange(5000)
    scores = np.stack([(images % 16 == 0) + images / 5000, images / 5000], 1).astype(np.float32)
    codes = np.where(images[:, None] % 50 == 7, 1, -1).astype(np.int8) * np.ones((1, 2), np.int8)
    for budget in BUDGETS:
        found = selection.expected_positives(scores, codes, 0.8, budget)
        np.testing.assert_array_equal(found, reference(scores, codes, 0.8, budget))


def test_what_cannot_be_ranked_is_said_by_all_workers():
    codes = np.full((4, 1), -1, np.int8)

    def message(scores):
        def choose(shard, total):
            def blocks():
                return selection.row_blocks(shard.own(scores), shard.own(codes), None, *shard)

            with pytest.raises(ValueError) as error:
                selection.thresholds(blocks, codes.shape, 1.0, total=total)
            return str(error.value)

        return of_all(choose, 2)

    scores = np.array([[0.1], [np.nan], [0.2], [0.3]], np.float32)
    assert message(scores) == ["1 scores are NaN: the network has diverged"] * 2
    assert message(np.zeros((4, 1), int)) == ["scores must be uint8 or float. Received: int64"] * 2
    for kinds in (("float16", "float32"), ("float32", "uint8")):

        def choose(shard, total, kinds=kinds):
            scores = np.zeros((2, 1), kinds[shard.worker])
            block = (np.arange(2) * 2 + shard.worker, scores, codes[:2])
            with pytest.raises(ValueError, match="of one type on all workers"):
                selection.thresholds(lambda: [block], codes.shape, 1.0, total=total)

        of_all(choose, 2)


def precision_of_workers(labels, scores, workers):
    def measured(shard, total):
        return average_precision.average_precision_of_workers(
            shard.own(labels), shard.own(scores), shard, total
        )

    return of_all(measured, workers)


@settings(max_examples=150)
@given(
    images=st.integers(0, 60) | st.integers(200, 400),
    classes=st.integers(1, 6),
    levels=st.sampled_from([1, 3, 20, 10**6]),
    storage=st.sampled_from(["float16", "float32", "float64"]),
    shared=st.sampled_from([1, 300, 2_000_000]),
    workers=st.sampled_from(WORKERS),
    seed=st.integers(0, 9999),
)
def test_average_precision_of_workers_is_exact(
    images, classes, levels, storage, shared, workers, seed
):
    """To the last bit, with ties and classes without positives, however few columns at a time."""
    rng = np.random.default_rng(seed)
    scores = (9 * rng.integers(0, levels, (images, classes)) / levels - 1).astype(storage)
    labels = rng.choice([1, 0, -1], scores.shape).astype(np.int8)
    labels[:, rng.random(classes) < 0.2] = -1
    expected = average_precision.average_precision(labels, scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(average_precision, "_SHARED", shared)
        for found in precision_of_workers(labels, scores, workers):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("workers", WORKERS)
def test_average_precision_of_workers_by_hand(workers):
    """Ranking + - + -: precisions 1/1 and 2/3. All three known ones tied: 2/3. No positive: NaN."""
    labels = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, -1, -1]])
    scores = np.array([[0.9, 0.5, 1], [0.8, 0.5, 2], [0.7, 0.5, 3], [0.1, 0.5, 4]], np.float32)
    for found in precision_of_workers(labels, scores, workers):
        np.testing.assert_array_equal(found, [(1 + 2 / 3) / 2, 2 / 3, np.nan])


def test_average_precision_of_workers_refuses():
    scores = np.array([[0.5], [np.inf], [0.1]], np.float32)

    def measured(shard, total):
        with pytest.raises(ValueError, match="diverged"):
            average_precision.average_precision_of_workers(
                shard.own(scores > 1), shard.own(scores), shard, total
            )

    of_all(measured, 2)
    with pytest.raises(ValueError, match="one \\[n, L\\]"):
        average_precision.average_precision_of_workers(
            np.zeros((2, 3)), np.zeros((2, 2)), Shard(), np.copy
        )
