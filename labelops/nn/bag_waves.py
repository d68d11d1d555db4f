"""What log-odds of items are linear in: their features, and random waves of them.

A Gaussian process with a linear and a smooth part, as finitely many coefficients. The waves of many
items need far more memory than their features, so they are made anew for some items at a time
whenever they are needed; only those of few items are kept.
"""

# N items, D features, W waves, C = D + 2 W + 1 coefficients

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from labelops.nn.threads import one_thread

BLOCK_ROWS = 4096

KEPT_BYTES = 128 << 20
"""A basis up to so large is kept: some 50 000 items of 616 coefficients."""


class Waves(NamedTuple):
    """What log-odds are linear in: features, and cosines and sines of random turns of them.

    Attributes
    ----------
    centre : mean of the items, float32, shape (D,).
    stretch : what centred features are multiplied by, float32, shape (D,).
    scale : root of the summed variance of the stretched features.
    turn : float32, shape (D, W).
    mean : mean of the waves, float32, shape (2 W,).
    """

    centre: np.ndarray
    stretch: np.ndarray
    scale: float
    turn: np.ndarray
    mean: np.ndarray

    @property
    def n_linear(self) -> int:
        """D."""
        return len(self.centre)

    @property
    def n_smooth(self) -> int:
        """2 W."""
        return len(self.mean)


def new_waves(
    features: np.ndarray,
    *,
    width: float,
    n_waves: int,
    seed: int,
    stretch: np.ndarray | None = None,
) -> Waves:
    """Draw waves whose products approximate a Gaussian kernel, centred on the items.

    Parameters
    ----------
    features
        Comparable in scale (standardised), shape (N, D).
    width
        Length scale of the kernel, in root mean squared distances of two items.
    n_waves
        W.
    seed
        For the directions.
    stretch
        Of the features, shape (D,); 1 for all by default.

    References
    ----------
    Rahimi, Recht: Random features for large-scale kernel machines. NIPS 2007.
    """
    n_features = features.shape[1]
    centre = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    stretch = np.ones(n_features) if stretch is None else stretch
    variance = features.var(axis=0, dtype=np.float64) * stretch**2
    scale = float(np.sqrt(max(variance.sum(), 1e-12)))
    rng = np.random.Generator(np.random.Philox(seed))
    turn = rng.standard_normal((n_features, n_waves)) / (width * np.sqrt(2) * scale)
    single = turn.astype(np.float32), np.zeros(2 * n_waves, np.float32)
    raw = Waves(centre, stretch.astype(np.float32), scale, *single)
    total = np.zeros(2 * n_waves)
    for first in range(0, len(features), BLOCK_ROWS):
        part = basis(raw, features[first : first + BLOCK_ROWS])
        total += part[:, n_features:].sum(axis=0, dtype=np.float64)
    return raw._replace(mean=(total / max(len(features), 1)).astype(np.float32))


def basis(waves: Waves, features: np.ndarray) -> np.ndarray:
    """Return what log-odds are linear in, float32, shape (N, D + 2 W); of mean 0 over the items."""
    return _basis(waves, features, n_more=0).numpy()


def _basis(waves: Waves, features: np.ndarray, *, n_more: int) -> Tensor:
    """Return the basis, and room for more columns, filled with ones."""
    d, w = waves.turn.shape
    with one_thread():
        x = torch.from_numpy(np.asarray(features, np.float32))
        centred = (x - torch.from_numpy(waves.centre)) * torch.from_numpy(waves.stretch)
        angle = centred @ torch.from_numpy(waves.turn)
        out = torch.ones((len(x), d + 2 * w + n_more), dtype=torch.float32)
        out[:, :d] = centred / waves.scale
        out[:, d : d + w] = torch.cos(angle)
        out[:, d + w : d + 2 * w] = torch.sin(angle)
        smooth = out[:, d : d + 2 * w]
        smooth *= float(1 / np.sqrt(max(w, 1)))
        smooth -= torch.from_numpy(waves.mean)
    return out


class Basis:
    """The basis of items and a column of ones for the bias, some items at a time.

    Parameters
    ----------
    waves
        What it is made of.
    features
        Of the items, float32, shape (N, D); kept, not copied.
    """

    def __init__(self, waves: Waves, features: np.ndarray) -> None:
        self.waves, self.features = waves, features
        self.n_coefficients = waves.n_linear + waves.n_smooth + 1
        is_kept = 4 * len(features) * self.n_coefficients <= KEPT_BYTES
        self._kept = list(self._made()) if is_kept else None

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows and their basis, float32, shape (rows, C); the same bits every time."""
        return iter(self._made() if self._kept is None else self._kept)

    def _made(self) -> Iterator[tuple[slice, Tensor]]:
        for first in range(0, len(self.features), BLOCK_ROWS):
            rows = slice(first, min(first + BLOCK_ROWS, len(self.features)))
            yield rows, _basis(self.waves, self.features[rows], n_more=1)

    def times(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the log-odds of all items, float64, shape (N,)."""
        single = torch.from_numpy(coefficients.astype(np.float32))
        out = np.empty(len(self.features))
        with one_thread():
            for rows, phi in self.blocks():
                out[rows] = (phi @ single).numpy()
        return out


def mean_slopes(waves: Waves, coefficients: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return how steep log-odds are along each feature: root mean square over items, shape (D,).

    Parameters
    ----------
    waves
        The basis.
    coefficients
        Of its columns, shape (D + 2 W,) or longer.
    features
        Of some items, shape (N, D).
    """
    d, w = waves.turn.shape
    linear, of_cos, of_sin = np.split(coefficients[: d + 2 * w], [d, d + w])
    x = np.asarray(features, np.float32)
    with one_thread():
        angle = torch.from_numpy((x - waves.centre) * waves.stretch) @ torch.from_numpy(waves.turn)
        by_angle = torch.cos(angle) * torch.from_numpy(of_sin.astype(np.float32))
        by_angle -= torch.sin(angle) * torch.from_numpy(of_cos.astype(np.float32))
        smooth = (by_angle @ torch.from_numpy(waves.turn.T.copy())).numpy() / np.sqrt(max(w, 1))
    slope = (linear / waves.scale + smooth) * waves.stretch
    return np.asarray(np.sqrt(np.square(slope).mean(axis=0, dtype=np.float64)))
