"""What log-odds of items are linear in: their features, and random Fourier features of them.

A Gaussian process with a linear and a smooth part, as finitely many coefficients. The Fourier
features of many items need far more memory than their features, so they are made anew for some
items at a time whenever they are needed; only those of few items are kept.
"""

# N items, D features, W frequencies, C = D + 2 W + 1 coefficients

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from labelops.nn.threads import one_thread

BLOCK_ROWS = 4096

KEPT_BYTES = 128 << 20
"""A basis up to so large is kept: some 50 000 items of 616 coefficients."""


class FourierFeatures(NamedTuple):
    """What log-odds are linear in: features, and cosines and sines of random turns of them.

    Attributes
    ----------
    centre : mean of the items, float32, shape (D,).
    relevance : what centred features are multiplied by, float32, shape (D,).
    scale : root of the summed variance of the scaled features.
    turn : float32, shape (D, W).
    mean : mean of the cosines and sines, float32, shape (2 W,).
    """

    centre: np.ndarray
    relevance: np.ndarray
    scale: float
    turn: np.ndarray
    mean: np.ndarray


def draw_fourier(
    features: np.ndarray,
    *,
    width: float,
    n_fourier: int,
    seed: int,
    relevance: np.ndarray | None = None,
) -> FourierFeatures:
    """Draw random Fourier features that approximate a Gaussian kernel, centred on the items.

    Parameters
    ----------
    features
        Comparable in scale (standardised), shape (N, D).
    width
        Length scale of the kernel, in root mean squared distances of two items.
    n_fourier
        W.
    seed
        For the directions.
    relevance
        Of the features, shape (D,); 1 for all by default.

    References
    ----------
    Rahimi, Recht: Random features for large-scale kernel machines. NIPS 2007.
    """
    n_features = features.shape[1]
    centre = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    relevance = np.ones(n_features) if relevance is None else relevance
    variance = features.var(axis=0, dtype=np.float64) * relevance**2
    scale = float(np.sqrt(max(variance.sum(), 1e-12)))
    rng = np.random.Generator(np.random.Philox(seed))
    turn = rng.standard_normal((n_features, n_fourier)) / (width * np.sqrt(2) * scale)
    single = turn.astype(np.float32), np.zeros(2 * n_fourier, np.float32)
    raw = FourierFeatures(centre, relevance.astype(np.float32), scale, *single)
    total = np.zeros(2 * n_fourier)
    for first in range(0, len(features), BLOCK_ROWS):
        part = basis(raw, features[first : first + BLOCK_ROWS])
        total += part[:, n_features:].sum(axis=0, dtype=np.float64)
    return raw._replace(mean=(total / max(len(features), 1)).astype(np.float32))


def basis(fourier: FourierFeatures, features: np.ndarray) -> np.ndarray:
    """Return what log-odds are linear in, float32, shape (N, D + 2 W); of mean 0 over the items."""
    return _basis(fourier, features, n_more=0).numpy()


def _basis(fourier: FourierFeatures, features: np.ndarray, *, n_more: int) -> Tensor:
    """Return the basis, and room for more columns, filled with ones."""
    d, w = fourier.turn.shape
    with one_thread():
        x = torch.from_numpy(np.asarray(features, np.float32))
        centred = (x - torch.from_numpy(fourier.centre)) * torch.from_numpy(fourier.relevance)
        angle = centred @ torch.from_numpy(fourier.turn)
        out = torch.ones((len(x), d + 2 * w + n_more), dtype=torch.float32)
        out[:, :d] = centred / fourier.scale
        out[:, d : d + w] = torch.cos(angle)
        out[:, d + w : d + 2 * w] = torch.sin(angle)
        smooth = out[:, d : d + 2 * w]
        smooth *= float(1 / np.sqrt(max(w, 1)))
        smooth -= torch.from_numpy(fourier.mean)
    return out


class Basis:
    """The basis of items and a column of ones for the bias, some items at a time.

    Parameters
    ----------
    fourier
        What it is made of.
    features
        Of the items, float32, shape (N, D); kept, not copied.
    """

    def __init__(self, fourier: FourierFeatures, features: np.ndarray) -> None:
        self.fourier, self.features = fourier, features
        self.n_coefficients = len(fourier.centre) + len(fourier.mean) + 1
        is_kept = 4 * len(features) * self.n_coefficients <= KEPT_BYTES
        self._kept = list(self._made()) if is_kept else None

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows and their basis, float32, shape (rows, C); the same bits every time."""
        return iter(self._made() if self._kept is None else self._kept)

    def _made(self) -> Iterator[tuple[slice, Tensor]]:
        for first in range(0, len(self.features), BLOCK_ROWS):
            rows = slice(first, min(first + BLOCK_ROWS, len(self.features)))
            yield rows, _basis(self.fourier, self.features[rows], n_more=1)

    def times(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the log-odds of all items, float64, shape (N,)."""
        single = torch.from_numpy(coefficients.astype(np.float32))
        out = np.empty(len(self.features))
        with one_thread():
            for rows, phi in self.blocks():
                out[rows] = (phi @ single).numpy()
        return out


def mean_slopes(
    fourier: FourierFeatures, coefficients: np.ndarray, features: np.ndarray
) -> np.ndarray:
    """Return how steep log-odds are along each feature: root mean square over items, shape (D,).

    Coefficients are of the columns of the basis, shape (D + 2 W,) or longer.
    """
    d, w = fourier.turn.shape
    linear, of_cos, of_sin = np.split(coefficients[: d + 2 * w], [d, d + w])
    x = np.asarray(features, np.float32)
    with one_thread():
        centred = torch.from_numpy((x - fourier.centre) * fourier.relevance)
        angle = centred @ torch.from_numpy(fourier.turn)
        by_angle = torch.cos(angle) * torch.from_numpy(of_sin.astype(np.float32))
        by_angle -= torch.sin(angle) * torch.from_numpy(of_cos.astype(np.float32))
        smooth = (by_angle @ torch.from_numpy(fourier.turn.T.copy())).numpy() / np.sqrt(max(w, 1))
    slope = (linear / fourier.scale + smooth) * fourier.relevance
    return np.asarray(np.sqrt(np.square(slope).mean(axis=0, dtype=np.float64)))
