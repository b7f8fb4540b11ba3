"""How many classes images hold, from scores and from which one of each image's was annotated.

An annotator who names one of the classes of an image names each of n with probability 1 / n. So
what the scores say of an image's other classes shows in how often a class is named. NumPy in, NumPy
out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from spml_tf.labels import NEGATIVE, POSITIVE

# Half a step of a uint8 bank: the logit of a score of 0 or 1 is that of this distance from it.
_CLIP = 1 / 512
# Gauss-Legendre nodes, exact for up to 15 unknown classes; for 30 expected positives off by 0.2 %.
_MOST_NODES = 8
_STEEPEST, _RIDGE = 50.0, 1e-3
_SMALLEST, _TINY = 1e-12, 1e-300


class DrawModel:
    """P(class | image) = sigmoid(slope * logit(score) + offset), fitted to what was annotated.

    The classes of an image are independent given its scores; the m >= 1 positives annotated of an
    image are drawn uniformly among its positives Y. With P of its classes, positives S and unknown
    labels U,

        log p = sum_S log P + sum_negatives log(1 - P) + log E[1 / C(|Y|, m)],
        E[1 / C(|Y|, m)] = integral over v in [0, 1] of m v^(m-1) prod_U (1 - P v) dv.

    An image without an annotated positive says something by its known negatives only. Fully
    labelled images enter with the likelihood of their labels.

    Args:
        scores: [N, L] float in [0, 1].
        labels: [N, L] int8 in {1, 0, -1} (2 counts as unknown); each class has a positive.
        some: whether images of which a positive was annotated hold a class by the choice of
            images, so that this says nothing about them: their likelihood is divided by
            1 - prod (1 - P).

    Examples:
        >>> scores = np.array([[0.9, 0.9], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]])
        >>> labels = np.array([[1, -1], [1, -1], [-1, 1], [-1, 1]])
        >>> model = DrawModel(scores, labels)
        >>> model.priors(model.fit()).round(2).tolist()
        [0.75, 0.75]
    """

    def __init__(self, scores: NDArray[Any], labels: NDArray[Any], some: bool = False) -> None:
        clipped = np.clip(scores.astype(np.float64), _CLIP, 1 - _CLIP)
        logits = np.log(clipped / (1 - clipped))
        self._mean, self._spread = logits.mean(axis=0), logits.std(axis=0) + 1e-6
        self.inputs = (logits - self._mean) / self._spread
        self.positive, self.negative = labels == POSITIVE, labels == NEGATIVE
        self.unknown = ~self.positive & ~self.negative
        self.some = some
        self.drawn = self.positive.sum(axis=1)
        annotated = self.positive.sum(axis=0)
        self._share = annotated / len(labels)
        self._scale = np.sqrt(np.maximum(annotated, 1.0))  # all parameters get alike steep
        count = min(labels.shape[1] // 2 + 1, _MOST_NODES)
        places, weights = np.polynomial.legendre.leggauss(count)
        self._nodes = (1 - places) / 2
        of_draw = np.maximum(self.drawn, 1)
        self._log_weights = (
            np.log(weights / 2)[:, None]
            + np.log(of_draw)
            + (of_draw - 1) * np.log(self._nodes)[:, None]
        )

    def fit(
        self,
        start: NDArray[np.float64] | None = None,
        weights: NDArray[np.float64] | None = None,
        steps: int = 150,
    ) -> NDArray[np.float64]:
        """The parameters of highest likelihood.

        Args:
            start: [2, L], where to begin; None: a slope of 1 and twice the annotated shares.
            weights: [N], how often each image counts; None: once.
            steps: of L-BFGS-B, at most.

        Returns:
            [2, L] float64, slopes (from 0) and offsets.
        """
        if start is None:
            share = np.clip(2 * self._share, 1e-6, 0.9)
            start = np.stack([np.ones_like(share), np.log(share / (1 - share))])
        weights = np.ones(len(self.inputs)) if weights is None else weights
        # Importing it takes a fifth of a second, which most runs can do without.
        from scipy.optimize import minimize

        shape, total = start.shape, max(weights.sum(), 1.0)

        def loss(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            found = scaled.reshape(shape) / self._scale
            value, slope = self.log_likelihood(found, weights)
            value -= 0.5 * _RIDGE * (found[0] ** 2).sum()
            slope[0] -= _RIDGE * found[0]
            return -value / total, -(slope / self._scale).ravel() / total

        slopes = [(0, _STEEPEST * scale) for scale in self._scale]
        bounds = [*slopes, *[(None, None)] * shape[1]]
        # Scaled by n, so that the tolerances do not depend on it.
        found = minimize(
            loss, (start * self._scale).ravel(), jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": steps, "ftol": 1e-9, "gtol": 1e-7},
        )  # fmt: skip
        fitted: NDArray[np.float64] = found.x.reshape(shape) / self._scale
        return fitted

    def of_logits(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """What `fit` found as slopes and offsets, [2, L], of logits that are not standardised."""
        slopes = parameters[0] / self._spread
        return np.stack([slopes, parameters[1] - slopes * self._mean])

    def probabilities(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(class | image), [N, L], given what the scores say alone."""
        chance = self._chance(parameters)
        if self.some:
            held = np.maximum(1 - (1 - chance).prod(axis=1), chance.max(axis=1))
            chance = chance / np.where(self.drawn > 0, held, 1.0)[:, None]
        return chance

    def posteriors(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(class | image, what was annotated of it), [N, L]: known labels are 1 or 0.

        An image of which a class was drawn is likelier to hold few: with m drawn,

            P(Y_j | S) = integral of q(v) P_j (1 - v) / (1 - P_j v) dv,

        where q(v) is proportional to m v^(m-1) prod_U (1 - P v).

        Args:
            parameters: as `fit` returns them.

        Examples:
            >>> model = DrawModel(np.array([[0.9, 0.9], [0.1, 0.1]]), np.array([[1, -1], [-1, 1]]))
            >>> even = np.zeros((2, 2))  # P = 1 / 2: alone it is drawn for sure, of two by half
            >>> model.posteriors(even).round(3).tolist()
            [[1.0, 0.333], [0.333, 1.0]]
        """
        chance = self._chance(parameters)
        others = chance * self.unknown
        terms = self._draw_terms(others)
        parts = np.exp(terms - logsumexp(terms, axis=0))
        found = np.zeros_like(chance)
        for v, part in zip(self._nodes, parts, strict=True):
            found += part[:, None] * others * (1 - v) / (1 - v * others)
        found = np.where((self.drawn > 0)[:, None], found, others)
        found[self.positive] = 1
        return found

    def moved(
        self, parameters: NDArray[np.float64], known: float | NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The parameters with offsets moved until the priors are what is known of them.

        Args:
            parameters: as `fit` returns them.
            known: [L], the share of the images that holds each class; or K, their sum, to which all
                offsets are moved alike. What no offset reaches is come near to.
        """
        slopes, offsets = parameters
        # Where every probability is next to 0, and where it is next to 1.
        far = np.log(1 / _SMALLEST) + np.abs(slopes * self.inputs).max() + np.abs(offsets).max()
        low, high = np.full(np.shape(known), -far), np.full(np.shape(known), far)
        while np.max(high - low) > 1e-6:
            middle = (low + high) / 2
            found = self._chance(np.stack([slopes, offsets + middle])).mean(axis=0)
            above = (found.sum() if np.ndim(known) == 0 else found) > known
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return np.stack([slopes, offsets + (low + high) / 2])

    def priors(
        self, parameters: NDArray[np.float64], weights: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Share of the images that hold each class, [L]; arguments as for `fit`."""
        shares: NDArray[np.float64]
        shares = np.average(self.probabilities(parameters), axis=0, weights=weights)
        return shares

    def log_likelihood(
        self, parameters: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64]]:
        """Of all images, with its gradient [2, L]; arguments as for `fit`."""
        chance = self._chance(parameters)
        value, slope = self._log_draw(chance)
        of_known = np.zeros_like(chance)
        for known, sign in ((self.positive, 1), (self.negative, -1)):
            own = chance[known] if sign > 0 else 1 - chance[known]
            of_known[known] = np.log(own)
            slope[known] += sign / own
        value += of_known.sum(axis=1)
        if self.some:
            none = (1 - chance).prod(axis=1)
            held = np.where(self.drawn > 0, np.maximum(1 - none, _SMALLEST), 1.0)
            value -= np.log(held)
            slope -= np.where(self.drawn > 0, none / held, 0.0)[:, None] / (1 - chance)
        slope *= chance * (1 - chance) * weights[:, None]
        found = np.stack([(slope * self.inputs).sum(axis=0), slope.sum(axis=0)])
        return float((value * weights).sum()), found

    def _chance(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        slopes, offsets = parameters
        chance = expit(slopes * self.inputs + offsets)
        bounded: NDArray[np.float64] = np.clip(chance, _SMALLEST, 1 - _SMALLEST)
        return bounded

    def _log_draw(
        self, chance: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """log E[1 / C(|Y|, m)], [N], and its slope with P, [N, L]; 0 where nothing was drawn."""
        drawn, others = self.drawn > 0, chance * self.unknown
        terms = self._draw_terms(others)
        total = logsumexp(terms, axis=0)
        parts = np.exp(terms - total) * drawn
        slope = np.zeros_like(chance)
        for v, part in zip(self._nodes, parts, strict=True):
            slope -= (v * part)[:, None] / (1 - v * others)
        return np.where(drawn, total, 0.0), slope * self.unknown

    def _draw_terms(self, others: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logarithms of the terms whose sum is the integral, [nodes, N]."""
        products = np.stack([(1 - v * others).prod(axis=1) for v in self._nodes])
        terms: NDArray[np.float64] = np.log(np.maximum(products, _TINY)) + self._log_weights
        return terms


class Fitted(NamedTuple):
    """An estimate and its bootstrap.

    Attributes:
        priors: [L] in [0, 1].
        replicates: [R, L], those of samples of the images, drawn with replacement.
    """

    priors: NDArray[np.float64]
    replicates: NDArray[np.float64]


def fitted_with_replicates(model: DrawModel, replicates: int, seed: int) -> Fitted:
    """Fits a model, and again to samples of its images, from where the first fit ended.

    Args:
        model: of N images.
        replicates: R.
        seed: of the samples.
    """
    found, count = model.fit(), len(model.inputs)
    draws, again = np.random.default_rng(seed), []
    for _ in range(replicates):
        weights = np.bincount(draws.integers(0, count, count), minlength=count).astype(np.float64)
        again.append(model.priors(model.fit(found, weights, steps=20), weights))
    return Fitted(model.priors(found), np.reshape(again, (replicates, len(found[0]))))
