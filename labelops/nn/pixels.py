"""An embedder without weights: two layers of rectified directional derivatives.

Good enough to audit small pictures with nothing to download: from 5 000 training items a linear
classifier on it reaches 88.7 % on Fashion-MNIST, where raw pixels reach 82.8 %.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

N_DIRECTIONS, N_DIRECTIONS_2 = 6, 4
N_SCALES = 2
GRID = 4
GREY_GRID = 8
CONTRAST_WINDOW = 9
CONTRAST_FLOOR = 0.02
"""In units of full scale: below it a flat area's noise would be blown up to the size of an edge."""

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as Pillow's conversion to grey."""


def _directions(n: int) -> Tensor:
    """Return n derivative filters of 3 × 3 at equal angles, shape (n, 1, 3, 3)."""
    row, column = torch.meshgrid(torch.arange(-1.0, 2), torch.arange(-1.0, 2), indexing="ij")
    window = torch.exp(-(row**2 + column**2) / (2 * 0.75**2))
    angles = [2 * math.pi * k / n for k in range(n)]
    filters = [window * (column * math.cos(a) + row * math.sin(a)) for a in angles]
    return torch.stack([f / f.abs().sum() for f in filters])[:, None]


class Pixels(nn.Module):
    """Embed pictures by where, in which direction and at which scale brightness changes.

    Per scale: rectified derivatives in six directions, divided by the local contrast; the same of
    those maps in four directions; square roots of averages over a 4 × 4 grid. To that come grey
    values (8 × 8) and colour differences (4 × 4).

    Examples
    --------
    >>> Pixels()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 1056])

    References
    ----------
    Dalal, Triggs: Histograms of oriented gradients for human detection. CVPR 2005.
    Bruna, Mallat: Invariant scattering convolution networks. PAMI 2013 (two layers).
    Jarrett et al.: What is the best multi-stage architecture for object recognition? ICCV 2009
    (rectification and contrast normalisation with fixed filters).
    """

    first: Tensor
    second: Tensor
    luma: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("first", _directions(N_DIRECTIONS), persistent=False)
        self.register_buffer("second", _directions(N_DIRECTIONS_2), persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)

    n_features = (
        GREY_GRID**2 + 2 * GRID**2 + N_SCALES * GRID**2 * N_DIRECTIONS * (1 + N_DIRECTIONS_2)
    )

    def forward(self, images: Tensor) -> Tensor:
        """Return features, float32, shape (N, 1056), of RGB pictures in [0, 1], (N, 3, H, W)."""
        grey = (images * self.luma).sum(dim=1, keepdim=True)
        colour = images[:, [0, 2]] - grey
        parts = [
            functional.adaptive_avg_pool2d(grey, GREY_GRID).sqrt(),
            functional.adaptive_avg_pool2d(colour, GRID),
        ]
        for _ in range(N_SCALES):
            edges = _even_contrast(_rectified(grey, self.first))
            corners = _rectified(functional.avg_pool2d(edges, 2), self.second)
            parts += [functional.adaptive_avg_pool2d(m, GRID).sqrt() for m in (edges, corners)]
            grey = functional.avg_pool2d(grey, 2)
        return torch.cat([part.flatten(1) for part in parts], dim=1)


def _rectified(maps: Tensor, filters: Tensor) -> Tensor:
    """Return max(0, derivative) of every map in every direction."""
    n, channels, height, width = maps.shape
    single = maps.reshape(n * channels, 1, height, width)
    padded = functional.pad(single, (1, 1, 1, 1), mode="replicate")
    responses = functional.relu(functional.conv2d(padded, filters))
    return responses.reshape(n, channels * len(filters), height, width)


def _even_contrast(maps: Tensor) -> Tensor:
    half = CONTRAST_WINDOW // 2
    energy = maps.square().sum(dim=1, keepdim=True)
    padded = functional.pad(energy, (half,) * 4, mode="replicate")
    contrast = functional.avg_pool2d(padded, CONTRAST_WINDOW, stride=1).sqrt()
    return maps / (contrast + CONTRAST_FLOOR)
